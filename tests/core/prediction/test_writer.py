"""The output: written once, continued after any end, never over somebody else's."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaozarrs
import zarr

from napari_muvit.core import lock as lock_module
from napari_muvit.core.config import PredictionConfig
from napari_muvit.core.data.zarr_writer import halve_labels
from napari_muvit.core.errors import OutputError
from napari_muvit.core.evaluation import evaluate
from napari_muvit.core.prediction import predict, writer

Build = Callable[..., Any]
SHAPE = (1100, 1300)


def cpu(**changes: Any) -> PredictionConfig:
    values = {
        "tile_size": 128,
        "batch_size": 8,
        "device": "cpu",
        "overlap": 0.0,
        "num_threads": 1,
    }
    return PredictionConfig(**(values | changes))


@pytest.fixture
def model(identity_model: Build) -> Any:
    return identity_model(crop_size=128, scale_factors=(1,))


def count_done(out: Path) -> int:
    """Tiles that are marked."""
    return sum(byte > 0 for byte in (out / ".muvit" / "done").read_bytes())


def chunks_of(out: Path) -> dict[str, bytes]:
    """All files of the store but those that name the run."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("run.json", "lock")
    }


def test_the_store_is_a_label_pyramid_that_others_read(
    slide: Build, identity_model: Build, tmp_path: Path
) -> None:
    pyramid = slide(SHAPE, pixel_size=(0.5, 0.5), translation=(3.0, 4.0))
    model = identity_model(
        crop_size=128,
        scale_factors=(1,),
        pixel_size=0.5,
        class_names=("background", "gland", "stroma", "fold"),
    )
    out = tmp_path / "labels.zarr"
    run = predict(pyramid, model, cpu(), out)
    for tile in run:
        # Every level is right at any moment.
        half = halve_labels(tile.labels)
        y, x = tile.box[0] // 2, tile.box[1] // 2
        written = run.levels[1][y : y + half.shape[0], x : x + half.shape[1]]
        assert (written == half).all()
    levels = [zarr.open_array(out / str(k), mode="r") for k in range(len(run.levels))]
    values = pyramid.levels[0].source.read((0, 0), SHAPE)[0]
    assert (levels[0][:] == values + 1).all()
    assert levels[0].chunks == (128, 128)
    for fine, coarse in itertools.pairwise(levels):
        assert (coarse[:] == halve_labels(np.asarray(fine[:]))).all()
    yaozarrs.validate_zarr_store(out)
    group = yaozarrs.open_group(out).ome_metadata()
    assert group.multiscales[0].datasets[0].scale_transform.scale == [0.5, 0.5]
    attributes = json.loads((out / "zarr.json").read_text())["attributes"]["ome"]
    assert len(attributes["image-label"]["colors"]) == 4
    record = json.loads((out / ".muvit" / "run.json").read_text())
    assert record["normalisation"] == {"low": [0.0], "high": [1.0]}
    assert record["background"] == 1
    result = evaluate(out, np.asarray(values + 1))
    assert result.class_names[1] == "gland"
    assert result.mdice == 1.0


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    slide: Build, identity_model: Build, tmp_path: Path
) -> None:
    pyramid, config = slide((500, 700)), cpu(overlap=0.3)
    model = identity_model(crop_size=64)
    whole, part = tmp_path / "whole.zarr", tmp_path / "part.zarr"
    list(predict(pyramid, model, config, whole))
    stops = 0
    while True:
        run = predict(pyramid, model, config, part)
        if run.finished_before:
            break
        for tile in run:
            run.focus((400, 0, 401, 1))
            if tile.done % 7 == 0:
                run.stop()
        stops += run.stopped
    # Tiles that were on their way to the disk when it stopped are written, too.
    assert 2 <= stops <= 3
    assert list(run) == []
    assert chunks_of(part) == chunks_of(whole)


