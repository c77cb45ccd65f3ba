"""Features of one box seen at the place of another, through world coordinates.

This is the *context skip*: the coarser level's features at the fine crop's place.

Shapes: B batch, C channels, N spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_at(
    features: Tensor, source: Tensor, target: Tensor, shape: Sequence[int]
) -> Tensor:
    """Sample feature maps linearly at the pixel centres of another box.

    Parameters
    ----------
    features
        (B, C, *grid) maps that fill ``source`` edge to edge; N is 2 or 3.
    source
        (B, 2, N) world box of the maps.
    target
        (B, 2, N) world box to sample.
    shape
        Pixels of the result along each axis.

    Returns
    -------
    Tensor
        (B, C, *shape). Positions beyond the centres of the outermost pixels of
        ``source``, and outside it, take the nearest pixel's value.
    """
    extent = (source[:, 1] - source[:, 0]).float()
    start = (target[:, 0] - source[:, 0]).float() / extent
    step = (target[:, 1] - target[:, 0]).float() / extent
    axes = []
    for axis, count in enumerate(shape):
        centres = torch.arange(count, device=features.device).add(0.5).div(count)
        # -1 and 1 are the outer edges of the source, not its pixel centres.
        where = 2 * (start[:, axis, None] + centres * step[:, axis, None]) - 1
        view = [-1] + [1] * len(shape)
        view[axis + 1] = count
        axes.append(where.view(view).expand(-1, *shape))
    # grid_sample wants the last axis first.
    grid = torch.stack(axes[::-1], dim=-1)
    return F.grid_sample(
        features.float(),
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    ).to(features.dtype)
