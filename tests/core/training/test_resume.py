from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import CheckpointError, ConfigError, OutputError
from napari_muvit.core.model.checkpoint import load_model, weights_hash
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import engine, finetune, pretrain
from napari_muvit.core.training.budget import Budget
from napari_muvit.core.training.callbacks import StopCallback
from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.run_log import read_log
from napari_muvit.core.training.state import read_facts

Slide = tuple[np.ndarray, np.ndarray]
Train = Callable[..., Any]


def settings(**changes: object) -> TrainingConfig:
    return TrainingConfig.from_dict(
        {
            "steps": 14,
            "steps_per_epoch": 4,
            "batch_size": 4,
            "validation_crops": 8,
            "device": "cpu",
            "num_threads": 1,
            **changes,
        }
    )


class Killed(BaseException):
    """Like a kill: nothing of ours catches it."""


def after(step: int, act: Callable[[], None]) -> Callable[[Progress], None]:
    """Act once, after so many steps of this part of the run."""
    seen = 0

    def listen(event: Progress) -> None:
        nonlocal seen
        seen += event.stage == "train"
        if seen == step and event.stage == "train":
            act()

    return listen


def kill() -> None:
    raise Killed


@pytest.fixture(params=["finetune", "pretrain"])
def train(
    request: pytest.FixtureRequest, slide: Slide, tiny_config: ModelConfig
) -> Train:
    """Either kind of training, on the same slide."""

    def tune(out: Path, config: TrainingConfig, **options: Any) -> Any:
        return finetune([slide[0]], [slide[1]], config, model=tiny_config, out=out,
                        **options)  # fmt: skip

    def mask(out: Path, config: TrainingConfig, **options: Any) -> Any:
        return pretrain([slide[0]], config, model=tiny_config, out=out, **options)

    return tune if request.param == "finetune" else mask


def hashes(folder: Path) -> list[str]:
    """Of the best and the last weights."""
    kind = MuViTMAE if "MuViTMAE" in (folder / "config.json").read_text() else None
    return [
        weights_hash(load_model(p, kind) if kind else load_model(p))
        for p in (folder, folder / "last")
    ]


@pytest.mark.parametrize(
    ("stop", "changes"),
    [(1, {}), (4, {}), (4, {"ema": 0.5}), (6, {"accumulate": 2}), (14, {})],
)
def test_a_stopped_run_ends_as_the_unbroken_one(
    train: Train, tmp_path: Path, stop: int, changes: dict[str, Any]
) -> None:
    config = settings(**changes)
    whole = train(tmp_path / "whole", config)
    flag: list[bool] = []
    part = train(
        tmp_path / "part", config, on_progress=after(stop, lambda: flag.append(True)),
        should_stop=lambda: bool(flag),
    )  # fmt: skip
    assert part.stopped == "stopped"
    rest = train(tmp_path / "part", config, resume=True)
    assert rest.stopped == "steps"
    assert rest.steps == 14
    assert hashes(tmp_path / "part") == hashes(tmp_path / "whole")
    assert [r["val_loss"] for r in rest.history] == [
        r["val_loss"] for r in whole.history
    ]
    logs = [read_log(RunFolder(tmp_path / n).log) for n in ("whole", "part")]
    steps = [[(r["step"], r.get("loss")) for r in log] for log in logs]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"ema": 0.5}])
