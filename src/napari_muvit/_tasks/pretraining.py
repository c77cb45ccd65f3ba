"""Pretrain on slides without annotations, while the user draws some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.config import ModelConfig, TrainingConfig
from ..core.data.pyramid import Pyramid
from ..core.progress import Progress
from .base import Commands, make_folder
from .training import Trained, User


@dataclass(frozen=True, slots=True)
class PretrainTask:
    """Train a masked autoencoder; follows `Pause` and `Discard`."""

    images: tuple[Pyramid, ...]
    config: TrainingConfig
    model: ModelConfig
    out: Path

    def __str__(self) -> str:
        return "MuViT pretraining"

    __repr__ = __str__

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> Trained:
        """Call `pretrain`."""
        from ..core.training import pretrain

        make_folder(self.out.parent)
        user = User(commands, should_stop)

        def follow(event: Progress) -> None:
            on_progress(event)
            user.listen()

        result = pretrain(
            list(self.images), self.config, out=self.out, model=self.model,
            on_progress=follow, should_stop=user.should_stop,
        )  # fmt: skip
        user.drop_if_unwanted(self.out)
        return Trained(
            Path(result.model_path), result.config, result.best,
            result.stopped == "stopped", result.steps, tuple(result.notes),
        )  # fmt: skip
