"""What a label image says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_muvit.core.config import DEFAULT_COLORS
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import AnnotationError, ConfigError, ImageNotFoundError
from napari_muvit.core.export.config import ExportConfig
from napari_muvit.core.export.source import open_labels

LABELS = np.array([[0, 1, 2], [3, 3, 1]], dtype=np.uint8)


def store(path: Path, **options) -> Path:
    write_pyramid(path, LABELS, labels=True, **options)
    return path


def test_names_colours_and_size_of_a_prediction(tmp_path: Path) -> None:
    path = store(
        tmp_path / "p.zarr", class_names=["glass", "Background", "gland"],
        class_colors=["#010203", "#040506", "#070809"], pixel_size=(0.5, 0.25),
    )  # fmt: skip
    source = open_labels(path)
    assert (source.name, source.shape) == ("p", (2, 3))
    assert source.pixel_size == (0.5, 0.25)
    assert [source.class_name(k) for k in (1, 2, 3, 4)] == [
        "glass", "Background", "gland", "class 4",
    ]  # fmt: skip
    assert source.color(3) == "#070809"
    assert source.background == 2
    assert {1, 3, 255} <= source.chosen(None)
    assert 2 not in source.chosen(None)
    assert source.chosen(("GLAND", " 2")) == {2, 3}
    assert source.notes == ()
    with pytest.raises(ConfigError, match="choose from glass, Background, gland"):
        source.chosen(("liver",))
    private = path / ".muvit"
    private.mkdir()
    run = {"class_names": ["a", "b", "c"], "background": 1, "image": {"path": "x"}}
    (private / "run.json").write_text(json.dumps(run))
    (private / "done").write_bytes(b"\x01\x00\x02\x00")
    source = open_labels(path)
    assert (source.class_name(1), source.background) == ("a", 1)
    assert source.record["image"] == {"path": "x"}
    assert source.notes == (
        "2 of 4 tiles of p are predicted; what is not counts as nothing.",
    )


def test_a_label_image_inside_of_a_file(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.zarr", LABELS)
    cells = tmp_path / "a.zarr" / "labels" / "cells"
    store(cells, class_names=["background", "cell", "dead"])
    group = {"attributes": {"ome": {"version": "0.5", "labels": ["cells"]}},
             "zarr_format": 3, "node_type": "group"}  # fmt: skip
    (cells.parent / "zarr.json").write_text(json.dumps(group))
    source = open_labels(tmp_path / "a.zarr", image="labels/cells")
    assert source.class_name(2) == "cell"
    assert source.background == 1


def test_a_plain_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(np.int32))
    source = open_labels(tmp_path / "a.tif")
    assert source.pixel_size is None
    assert "areas and limits are in pixels" in source.notes[-1]
    assert source.class_name(2) == "class 2"
    assert source.color(1) == DEFAULT_COLORS[0]
    assert source.chosen(("class 3", "1")) == {1, 3}
    block = source.read((0, 1), (2, 3))
    assert block.dtype == np.uint8
    np.testing.assert_array_equal(block, LABELS[:, 1:])
    assert open_labels(tmp_path / "a.tif", pixel_size=2.0).pixel_size == (2.0, 2.0)
    assert open_labels(LABELS).shape == (2, 3)


def test_what_is_no_label_image(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="3 channels"):
        open_labels(np.zeros((5, 6, 3), dtype=np.uint8))
    with pytest.raises(AnnotationError, match="float32"):
        open_labels(np.zeros((4, 5), dtype=np.float32))
    with pytest.raises(AnnotationError, match=r"holds the value 300.*single objects"):
        open_labels(np.full((4, 5), 300)).read((0, 0), (4, 5))
    with pytest.raises(AnnotationError, match="holds the value -1"):
        open_labels(np.full((4, 5), -1)).read((0, 0), (4, 5))
    with pytest.raises(ImageNotFoundError):
        open_labels(tmp_path / "nothing.zarr")


def test_limits_in_pixels() -> None:
    assert ExportConfig().pixels(0.25) == (1, 0)
    # Smaller than 5 um2 is left out or filled; 20 pixels are not smaller.
    config = ExportConfig(min_object=5.0, min_hole=5.0)
    assert config.pixels(0.25) == (20, 19)
    assert ExportConfig(min_object=0.3, min_hole=0.3).pixels(0.1) == (3, 2)
    assert ExportConfig(min_object=2.5, min_hole=2.5).pixels(1.0) == (3, 2)
    for name in ("min_object", "min_hole", "simplify"):
        for value in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ConfigError, match=name):
                ExportConfig(**{name: value})
    with pytest.raises(ConfigError, match="No class"):
        ExportConfig(classes=(" ",))
