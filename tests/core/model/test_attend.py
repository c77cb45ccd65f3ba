from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_muvit.core.model import attend as module
from napari_muvit.core.model import cpu_attention as blocks_module
from napari_muvit.core.model import linear as linear_module
from napari_muvit.core.model.attend import attend
from napari_muvit.core.model.cpu_attention import blocked_attention


def tokens(
    queries: int, keys: int, dtype: torch.dtype = torch.bfloat16
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    # As the encoder has them: transposed views of (B, T, H, E).
    return [
        torch.randn(2, n, 3, 16, generator=generator)
        .to(dtype)
        .transpose(1, 2)
        .requires_grad_()
        for n in (queries, keys, keys)
    ]


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    error = torch.linalg.vector_norm(found.float() - wanted)
    return float(error / torch.linalg.vector_norm(wanted))


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(
    ("dtype", "bounds"),
    [
        # Eight bits of mantissa: rounding of 0.4 %, in scores, weights and result.
        (torch.bfloat16, (0.01, 0.015)),
        (torch.float32, (1e-6, 2e-6)),
    ],
)
@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 7), (256, 256), (300, 513), (600, 40)]
)
@pytest.mark.parametrize("block_bytes", [2**21, 100_000])
def test_blocked_attention_and_its_gradients(
    queries: int,
    keys: int,
    dtype: torch.dtype,
    bounds: tuple[float, float],
    onednn: bool,
    block_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_module, "onednn_is_faster", lambda: onednn)
    # The smaller one makes several blocks, the last of another size.
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", block_bytes)
    parts = tokens(queries, keys, dtype)
    exact = [part.detach().float().requires_grad_() for part in parts]
    found, wanted = blocked_attention(*parts), F.scaled_dot_product_attention(*exact)
    assert found.dtype == dtype
    assert relative(found.detach(), wanted.detach()) < bounds[0]
    gradient = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    found.backward(gradient.to(dtype))
    wanted.backward(gradient)
    for part, other in zip(parts, exact, strict=True):
        assert part.grad is not None
        assert other.grad is not None
        assert relative(part.grad, other.grad) < bounds[1]


def test_large_scores_do_not_overflow() -> None:
    query, key, value = tokens(8, 600)
    found = blocked_attention(query.detach() * 1000, key, value)
    assert torch.isfinite(found).all()


def test_it_is_taken_where_it_wins_only(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def spy(*parts: torch.Tensor) -> torch.Tensor:
        taken.append(parts[1].shape[2])
        return blocked_attention(*parts)

    monkeypatch.setattr(module, "blocked_attention", spy)
    monkeypatch.setattr(
        module, "blocks_are_faster", lambda dtype: dtype == torch.bfloat16
    )
    attend(*tokens(8, 600))
    attend(*tokens(8, 100))
    attend(*tokens(8, 600, torch.float32))
    assert taken == [600]
    monkeypatch.setattr(module, "blocks_are_faster", lambda _dtype: True)
    attend(*tokens(8, 600, torch.float32))
    assert taken == [600, 600]
    monkeypatch.setattr(module, "blocks_are_faster", lambda _dtype: False)
    attend(*tokens(8, 600))
    assert taken == [600, 600]


def test_what_is_odd_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "blocks_are_faster", lambda _dtype: True)
    monkeypatch.setattr(module, "blocked_attention", pytest.fail)
    query, key, value = (t.detach() for t in tokens(4, 600, torch.float32))
    assert attend(query[:, :, :0], key, value).shape == (2, 3, 0, 16)
    assert attend(query, key, value[..., :5]).shape == (2, 3, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(query, key, value).dtype == torch.bfloat16


def test_compiled_graphs_take_torchs_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "blocks_are_faster", lambda _dtype: True)
    monkeypatch.setattr(module, "blocked_attention", pytest.fail)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    attend(*tokens(4, 600, torch.float32))


def test_torch_func_through_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "blocks_are_faster", lambda _dtype: True)
    query, key, value = (t.detach() for t in tokens(4, 300, torch.float32))
    found = torch.func.grad(lambda q: attend(q, key, value).sum())(query)
    own = query.clone().requires_grad_()
    F.scaled_dot_product_attention(own, key, value).sum().backward()
    torch.testing.assert_close(found, own.grad, atol=1e-5, rtol=1e-4)
