"""Several layers as the channels of one slide."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image, Layer

from napari_muvit._layer_groups import (
    channel_candidates,
    channel_title,
    layers_pyramid,
    same_file,
)
from napari_muvit._reader import read_slides
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import PyramidError
from napari_muvit.core.geometry import Box

PLACE: dict[str, Any] = {"scale": (0.5, 0.5), "translate": (3, 4), "units": "um"}
BOX = Box((10, 20), (42, 52))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def grey(pixels: Any, name: str = "a", **place: Any) -> Image:
    return Image(pixels, name=name, **{**PLACE, **place})


def read(pyramid: Any) -> np.ndarray:
    return np.asarray(pyramid.read(BOX, 1, (32, 32)))


@pytest.mark.parametrize("kind", ["numpy", "zarr", "dask"])
def test_layers_of_any_array_become_channels_in_order(kind: str) -> None:
    pixels = [noise(80, 90, seed=k) for k in range(3)]
    arrays: list[Any] = list(pixels)
    if kind == "zarr":
        arrays = [zarr.array(p, chunks=(32, 32)) for p in pixels]
    if kind == "dask":
        arrays = [da.from_array(p, chunks=(32, 32)) for p in pixels]
    layers = [grey(a, name=f"slide: {n}") for a, n in zip(arrays, "xyz", strict=True)]
    pyramid = layers_pyramid([layers[2], layers[0]])
    assert pyramid.num_channels == 2
    assert pyramid.channel_names == ("z", "x")
    assert pyramid.pixel_size == pytest.approx((0.5, 0.5))
    wanted = np.stack([pixels[2], pixels[0]])[:, 10:42, 20:52]
    np.testing.assert_array_equal(read(pyramid), wanted)
    one = layers_pyramid(layers, channels=[1])
    np.testing.assert_array_equal(read(one)[0], pixels[1][10:42, 20:52])
    # Training and prediction run in a process of their own.
    again = pickle.loads(pickle.dumps(pyramid))
    np.testing.assert_array_equal(read(again), wanted)


def test_pyramids_are_joined_level_by_level() -> None:
    fine = [noise(128, 128, seed=k) for k in range(2)]
    layers = [grey([p, p[::4, ::4]], name=str(k)) for k, p in enumerate(fine)]
    pyramid = layers_pyramid(layers)
    assert pyramid.scale_factors == (1, 4)
    got = pyramid.read(Box((0, 0), (128, 128)), 4, (32, 32))
    np.testing.assert_array_equal(got, [p[::4, ::4] for p in fine])


def test_channels_of_a_file_stay_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    pixels = noise(3, 80, 90)
    write_pyramid(path, pixels, channel_names=["x", "y", "z"], pixel_size=0.5)
    layers = [Layer.create(*data) for data in read_slides(str(path))]
    for layer in layers:
        assert isinstance(layer, Image)
    pyramid = layers_pyramid([layers[2], layers[0]])  # type: ignore[list-item]
    assert pyramid.path == path
    assert pyramid.name == "a"
    assert pyramid.levels[0].source.channels == (2, 0)
    wanted = open_pyramid(path, channels=["z", "x"])
    np.testing.assert_array_equal(read(pyramid), read(wanted))


def test_candidates_have_the_same_pixels_at_the_same_place(tmp_path: Path) -> None:
    image = grey(noise(80, 90), name="slide: DAPI")
    fits = grey(noise(80, 90).astype(np.uint16), name="slide: actin")
    others = [
        grey(noise(80, 91)),
        grey(noise(80, 90), scale=(0.5, 0.6)),
        grey(noise(80, 90), translate=(3, 9)),
        grey(noise(80, 90), units="nm"),
        grey(noise(80, 90), rotate=10),
        grey([noise(80, 90), noise(40, 45)]),
        Image(noise(80, 90, 3), rgb=True, **PLACE),
    ]
    layers = [fits, *others, image]
    assert channel_candidates(image, layers) == [fits, image]
    assert channel_candidates(others[-1], layers) == [others[-1]]
    assert channel_title(fits) == "actin"
    assert same_file(image, [fits, image]) == []  # in memory
    with pytest.raises(PyramidError, match="Untick"):
        layers_pyramid([image, others[0]])


def test_layers_of_one_file_are_found(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.zarr", noise(2, 80, 90), channel_names=["x", "y"])
    write_pyramid(tmp_path / "b.zarr", noise(80, 90))
    paths = [str(tmp_path / n) for n in ("a.zarr", "b.zarr")]
    layers: list[Any] = [Layer.create(*data) for data in read_slides(paths)]
    candidates = channel_candidates(layers[0], layers)
    assert candidates == layers
    assert same_file(layers[0], candidates) == layers[:2]
    assert layers_pyramid(layers).path is None  # no one file


def test_a_plane_of_stacks() -> None:
    pixels = [noise(4, 80, 90, seed=k) for k in range(2)]
    layers = [Image(p, name=str(k)) for k, p in enumerate(pixels)]
    pyramid = layers_pyramid(layers, point=(2, 0, 0))
    wanted = [p[2, 10:42, 20:52] for p in pixels]
    np.testing.assert_array_equal(read(pyramid), wanted)
    assert "2" in pyramid.note


def test_the_pixel_size_can_be_said() -> None:
    layer = Image(noise(80, 90))
    assert layers_pyramid([layer]).pixel_size is None
    assert layers_pyramid([layer], pixel_size=0.25).pixel_size == (0.25, 0.25)
    np.testing.assert_allclose(layer.scale, 1)
    with pytest.raises(PyramidError, match="pixel size"):
        layers_pyramid([layer], pixel_size=-1)


def test_some_colours_of_rgb() -> None:
    layer = Image(noise(80, 90, 3), rgb=True)
    pyramid = layers_pyramid([layer], channels=[1])
    assert pyramid.num_channels == 1
    assert not pyramid.rgb
