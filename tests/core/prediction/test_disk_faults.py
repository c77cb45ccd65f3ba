"""Full and read-only disks, images that vanish: one clear line, and it goes on."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_muvit.core import open_pyramid
from napari_muvit.core.config import PredictionConfig
from napari_muvit.core.data import identity, level_cache
from napari_muvit.core.data.cache_settings import CacheSettings
from napari_muvit.core.data.ome_zarr import write_pyramid
from napari_muvit.core.errors import ConfigError, OutputError, PyramidError
from napari_muvit.core.prediction import engine, predict, shards, writer
from napari_muvit.core.prediction.levels import CoarseLevel
from napari_muvit.core.prediction.plan import plan_prediction

Build = Callable[..., Any]
SHAPE = (700, 550)
"""Two levels of tiles of 64 px."""
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def cpu(**changes: Any) -> PredictionConfig:
    values = {
        "tile_size": 64,
        "batch_size": 4,
        "device": "cpu",
        "overlap": 0.25,
        "num_threads": 1,
    }
    return PredictionConfig(**(values | changes))


def failing(function: Callable[..., Any], first: int) -> Callable[..., Any]:
    """The function, on a disk that is full from the call of that number on."""
    calls = []

    def call(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) >= first:
            raise FULL
        return function(*args, **options)

    return call


@pytest.fixture
def model(identity_model: Build) -> Any:
    return identity_model(scale_factors=(1,), crop_size=64)


@pytest.fixture
def whole(slide: Build, model: Any, tmp_path: Path) -> Path:
    out = tmp_path / "unbroken" / "whole.zarr"
    list(predict(slide(SHAPE), model, cpu(), out))
    return out


@pytest.mark.parametrize("shard", [None, (0, 1)])
@pytest.mark.parametrize("where", ["finest", "coarse", "marks", "temporary"])
def test_a_disk_that_fills_anywhere(
    slide: Build,
    model: Any,
    tmp_path: Path,
    whole: Path,
    check_same: Build,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    shard: tuple[int, int] | None,
) -> None:
    pyramid, out = slide(SHAPE), tmp_path / "out.zarr"
    run = predict(pyramid, model, cpu(shard=shard), out)
    said = "cannot be written: No space left on device. What is finished is kept"
    if where == "finest":
        array = type(run.levels[0])
        monkeypatch.setattr(array, "__setitem__", failing(array.__setitem__, 4))
    elif where == "coarse":
        monkeypatch.setattr(CoarseLevel, "_write", failing(CoarseLevel._write, 1))
    elif where == "marks":
        monkeypatch.setattr(os, "fsync", failing(os.fsync, 1))
        mark = failing(writer.LabelWriter._mark, 4)
        monkeypatch.setattr(writer.LabelWriter, "_mark", mark)
        opened = failing(open, 4)
        monkeypatch.setattr(shards, "open", opened, raising=False)
    else:
        small = functools.partial(engine.Canvases, budget=0, least=1)
        monkeypatch.setattr(engine, "Canvases", small)
        monkeypatch.setattr(
            tempfile, "TemporaryFile", failing(tempfile.TemporaryFile, 1)
        )
        said = "folder for temporary files.*No space left on device.*TMPDIR"
    with pytest.raises(OutputError, match=said):
        list(run)
    monkeypatch.undo()
    assert not list((out / ".muvit").glob("lock*"))
    list(predict(pyramid, model, cpu(), out))
    check_same(out, whole)


def test_a_shard_without_room_for_its_marks_leaves_no_lock(
    slide: Build, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid, out = slide(SHAPE), tmp_path / "out.zarr"
    predict(pyramid, model, cpu(), out).close()
    monkeypatch.setattr(os, "fsync", failing(os.fsync, 1))
    with pytest.raises(OutputError, match="No space left on device"):
        predict(pyramid, model, cpu(shard=(0, 2)), out)
    monkeypatch.undo()
    # Before, an empty file was left, and the part was never complete.
    assert {p.name for p in (out / ".muvit").iterdir()} == {"run.json", "done"}


class Disk:
    """A disk of its own, whose size and state a test changes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def change(self, options: str) -> None:
        subprocess.run(
            ["mount", "-o", f"remount,{options}", str(self.path)], check=True
        )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)]
    if (
        not shutil.which("mount")
        or subprocess.run(command, capture_output=True).returncode
    ):
        pytest.skip("only the administrator of a Linux machine can make a disk")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("shard", [None, (0, 1)])