def test_a_stop_behind_the_last_pass_of_a_step_keeps_all_of_it(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:  # fmt: skip
    # The weights had made the step, but the running statistics were put back.
    config = settings(steps=6, **changes)
    train(tmp_path / "whole", config)

    class StopsThere(StopCallback):
        ends = 0

        def on_train_batch_end(self, *_args: Any, **_kwargs: Any) -> None:
            self.ends += 1
            if self.ends == 6:
                self.should_stop = lambda: True
            self._check()

    with monkeypatch.context() as patch:
        patch.setattr(engine, "StopCallback", StopsThere)
        assert train(tmp_path / "part", config).stopped == "stopped"
    train(tmp_path / "part", config, resume=True)
    assert hashes(tmp_path / "part") == hashes(tmp_path / "whole")
    logs = [read_log(RunFolder(tmp_path / n).log) for n in ("whole", "part")]
    assert [r.get("loss") for r in logs[0]] == [r.get("loss") for r in logs[1]]


@pytest.mark.parametrize("step", [2, 5, 9])
def test_a_killed_run_ends_as_the_unbroken_one(
    train: Train, tmp_path: Path, step: int
) -> None:
    train(tmp_path / "whole", settings())
    # A state at almost every step.
    config = settings(checkpoint_minutes=1e-9)
    with pytest.raises(Killed):
        train(tmp_path / "part", config, on_progress=after(step, kill))
    train(tmp_path / "part", config, resume=True)
    assert hashes(tmp_path / "part") == hashes(tmp_path / "whole")


def test_time_for_the_last_validation_stays_kept_back(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(steps=None, minutes=0.1)
    flag: list[bool] = []
    train(tmp_path / "m", config, on_progress=after(3, lambda: flag.append(True)),
          should_stop=lambda: bool(flag))  # fmt: skip
    kept = read_facts(RunFolder(tmp_path / "m").state)["reserved"]
    assert kept > 0
    budgets: list[Budget] = []

    class Seen(Budget):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            budgets.append(self)

    monkeypatch.setattr(engine, "Budget", Seen)
    train(tmp_path / "m", config, resume=True)
    assert budgets[0].reserved == kept


def test_resuming_where_nothing_is_begins(train: Train, tmp_path: Path) -> None:
    # So that a job that is queued again and again has one command.
    first = train(tmp_path / "m", settings(), resume=True)
    said: list[str] = []
    again = train(tmp_path / "m", settings(steps=20), resume=True,
                  on_progress=lambda e: said.append(e.message))  # fmt: skip
    assert len(said) == 1
    assert "after 14 steps and does not go on to 20 steps" in said[0]
    assert "--start" in said[0]
    assert first.steps == again.steps == 14
    assert again.best == first.best
    assert again.history == first.history
    assert not RunFolder(tmp_path / "m").state.exists()


def test_something_else_is_not_gone_on_with(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    flag: list[bool] = []

    def tune(config: TrainingConfig, labels: np.ndarray, **options: Any) -> Any:
        return finetune([slide[0]], [labels], config, model=tiny_config,
                        out=tmp_path / "m", **options)  # fmt: skip

    tune(
        settings(), slide[1], on_progress=after(5, lambda: flag.append(True)),
        should_stop=lambda: bool(flag),
    )  # fmt: skip
    before = {p: p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="seed 0, now it is 1"):
        tune(settings(seed=1), slide[1], resume=True)
    other = slide[1].copy()
    other[:40] = 0
    with pytest.raises(ConfigError, match="other data"):
        tune(settings(), other, resume=True)
    with pytest.raises(ConfigError, match="finetune run, not pretrain"):
        pretrain([slide[0]], settings(), model=tiny_config, out=tmp_path / "m",
                 resume=True)  # fmt: skip
    with pytest.raises(OutputError, match="--resume"):
        tune(settings(), slide[1])
    with pytest.raises(OutputError, match="one of them"):
        tune(settings(), slide[1], resume=True, overwrite=True)
    assert before == {
        p: p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file()
    }
    # Another place to run, or a longer run, is no other run.
    result = tune(settings(steps=20, num_workers=0), slide[1], resume=True)
    assert result.steps == 20


def test_a_model_without_a_run_cannot_be_resumed(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    from napari_muvit.core.model.checkpoint import save_model
    from napari_muvit.core.model.segmenter import build_model

    save_model(build_model(tiny_config), tmp_path / "m")
    with pytest.raises(OutputError, match="no run to go on with"):
        finetune([slide[0]], [slide[1]], settings(), model=tiny_config,
                 out=tmp_path / "m", resume=True)  # fmt: skip


def test_a_damaged_state_is_said(train: Train, tmp_path: Path) -> None:
    flag: list[bool] = []
    train(
        tmp_path / "m", settings(), on_progress=after(5, lambda: flag.append(True)),
        should_stop=lambda: bool(flag),
    )  # fmt: skip
    state = RunFolder(tmp_path / "m").state
    whole = state.read_bytes()
    for content in (b"", whole[:1000], whole[: len(whole) // 2]):
        state.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            train(tmp_path / "m", settings(), resume=True)


def test_two_runs_do_not_write_to_one_folder(train: Train, tmp_path: Path) -> None:
    def again() -> None:
        with pytest.raises(OutputError, match="is being written"):
            train(tmp_path / "m", settings(), overwrite=True)

    result = train(tmp_path / "m", settings(), on_progress=after(5, again))
    assert result.steps == 14


def test_overwriting_leaves_no_old_state(train: Train, tmp_path: Path) -> None:
    flag: list[bool] = []
    train(
        tmp_path / "m", settings(), on_progress=after(5, lambda: flag.append(True)),
        should_stop=lambda: bool(flag),
    )  # fmt: skip
    train(tmp_path / "m", settings(seed=3), overwrite=True)
    train(tmp_path / "n", settings(seed=3))
    assert hashes(tmp_path / "m") == hashes(tmp_path / "n")
    assert not RunFolder(tmp_path / "m").unfinished


@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
def test_another_slide_in_colour_is_not_gone_on_with(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path, kind: str
) -> None:
    # Colours are divided by 255 on every slide, so their range told nothing.
    model = dataclasses.replace(tiny_config, in_channels=3, normalisation="uint8")
    colours = np.stack([slide[0]] * 3)
    flag: list[bool] = []

    def run(image: np.ndarray, **options: Any) -> Any:
        options |= {"model": model, "out": tmp_path / "m"}
        if kind == "pretrain":
            return pretrain([image], settings(), **options)
        return finetune([image], [slide[1]], settings(), **options)

    run(colours, on_progress=after(2, lambda: flag.append(True)),
        should_stop=lambda: bool(flag))  # fmt: skip
    inside = colours.copy()
    inside[:, 40:120, 40:120] = 255 - inside[:, 40:120, 40:120]
    for other in (255 - colours, inside):
        with pytest.raises(ConfigError, match="other data"):
            run(other, resume=True)
    assert run(colours, resume=True).steps == 14


def test_no_report_stays_of_a_model_that_is_gone(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "m"
    report = train(out, settings(steps=4)).report
    assert report.is_file()
    flag: list[bool] = []
    train(out, settings(), overwrite=True, should_stop=lambda: bool(flag),
          on_progress=after(6, lambda: flag.append(True)))  # fmt: skip
    assert not report.exists()
    assert not (out / "curves.png").exists()
