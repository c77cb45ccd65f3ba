"""Attention on CPUs whose fastest matrix products torch's fused kernel does not use.

Reference: attention in blocks with recomputed probabilities, as in FlashAttention
(arXiv 2205.14135), without its running maximum: a block holds whole rows.

Torch's fused CPU kernel multiplies in bfloat16 no faster than in float32 on CPUs that
have AVX-512 BF16 but no AMX, and in float32 it leaves AVX-512 unused on CPUs that are
not Intel's (see `linear`). Matrix products by oneDNN use both, so it is faster to take
a block of rows at a time, small enough for the cache; memory does not grow with T * S.
In bfloat16, scores and probabilities are rounded to it.

Shapes: B batch, H heads, T queries, S keys, E head width.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .linear import onednn_is_faster, product

BLOCK_BYTES = 2**21
"""Scores of a block: about what stays in a core's cache."""


def blocks_are_faster(dtype: torch.dtype) -> bool:
    """Whether this CPU is one of those, for tokens of that type."""
    if dtype == torch.bfloat16:
        return cpu_multiplies_bfloat16()
    return dtype == torch.float32 and onednn_is_faster()


@functools.cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has AVX-512 BF16, and not AMX, which torch's kernel knows."""
    ask = getattr(torch.cpu, "get_capabilities", dict)
    found: dict[str, bool] = ask()
    return bool(found.get("avx512_bf16")) and not found.get("amx_bf16")


def blocked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend; bfloat16 or float32 on the CPU, differentiable once.

    Parameters
    ----------
    query
        (B, H, T, E).
    key, value
        (B, H, S, E).

    Returns
    -------
    Tensor
        (B, H, T, E).
    """
    mixed: Tensor = _Blocked.apply(query, key, value)  # type: ignore[no-untyped-call]
    return mixed


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = _like(query)
        rows_at_once = _rows_at_once(query, key)
        block = query.new_empty(rows_at_once, key.shape[2])
        for b, h in _heads(query):
            scaled, keys, values = _head(query, key, value, b, h)
            for rows in _blocks(query.shape[2], rows_at_once):
                weights = _weights(scaled[rows], keys, block)
                mixed[b, h, rows] = product(weights, values)
        return mixed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, mixed = ctx.saved_tensors
        found = _like(query), _like(key), _like(value)
        rows_at_once = _rows_at_once(query, key)
        blocks = query.new_empty(2, rows_at_once, key.shape[2])
        for b, h in _heads(query):
            _head_gradients(
                _head(query, key, value, b, h),
                gradient[b, h].contiguous(),
                mixed[b, h],
                blocks,
                (found[0][b, h], found[1][b, h], found[2][b, h]),
            )
        return found


def _head_gradients(
    inputs: tuple[Tensor, Tensor, Tensor],
    gradient: Tensor,
    mixed: Tensor,
    blocks: Tensor,
    out: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Write the gradients of one head's query, key and value into ``out``.

    ``gradient`` and ``mixed`` are (T, E), ``blocks`` is room for two blocks of scores.
    """
    scaled, keys, values = inputs
    scale = scaled.shape[1] ** -0.5
    # The gradient of a score is p * (dp - sum of p * dp), and that sum is a row's
    # gradient times its output. A column of ones takes it away within the product.
    row_sums = (gradient.float() * mixed.float()).sum(dim=1, keepdim=True)
    extended = torch.cat((gradient, -row_sums.to(gradient.dtype)), dim=1)
    with_ones = torch.cat((values, torch.ones_like(values[:, :1])), dim=1).t()
    of_keys = torch.zeros(keys.shape, dtype=torch.float32)
    of_values = torch.zeros_like(of_keys)
    for rows in _blocks(len(scaled), blocks.shape[1]):
        weights = _weights(scaled[rows], keys, blocks[0])
        of_values += product(weights.t(), gradient[rows])
        scores = _multiply(extended[rows], with_ones, blocks[1])
        scores.mul_(weights)
        out[0][rows] = product(scores, keys) * scale
        of_keys += product(scores.t(), scaled[rows])
    out[1].copy_(of_keys)
    out[2].copy_(of_values)


def _weights(scaled: Tensor, keys: Tensor, room: Tensor) -> Tensor:
    """Probabilities (rows, S) of some queries, in the given room."""
    scores = _multiply(scaled, keys.t(), room)
    return torch.softmax(scores, dim=-1, out=scores)


def _multiply(left: Tensor, right: Tensor, room: Tensor) -> Tensor:
    """`product`, in the given room where that is possible."""
    if left.dtype == torch.float32:
        return product(left, right)
    return torch.mm(left, right, out=room[: len(left)])


def _head(
    query: Tensor, key: Tensor, value: Tensor, b: int, h: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One head's scaled queries, keys and values, each contiguous."""
    scaled = query[b, h] * query.shape[-1] ** -0.5
    return scaled.contiguous(), key[b, h].contiguous(), value[b, h].contiguous()


def _heads(query: Tensor) -> list[tuple[int, int]]:
    return [(b, h) for b in range(query.shape[0]) for h in range(query.shape[1])]


def _rows_at_once(query: Tensor, key: Tensor) -> int:
    """Queries of a block, so that all blocks are about as large."""
    queries = query.shape[2]
    count = -(-queries * key.shape[2] * query.element_size() // BLOCK_BYTES)
    return -(-queries // count)


def _blocks(queries: int, rows_at_once: int) -> list[slice]:
    return [slice(s, s + rows_at_once) for s in range(0, queries, rows_at_once)]


def _like(x: Tensor) -> Tensor:
    """(B, H, T, E) to be filled, laid out as (B, T, H, E) for what comes next."""
    b, h, t, e = x.shape
    return x.new_empty(b, t, h, e).transpose(1, 2)