@pytest.mark.parametrize("room", [60, 200, 350])
def test_a_real_disk_that_is_full(
    slide: Build,
    model: Any,
    whole: Path,
    disk: Disk,
    check_same: Build,
    room: int,
    shard: tuple[int, int] | None,
) -> None:
    pyramid, out = slide(SHAPE), disk.path / "out.zarr"
    disk.change(f"size={room}k")
    with pytest.raises(OutputError, match="No space left on device"):
        list(predict(pyramid, model, cpu(shard=shard), out))
    assert not list(disk.path.rglob("lock*"))
    disk.change("size=64m")
    list(predict(pyramid, model, cpu(), out))
    check_same(out, whole)


def test_a_read_only_disk(
    slide: Build, model: Any, whole: Path, disk: Disk, check_same: Build
) -> None:
    pyramid, out = slide(SHAPE), disk.path / "out.zarr"
    refused = "Read-only file system"
    disk.change("ro")
    with pytest.raises(OutputError, match=refused):
        predict(pyramid, model, cpu(), out)
    disk.change("rw")
    run = predict(pyramid, model, cpu(batch_size=1), out)
    for tile in run:
        if tile.done == 5:
            # Between two tiles, as a disk with errors becomes it.
            run.stop()
    disk.change("ro")
    for config in (cpu(batch_size=1), cpu(batch_size=1, overwrite=True)):
        with pytest.raises(OutputError, match=refused):
            predict(pyramid, model, config, out)
    with pytest.raises(OutputError, match=refused):
        predict(pyramid, model, cpu(batch_size=1, shard=(0, 2)), out)
    disk.change("rw")
    list(predict(pyramid, model, cpu(batch_size=1), out))
    # What is complete needs no writing.
    disk.change("ro")
    assert predict(pyramid, model, cpu(batch_size=1), out).finished_before
    disk.change("rw")
    list(predict(pyramid, model, cpu(overwrite=True), out))
    check_same(out, whole)


@pytest.fixture
def tiny(tiny_model: Build) -> Path:
    path: Path = tiny_model()
    return path


def test_an_image_that_vanishes_and_comes_back(
    tiny: Path, tmp_path: Path, check_same: Build
) -> None:
    values = np.random.default_rng(0).integers(0, 255, (300, 400), dtype=np.uint8)
    image, away = tmp_path / "image.zarr", tmp_path / "away.zarr"
    write_pyramid(image, values, chunk=64)
    out, whole = tmp_path / "outs" / "out.zarr", tmp_path / "outs" / "whole.zarr"
    list(predict(image, tiny, cpu(), whole))
    run = predict(open_pyramid(image), tiny, cpu(), out)
    tiles = iter(run)
    next(tiles)
    image.rename(away)
    with pytest.raises(PyramidError, match=r"What is finished is kept; repair"):
        list(tiles)
    assert (out / ".muvit" / "done").read_bytes().count(0) < len(run.plan)
    with pytest.raises(FileNotFoundError):
        predict(image, tiny, cpu(), out)
    away.rename(image)
    list(predict(image, tiny, cpu(), out))
    check_same(out, whole)


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_a_tiff_that_vanishes_and_comes_back(
    tiny: Path, tmp_path: Path, check_same: Build, how: str
) -> None:
    values = np.random.default_rng(0).integers(0, 255, (300, 400), dtype=np.uint8)
    image, out = tmp_path / "image.tif", tmp_path / "outs" / "out.zarr"
    tifffile.imwrite(image, values, tile=(64, 64))
    whole, content = tmp_path / "outs" / "whole.zarr", image.read_bytes()
    list(predict(image, tiny, cpu(), whole))
    run = predict(open_pyramid(image), tiny, cpu(), out)
    tiles = iter(run)
    next(tiles)
    if how == "cut":
        os.truncate(image, 20_000)
        with pytest.raises(PyramidError, match=r"tiles could not be read|is kept"):
            list(tiles)
    else:
        # What is open stays readable on Unix, so the run may end well.
        image.unlink()
        with contextlib.suppress(PyramidError):
            list(tiles)
    image.write_bytes(content)
    list(predict(image, tiny, cpu(), out))
    check_same(out, whole)


