"""A run that has ended is looked at as closely as one that goes on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import MuvitError, OutputError
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import finetune, pretrain
from napari_muvit.core.training.run_folder import RunFolder

Slide = tuple[np.ndarray, np.ndarray]
Hashes = Callable[[Path], list[str]]
CONFIG = TrainingConfig(
    steps=4, steps_per_epoch=2, batch_size=4, validation_crops=4, device="cpu",
    precision="32-true", num_threads=1,
)  # fmt: skip


class Runs:
    """Runs of one kind in one folder."""

    def __init__(self, kind: str, slide: Slide, model: ModelConfig, out: Path) -> None:
        self.kind, self.slide, self.model, self.out = kind, slide, model, out

    def __call__(self, **changes: Any) -> Any:
        """Train with changed settings, data or options."""
        image = changes.pop("image", self.slide[0])
        labels = changes.pop("labels", self.slide[1])
        model = changes.pop("model", self.model)
        fields = {f.name for f in dataclasses.fields(TrainingConfig)} & set(changes)
        config = dataclasses.replace(CONFIG, **{n: changes.pop(n) for n in fields})
        options = {"model": model, "out": self.out, **changes}
        if self.kind == "pretrain":
            return pretrain([image], config, **options)
        return finetune([image], [labels], config, **options)

    def files(self) -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in self.out.rglob("*") if p.is_file()}


@pytest.fixture(params=["finetune", "pretrain"])
def runs(
    request: pytest.FixtureRequest, slide: Slide, tiny_config: ModelConfig,
    tmp_path: Path,
) -> Runs:  # fmt: skip
    return Runs(request.param, slide, tiny_config, tmp_path / "m")


def darker(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image[40:120, 40:120] //= 2
    return image


def test_other_data_and_settings_are_refused_as_before_its_end(runs: Runs) -> None:
    # It said that it had ended, whatever was asked for.
    dark = darker(runs.slide[0])
    fewer = runs.slide[1].copy()
    fewer[:40] = 0
    others: list[dict[str, Any]] = [
        {"image": dark},
        {"seed": 1},
        {"model": dataclasses.replace(runs.model, depth=2)},
        {"overwrite": True},
    ]
    if runs.kind == "finetune":
        others.append({"labels": fewer})
    seen: list[Progress] = []
    runs(on_progress=seen.append,
         should_stop=lambda: sum(e.stage == "train" for e in seen) >= 3)  # fmt: skip
    assert RunFolder(runs.out).unfinished

    def refusals() -> list[str]:
        before, said = runs.files(), []
        for other in others:
            with pytest.raises(MuvitError) as error:
                runs(**other, resume=True)
            said.append(str(error.value))
        assert runs.files() == before
        return said

    unfinished = refusals()
    assert "other data" in unfinished[0]
    assert "seed 0, now it is 1" in unfinished[1]
    assert all("\n" not in line for line in unfinished)
    runs(resume=True)
    assert RunFolder(runs.out).finished
    assert refusals() == unfinished


def test_the_same_again_has_ended(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    first = runs()
    before = runs.files()
    # Nothing is written, so nothing has to have room.
    usage = type(shutil.disk_usage("/"))(10**9, 10**9, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    for changes, text in (
        ({}, "nothing is left to do"),
        ({"num_workers": 2, "steps": 3}, "nothing is left to do"),
        ({"steps": 9}, "does not go on to 9 steps"),
        ({"steps": None, "minutes": 5}, "does not go on to 5 minutes"),
    ):
        said: list[str] = []
        again = runs(resume=True, on_progress=lambda e, s=said: s.append(e.message),
                     **changes)  # fmt: skip
        assert len(said) == 1
        assert "has ended after 4 steps" in said[0]
        assert text in said[0]
        assert f"--start {runs.out}" in said[0]
        assert (again.steps, again.best, again.history) == (
            first.steps, first.best, first.history
        )  # fmt: skip
    assert runs.files() == before


def test_a_record_of_an_earlier_version_says_nothing_of_data(runs: Runs) -> None:
    runs.model = dataclasses.replace(runs.model, background_value=(0.1,))
    runs()
    file = RunFolder(runs.out).record
    content = json.loads(file.read_text())
    assert content.pop("data")
    file.write_text(json.dumps(content))
    assert runs(resume=True, image=darker(runs.slide[0])).steps == 4
    with pytest.raises(MuvitError, match="seed 0, now it is 1"):
        runs(resume=True, seed=1)


class Meanwhile:
    """Does something when the run has looked at its folder, and holds it not yet."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def __call__(self, event: Progress) -> None:
        if event.message == "Opening slides":
            self.act()


def test_a_folder_is_looked_at_again_when_it_is_held(runs: Runs) -> None:
    # What another process had written since the first look was replaced unasked.
    found: list[dict[Path, bytes]] = []

    def other() -> None:
        runs(seed=3)
        found.append(runs.files())

    with pytest.raises(OutputError, match="holds a model already"):
        runs(on_progress=Meanwhile(other))
    assert runs.files() == found[0]


def test_a_run_goes_on_from_where_it_is_when_it_is_held(
    runs: Runs, tmp_path: Path, hashes: Hashes
) -> None:
    # The state was read before the lock: steps of another process were done again, and
    # of a run that had ended meanwhile too.
    def stopped_after(steps: int, **options: Any) -> None:
        seen: list[Progress] = []
        runs(on_progress=seen.append,
             should_stop=lambda: sum(e.stage == "train" for e in seen) >= steps,
             **options)  # fmt: skip

    stopped_after(1)
    said: list[str] = []

    def listen(event: Progress) -> None:
        said.append(event.message)
        if event.message == "Opening slides":
            stopped_after(2, resume=True)

    assert runs(resume=True, on_progress=listen).steps == 4
    assert "Going on after step 3." in said
    whole = Runs(runs.kind, runs.slide, runs.model, tmp_path / "whole")
    whole()
    assert hashes(runs.out) == hashes(whole.out)

    shutil.rmtree(runs.out)
    stopped_after(1)
    with pytest.raises(OutputError, match="another process meanwhile"):
        runs(resume=True, on_progress=Meanwhile(lambda: runs(resume=True)))
    assert RunFolder(runs.out).finished
