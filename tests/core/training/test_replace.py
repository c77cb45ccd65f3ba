"""A run that replaces another one and is killed: one of the two is whole."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.model.checkpoint import load_model, weights_hash
from napari_muvit.core.progress import Progress
from napari_muvit.core.settings import read_settings
from napari_muvit.core.training import engine, finetune
from napari_muvit.core.training.run_folder import RunFolder

if TYPE_CHECKING:
    from .conftest import Trainings

Slide = tuple[np.ndarray, np.ndarray]
Hashes = Callable[[Path], list[str]]
Check = Callable[[Path], None]


class Killed(BaseException):
    """Like a kill: nothing of ours catches it."""


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "steps": 2, "steps_per_epoch": 1, "batch_size": 4, "validation_crops": 4,
        "device": "cpu", "precision": "32-true", "num_threads": 1, **changes,
    }  # fmt: skip


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("where", ["forget", "save_model", "forget_results"])
def test_what_is_there_after_a_kill_is_clear(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path, hashes: Hashes,
    monkeypatch: pytest.MonkeyPatch, where: str, ended: bool,
) -> None:  # fmt: skip
    # The run that was replaced was forgotten before the settings of the new one were
    # written, so `--resume` began the old one anew; and its last weights stayed beside
    # the new best ones.
    def train(folder: Path, seed: int, **options: Any) -> Any:
        config = TrainingConfig.from_dict(settings(steps=4, seed=seed))
        return finetune([slide[0]], [slide[1]], config, model=tiny_config, out=folder,
                        **options)  # fmt: skip

    out = tmp_path / "m"
    train(tmp_path / "new", 1)
    seen: list[Progress] = []
    train(out, 0, on_progress=seen.append,
          should_stop=lambda: not ended and any(e.stage == "train" for e in seen),
          )  # fmt: skip
    assert RunFolder(out).finished is ended
    old = hashes(out)

    def die(*_args: Any, **_kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(engine if where == "save_model" else RunFolder, where, die)
        with pytest.raises(Killed):
            train(out, 1, overwrite=True)
    assert read_settings(out / "config.yaml").training["seed"] == 1
    if where == "forget":
        assert hashes(out) == old
        with pytest.raises(ConfigError, match=r"seed 0, now it is 1.*--overwrite"):
            train(out, 1, resume=True)
        assert hashes(out) == old
        train(out, 1, overwrite=True)
    else:
        if where == "save_model":
            assert hashes(out) == old
        said: list[str] = []
        train(out, 1, resume=True, on_progress=lambda e: said.append(e.message))
        assert sum("begins anew" in text for text in said) == 1
    assert hashes(out) == hashes(tmp_path / "new")
    assert RunFolder(out).finished


def test_the_last_weights_of_a_replaced_run_go_with_its_best(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    out = tmp_path / "m"

    def train(seed: int, **options: Any) -> Any:
        config = TrainingConfig.from_dict(settings(steps=4, seed=seed))
        return finetune([slide[0]], [slide[1]], config, model=tiny_config, out=out,
                        **options)  # fmt: skip

    train(0)
    old = weights_hash(load_model(out))

    def kill_at_the_second(event: Progress) -> None:
        if event.stage == "train" and event.metrics["step"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(1, overwrite=True, on_progress=kill_at_the_second)
    assert weights_hash(load_model(out)) != old
    assert not (out / "last").exists()
    train(1, resume=True)
    assert (out / "last").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
def test_every_change_of_the_disk_may_be_the_last(
    trainings: Trainings, tmp_path: Path, hashes: Hashes, check_whole: Check, kind: str
) -> None:
    old, new, out = (tmp_path / n for n in ("old", "new", "part"))
    assert trainings.run(kind, old, settings()) == 0
    assert trainings.run(kind, new, settings(seed=1)) == 0
    replace = {"options": {"overwrite": True}}
    noted = tmp_path / "operations"
    shutil.copytree(old, out)
    assert trainings.run(kind, out, settings(seed=1), operations=str(noted),
                         **replace) == 0  # fmt: skip
    count = len(noted.read_text().splitlines())
    codes = set()
    for number in range(1, count + 1):
        shutil.rmtree(out)
        shutil.copytree(old, out)
        died = trainings.run(kind, out, settings(seed=1), crash_at=number,
                             operations=str(tmp_path / "more"), **replace)  # fmt: skip
        assert died == -signal.SIGKILL, number
        check_whole(out)
        code = trainings.run(kind, out, settings(seed=1), options={"resume": True})
        if code:
            # The old run, as it was, and told from the new one.
            assert "seed 0, now it is 1" in trainings.said(), number
            assert hashes(out) == hashes(old), number
            assert trainings.run(kind, out, settings(seed=1), **replace) == 0
        assert hashes(out) == hashes(new), number
        codes.add(code)
    assert codes == {0, 2}