def test_coarse_levels_that_were_lost_in_a_kill_are_made_anew(
    slide: Build, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid = slide((700, 900))
    whole, part = tmp_path / "whole.zarr", tmp_path / "part.zarr"
    list(predict(pyramid, model, cpu(), whole))
    assert set((whole / ".muvit" / "done").read_bytes()) == {writer.ALL}
    # A killed process flushes nothing.
    monkeypatch.setattr(writer.LabelWriter, "flush", lambda self: None)
    run = predict(pyramid, model, cpu(), part)
    for tile in run:
        if tile.done == 11:
            run.stop()
    monkeypatch.undo()
    assert set((part / ".muvit" / "done").read_bytes()) == {0, writer.FINEST}
    assert not zarr.open_array(part / "1", mode="r")[:].any()
    list(predict(pyramid, model, cpu(), part))
    assert chunks_of(part) == chunks_of(whole)


def test_a_region_is_completed_by_the_whole(
    slide: Build, model: Any, tmp_path: Path
) -> None:
    pyramid, out = slide((500, 700)), tmp_path / "out.zarr"
    first = predict(pyramid, model, cpu(region=(0, 0, 130, 130)), out)
    assert len(list(first)) == 4
    assert predict(pyramid, model, cpu(region=(0, 0, 10, 10)), out).finished_before
    second = predict(pyramid, model, cpu(), out)
    assert not second.finished_before
    assert len(list(second)) == 24 - 4
    assert predict(pyramid, model, cpu(), out).finished_before


def test_another_model_setting_or_image_is_refused_or_overwritten(
    slide: Build, identity_model: Build, model: Any, tmp_path: Path
) -> None:
    pyramid, out = slide((256, 256)), tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(), out))
    other = identity_model(crop_size=128, scale_factors=(1,))
    with torch.no_grad():
        other.gain.fill_(2.0)
    with pytest.raises(OutputError, match="with other model; choose"):
        predict(pyramid, other, cpu(), out)
    with pytest.raises(OutputError, match="with other settings; choose"):
        predict(pyramid, model, cpu(overlap=0.5), out)
    with pytest.raises(OutputError, match="with other image; choose"):
        predict(slide((256, 256), seed=1), model, cpu(), out)
    run = predict(slide((256, 256), seed=1), other, cpu(overwrite=True), out)
    assert len(list(run)) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]


def test_only_a_single_zarr_image_is_ever_removed(
    slide: Build, model: Any, tmp_path: Path
) -> None:
    pyramid, out = slide((256, 256)), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for config in (cpu(), cpu(overwrite=True)):
        with pytest.raises(OutputError, match="choose another output"):
            predict(pyramid, model, config, out)
    with pytest.raises(OutputError, match="choose another output"):
        predict(pyramid, model, cpu(overwrite=True), out / "thesis.txt")
    plate = tmp_path / "plate.zarr"
    zarr.create_group(plate).create_group("A1")
    with pytest.raises(OutputError, match="not a single Zarr image"):
        predict(pyramid, model, cpu(overwrite=True), plate)
    assert (out / "thesis.txt").read_text() == "years of work"
    zarr.create_array(tmp_path / "old.zarr", shape=(5, 5), dtype="uint8")
    with pytest.raises(OutputError, match="not a prediction"):
        predict(pyramid, model, cpu(), tmp_path / "old.zarr")
    run = predict(pyramid, model, cpu(overwrite=True), tmp_path / "old.zarr")
    assert len(list(run)) == 4


def test_the_image_is_never_written_to(
    zarr_slide: Build, model: Any, tmp_path: Path
) -> None:
    pyramid = zarr_slide((256, 256))
    link = tmp_path / "link.zarr"
    link.symlink_to(pyramid.path)
    before = chunks_of(pyramid.path)
    outs = (pyramid.path, link, tmp_path, pyramid.path / "labels" / "x.zarr")
    for out in outs:
        with pytest.raises(OutputError, match="lie inside each other"):
            predict(pyramid, model, cpu(overwrite=True), out)
    assert chunks_of(pyramid.path) == before


