"""A prediction whose network computes nothing, for the benchmark of the GUI."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from napari_muvit._tasks.growing import GrowingLevels, Tile
from napari_muvit._tasks.predicting import Opened, PredictionEnd
from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.pyramid import Pyramid

# The process that runs it does not know this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class NullPredictTask:
    """Predicts a slide with the real engine, store and levels, at a given pace."""

    image: Pyramid
    model: ModelConfig
    config: PredictionConfig
    out: Path
    pause: float
    """Seconds between two tiles at least."""

    def __call__(
        self, *, on_progress: Any, should_stop: Any, tell: Any, commands: Any
    ) -> Any:
        """Call `predict` with a network of constant logits."""
        import torch

        from napari_muvit.core import predict

        class Null(torch.nn.Module):
            def __init__(self, config: ModelConfig) -> None:
                super().__init__()
                self.config = config
                self.weight = torch.nn.Parameter(torch.zeros(1))

            def forward(self, x: Any, _boxes: Any) -> Any:
                shape = (x.shape[0], self.config.num_classes, *x.shape[-2:])
                logits = x.new_zeros(shape)
                logits[:, 1] = x[:, 0, 0] - 0.5
                return logits

        run = predict(
            self.image, Null(self.model), self.config, out=self.out,
            on_progress=on_progress, should_stop=should_stop,
        )  # fmt: skip
        with run:
            tell(
                Opened(self.out, self.model, GrowingLevels.from_store(run.levels or []))
            )
            due = time.monotonic()
            for tile in run:
                tell(Tile(tile.box, tile.labels))
                due += self.pause
                time.sleep(max(0.0, due - time.monotonic()))
        return PredictionEnd(self.out, run.stopped)
