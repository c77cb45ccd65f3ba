"""What would be gone on with, as a form says it: the truth is what `predict` does."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_muvit.core.config import PredictionConfig
from napari_muvit.core.errors import OutputError
from napari_muvit.core.prediction import predict
from napari_muvit.core.prediction.begun import find_begun

Build = Callable[..., Any]
CONFIG = PredictionConfig(tile_size=128, device="cpu", batch_size=4, num_threads=1)


def paths(folder: Path) -> Any:
    return (folder / f"out_{n}.zarr" for n in itertools.count())


@pytest.fixture
def begun(tiny_model: Build, zarr_slide: Build, tmp_path: Path) -> tuple[Any, Path]:
    pyramid, model = zarr_slide((300, 300)), tiny_model()
    run = predict(pyramid, model, CONFIG, out=tmp_path / "out_0.zarr")
    next(iter(run))
    run.stop()
    run.close()
    return pyramid, model


def test_a_begun_output_is_found(begun: tuple[Any, Path], tmp_path: Path) -> None:
    pyramid, model = begun
    found = find_begun(paths(tmp_path), pyramid, model.name, CONFIG)
    assert found is not None
    assert found.path == tmp_path / "out_0.zarr"
    assert 1 <= found.done < 9
    assert found.total == 9
    # A region does not matter: the tiles are the same.
    part = dataclasses.replace(CONFIG, region=(0, 0, 9, 9), batch_size=2)
    assert find_begun(paths(tmp_path), pyramid, model.name, part) == found


@pytest.mark.parametrize(
    "change", [{"overlap": 0.5}, {"average": "flips"}, {"outputs": ("confidence",)}]
)
def test_it_agrees_with_predict(
    begun: tuple[Any, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    pyramid, model = begun
    other = dataclasses.replace(CONFIG, **change)
    assert find_begun(paths(tmp_path), pyramid, model.name, other) is None
    with pytest.raises(OutputError):
        predict(pyramid, model, other, out=tmp_path / "out_0.zarr")


def test_other_slides_models_and_places(
    begun: tuple[Any, Path], tmp_path: Path, slide: Build
) -> None:
    pyramid, model = begun
    assert find_begun(paths(tmp_path), slide((300, 300)), model.name, CONFIG) is None
    assert find_begun(paths(tmp_path), pyramid, "another", CONFIG) is None
    assert find_begun(paths(tmp_path / "new"), pyramid, model.name, CONFIG) is None
    # The first free place ends the search: that is where it would begin anew.
    (tmp_path / "out_0.zarr").rename(tmp_path / "out_1.zarr")
    assert find_begun(paths(tmp_path), pyramid, model.name, CONFIG) is None
    (tmp_path / "out_0.zarr").mkdir()
    found = find_begun(paths(tmp_path), pyramid, model.name, CONFIG)
    assert found is not None
    assert found.path == tmp_path / "out_1.zarr"