@pytest.mark.parametrize("context", ["shared", "own"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_broken_chunk_of_a_coarse_level_costs_its_tiles(
    tiny_model: Build,
    tmp_path: Path,
    check_same: Build,
    monkeypatch: pytest.MonkeyPatch,
    context: str,
    cached: bool,
) -> None:
    monkeypatch.setattr(identity, "SAMPLED_BLOCKS", 0)
    monkeypatch.setattr(engine, "MAX_UNREAD", 4)
    monkeypatch.setattr(level_cache, "DEAR_PIXELS", 1)
    values = np.random.default_rng(0).integers(0, 255, (300, 1200), dtype=np.uint8)
    image = tmp_path / "image.zarr"
    write_pyramid(image, values, chunk=64, smallest=2000 if cached else 256)
    broken = image / ("0" if cached else "2") / "c" / "0" / "0"
    kept = broken.read_bytes()
    whole, out = tmp_path / "outs" / "whole.zarr", tmp_path / "outs" / "out.zarr"
    model = tiny_model(scale_factors=(1, 8 if cached else 4), normalisation="uint8")
    config = cpu(context=context, overlap=0.0)
    cache = CacheSettings(folder=tmp_path / "cache", enabled=cached)
    list(predict(image, model, config, whole))
    broken.write_bytes(b"broken")
    run = predict(image, model, config, out, cache=cache)
    with pytest.raises(PyramidError, match="tiles could not be read; the others are"):
        list(run)
    assert 0 < len(run.failed) < len(run.plan) - 10
    done = (out / ".muvit" / "done").read_bytes()
    assert len(run.failed) == done.count(0)
    broken.write_bytes(kept)
    list(predict(image, model, config, out, cache=cache))
    check_same(out, whole)


def test_what_a_kill_has_left_aside_is_removed(
    slide: Build, model: Any, tmp_path: Path
) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    out = tmp_path / "out.zarr"
    host = os.uname().nodename
    left = [tmp_path / f".out.zarr.{host}-{child.pid}{end}" for end in (".new", ".old")]
    # Not ours, or of somebody at work.
    others = [
        tmp_path / f".out.zarr.{host}-{os.getppid()}.new",
        tmp_path / f".out.zarr.elsewhere-{child.pid}.new",
        tmp_path / f".other.zarr.{host}-{child.pid}.old",
    ]
    for path in [*left, *others]:
        (path / "0").mkdir(parents=True)
    list(predict(slide((100, 100)), model, cpu(), out))
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_overwriting_waits_for_whoever_is_at_work(
    slide: Build, model: Any, tmp_path: Path
) -> None:
    pyramid, out = slide(SHAPE), tmp_path / "out.zarr"
    with predict(pyramid, model, cpu(shard=(0, 2)), out):
        before = sorted(out.rglob("*"))
        with pytest.raises(OutputError, match="is being written by"):
            predict(pyramid, model, cpu(overwrite=True), out)
        assert {*before} <= {*out.rglob("*"), out / ".muvit" / "lock"}
    with pytest.raises(ConfigError, match="shard and overwrite exclude each other"):
        cpu(shard=(0, 2), overwrite=True)
    # Between the look at what is there and the lock, another run replaced it.
    late = writer.LabelWriter
    plan = plan_prediction(pyramid, model.config, cpu())
    record = writer.read_record(out)
    opened = late(out, pyramid, plan, model.config, record)
    (out / ".muvit" / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="was overwritten by another run meanwhile"):
        opened.begin()
    assert not (out / ".muvit" / "lock").exists()


def test_a_region_in_parts_has_its_coarse_levels(
    slide: Build, model: Any, tmp_path: Path, check_same: Build
) -> None:
    pyramid, region = slide((600, 900)), (100, 100, 400, 800)
    out, whole = tmp_path / "outs" / "out.zarr", tmp_path / "outs" / "whole.zarr"
    list(predict(pyramid, model, cpu(region=region), whole))
    for part in (1, 0):
        list(predict(pyramid, model, cpu(region=region, shard=(part, 2)), out))
    check_same(out, whole)
