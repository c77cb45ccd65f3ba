"""Several processes on one prediction: the bytes of one process, whoever dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from napari_muvit.core.config import PredictionConfig
from napari_muvit.core.errors import (
    CheckpointError,
    ConfigError,
    MuvitError,
    OutputBusyError,
    OutputError,
)
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.prediction import PredictionRun, crew, predict, writer
from napari_muvit.core.prediction.blocks import BlockSchedule, block_edge
from napari_muvit.core.prediction.identity import hash_models
from napari_muvit.core.prediction.record import add_seams, read_seams
from napari_muvit.core.prediction.shards import ShardWriter
from napari_muvit.core.prediction.worker import BlockJob, run_block

Build = Callable[..., Any]


def cpu(**changes: Any) -> PredictionConfig:
    values = {
        "tile_size": 64,
        "batch_size": 4,
        "device": "cpu",
        "overlap": 0.25,
        "num_threads": 1,
    }
    return PredictionConfig(**(values | changes))


@pytest.fixture
def model(tiny_model: Build) -> Path:
    path: Path = tiny_model(attention="joint")
    return path


@pytest.fixture
def pyramid(zarr_slide: Build) -> Any:
    return zarr_slide((500, 700))


@pytest.fixture
def whole(pyramid: Any, model: Path, tmp_path: Path) -> dict[str, bytes]:
    """The bytes of one process."""
    list(predict(pyramid, model, cpu(), tmp_path / "whole.zarr"))
    return chunks_of(tmp_path / "whole.zarr")


def chunks_of(out: Path) -> dict[str, bytes]:
    """All files of the store but those that name the run."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("run.json", "lock")
    }


def check(run: PredictionRun, out: Path, whole: dict[str, bytes]) -> None:
    """The run ends with the same bytes and hands each tile out once."""
    indices = [tile.index for tile in run]
    assert len(indices) == len(set(indices))
    assert chunks_of(out) == whole
    assert predict(run._pyramid, run._workers.models, cpu(), out).finished_before


def test_blocks_are_squares_of_the_tiles_that_are_left(
    pyramid: Any, model: Path, tmp_path: Path
) -> None:
    plan = predict(pyramid, model, cpu()).plan
    assert block_edge(plan) == 6  # 16 cores of 24 px
    done = np.zeros(plan.num_tiles, bool)
    done[5] = True
    schedule = BlockSchedule(plan, done)
    blocks = []
    while (tiles := schedule.next()) is not None:
        rows, columns = np.divmod(tiles, plan.grid[1])
        assert np.ptp(rows) < 6
        assert np.ptp(columns) < 6
        blocks.append(tiles)
    assert sorted(sum(blocks, ())) == np.flatnonzero(~done).tolist()
    schedule = BlockSchedule(plan, done)
    schedule.focus((480, 660, 490, 670))
    assert plan.num_tiles - 1 in schedule.next()


