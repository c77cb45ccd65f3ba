from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_muvit.core.model import linear as module
from napari_muvit.core.model.linear import Linear, linear, onednn_is_faster, product


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Take oneDNN for products of any size on any CPU; the shapes that it got."""
    if not module._onednn_works():
        pytest.skip("this build of torch has no oneDNN")
    real, calls = module._onednn, []

    def spy(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return real(x, weight, bias)

    monkeypatch.setattr(module, "_onednn", spy)
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(module, "SMALLEST", 0)
    return calls


@pytest.mark.parametrize("lead", [(1,), (5,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_torch_linear(
    onednn: list[tuple[int, ...]], lead: tuple[int, ...], with_bias: bool
) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(*lead, 7), torch.randn(11, 7), torch.randn(11)
    wanted = F.linear(x, weight, bias if with_bias else None)
    found = linear(x, weight, bias if with_bias else None)
    torch.testing.assert_close(found, wanted)
    assert len(onednn) == 1


def test_gradients_are_those_of_torch(onednn: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    base = torch.randn(3, 4, 5), torch.randn(6, 5), torch.randn(6)
    ours, theirs = ([part.clone().requires_grad_() for part in base] for _ in range(2))
    # A view of a larger weight, as the cross-attention takes it, and a strided input.
    for function, parts in ((linear, ours), (F.linear, theirs)):
        x, weight, bias = parts
        out = function(x.transpose(0, 1), weight[2:], bias[2:])
        (out.square().sum() + out.sum()).backward()
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.grad, wanted.grad)
    assert len(onednn) == 3


def test_what_it_returns_can_be_changed_in_place(onednn: list[tuple[int, ...]]) -> None:
    # Mask2Former failed in training: "Output 0 of _Linear is a view and is being
    # modified inplace".
    x = torch.randn(2, 3, 5, requires_grad=True)
    weight = torch.randn(4, 5, requires_grad=True)
    F.relu(linear(x, weight), inplace=True).square().sum().backward()
    found = x.grad
    x.grad = None
    F.relu(F.linear(x, weight)).square().sum().backward()
    torch.testing.assert_close(found, x.grad)


def test_gradients_of_gradients(onednn: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, requires_grad=True)
    weight = torch.randn(4, 5, requires_grad=True)
    grads = []
    for function in (linear, F.linear):
        (slope,) = torch.autograd.grad(
            function(x, weight).pow(3).sum(), x, create_graph=True
        )
        grads.append(torch.autograd.grad(slope.square().sum(), (x, weight)))
    for found, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(found, wanted)


def test_only_what_is_needed_is_computed(onednn: list[tuple[int, ...]]) -> None:
    weight = torch.randn(4, 5)
    x = torch.randn(3, 5, requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is None
    assert len(onednn) == 2


def test_product(onednn: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(9, 4).t(), torch.randn(6, 9).t()
    torch.testing.assert_close(product(left, right), left @ right)
    assert len(onednn) == 1


def test_autocast_and_other_types_are_left_to_torch(
    onednn: list[tuple[int, ...]],
) -> None:
    layer = Linear(8, 8)
    x = torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    layer.double()
    assert layer(x.double()).dtype == torch.float64
    assert not onednn


def test_a_wrong_width_is_torchs_own_error(onednn: list[tuple[int, ...]]) -> None:
    layer = Linear(8, 8)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.randn(2, 7))
    assert not onednn


def test_its_weights_are_those_of_torchs_layer() -> None:
    torch.manual_seed(0)
    ours = Linear(3, 4)
    torch.manual_seed(0)
    theirs = nn.Linear(3, 4)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize(
    ("capabilities", "faster"),
    [
        ({"avx512_f": True, "avx_vnni": True, "cpu_name": "AMD EPYC 9755"}, True),
        # Zen 4: products of its halves were no faster, attention in blocks slower.
        ({"avx512_f": True, "avx512_vnni": True, "cpu_name": "AMD EPYC"}, False),
        ({"avx512_f": True, "avx_vnni": True, "cpu_name": "Intel(R) Xeon(R)"}, False),
        ({"avx2": True, "cpu_name": "AMD Ryzen 7 5800X"}, False),
        ({}, False),
    ],
)
def test_which_cpus_it_is_for(
    capabilities: dict[str, object], faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (torch.backends.mkl.is_available() and module._onednn_works()):
        pytest.skip("this build of torch has another BLAS")
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: capabilities, raising=False
    )
    onednn_is_faster.cache_clear()
    try:
        assert onednn_is_faster() is faster
    finally:
        onednn_is_faster.cache_clear()


def test_a_bias_of_any_strides(onednn: list[tuple[int, ...]]) -> None:
    # It read past the end of what is not in one piece.
    torch.manual_seed(0)
    x, weight = torch.randn(64, 16), torch.randn(32, 16)
    for bias in (torch.randn(64)[::2], torch.tensor([2.0]).expand(32)):
        torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))
    assert len(onednn) == 2
    scalar = torch.tensor(2.0)
    torch.testing.assert_close(linear(x, weight, scalar), F.linear(x, weight) + 2)
    assert len(onednn) == 2


def test_odd_shapes_are_left_to_torch(onednn: list[tuple[int, ...]]) -> None:
    ones = torch.ones(5)
    assert torch.equal(linear(torch.zeros(3, 0), torch.zeros(5, 0), ones)[0], ones)
    assert linear(torch.randn(4), torch.randn(3, 4)).shape == (3,)
    assert linear(torch.randn(2, 4), torch.randn(4)).shape == (2,)
    assert not onednn


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_torch_func(onednn: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(6, 3, 5), torch.randn(4, 5)

    def loss(w: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        return linear(sample, w).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, x)
    for sample, gradient in zip(x, found, strict=True):
        own = weight.clone().requires_grad_()
        F.linear(sample, own).square().sum().backward()
        torch.testing.assert_close(gradient, own.grad)


def test_compiled_graphs_take_torchs_product(
    onednn: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    linear(torch.randn(64, 16), torch.randn(32, 16))
    assert not onednn
