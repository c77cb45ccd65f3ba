"""What a prediction would cost, measured by a few crops of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.config import PredictionConfig
from ..core.data.pyramid import Pyramid
from ..core.progress import Progress
from .base import Commands


@dataclass(frozen=True, slots=True)
class Estimated:
    """What it would cost."""

    words: str
    """For people: ``about 12 min and 1.3 GB of memory``."""
    tiles: int
    notes: tuple[str, ...]
    """What the user should know before trusting the result."""


@dataclass(frozen=True, slots=True)
class EstimateTask:
    """Take a few crops of a slide through a model."""

    image: Pyramid
    model: Path
    config: PredictionConfig

    def __str__(self) -> str:
        return "MuViT estimate"

    __repr__ = __str__

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> Estimated:
        """Plan, measure and work it out."""
        from ..core.model.checkpoint import load_model
        from ..core.prediction.estimate import estimate_prediction
        from ..core.prediction.speed import measure_speed
        from ..core.prediction.standalone import plan_slide, settled_context

        model = load_model(self.model)
        config = settled_context(self.config, [model])
        view = self.image.viewed_at(model.config.pixel_size)
        plan = plan_slide(view, [model.config], config, should_stop=should_stop)
        speed = measure_speed(
            self.image, [model], config, plan, should_stop=should_stop
        )
        cost = estimate_prediction(self.image, model.config, config, plan, speed)
        return Estimated(cost.words, cost.tiles, plan.notes)
