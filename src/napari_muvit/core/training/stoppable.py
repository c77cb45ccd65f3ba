"""Stopping within a step: that of a large model on a CPU takes minutes.

``should_stop`` is asked in all modules, forward and backward. What one call of torch
would take seconds for is done crop by crop: convolutions, the encoder, and decoders in
which crops do not meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..model.encoder import MuViTEncoder
from ..model.layers import ConvBlock
from ..model.mae import LevelMAEDecoder
from ..model.transformer import Block
from ..progress import StopFn, check_stop

LARGE = 2**20
"""Numbers in an output from which on its gradient may take long."""
CONV_PRODUCTS = 2e10
"""Multiplications of a convolution that may be done at once: half a second of a core
forward, a second backward."""
BLOCK_PRODUCTS = 4e9
"""Multiplications of a transformer layer that may be done at once."""

_CONVS = (nn.Conv2d, nn.Conv3d)


@contextmanager
def stoppable(model: nn.Module, should_stop: StopFn) -> Iterator[None]:
    """Ask ``should_stop`` inside forward and backward passes.

    How the work is cut depends on its size alone, so that a run gives the same weights
    whether somebody may stop it or not.

    Raises
    ------
    Cancelled
        From within a pass.
    """

    def check(*_: Any) -> None:
        check_stop(should_stop)

    def after(module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        if output.numel() >= LARGE or isinstance(module, (Block, ConvBlock)):
            output.register_hook(check)

    with ExitStack() as stack:
        for module in model.modules():
            for handle in (
                module.register_forward_pre_hook(check),
                module.register_forward_hook(after),
            ):
                stack.callback(handle.remove)
            _cut(module, check, stack)
        yield


def _cut(module: nn.Module, check: Callable[..., None], stack: ExitStack) -> None:
    """Replace what takes long by the same in pieces, until the stack is closed."""

    def replace(name: str, pieces: Callable[..., int]) -> None:
        whole = getattr(module, name)
        setattr(module, name, _in_pieces(whole, pieces, check))
        stack.callback(delattr, module, name)

    if isinstance(module, _CONVS):
        replace("forward", lambda x: _conv_pieces(module, x))
    elif isinstance(module, MuViTEncoder):
        block, edges = module.blocks[0], module.config.patch

        def of_pixels(x: Tensor, *_: Any) -> int:
            grid = (n // e for n, e in zip(x.shape[3:], edges, strict=True))
            tokens = x.shape[1] * math.prod(grid)
            return _block_pieces(block, x, tokens, tokens)

        def of_patches(patches: Tensor, _positions: Tensor, visible: Tensor) -> int:
            return _block_pieces(block, patches, visible.shape[1], visible.shape[1])

        replace("intermediate_tokens", of_pixels)
        replace("encode_visible", of_patches)
    elif isinstance(module, LevelMAEDecoder):
        layer = module.blocks[0]

        def of_tokens(x: Tensor, _positions: Tensor, context: Tensor, _: Tensor) -> int:
            return _block_pieces(layer, x, x.shape[1], context.shape[1])

        replace("forward", of_tokens)


def _in_pieces(
    whole: Callable[..., Any],
    pieces: Callable[..., int],
    check: Callable[..., None],
) -> Callable[..., Any]:
    """Call with some crops at a time; tensors and lists of tensors are put together."""

    def call(*arguments: Any) -> Any:
        count = pieces(*arguments)
        if count <= 1:
            return whole(*arguments)
        size = -(-len(arguments[0]) // count)
        found = []
        for first in range(0, len(arguments[0]), size):
            check()
            part = [
                a[first : first + size] if isinstance(a, Tensor) else a
                for a in arguments
            ]
            found.append(whole(*part))
            for tensor in found[-1] if isinstance(found[-1], list) else found[-1:]:
                if tensor.requires_grad:
                    tensor.register_hook(check)
        if isinstance(found[0], list):
            return [torch.cat(each) for each in zip(*found, strict=True)]
        return torch.cat(found)

    return call


def _conv_pieces(module: nn.Module, x: Tensor) -> int:
    weight, stride = module.weight, module.stride
    pixels = math.prod(x.shape[2:]) / math.prod(stride)  # type: ignore[arg-type]
    return _pieces(x, pixels * weight.numel(), CONV_PRODUCTS)  # type: ignore[operator]


def _block_pieces(block: nn.Module, x: Tensor, tokens: int, keys: int) -> int:
    """Of crops whose tokens each attend to so many keys in a layer."""
    weights = sum(p.numel() for p in block.parameters())
    width: int = block.norm1.normalized_shape[0]  # type: ignore[union-attr,index,assignment]
    return _pieces(x, tokens * (weights + 2.0 * keys * width), BLOCK_PRODUCTS)


def _pieces(x: Tensor, products: float, most: float) -> int:
    """Into how many pieces to cut a batch whose crops cost so much each."""
    if x.device.type != "cpu":
        return 1
    at_once = max(1, int(most / products))
    return -(-len(x) // at_once)
