"""Label images with pixels of their own lie where their file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_muvit.core.data.label_placement import labels_upon
from napari_muvit.core.data.open import open_labels, open_pyramid
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.geometry import Box

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def labels_of(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, shape, dtype=np.uint8)


def test_of_the_same_shape_pixel_upon_pixel() -> None:
    values = labels_of((9, 7))
    marks = labels_upon(open_pyramid(values), open_pyramid(values))
    got = marks.rasterise(Box.from_shape((9, 7)), (9, 7))
    np.testing.assert_array_equal(got, values)


def test_finer_labels_of_a_rounded_shape() -> None:
    # 275 x 271 labels of an image at factor 4, whose shape was rounded down.
    values = labels_of((275, 271))
    labels = open_pyramid(values, pixel_size=0.36)
    image = open_pyramid(np.zeros((68, 67), np.uint8), pixel_size=1.44)
    marks = labels_upon(labels, image)
    got = marks.rasterise(Box.from_shape((68, 67)), (272, 268))
    np.testing.assert_array_equal(got, values[:272, :268])


def test_places_of_the_files_count(tmp_path: Path) -> None:
    values = labels_of((40, 40))
    # Blocks of 4: the centre of a coarse pixel lies 1.5 fine ones from that of pixel 0.
    write_pyramid(tmp_path / "l.zarr", values, labels=True, pixel_size=1.0,
                  translation=(100.0, 50.0))  # fmt: skip
    write_pyramid(tmp_path / "i.zarr", np.zeros((10, 10), np.uint8), pixel_size=4.0,
                  translation=(101.5, 51.5))  # fmt: skip
    marks = labels_upon(
        open_pyramid(tmp_path / "l.zarr"), open_pyramid(tmp_path / "i.zarr")
    )
    got = marks.rasterise(Box.from_shape((10, 10)), (40, 40))
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize(
    ("shape", "size", "image_size"),
    [((20, 20), None, 1.0), ((20, 20), 1.0, None), ((20, 20), 1.0, 1.0),
     ((40, 40), 0.25, 1.0), ((44, 40), 0.5, 1.0)],
    ids=str,
)  # fmt: skip
def test_another_field_is_refused(
    shape: tuple[int, int], size: float | None, image_size: float | None
) -> None:
    labels = open_pyramid(labels_of(shape), pixel_size=size)
    image = open_pyramid(np.zeros((21, 23), np.uint8), pixel_size=image_size)
    with pytest.raises(AnnotationError, match="same shape is needed, or"):
        labels_upon(labels, image)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real files are not here")
def test_a_real_image_whose_labels_are_four_times_finer() -> None:
    path = DATA / "omezarr" / "6001240_labels_v0.5.zarr"
    image = open_pyramid(path, channels=["Dapi"], planes={"z": 118})
    labels = open_labels(path / "labels" / "0", image)
    marks = labels_upon(labels, image, zero_is_background=True)
    found = marks.rasterise(Box.from_shape(image.shape), image.shape)
    pixels = image.read(Box.from_shape(image.shape), 1, image.shape)[0]
    # Nuclei are bright in DAPI, and less so wherever the labels are shifted.
    inside = pixels[found > 1].mean() - pixels[found == 1].mean()
    moved = [np.roll(found, shift, axis) for axis in (0, 1) for shift in (-3, 3)]
    assert inside > 0
    assert all(inside > pixels[m > 1].mean() - pixels[m == 1].mean() for m in moved)
