"""Statistics of batch normalisation for weights that have just changed.

A network that learns fast outruns the running statistics of its layers, and an average
of its weights has statistics that no network ever had. Either is normalised well by
each batch in training and badly by the running statistics in use: after 48 steps a
class was right in 99 % of the training and in none of the prediction. Taken anew over
a few batches they fit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CROPS = 32
"""Crops over which statistics are taken, about; more would delay a stop."""
MAX_BYTES = 2**26
"""Of the crops that are kept for it; at least one pass is."""

Batch = tuple[Tensor, Tensor]
"""(B, L, C, *spatial) pixels and (B, L, 2, N) boxes."""


class RecentBatches:
    """Keeps the last batches of a training."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()

    def add(self, pixels: Tensor, bboxes: Tensor) -> None:
        """Keep a batch as it was learned from."""
        self._batches.append((pixels, bboxes))
        while len(self._batches) > 1 and self._too_many():
            self._batches.popleft()

    def _too_many(self) -> bool:
        """Whether enough would be left without the oldest one."""
        crops = sum(len(pixels) for pixels, _ in self._batches)
        nbytes = sum(pixels.nbytes for pixels, _ in self._batches)
        return crops - len(self._batches[0][0]) >= CROPS or nbytes > MAX_BYTES

    def all(self) -> list[Batch]:
        """Return them, oldest first."""
        return list(self._batches)


@torch.no_grad()
def renew_statistics(network: nn.Module, batches: Sequence[Batch]) -> None:
    """Take the statistics of all batch normalisation anew, over some batches.

    Parameters
    ----------
    network
        Called as ``network(pixels, bboxes)``; left in evaluation mode.
    batches
        On the network's device; without any, nothing is done.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    network.eval()
    if not layers or not batches:
        return
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches, each alike
        layer.train()
    for pixels, bboxes in batches:
        network(pixels, bboxes)
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum
        layer.eval()
