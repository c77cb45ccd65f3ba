"""A stop while annotations are being made ready loses none of them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.errors import AnnotationError, Cancelled
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import interactive
from napari_muvit.core.training.interactive import InteractiveTrainer

Slide = tuple[np.ndarray, np.ndarray]


def test_strokes_of_a_stopped_run_count_in_the_next_one(
    slide: Slide, tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The next run waited for annotations that were there all the time.
    config = TrainingConfig(steps=2, batch_size=2, device="cpu", num_threads=1)
    trainer = InteractiveTrainer([slide[0]], [slide[1]], config, model=tiny_config)

    def stopped(*_args: object, **_options: object) -> None:
        raise Cancelled("Stopped on request.")

    with monkeypatch.context() as patch:
        patch.setattr(interactive, "prepare", stopped)
        with pytest.raises(Cancelled):
            trainer.run()
    waiting: list[Progress] = []

    def listen(event: Progress) -> None:
        if event.stage == "prepare":
            waiting.append(event)

    trainer.run(listen, lambda: bool(waiting))
    assert trainer.steps == 2


def test_annotations_that_do_not_fit_are_said_again(
    slide: Slide, tiny_config: ModelConfig
) -> None:
    config = TrainingConfig(steps=2, batch_size=2, device="cpu", num_threads=1)
    trainer = InteractiveTrainer([slide[0]], [slide[1]], config, model=tiny_config)
    trainer.run()
    trainer.annotate(0, Annotations.from_labels(slide[1] + 1))
    for _ in range(2):
        with pytest.raises(AnnotationError, match="class 3"):
            trainer.run()
    trainer.annotate(0, Annotations.from_labels(slide[1]))
    trainer.run()
    assert trainer.steps == 4
