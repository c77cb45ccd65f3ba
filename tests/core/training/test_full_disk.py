"""A disk that becomes full: one line, and all that was written before stays good."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import OutputError
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import finetune
from napari_muvit.core.training import run_log as run_log_module
from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.run_log import RunLog, read_log

Slide = tuple[np.ndarray, np.ndarray]
SIZE = 4 * 2**20


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.from_dict(
        {
            "steps": 10, "steps_per_epoch": 3, "batch_size": 4, "validation_crops": 8,
            "device": "cpu", "precision": "32-true", "num_threads": 1, **changes,
        }
    )  # fmt: skip


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs the rights to mount a disk")
    options = ["-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


class Ballast:
    """Fills a disk up to some room after so many steps."""

    def __init__(self, disk: Path, step: int, room: int) -> None:
        self.file, self.step, self.room = disk / "ballast", step, room
        self.said: list[str] = []

    def __call__(self, event: Progress) -> None:
        self.said.append(event.message)
        if event.stage == "train" and event.metrics["step"] == self.step:
            with self.file.open("wb", buffering=0) as file:
                with contextlib.suppress(OSError):
                    while file.write(b"0" * 4096) == 4096:
                        pass
                file.truncate(max(0, file.tell() - self.room))


@pytest.mark.parametrize(
    ("step", "room", "minutes"),
    [(2, 4096, 5.0), (4, 65536, 1e-9), (9, 16384, 5.0)],
)
def test_a_run_goes_on_once_there_is_room(
    slide: Slide, tiny_config: ModelConfig, small_disk: Path, tmp_path: Path,
    hashes: Callable[[Path], list[str]], check_whole: Callable[[Path], None],
    step: int, room: int, minutes: float,
) -> None:  # fmt: skip
    config = settings(checkpoint_minutes=minutes)

    def train(out: Path, **options: Any) -> Any:
        return finetune([slide[0]], [slide[1]], config, model=tiny_config, out=out,
                        **options)  # fmt: skip

    ballast = Ballast(small_disk, step, room)
    out = small_disk / "m"
    with pytest.raises(OutputError) as error:
        train(out, on_progress=ballast)
    assert "No space left" in str(error.value)
    assert "\n" not in str(error.value)
    check_whole(out)
    assert not RunFolder(out).lock.exists()
    ballast.file.unlink()
    rest = train(out, resume=True)
    assert rest.steps == 10
    train(tmp_path / "whole")
    assert hashes(out) == hashes(tmp_path / "whole")
    steps = [
        [(r["step"], r.get("loss"), r.get("mDSC")) for r in read_log(RunFolder(p).log)]
        for p in (out, tmp_path / "whole")
    ]
    assert steps[0] == steps[1]


def test_rows_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    log = RunLog(tmp_path / "log.csv", ("mDSC",), 0, warned.append)
    log.add({"step": 1, "loss": 2.0})
    log.flush()

    def full(path: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(run_log_module, "_append", full)
        for step in (2, 3):
            log.add({"step": step, "loss": 1.0})
            log.flush()
    assert len(warned) == 1
    assert "No space left" in warned[0]
    assert [r["step"] for r in read_log(tmp_path / "log.csv")] == [1]
    log.add({"step": 4, "loss": 1.0})
    log.flush()
    assert [r["step"] for r in read_log(tmp_path / "log.csv")] == [1, 2, 3, 4]


def test_half_a_row_is_taken_back(small_disk: Path) -> None:
    log = RunLog(small_disk / "log.csv", (), 0, lambda _: None)
    log.add({"step": 1, "loss": 2.0})
    log.flush()
    # A page of the file is left, no more.
    Ballast(small_disk, 1, 0)(
        Progress(stage="train", done=1, total=1, metrics={"step": 1.0})
    )
    for step in range(2, 2000):
        log.add({"step": step, "loss": 1.0})
    log.flush()
    assert [r["step"] for r in read_log(small_disk / "log.csv")] == [1]
    assert (small_disk / "log.csv").read_bytes().endswith(b"\n")
    (small_disk / "ballast").unlink()
    log.flush()
    rows = [r["step"] for r in read_log(small_disk / "log.csv")]
    assert rows == list(range(1, 2000))
