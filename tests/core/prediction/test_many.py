"""Many slides in one run: one crew, slides in order, and one that fails is not all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import zarr

from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import (
    ConfigError,
    ImageNotFoundError,
    MuvitError,
    OutputError,
    PyramidError,
)
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.prediction import predict, reader, workers
from napari_muvit.core.prediction.chain import SlideResult
from napari_muvit.core.prediction.crew import Crew
from napari_muvit.core.prediction.many import predict_many
from napari_muvit.core.progress import Progress

SHAPES = [(70, 300), (70, 100), (100, 70)]
"""Of the first one two blocks."""
TILES = [10, 4, 4]


def cpu(**changes: Any) -> PredictionConfig:
    values = {
        "tile_size": 64, "batch_size": 8, "device": "cpu", "num_threads": 1,
        "overlap": 0.5,
    }  # fmt: skip
    return PredictionConfig(**(values | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        decoder="pyramid", scale_factors=(1, 4), num_classes=3, crop_size=32,
        embed_dim=16, depth=1, num_heads=2, normalisation="percentile",
    )  # fmt: skip
    save_model(build_model(config), folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def slides(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for number, shape in enumerate(SHAPES):
        path = folder / f"slide{number}.zarr"
        array = zarr.create_array(path, shape=shape, chunks=(64, 64), dtype="uint8")
        array[:] = rng.integers(0, 255, shape, dtype=np.uint8)
        paths.append(path)
    return paths


@pytest.fixture
def outs(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"out{number}.zarr" for number in range(len(SHAPES))]


@pytest.fixture(scope="module")
def alone(slides: list[Path], model: Path, folder: Path) -> list[np.ndarray]:
    """The labels of each slide, done by itself."""
    found = []
    for number, path in enumerate(slides):
        out = folder / f"alone{number}.zarr"
        list(predict(path, model, cpu(), out))
        found.append(labels_of(out))
    return found


def labels_of(out: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(out / "0")[:])


class Crewman:
    """Stands in for processes: threads of this one, and what they were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int = 2) -> None:
        self.jobs: list[str] = []
        self.starts = self.closed = 0
        self.before: Callable[[Any], None] = lambda _job: None
        self._size = size
        monkeypatch.setattr(workers, "find_crew", lambda _config: self.crew())

    def crew(self) -> Crew:
        return Crew(self.start, self._size, self.close)

    def close(self) -> None:
        self.closed += 1

    def start(self) -> Executor:
        self.starts += 1
        crewman = self

        class Pool(ThreadPoolExecutor):
            def submit(self, run: Any, job: Any) -> Future[Any]:  # type: ignore[override]
                crewman.jobs.append(Path(job.out).stem)

                def do() -> Any:
                    crewman.before(job)
                    return run(job)

                return super().submit(do)

        return Pool(self._size)


@pytest.fixture
def crewman(monkeypatch: pytest.MonkeyPatch) -> Crewman:
    # One thread: the model's weights are shared, and its hooks are of one run.
    return Crewman(monkeypatch, 1)


def check(
    results: list[SlideResult], outs: list[Path], alone: list[np.ndarray]
) -> None:
    assert [result.out for result in results] == outs
    assert [result.name for result in results] == ["slide0", "slide1", "slide2"]
    assert [result.error for result in results] == [None] * 3
    assert [result.tiles for result in results] == TILES
    for out, wanted in zip(outs, alone, strict=True):
        np.testing.assert_array_equal(labels_of(out), wanted)
        assert not (out / ".muvit" / "lock").exists()


def test_processes_are_let_go_whatever_comes_of_a_run(
    slides: list[Path], model: Path, tmp_path: Path, crewman: Crewman
) -> None:
    out = tmp_path / "out.zarr"
    out.mkdir()
    with pytest.raises(OutputError, match="is not a prediction"):
        predict(slides[0], model, cpu(workers=2), out)
    assert crewman.closed == 1
    out.rmdir()
    with predict(slides[0], model, cpu(workers=2), out):
        pass
    assert crewman.closed == 2
    assert crewman.starts == 0


def test_one_after_the_other(
    slides: list[Path], model: Path, outs: list[Path], alone: list[np.ndarray]
) -> None:
    heard: list[Progress] = []
    opened: list[Any] = []

    def open_slide(path: Any) -> Any:
        opened.append((path, len(heard)))
        return open_pyramid(path)

    results = list(
        predict_many(
            slides, model, cpu(), outs, open_slide=open_slide, on_progress=heard.append
        )
    )
    check(results, outs, alone)
    assert [path for path, _ in opened] == slides
    # Not opened before it is its turn.
    assert opened[1][1] > TILES[0]
    subjects = [event.subject for event in heard]
    assert sorted(set(subjects)) == ["slide0", "slide1", "slide2"]
    again = list(predict_many(slides, model, cpu(), outs))
    assert all(result.finished_before for result in again)


