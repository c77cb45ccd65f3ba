"""Training by the clock: the same steps, whoever reads the crops ahead of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import finetune
from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.run_log import read_log

Slide = tuple[np.ndarray, np.ndarray]


def settings(**changes: Any) -> TrainingConfig:
    # Where the rate stays, a step does not depend on the time of day.
    return TrainingConfig.from_dict(
        {
            "batch_size": 4, "validation_crops": 4, "device": "cpu",
            "precision": "32-true", "num_threads": 1, "schedule": "constant",
            "warmup": 0.0, **changes,
        }
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("listens", [False, True])
def test_workers_read_ahead_and_no_step_is_lost(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path, listens: bool
) -> None:
    # The clock ended an epoch for what the workers read, not for what was learned
    # from: late by it, and the next one began behind places that nobody had seen.
    def train(out: Path, config: TrainingConfig, **options: Any) -> Any:
        return finetune([slide[0]], [slide[1]], config, model=tiny_config, out=out,
                        **options)  # fmt: skip

    def losses(out: Path) -> list[float]:
        rows = [r for r in read_log(RunFolder(out).log) if "loss" in r]
        assert [r["step"] for r in rows] == list(range(1, len(rows) + 1))
        return [r["loss"] for r in rows]

    timed = settings(minutes=0.2, num_workers=2, accumulate=2)
    never: dict[str, Any] = {"should_stop": lambda: False} if listens else {}
    result = train(tmp_path / "m", timed, **never)
    assert result.stopped == "minutes"
    # Behind the start of the workers, which may take all of a validation's time.
    assert len(result.history) >= 3
    assert result.seconds < 12 + 4
    assert len(losses(tmp_path / "m")) == result.steps
    by_steps = settings(steps=result.steps, accumulate=2)
    train(tmp_path / "steps", by_steps)
    assert losses(tmp_path / "m") == losses(tmp_path / "steps")


@pytest.mark.slow
def test_a_stopped_run_with_workers_goes_on_by_the_clock(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    out = tmp_path / "m"
    config = settings(minutes=0.2, num_workers=1)

    def train(folder: Path, config: TrainingConfig, **options: Any) -> Any:
        return finetune([slide[0]], [slide[1]], config, model=tiny_config, out=folder,
                        **options)  # fmt: skip

    seen: list[Progress] = []
    stop: Callable[[], bool] = lambda: sum(e.stage == "train" for e in seen) >= 7  # noqa: E731
    assert train(out, config, should_stop=stop, on_progress=seen.append).steps == 7
    rest = train(out, config, resume=True)
    assert rest.stopped == "minutes"
    assert rest.steps > 7
    assert rest.seconds < 12 + 4
    train(tmp_path / "steps", settings(steps=rest.steps))
    curves = [
        [(r["step"], r["loss"]) for r in read_log(RunFolder(p).log) if "loss" in r]
        for p in (out, tmp_path / "steps")
    ]
    assert curves[0] == curves[1]
