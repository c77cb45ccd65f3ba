"""Probabilities as bytes. The same bytes for the same logits, on any number of threads.

`torch.softmax` rounds differently at the end of a thread's share of the pixels.

Shapes: K classes, h and w pixels.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

BAND_VALUES = 2**20
"""Values that are worked on at once."""


def softmax_bytes(
    logits: Tensor, best: Tensor, unit: float, outputs: Collection[str]
) -> dict[str, Tensor]:
    """Return probabilities and confidence as uint8.

    Parameters
    ----------
    logits
        (K, h, w), in parts of ``unit``, whole numbers or float.
    best
        (h, w), the largest of them.
    unit
        A logit is this many times the number.
    outputs
        ``probabilities``, ``confidence`` or both.

    Returns
    -------
    dict of str to Tensor
        ``probabilities`` (K, h, w) and ``confidence`` (h, w), those asked for: 255
        times a share of one, rounded; 0 where a logit is not a number.
    """
    classes, height, width = logits.shape
    shapes = {"probabilities": (classes, height, width), "confidence": (height, width)}
    found = {
        name: torch.empty(shapes[name], dtype=torch.uint8, device=logits.device)
        for name in outputs
    }
    step = max(1, BAND_VALUES // (classes * width))
    for first in range(0, height, step):
        rows = slice(first, first + step)
        shares = (logits[:, rows] - best[rows]).float().mul_(unit).exp_()
        total = shares[0].clone()
        for share in shares[1:]:
            total += share
        # The largest share is 1 before it is divided.
        scale = 255 / total
        if "confidence" in found:
            found["confidence"][rows] = scale.round().nan_to_num_(0.0)
        if "probabilities" in found:
            scaled = shares.mul_(scale).round_().nan_to_num_(0.0)
            found["probabilities"][:, rows] = scaled
    return found
