"""A picture of any image in a few pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_muvit.core.export import thumbnail as thumbnail_module
from napari_muvit.core.export.thumbnail import Thumbnail, image_below


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("block", [(1, 1), (7, 13), (40, 60)])
def test_it_does_not_depend_on_the_blocks(monkeypatch, block) -> None:
    monkeypatch.setattr(thumbnail_module, "EDGE", 16)
    labels = np.random.default_rng(0).integers(0, 4, (39, 58)).astype(np.uint8)
    picture = Thumbnail(labels.shape)
    for top in range(0, 39, block[0]):
        for left in range(0, 58, block[1]):
            part = labels[top : top + block[0], left : left + block[1]]
            picture.see(part, top, left)
    assert picture.labels.shape == (10, 15)
    rows = np.minimum(np.arange(0, 39, 4) + 2, 38)
    columns = np.minimum(np.arange(0, 58, 4) + 2, 57)
    np.testing.assert_array_equal(picture.labels, labels[np.ix_(rows, columns)])


def test_colours_lie_over_the_image() -> None:
    picture = Thumbnail((2, 2))
    picture.see(np.array([[0, 1], [2, 1]], dtype=np.uint8), 0, 0)
    found = pixels(picture.png({1: "#ff0000"}))
    assert found.tolist() == [[[255] * 3, [255, 0, 0]], [[255] * 3, [255, 0, 0]]]
    below = np.full((2, 2, 3), 100, dtype=np.uint8)
    found = pixels(picture.png({1: "#ff0000"}, below))
    assert found.tolist() == [[[100] * 3, [178, 50, 50]], [[100] * 3, [178, 50, 50]]]


def record(path: Path | str) -> dict[str, object]:
    return {"image": {"path": str(path)}}


def test_the_image_is_shown_where_it_is_there(tmp_path: Path, monkeypatch) -> None:
    image = np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000
    tifffile.imwrite(tmp_path / "a.tif", image)
    below, note = image_below(record(tmp_path / "a.tif"), (4, 6), (4, 6))
    assert note == ""
    assert below is not None
    assert (np.diff(below[..., 0].ravel().astype(int)) >= 0).all()
    assert (below.min(), below.max()) == (0, 255)
    colors = np.random.default_rng(0).integers(0, 255, (4, 6, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", colors, photometric="rgb")
    below, _ = image_below(record(tmp_path / "b.tif"), (4, 6), (4, 6))
    np.testing.assert_array_equal(below, colors)
    for path, shape, why in [
        (tmp_path / "gone.tif", (4, 6), "is not there"),
        (tmp_path / "a.tif", (5, 6), "other pixels"),
    ]:
        below, note = image_below(record(path), shape, (4, 6))
        assert below is None
        assert why in note
    monkeypatch.setattr(thumbnail_module, "MOST_PIXELS", 5)
    assert (
        "no coarse level" in image_below(record(tmp_path / "a.tif"), (4, 6), (4, 6))[1]
    )
    (tmp_path / "c.tif").write_text("no picture")
    assert "not shown" in image_below(record(tmp_path / "c.tif"), (4, 6), (4, 6))[1]
    assert image_below({}, (4, 6), (4, 6)) == (None, "")
    assert image_below(record("https://a.b/c.zarr"), (4, 6), (4, 6)) == (None, "")