def test_two_writers_at_once_are_refused(
    slide: Build, model: Any, tmp_path: Path
) -> None:
    pyramid, out = slide((256, 256)), tmp_path / "out.zarr"
    with predict(pyramid, model, cpu(), out) as first:
        for config in (cpu(), cpu(overwrite=True)):
            with pytest.raises(OutputError, match=f"process {os.getpid()} on"):
                predict(pyramid, model, config, out)
        assert len(list(first)) == 4
    assert not (out / ".muvit" / "lock").exists()


@pytest.mark.parametrize(
    ("pid", "host", "age", "stale"),
    [
        (None, None, 0, True),  # ended
        (os.getpid(), None, 0, True),  # same number, earlier start of a container
        (os.getppid(), None, 9999, False),
        (1, "elsewhere", 30, False),
        (1, "elsewhere", 3600, True),
    ],
)
def test_a_lock_that_was_left_behind_is_taken_over(
    slide: Build,
    model: Any,
    tmp_path: Path,
    pid: int | None,
    host: str | None,
    age: float,
    stale: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock_module, "WATCH_SECONDS", 0.2)
    pyramid, out = slide((256, 256)), tmp_path / "out.zarr"
    predict(pyramid, model, cpu(), out).close()
    if pid is None:
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        pid = child.pid
    lock = out / ".muvit" / "lock"
    lock.write_text(json.dumps({"pid": pid, "host": host or socket.gethostname()}))
    os.utime(lock, (time.time() - age,) * 2)
    if stale:
        assert len(list(predict(pyramid, model, cpu(), out))) == 4
    else:
        with pytest.raises(OutputError, match="is being written by process"):
            predict(pyramid, model, cpu(), out)


def test_a_full_disk_is_one_line_and_keeps_what_is_done(
    slide: Build, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid, out = slide((256, 256)), tmp_path / "out.zarr"
    run, write = predict(pyramid, model, cpu(batch_size=1), out), writer.write_levels
    count = []

    def full(*args: Any) -> None:
        count.append(1)
        if len(count) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*args)

    monkeypatch.setattr(writer, "write_levels", full)
    with pytest.raises(OutputError, match="No space left on device"):
        list(run)
    monkeypatch.undo()
    again = predict(pyramid, model, cpu(batch_size=1), out)
    assert len(list(again)) == 2

    def refuse(*_args: Any, **_options: Any) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(writer.Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="cannot be written: no"):
        predict(pyramid, model, cpu(), tmp_path / "deep" / "out.zarr")


def test_a_damaged_ledger_is_said(slide: Build, model: Any, tmp_path: Path) -> None:
    pyramid, out = slide((256, 256)), tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(), out))
    (out / ".muvit" / "done").write_bytes(b"\x01")
    with pytest.raises(OutputError, match="damaged"):
        predict(pyramid, model, cpu(), out)


KILLED = """
import sys
sys.path.insert(0, sys.argv[3])
import numpy as np
import conftest
from napari_muvit.core import lock as lock_module
from napari_muvit.core.config import PredictionConfig
from napari_muvit.core.prediction import predict
model = conftest.IdentityModel(conftest.make_config(crop_size=128, scale_factors=(1,)))
pyramid = conftest.make_pyramid(conftest.make_labels((2100, 2500)))
config = PredictionConfig(
    tile_size=128, batch_size=8, device="cpu", overlap=0.0, num_threads=1
)
for tile in predict(pyramid, model, config, sys.argv[1]):
    if tile.done == int(sys.argv[2]):
        print("now", flush=True)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    def start(out: Path, tell_at: int) -> subprocess.Popen[str]:
        here = str(Path(__file__).parent)
        command = [sys.executable, "-c", KILLED, str(out), str(tell_at), here]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    part, whole = tmp_path / "part.zarr", tmp_path / "whole.zarr"
    for tell_at, delay in ((40, 0.0), (120, 0.013), (220, 0.031)):
        process = start(part, tell_at)
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done = count_done(part)
        assert tell_at <= done < 340
    for out in (part, whole):
        start(out, -1).communicate()
    assert chunks_of(part) == chunks_of(whole)
    assert count_done(part) == 340
