"""An average of the weights over the last steps, in their place while it is judged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of all weights and running statistics.

    Early on it looks back on a tenth of the steps so far: an average that still holds
    the first, untrained weights is worth nothing.

    Parameters
    ----------
    network
        Whose weights are averaged.
    decay
        Weight of the average so far against the new weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.steps = 0
        self.shadow: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] | None = None

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self.network.state_dict().items():
            if name not in self.shadow or not value.is_floating_point():
                self.shadow[name] = value.detach().clone()
            else:
                kept = self.shadow[name].to(value.device)
                self.shadow[name] = kept.lerp_(value, 1 - decay)

    def swap_in(self) -> None:
        """Put the average in place of the weights."""
        if self._own is None and self.shadow:
            weights = self.network.state_dict()
            self._own = {k: v.detach().clone() for k, v in weights.items()}
            self.network.load_state_dict(self.shadow)

    def swap_out(self) -> None:
        """Put the weights back; calling it again does nothing."""
        if self._own is not None:
            self.network.load_state_dict(self._own)
            self._own = None

    def restore(self, shadow: Mapping[str, Tensor], steps: int) -> None:
        """Go on from an average that was kept."""
        self.shadow = dict(shadow)
        self.steps = steps