def test_one_crew_does_all_and_goes_on_with_the_next_slide(
    slides: list[Path],
    model: Path,
    outs: list[Path],
    alone: list[np.ndarray],
    crewman: Crewman,
) -> None:
    heard: list[Progress] = []
    results = list(
        predict_many(slides, model, cpu(workers=2), outs, on_progress=heard.append)
    )
    check(results, outs, alone)
    assert (crewman.starts, crewman.closed) == (1, 1)
    assert list(dict.fromkeys(crewman.jobs)) == ["out0", "out1", "out2"]
    # Bars are of the first slide that is not finished.
    shown = [event.subject for event in heard if event.stage == "predict"]
    assert list(dict.fromkeys(shown)) == ["slide0", "slide1", "slide2"]
    assert shown == sorted(shown)


def test_the_next_slide_begins_while_the_last_block_of_one_is_at_work(
    slides: list[Path],
    model: Path,
    outs: list[Path],
    alone: list[np.ndarray],
    crewman: Crewman,
) -> None:
    begun = threading.Event()

    def hold_the_first(job: Any) -> None:
        # The first block waits until the second slide has been begun with.
        if Path(job.out).stem == "out0" and crewman.jobs.count("out0") == 2:
            deadline = time.monotonic() + 20
            while "out1" not in crewman.jobs and time.monotonic() < deadline:
                time.sleep(0.01)
            if "out1" in crewman.jobs:
                begun.set()

    crewman.before = hold_the_first
    results = list(predict_many(slides, model, cpu(workers=2), outs))
    check(results, outs, alone)
    assert begun.is_set()


def test_a_slide_that_is_slow_to_open_stalls_nobody(
    slides: list[Path],
    model: Path,
    outs: list[Path],
    alone: list[np.ndarray],
    crewman: Crewman,
) -> None:
    done = threading.Event()

    def open_slide(path: Any) -> Any:
        # The second slide opens when the first one is done as a whole.
        if path == slides[1]:
            assert done.wait(30)
        return open_pyramid(path)

    results = []
    for result in predict_many(
        slides, model, cpu(workers=2), outs, open_slide=open_slide
    ):
        results.append(result)
        done.set()
    check(results, outs, alone)


@pytest.mark.parametrize("several", [False, True])
def test_a_slide_that_fails_does_not_keep_the_others(
    slides: list[Path],
    model: Path,
    alone: list[np.ndarray],
    crewman: Crewman,
    several: bool,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"no image")
    rgb = tmp_path / "rgb.zarr"
    zarr.create_array(rgb, shape=(80, 80, 3), chunks=(64, 64, 3), dtype="uint8")
    taken = tmp_path / "taken.zarr"
    (taken / "somebody").mkdir(parents=True)
    sources = [broken, slides[0], rgb, slides[1], slides[2]]
    outs = [tmp_path / f"o{k}.zarr" for k in range(5)]
    outs[3] = taken
    config = cpu(workers=2 if several else 1)
    results = list(predict_many(sources, model, config, outs))
    assert [result.out for result in results] == outs
    kinds = [type(result.error) for result in results]
    assert kinds == [PyramidError, type(None), ConfigError, OutputError, type(None)]
    np.testing.assert_array_equal(labels_of(outs[1]), alone[0])
    np.testing.assert_array_equal(labels_of(outs[4]), alone[2])


