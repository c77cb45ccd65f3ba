"""A model that is shown no context: what it says by the fine crop alone.

The coarser crops show nothing but what the fine crop shows already; around it lies the
value that stands for the outside of a slide. So the model sees what it would see if the
slide ended at the border of the fine crop, which is what training pads small slides
with. This works for every model, whatever its attention and its decoder, because it
changes pixels only: levels, boxes and tokens stay.

Other ways were tried on Synthetic, where shape tells cells from background and context
alone tells the two kinds of cells apart. Hiding context should change the kinds and
nothing else. Of all pixels, background turned into cells or back: 0.1 % this way, and
1.1 % with the coarse crops blank, or filled with their mean or that of the fine crop,
which the model reads as a place that contradicts the fine crop.

Shapes: B batch, L levels, C channels, N spatial axes, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .ensemble import config_of

TOLERANCE = 1e-3
"""World pixels by which a coarse pixel may reach beyond the fine crop."""


class WithoutContext(nn.Module):
    """Calls a segmenter with its context hidden.

    Parameters
    ----------
    model
        A segmenter with a `ModelConfig` as ``config``.

    Raises
    ------
    ConfigError
        If it has one level only, so that there is nothing to hide.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.config = config_of(model)
        if len(self.config.scale_factors) < 2:
            raise ConfigError(
                "This model sees one level only, so it has no context to hide; choose "
                "a model of two levels or more.",
                "scale_factors",
            )
        self.model = model

    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        """(B, L, C, *spatial) and (B, L, 2, N) to (B, K, *spatial)."""
        values = self.config.background_value or (0.0,) * self.config.in_channels
        outside = x.new_tensor(values).view(-1, *[1] * (x.ndim - 3))
        levels = [x[:, 0]]
        for level in range(1, x.shape[1]):
            seen = _within(bboxes[:, level], bboxes[:, 0], x.shape[3:])
            levels.append(torch.where(seen[:, None], x[:, level], outside))
        return self.model(torch.stack(levels, dim=1), bboxes)  # type: ignore[no-any-return]


def _within(coarse: Tensor, fine: Tensor, shape: torch.Size) -> Tensor:
    """(B, *shape): which pixels of coarse crops lie inside the fine ones as a whole."""
    seen = coarse.new_ones((len(coarse), *shape), dtype=torch.bool)
    for axis, count in enumerate(shape):
        low, high = coarse[:, :1, axis], coarse[:, 1:, axis]
        step = (high - low) / count
        edge = low + step * torch.arange(count, device=coarse.device)
        inside = (edge >= fine[:, :1, axis] - TOLERANCE) & (
            edge + step <= fine[:, 1:, axis] + TOLERANCE
        )
        view = [len(coarse)] + [1] * len(shape)
        view[axis + 1] = count
        seen = seen & inside.view(view)
    return seen
