"""Linear layers, with float32 products by the faster library of a CPU.

Reference: MuViT (arXiv 2602.24222), section 3.2: projections and feed-forward.

Torch's CPU build multiplies float32 matrices with MKL, which keeps to AVX2 on CPUs that
are not Intel's. oneDNN, in the same build, uses their AVX-512: twice as fast on a
Zen 5, the same float32 arithmetic. Torch calls it for convolutions and in compiled
graphs, not for plain products, so it is called here. A Zen 4 computes AVX-512 in two
halves: there it gains a tenth in large products and loses as much in small ones.

Shapes: I input width, O output width, R rows (all leading axes).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 2**20
"""Multiplications of a product from which on the call is worth its overhead."""


@functools.cache
def onednn_is_faster() -> bool:
    """Whether this CPU has AVX-512 that torch's own float32 products leave unused."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    # AVX-VNNI came to AMD with Zen 5, as did AVX-512 that is as wide inside.
    wide = bool(found.get("avx512_f")) and bool(found.get("avx_vnni"))
    wide = wide and "Intel" not in str(found.get("cpu_name"))
    return wide and torch.backends.mkl.is_available() and _onednn_works()


def _onednn_works() -> bool:
    """Whether the operator, which is not part of torch's public interface, is there."""
    left, right = torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    try:
        return torch.equal(_onednn(left, right, None), right.t())
    except (AttributeError, RuntimeError, TypeError):
        return False


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(R, I) times (O, I) transposed, float32, strides as they come."""
    if bias is not None:
        # It reads a bias as if it lay in one piece.
        bias = bias.contiguous()
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply the matrices (R, I) and (I, O); not differentiable for float32."""
    if _use_onednn(left, right.t(), None):
        return _onednn(left, right.t(), None)
    return left @ right


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply (O, I) weights to (..., I); as `torch.nn.functional.linear`.

    Differentiable any number of times, and under torch.func but for forward mode.
    """
    if _use_onednn(x, weight, bias) and not torch.is_autocast_enabled("cpu"):
        # Rows alone: of more axes the operator returns a view, and what a custom
        # function returns as a view cannot be changed in place.
        rows = x.flatten(0, -2)
        out: Tensor = _Linear.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)
    return F.linear(x, weight, bias)


def _use_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the product is one for oneDNN; whatever is odd is left to torch."""
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and (bias is None or bias.shape == weight.shape[:1])
        and x.ndim > 1
        and weight.ndim == 2
        # Torch's own error says what is wrong.
        and x.shape[-1] == weight.shape[1]
        and x.numel() > 0
        and x.numel() * weight.shape[0] >= SMALLEST
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and onednn_is_faster()
    )


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _onednn(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            linear(gradient, weight.t()) if needed[0] else None,
            linear(gradient.t(), x.t()) if needed[1] else None,
            gradient.sum(dim=0) if needed[2] else None,
        )


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return linear(x, self.weight, self.bias)
