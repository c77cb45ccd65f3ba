"""The arms of ``learning.py``: what differs from the preset ``tiny`` in each of them.

What is no option of the package, because it did not win or is no model to ship, is
patched in here for the time of a run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_muvit.core import Box, MuViTEncoder
from napari_muvit.core.data.sampling import CropSampler, DrawnCrop
from napari_muvit.core.geometry import NestedCrop
from napari_muvit.core.model.pyramid_decoder import TOKEN_GAIN, TokenEntry

Patch = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Arm:
    """What differs from the preset ``tiny``."""

    model: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the model's configuration."""
    patch: Patch = contextlib.nullcontext
    """Holds while the run lasts."""
    three_levels: bool = False
    """Three of the task's levels instead of two."""
    labelled: int | None = None
    """Training images that have labels; None: all."""
    pretrain_steps: int = 0
    """Masked autoencoding first, on all training images without their labels."""


@contextlib.contextmanager
def replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    """Exchange a method for a while."""
    real = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)


def without_tokens() -> contextlib.AbstractContextManager[None]:
    """Replace what the encoder says by zeros."""

    def silent(self: MuViTEncoder, x: Any, bboxes: Any, layers: Any) -> list[Any]:
        count = len(self.config.scale_factors)
        for size, edge in zip(x.shape[3:], self.config.patch, strict=True):
            count *= size // edge
        return [x.new_zeros(len(x), count, self.config.embed_dim) for _ in layers]

    return replaced(MuViTEncoder, "intermediate_tokens", silent)


def token_entry(
    *, norm: bool, gain: float
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Let the tokens enter with another first weight, and without the norm."""
    real = TokenEntry.__init__

    def init(self: TokenEntry, config: Any, width: int) -> None:
        real(self, config, width)
        with torch.no_grad():
            for parameter in self.project.parameters():
                parameter.mul_(gain / TOKEN_GAIN)
        if not norm:
            self.norm = nn.Identity()

    return lambda: replaced(TokenEntry, "__init__", init)


SHARING = 4


def shared_coarse() -> contextlib.AbstractContextManager[None]:
    """Put each four successive fine crops into one coarse crop."""
    real = CropSampler.draw

    def draw(self: CropSampler, sample: int) -> DrawnCrop:
        first = real(self, sample - sample % SHARING)
        if sample % SHARING == 0:
            return first
        rng = np.random.default_rng([self.seed, sample])
        coarse, size = first.crop.boxes[1], np.asarray(first.crop.boxes[0].shape)
        room = np.asarray(coarse.shape) - size
        lower = np.round(np.asarray(coarse.lower) + rng.random(len(size)) * room)
        fine = Box(tuple(lower), tuple(lower + size))
        return DrawnCrop(first.slide, NestedCrop((fine, *first.crop.boxes[1:])))

    return replaced(CropSampler, "draw", draw)


FEW = 6
ARMS: Mapping[str, Arm] = {
    "base": Arm(),
    "joint": Arm({"attention": "joint"}),
    "no_tokens": Arm(patch=without_tokens),
    "no_skip": Arm({"context_skip": False}),
    "no_heads": Arm({"level_heads": False}),
    "single": Arm({"scale_factors": (1,)}),
    "naive": Arm({"boxes": "naive"}),
    "skip_8": Arm({"context_strides": (8,)}),
    "skip_1_8": Arm({"context_strides": (1, 8)}),
    "skip_all": Arm({"context_strides": (1, 2, 4, 8)}),
    "group_norm": Arm({"pyramid_norm": "group"}),
    "narrow": Arm({"pyramid_channels": (16, 32, 32, 64)}),
    "wide": Arm({"pyramid_channels": (32, 64, 64, 128)}),
    "joint_plain": Arm({"attention": "joint"}, token_entry(norm=False, gain=1.0)),
    "joint_loud": Arm({"attention": "joint"}, token_entry(norm=True, gain=1.0)),
    "joint_unnormed": Arm({"attention": "joint"}, token_entry(norm=False, gain=0.1)),
    "shared_coarse": Arm(patch=shared_coarse),
    "three_levels": Arm(three_levels=True),
    "three_levels_no_tokens": Arm(three_levels=True, patch=without_tokens),
    "few": Arm(labelled=FEW),
    "few_no_tokens": Arm(labelled=FEW, patch=without_tokens),
    "few_mae": Arm(labelled=FEW, pretrain_steps=600),
    "mae": Arm(pretrain_steps=600),
    "unetr": Arm({"decoder": "unetr"}),
    "unetr_skip": Arm({"decoder": "unetr", "context_skip": True, "level_heads": True}),
    "mask2former": Arm({"decoder": "mask2former"}),
    "unetr_mae": Arm({"decoder": "unetr"}, pretrain_steps=600),
}
