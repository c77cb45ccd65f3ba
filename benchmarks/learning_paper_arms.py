"""Changes of the paper's arrangement (UNETR, Mask2Former, no context skip) to try.

Each is patched in for the time of a run.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from learning_arms import replaced
from torch import Tensor, nn

from napari_muvit.core import MuViTEncoder
from napari_muvit.core.model import pyramid_decoder
from napari_muvit.core.model.layers import ConvBlock, conv, upsample
from napari_muvit.core.model.mask2former import Mask2FormerDecoder
from napari_muvit.core.model.pyramid_decoder import LevelDecoder
from napari_muvit.core.model.rope import patch_positions
from napari_muvit.core.model.segmenter import MuViTSegmenter
from napari_muvit.core.model.unetr import UNETRDecoder

Patches = contextlib.AbstractContextManager[Any]


class ConvStem(nn.Module):
    """Patch embedding by strided convolutions that see beyond a patch; square crops."""

    def __init__(self, channels: int, patch: int, dim: int, norm: str) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        widths = [channels, *(24 * 2**i for i in range(int(math.log2(patch))))]
        self.blocks = nn.ModuleList(
            ConvBlock(2, a, b, count=1, stride=2, norm=norm)  # type: ignore[arg-type]
            for a, b in pairwise(widths)
        )
        self.out = nn.Sequential(nn.Linear(widths[-1], dim), nn.LayerNorm(dim))

    def forward(self, patches: Tensor) -> Tensor:
        """(B, n, P) pixels to (B, n, D)."""
        edge = math.isqrt(patches.shape[1])
        images = F.fold(
            patches.transpose(1, 2),
            (edge * self.patch,) * 2,
            kernel_size=self.patch,
            stride=self.patch,
        )
        for block in self.blocks:
            images = block(images)
        return self.out(images.flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


def conv_stem(norm: str = "batch") -> Patches:
    """Give the encoder convolutional stems."""
    real = MuViTEncoder.__init__

    def init(self: MuViTEncoder, config: Any) -> None:
        real(self, config)
        self.patch_embeddings = nn.ModuleList(
            ConvStem(config.in_channels, config.patch[0], config.embed_dim, norm)
            for _ in config.scale_factors
        )

    return replaced(MuViTEncoder, "__init__", init)


def mlp_stem() -> Patches:
    """A patch embedding of two layers, which sees its own patch only."""
    real = MuViTEncoder.__init__

    def init(self: MuViTEncoder, config: Any) -> None:
        real(self, config)
        pixels = config.in_channels * math.prod(config.patch)
        dim = config.embed_dim
        self.patch_embeddings = nn.ModuleList(
            nn.Sequential(
                nn.Linear(pixels, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim),
                nn.LayerNorm(dim),
            )
            for _ in config.scale_factors
        )  # fmt: skip

    return replaced(MuViTEncoder, "__init__", init)


def _token_heads(config: Any) -> nn.ModuleList:
    """Classes of every pixel of a coarse patch, straight from its fused token."""
    outputs = config.num_classes * math.prod(config.patch)
    return nn.ModuleList(
        conv(config.ndim, config.decoder_dim, outputs) for _ in config.scale_factors[1:]
    )


def _coarse_logits(decoder: Any, branches: Any, patch: int) -> list[Tensor]:
    return [
        F.pixel_shuffle(head(fused), patch)
        for head, (fused, _) in zip(decoder.token_heads, branches[1:], strict=True)
    ]


@contextlib.contextmanager
def unetr_token_heads() -> Iterator[None]:
    """A loss on the coarse levels' tokens."""
    init, forward = UNETRDecoder.__init__, UNETRDecoder.forward

    def new_init(self: Any, config: Any) -> None:
        init(self, config)
        self.token_heads, self.patch = _token_heads(config), config.patch[0]

    def new_forward(self: Any, x: Tensor, bboxes: Tensor, maps: Any) -> Any:
        kept: list[Any] = []
        handle = self.branches.register_forward_hook(
            lambda _module, _inputs, out: kept.append(out)
        )
        logits = forward(self, x, bboxes, maps)
        handle.remove()
        return (*logits, *_coarse_logits(self, kept[0], self.patch))

    with (
        replaced(UNETRDecoder, "__init__", new_init),
        replaced(UNETRDecoder, "forward", new_forward),
    ):
        yield