def test_a_place_that_cannot_be_read_costs_its_tiles_only(
    slides: list[Path],
    model: Path,
    outs: list[Path],
    alone: list[np.ndarray],
    crewman: Crewman,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = reader.BatchReader._read

    def refuse(self: Any, crop: Any) -> Any:
        if self._pyramid.name == "slide0" and crop.window[1][0] > 220:
            raise PyramidError("slide0 is damaged.")
        return read(self, crop)

    monkeypatch.setattr(reader.BatchReader, "_read", refuse)
    results = list(predict_many(slides, model, cpu(workers=2), outs))
    assert isinstance(results[0].error, PyramidError)
    assert "tiles could not be read; the others are done" in str(results[0].error)
    assert 0 < results[0].tiles < TILES[0]
    assert [result.error for result in results[1:]] == [None, None]
    np.testing.assert_array_equal(labels_of(outs[2]), alone[2])


def test_an_output_that_fails_half_way_ends_its_slide_alone(
    slides: list[Path],
    model: Path,
    outs: list[Path],
    alone: list[np.ndarray],
    crewman: Crewman,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_muvit.core.prediction.worker import FinestWriter

    write = FinestWriter.write

    def refuse(self: Any, filled: Any) -> None:
        if self._out.stem == "out0":
            raise OutputError("The disk is full.")
        write(self, filled)

    monkeypatch.setattr(FinestWriter, "write", refuse)
    results = list(predict_many(slides, model, cpu(workers=2), outs))
    assert str(results[0].error) == "The disk is full."
    assert [result.error for result in results[1:]] == [None, None]
    np.testing.assert_array_equal(labels_of(outs[1]), alone[1])
    assert not (outs[0] / ".muvit" / "lock").exists()


@pytest.mark.parametrize("several", [False, True])
def test_a_stop_ends_all(
    slides: list[Path], model: Path, outs: list[Path], crewman: Crewman, several: bool
) -> None:
    stop = threading.Event()

    def hear(event: Progress) -> None:
        if event.subject == "slide0" and event.done > 0:
            stop.set()

    config = cpu(workers=2 if several else 1)
    results = list(
        predict_many(
            slides, model, config, outs, on_progress=hear, should_stop=stop.is_set
        )
    )
    assert results
    assert results[0].name == "slide0"
    assert all(result.stopped for result in results)
    for out in outs:
        assert not (out / ".muvit" / "lock").exists()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("muvit-prediction")]
    # What was stopped goes on.
    again = list(predict_many(slides, model, cpu(), outs))
    assert [result.error for result in again] == [None] * 3
    assert all((labels_of(out) > 0).all() for out in outs)


@pytest.mark.parametrize("workers_asked", [1, 2])
@pytest.mark.parametrize("at", ["slide0", "slide1"])
def test_a_stop_while_a_slide_is_opened_is_said(
    slides: list[Path], model: Path, outs: list[Path], crewman: Crewman,
    workers_asked: int, at: str,
) -> None:  # fmt: skip
    stop, first_done = threading.Event(), threading.Event()

    def open_slide(path: Any) -> Any:
        if Path(path).stem == at:
            if at == "slide1":
                assert first_done.wait(60)
            stop.set()
        return open_pyramid(path)

    def hear(event: Progress) -> None:
        if event.subject == "slide0" and event.done == event.total and event.done > 1:
            first_done.set()

    config = cpu(workers=workers_asked, tissue=True)
    results = list(
        predict_many(
            slides, model, config, outs, open_slide=open_slide, on_progress=hear,
            should_stop=stop.is_set,
        )
    )  # fmt: skip
    assert results[-1].stopped
    assert [result.name for result in results][:1] == ["slide0"]
    assert len(results) == 1 + (at == "slide1")
    assert not list(outs[0].parent.glob("out*/.muvit/lock"))


def test_what_concerns_all_slides_ends_the_run(
    slides: list[Path], model: Path, outs: list[Path], crewman: Crewman
) -> None:
    def fail(_job: Any) -> None:
        raise MuvitError("The scheduler is gone.")

    crewman.before = fail
    with pytest.raises(MuvitError, match="scheduler is gone"):
        list(predict_many(slides, model, cpu(workers=2), outs))
    assert crewman.closed == 1
    assert not list(outs[0].parent.glob("out*/.muvit/lock"))


def test_paths_and_outputs_are_checked_before_the_first_slide(
    slides: list[Path], model: Path, outs: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ImageNotFoundError, match="nowhere"):
        predict_many([*slides, tmp_path / "nowhere.tif"], model, cpu(), [*outs, "x"])
    with pytest.raises(ConfigError, match="same output"):
        predict_many(slides, model, cpu(), [outs[0], outs[1], outs[0]])
    with pytest.raises(ConfigError, match="3 slides and 2 outputs"):
        predict_many(slides, model, cpu(), outs[:2])
    network = build_model(ModelConfig(decoder="pyramid", num_classes=2, embed_dim=32))
    with pytest.raises(ConfigError, match="need the folder of a model"):
        predict_many(slides, network, cpu(workers=2), outs)
    assert not any(out.exists() for out in outs)


def open_files(suffix: str) -> int:
    return sum(suffix in file.path for file in psutil.Process().open_files())


@pytest.mark.slow
def test_slides_are_open_in_their_turn_only(
    model: Path, tmp_path: Path, crewman: Crewman
) -> None:
    import tifffile

    paths = []
    for number in range(12):
        paths.append(tmp_path / f"image{number:02}.tif")
        pixels = np.random.default_rng(number).integers(0, 255, (70, 90), np.uint8)
        tifffile.imwrite(paths[-1], pixels)
    outs = [path.with_suffix(".zarr") for path in paths]
    most = 0
    for result in predict_many(paths, model, cpu(workers=2), outs):
        assert result.error is None
        most = max(most, open_files("image"))
    assert most <= 6


@pytest.fixture
def real_crew() -> Iterator[None]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
    assert all("resource_tracker" in " ".join(c.cmdline()) or
               "forkserver" in " ".join(c.cmdline()) for c in left)  # fmt: skip


@pytest.mark.slow
def test_two_processes_do_several_slides(
    slides: list[Path],
    model: Path,
    outs: list[Path],
    alone: list[np.ndarray],
    real_crew: None,
) -> None:
    check(list(predict_many(slides, model, cpu(workers=2), outs)), outs, alone)
