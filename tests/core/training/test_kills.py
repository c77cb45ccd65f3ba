"""kill -9 at any moment: what is on the disk loads, and the run ends as it would."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.run_log import read_log

if TYPE_CHECKING:
    from .conftest import Trainings

Hashes = Callable[[Path], list[str]]
Check = Callable[[Path], None]
RESUME = {"options": {"resume": True}}
KILLS = 20


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "steps": 5, "steps_per_epoch": 2, "batch_size": 4, "validation_crops": 4,
        "device": "cpu", "precision": "32-true", "num_threads": 1, **changes,
    }  # fmt: skip


def curve(folder: Path) -> list[dict[str, float]]:
    rows = read_log(RunFolder(folder).log)
    assert rows
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def kill(pid: int) -> None:
    # It may have ended just before.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def die_at_each_change_of_the_disk(
    trainings: Trainings, kind: str, folder: Path, config: dict[str, Any],
    hashes: Hashes, check_whole: Check, every: int = 1,
) -> int:  # fmt: skip
    """Kill a run before its first change, then before its second, and so on."""
    noted = folder / "operations"
    assert trainings.run(kind, folder / "whole", config, operations=str(noted)) == 0
    operations = noted.read_text().splitlines()
    wanted = hashes(folder / "whole")
    curve_wanted = curve(folder / "whole")
    for number in range(1, len(operations) + 1, every):
        what = operations[number - 1]
        out = folder / "part"
        died = trainings.run(
            kind, out, config, operations=str(folder / "more"), crash_at=number
        )
        assert died == -signal.SIGKILL, what
        check_whole(out)
        code = trainings.run(kind, out, config, **RESUME)
        assert code == 0, (what, trainings.said())
        assert hashes(out) == wanted, what
        assert curve(out) == curve_wanted, what
        assert not RunFolder(out).unfinished, what
        shutil.rmtree(out)
    return len(operations)


def test_a_run_that_dies_while_it_writes_goes_on(
    trainings: Trainings, tmp_path: Path, hashes: Hashes, check_whole: Check
) -> None:
    # Between a best model and the first state `--resume` refused to go on, and so did
    # it between the last model and the record.
    config = settings(steps=2, steps_per_epoch=1)
    count = die_at_each_change_of_the_disk(
        trainings, "finetune", tmp_path, config, hashes, check_whole, every=8
    )
    assert count > 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
@pytest.mark.parametrize("minutes", [1e-9, 5.0])
def test_every_change_of_the_disk_may_be_the_last(
    trainings: Trainings, tmp_path: Path, hashes: Hashes, check_whole: Check,
    kind: str, minutes: float,
) -> None:  # fmt: skip
    config = settings(checkpoint_minutes=minutes, ema=0.5)
    count = die_at_each_change_of_the_disk(
        trainings, kind, tmp_path, config, hashes, check_whole
    )
    assert count > 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
def test_twenty_kills_of_one_run_change_nothing(
    trainings: Trainings, tmp_path: Path, hashes: Hashes, check_whole: Check, kind: str
) -> None:
    # A state after nearly every step: many kills hit one that is being written.
    config = settings(steps=300, steps_per_epoch=40, checkpoint_minutes=1e-9)
    begun = time.monotonic()
    assert trainings.run(kind, tmp_path / "whole", config) == 0
    whole_seconds = time.monotonic() - begun
    draw = random.Random(0)
    out = tmp_path / "part"
    kills = 0
    while kills < KILLS:
        pid = trainings.start(kind, out, config, **RESUME)
        time.sleep(draw.uniform(0.0, 1.2 * whole_seconds / KILLS))
        kill(pid)
        code = trainings.end()
        assert code in (0, -signal.SIGKILL), trainings.said()
        check_whole(out)
        if code == 0:
            break
        kills += 1
    assert trainings.run(kind, out, config, **RESUME) == 0, trainings.said()
    assert kills >= KILLS / 2
    assert hashes(out) == hashes(tmp_path / "whole")
    assert curve(out) == curve(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
def test_a_kill_at_any_moment_changes_nothing(
    trainings: Trainings, tmp_path: Path, hashes: Hashes, check_whole: Check, kind: str
) -> None:
    config = settings(steps=40, steps_per_epoch=8, checkpoint_minutes=0.002)
    begun = time.monotonic()
    assert trainings.run(kind, tmp_path / "whole", config) == 0
    whole_seconds = time.monotonic() - begun
    wanted = hashes(tmp_path / "whole")
    draw = random.Random(1)
    for number in range(KILLS):
        out = tmp_path / str(number)
        pid = trainings.start(kind, out, config)
        time.sleep(draw.uniform(0.0, whole_seconds))
        kill(pid)
        trainings.end()
        check_whole(out)
        assert trainings.run(kind, out, config, **RESUME) == 0, trainings.said()
        assert hashes(out) == wanted
        assert curve(out) == curve(tmp_path / "whole")