@contextlib.contextmanager
def mask2former_heads() -> Iterator[None]:
    """A loss on the coarse tokens, and one on the masks behind every query layer."""
    init = Mask2FormerDecoder.__init__

    def new_init(self: Any, config: Any) -> None:
        init(self, config)
        self.token_heads, self.patch = _token_heads(config), config.patch[0]

    def new_forward(self: Any, x: Tensor, bboxes: Tensor, maps: Any) -> Any:
        branches = self.branches(bboxes, maps)
        features = self.pixels(branches[0][0])
        grid = tuple(maps[-1].shape[3:])
        tokens = self.tokens(maps[-1].flatten(3).transpose(2, 3).flatten(1, 2))
        positions = patch_positions(bboxes, grid, self.position).flatten(1, 2)
        queries = self.queries.expand(len(x), -1, -1)
        answers = []
        for layer, rotation in zip(self.refine, self.ropes(positions), strict=True):
            queries = layer(queries, tokens, rotation)
            embedded = self.mask_embedding(self.norm(queries))
            masks = embedded @ features.flatten(2)
            answers.append(self.head(masks.unflatten(2, features.shape[2:])))
        coarse = _coarse_logits(self, branches, self.patch)
        return (answers[-1], *coarse, *answers[:-1])

    with (
        replaced(Mask2FormerDecoder, "__init__", new_init),
        replaced(Mask2FormerDecoder, "forward", new_forward),
    ):
        yield


class LeanLevelDecoder(LevelDecoder):
    """Skips are added behind a 1x1 convolution, not joined: a third of the work."""

    def __init__(self, config: Any, has_context: bool, has_head: bool) -> None:
        super().__init__(config, has_context, has_head)
        widths = list(reversed(config.pyramid_channels))
        self.narrow = nn.ModuleList(
            conv(config.ndim, a, b) for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(
            ConvBlock(config.ndim, b, b, count=1, norm=config.pyramid_norm)
            for b in widths[1:]
        )

    def forward(self, pixels: Tensor, tokens: Tensor, context: Any) -> Any:
        """As the parent's."""
        skips = [self.stem(pixels)]
        for stage in self.down:
            skips.append(stage(skips[-1]))
        current = skips.pop() + self.tokens(tokens)
        current = self.bottom(self._with_context(current, 0, context))
        for index, (stage, factor) in enumerate(
            zip(self.up, self.factors, strict=True), start=1
        ):
            joined = upsample(self.narrow[index - 1](current), factor) + skips.pop()
            current = self._with_context(stage(joined), index, context)
        current = self.last(current)
        return current, None if self.head is None else self.head(current)


@contextlib.contextmanager
def lean_pyramid() -> Iterator[None]:
    """Use it."""
    real = pyramid_decoder.LevelDecoder
    pyramid_decoder.LevelDecoder = LeanLevelDecoder  # type: ignore[misc]
    try:
        yield
    finally:
        pyramid_decoder.LevelDecoder = real  # type: ignore[misc]


def root_of_pixels() -> Patches:
    """Square roots of the pixels: faint tissue beside bright cells."""
    real = MuViTSegmenter.level_logits

    def level_logits(self: MuViTSegmenter, x: Tensor, bboxes: Tensor) -> Any:
        return real(self, x.sign() * x.abs().sqrt(), bboxes)

    return replaced(MuViTSegmenter, "level_logits", level_logits)


def together(*patches: Callable[[], Patches]) -> Callable[[], Patches]:
    """Several patches at once."""

    @contextlib.contextmanager
    def all_of_them() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            yield

    return all_of_them


def check_stem() -> None:
    """The stem sees the crop as it is: fold undoes patchify."""
    from napari_muvit.core.model.patches import patchify

    x = torch.rand(2, 1, 3, 32, 32)
    patches = patchify(x, (8, 8))[:, 0]
    back = F.fold(patches.transpose(1, 2), (32, 32), kernel_size=8, stride=8)
    torch.testing.assert_close(back, x[:, 0])