def test_two_workers_write_the_bytes_of_one(
    pyramid: Any, model: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out.zarr"
    check(predict(pyramid, model, cpu(workers=2), out), out, whole)


def kill_a_worker(parent: int, after: float) -> None:
    """Kill one of the processes that compute, once they are there."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        busy = [
            p
            for p in psutil.Process(parent).children(recursive=True)
            if sum(p.cpu_times()[:2]) > after
        ]
        if busy:
            busy[-1].send_signal(signal.SIGKILL)
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(
    pyramid: Any, model: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out.zarr"
    run = predict(pyramid, model, cpu(workers=2), out)
    killer = threading.Thread(target=kill_a_worker, args=(os.getpid(), 2.0))
    killer.start()
    check(run, out, whole)
    killer.join()


@pytest.mark.slow
def test_what_a_worker_refuses_is_said_here(
    pyramid: Any, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    run = predict(pyramid, model, cpu(workers=2), out)
    other = build_model(run._model_config)
    shutil.rmtree(model)
    save_model(other, model)
    with pytest.raises(CheckpointError, match="is not the model that this prediction"):
        list(run)
    assert not (out / ".muvit" / "lock").exists()


def test_a_stop_ends_the_workers(pyramid: Any, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    run = predict(pyramid, model, cpu(workers=2), out, should_stop=lambda: True)
    assert list(run) == []
    assert run.stopped
    # The next run is not stopped by it.
    assert predict(pyramid, model, cpu(workers=2), out).finished_before is False


def test_workers_need_folders(pyramid: Any, model: Path, tmp_path: Path) -> None:
    from napari_muvit.core import load_model

    with pytest.raises(ConfigError, match="need an output folder"):
        predict(pyramid, model, cpu(workers=2))
    with pytest.raises(ConfigError, match="need the folder of a model"):
        predict(pyramid, load_model(model), cpu(workers=2), tmp_path / "out.zarr")
    # It was made before the workers were looked for.
    assert not (tmp_path / "out.zarr").exists()
    with pytest.raises(ConfigError, match="exclude each other"):
        cpu(workers=2, shard=(0, 2))
    with pytest.raises(ConfigError, match="counted from 0"):
        cpu(shard=(2, 2))


def test_shards_in_any_order_write_the_bytes_of_one(
    pyramid: Any, model: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out, done = tmp_path / "out.zarr", []
    for shard in (2, 0, 1):
        run = predict(pyramid, model, cpu(shard=(shard, 3)), out)
        done += [tile.index for tile in run]
    assert sorted(done) == list(range(88))
    assert chunks_of(out) == whole
    assert predict(pyramid, model, cpu(shard=(1, 3)), out).finished_before


def test_a_plain_run_takes_over_what_shards_left(
    pyramid: Any, model: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(shard=(0, 2)), out))
    run = predict(pyramid, model, cpu(shard=(1, 2)), out)
    with pytest.raises(OutputError, match="being written"):
        predict(pyramid, model, cpu(), out)
    with pytest.raises(OutputError, match="being written"):
        predict(pyramid, model, cpu(shard=(1, 2)), out)
    tiles = iter(run)
    next(tiles)
    run.stop()
    list(tiles)
    rest = predict(pyramid, model, cpu(), out)
    with pytest.raises(OutputError, match="being written"):
        predict(pyramid, model, cpu(shard=(1, 2)), out)
    assert 0 < len(list(rest)) < 44
    assert chunks_of(out) == whole


def test_coarse_levels_are_made_although_the_last_shard_was_killed(
    pyramid: Any,
    model: Path,
    tmp_path: Path,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(shard=(0, 2)), out))
    monkeypatch.setattr(ShardWriter, "close", lambda self: None)
    last = predict(pyramid, model, cpu(shard=(1, 2)), out)
    list(last)
    monkeypatch.undo()
    last._target._lock.release()
    assert chunks_of(out) != whole
    assert predict(pyramid, model, cpu(), out).finished_before
    assert chunks_of(out) == whole


def test_a_part_that_is_run_again_keeps_nobody_from_beginning(
    pyramid: Any,
    model: Path,
    tmp_path: Path,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(shard=(0, 2)), out))
    with monkeypatch.context() as patch:
        # Who makes coarse levels holds the lock of all parts.
        patch.delattr(writer.LabelWriter, "begin")
        assert predict(pyramid, model, cpu(shard=(0, 2)), out).finished_before
    list(predict(pyramid, model, cpu(shard=(1, 2)), out))
    assert chunks_of(out) == whole
    assert predict(pyramid, model, cpu(shard=(0, 2)), out).finished_before


def test_a_score_that_is_stored_meanwhile_keeps_no_part_from_ending(
    pyramid: Any, model: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(shard=(0, 2)), out))
    last = predict(pyramid, model, cpu(shard=(1, 2)), out)
    assert read_seams(out) is None
    add_seams(out, {"near": 0.5})
    assert read_seams(out) == {"near": 0.5}
    list(last)
    assert chunks_of(out) == whole
    assert read_seams(out) is None


def test_of_two_parts_that_end_at_once_one_makes_the_coarse_levels(
    pyramid: Any,
    model: Path,
    tmp_path: Path,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(shard=(0, 2)), out))
    seen = []

    def ending(store: Path) -> None:
        # The other one is still there at the first look, and goes away believing that
        # this one is at it.
        seen.append(store)
        if len(seen) == 1:
            raise OutputBusyError("It is being written by the other part.")

    monkeypatch.setattr(writer, "check_no_shard", ending)
    list(predict(pyramid, model, cpu(shard=(1, 2)), out))
    assert len(seen) == 2
    assert chunks_of(out) == whole


@pytest.fixture
def scheduler() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as local,
    ):
        yield local


@pytest.mark.slow
def test_a_dask_cluster_one_of_whose_workers_is_killed(
    pyramid: Any, model: Path, tmp_path: Path, whole: dict[str, bytes], scheduler: Any
) -> None:
    out = tmp_path / "out.zarr"
    config = cpu(scheduler=scheduler.scheduler_address)
    run = predict(pyramid, model, config, out)
    tiles = []
    for tile in run:
        if not tiles:
            victim = next(iter(scheduler.workers.values()))
            os.kill(victim.pid, signal.SIGKILL)
        tiles.append(tile.index)
    assert sorted(tiles) == list(range(88))
    assert chunks_of(out) == whole


def test_a_scheduler_that_does_not_answer(
    pyramid: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(crew, "ANSWER_SECONDS", 0.5)
    config = cpu(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(MuvitError, match="No dask scheduler answers"):
        predict(pyramid, model, config, tmp_path / "out.zarr")


@pytest.mark.slow
def test_a_scheduler_that_is_lost_is_said_and_the_next_run_goes_on(
    pyramid: Any, model: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    pytest.importorskip("distributed")
    out, file = tmp_path / "out.zarr", tmp_path / "scheduler.json"
    quiet: dict[str, Any] = {
        "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
    }  # fmt: skip
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *common]
    scheduler = subprocess.Popen(
        [*command, "--port", "0", "--host", "127.0.0.1"], **quiet
    )
    command = [sys.executable, "-m", "distributed.cli.dask_worker", *common]
    worker = subprocess.Popen([*command, "--nthreads", "1", "--no-nanny"], **quiet)
    try:
        address = wait_for_workers(file)
        run = predict(pyramid, model, cpu(scheduler=address), out)
        tiles = iter(run)
        done = [next(tiles).index]
        scheduler.kill()
        begun = time.monotonic()
        with pytest.raises(MuvitError, match="The dask scheduler is lost"):
            done.extend(tile.index for tile in tiles)
        assert time.monotonic() - begun < 60
    finally:
        scheduler.kill()
        worker.kill()
        scheduler.wait()
        worker.wait()
    assert {p.name for p in (out / ".muvit").iterdir()} == {"run.json", "done"}
    rest = [tile.index for tile in predict(pyramid, model, cpu(), out)]
    assert rest
    assert sorted({*done, *rest}) == list(range(88))
    assert chunks_of(out) == whole


def wait_for_workers(file: Path) -> str:
    """The address of a dask scheduler that has a worker."""
    from distributed import Client

    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.1)
    with Client(scheduler_file=str(file), set_as_default=False) as client:
        client.wait_for_workers(1, timeout=120)
        return str(client.scheduler.address)


def test_a_worker_leaves_when_its_run_has_lost_the_output(
    pyramid: Any, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    run = predict(pyramid, model, cpu(), out)
    job = BlockJob(
        run._pyramid, (str(model),), hash_models(run._models), run.normalisation,
        cpu(), str(out), run._writer.lock_text, (0, 1),
    )  # fmt: skip
    assert run_block(job).tiles
    # What a task of a lost cluster finds, whose run was followed by another one.
    run.close()
    with predict(pyramid, model, cpu(), out):
        result = run_block(job)
    assert result.stopped
    assert not result.tiles
