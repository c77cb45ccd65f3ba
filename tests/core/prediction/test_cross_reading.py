"""Others read what we write: valid, and in its place over the image at every level."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr_models import v05 as models

from napari_muvit.core import open_pyramid
from napari_muvit.core.config import PredictionConfig
from napari_muvit.core.data.ome_zarr import write_pyramid
from napari_muvit.core.prediction import predict

Build = Callable[..., Any]
NAMES = ("background", "gland", "stroma", "fold")
Case = tuple[tuple[int, int], dict[str, Any], dict[str, Any], dict[str, Any]]
CASES: dict[str, Case] = {
    # Shape; of the image; of the model; said by the user.
    "odd": ((1001, 777), {"pixel_size": 0.5}, {}, {}),
    "thin": ((9, 900), {"pixel_size": (0.5, 0.25)}, {}, {}),
    "a row more": (
        (513, 512), {"pixel_size": 0.5, "translation": (10.0, -20.5)}, {}, {},
    ),
    "no pixel size": ((700, 900), {}, {}, {}),
    "zoom": (
        (1001, 777),
        {"pixel_size": 0.5, "translation": (3.25, 4.0)},
        {"pixel_size": 0.8},
        {},
    ),
    "nanometres": (
        (777, 513),
        {"pixel_size": 250.0, "translation": (5e2, 1e3), "unit": "nanometer"},
        {"pixel_size": 0.25},
        {},
    ),
    "stated": ((513, 900), {"pixel_size": 0.5}, {}, {"pixel_size": 0.3}),
}  # fmt: skip


@pytest.fixture(params=CASES, ids=str)
def written(
    request: pytest.FixtureRequest, identity_model: Build, tmp_path: Path
) -> tuple[Path, Path]:
    """An image and its prediction."""
    shape, of_image, of_model, stated = CASES[request.param]
    image, out = tmp_path / "image.zarr", tmp_path / "labels.zarr"
    blocks = np.random.default_rng(0).integers(0, 4, [-(-n // 16) for n in shape])
    values = np.kron(blocks.astype(np.uint8), np.ones((16, 16), np.uint8))
    write_pyramid(image, values[: shape[0], : shape[1]], smallest=128, **of_image)
    model = identity_model(scale_factors=(1,), class_names=NAMES, **of_model)
    config = PredictionConfig(tile_size=128, device="cpu", num_threads=1, overlap=0.0)
    list(predict(open_pyramid(image, **stated), model, config, out))
    return image, out


def ome(path: Path) -> Any:
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]


def grids(path: Path) -> list[np.ndarray]:
    """(2, 2): scale and translation of each level."""
    found = []
    for dataset in ome(path)["multiscales"][0]["datasets"]:
        scale, translation = dataset["coordinateTransformations"]
        found.append(np.array([scale["scale"], translation["translation"]]))
    return found


def test_each_level_lies_over_that_of_the_image(
    written: tuple[Path, Path], request: pytest.FixtureRequest
) -> None:
    image, out = written
    stated = CASES[request.node.callspec.params["written"]][3]
    theirs, ours = grids(image), grids(out)
    axes = [ome(path)["multiscales"][0]["axes"] for path in (image, out)]
    assert axes[0] == axes[1]
    if stated:
        assert ours[0].tolist() == [[0.3, 0.3], [0.0, 0.0]]
    else:
        np.testing.assert_array_equal(ours, theirs[: len(ours)])
    for k, (scale, place) in enumerate(ours):
        shape = zarr.open_array(out / str(k), mode="r").shape
        assert shape == zarr.open_array(image / str(k), mode="r").shape
        # A pixel is over the 2**k x 2**k finest ones from which it comes.
        edge = ours[0][1] - ours[0][0] / 2
        np.testing.assert_allclose(place - scale / 2, edge)
        np.testing.assert_allclose(scale, ours[0][0] * 2**k)


def test_the_pixels_of_each_level_show_what_is_there(
    written: tuple[Path, Path], request: pytest.FixtureRequest
) -> None:
    image, out = written
    if CASES[request.node.callspec.params["written"]][2].get("pixel_size") == 0.8:
        pytest.skip("a model at another pixel size blurs the edges of the blocks")
    values = np.asarray(zarr.open_array(image / "0", mode="r")[:])
    for k in range(len(grids(out))):
        labels = zarr.open_array(out / str(k), mode="r")[:]
        # Blocks of 16 px: a pixel of a few of them lies in one.
        np.testing.assert_array_equal(labels, values[:: 2**k, :: 2**k] + 1)


def test_another_package_finds_it_valid_and_reads_colours_and_names(
    written: tuple[Path, Path],
) -> None:
    image, out = written
    models.Image.from_zarr(zarr.open_group(image, mode="r"))
    label = models.ImageLabel.from_zarr(zarr.open_group(out, mode="r"))
    read = label.attributes.ome
    assert read.version == "0.5"
    grid = [
        [list(t.scale if t.type == "scale" else t.translation) for t in transforms]
        for transforms in (
            d.coordinateTransformations for d in read.multiscales[0].datasets
        )
    ]
    np.testing.assert_array_equal(grid, grids(out))
    colors = {color.label_value: color.rgba for color in read.image_label.colors}
    assert colors.keys() == {1, 2, 3, 4}
    assert all(rgba is not None and rgba[3] == 255 for rgba in colors.values())
    found = {p.label_value: p.model_dump() for p in read.image_label.properties}
    assert [found[k]["class"] for k in (1, 2, 3, 4)] == list(NAMES)


def test_an_image_with_a_scale_but_no_unit_keeps_its_labels(
    identity_model: Build, tmp_path: Path
) -> None:
    image, out = tmp_path / "image.zarr", tmp_path / "labels.zarr"
    values = np.zeros((600, 300), np.uint8)
    write_pyramid(image, values, pixel_size=0.5, translation=(7.0, 9.0))
    content = json.loads((image / "zarr.json").read_text())
    for axis in content["attributes"]["ome"]["multiscales"][0]["axes"]:
        del axis["unit"]
    (image / "zarr.json").write_text(json.dumps(content))
    config = PredictionConfig(tile_size=128, device="cpu", num_threads=1)
    list(predict(open_pyramid(image), identity_model(scale_factors=(1,)), config, out))
    assert open_pyramid(image).pixel_size is None
    assert ome(out)["multiscales"][0]["axes"] == ome(image)["multiscales"][0]["axes"]
    np.testing.assert_array_equal(grids(out), grids(image)[: len(grids(out))])
