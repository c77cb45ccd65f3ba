"""Annotations as label images, and back."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.annotations import (
    Annotations,
    BrushMask,
    Ellipse,
    Polygon,
    Rectangle,
    Region,
)
from napari_muvit.core.data.label_export import write_label_image
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import AnnotationError, Cancelled, OutputError
from napari_muvit.core.geometry import Box

MASK = np.random.default_rng(0).random((40, 60)) < 0.6
ITEMS = (
    Region(Rectangle(1, (20, 30), (400, 1100))),
    Ellipse(2, (300, 500), (150, 300), 20),
    Polygon(3, [(100, 1000), (640, 1150), (300, 700)]),
    BrushMask(2, MASK, (400, 100), (3, 4)),
    Rectangle(0, (250, 400), (60, 90)),
)
MARKS = Annotations(ITEMS, ("background", "a", "b"), ("#000000", "#ff0000", "#0000ff"))
SHAPE = (650, 1201)


def slide(shape=SHAPE, **more):
    return open_pyramid(np.zeros(shape, np.uint8), **more)


@pytest.mark.parametrize("suffix", ["zarr", "tif", "ome.tiff"])
@pytest.mark.parametrize("factor", [1, 4, 2.5])
def test_a_round_trip_is_exact(tmp_path, suffix, factor):
    image = slide(pixel_size=0.25)
    out = write_label_image(MARKS, image, tmp_path / f"a.{suffix}", factor=factor)
    back = Annotations.from_labels(out, scale=factor)
    shape = tuple(-(-n // factor) for n in SHAPE)
    shape = tuple(int(n) for n in shape)
    box = Box.from_shape(tuple(n * factor for n in shape))
    wanted = MARKS.rasterise(box, shape)
    assert set(np.unique(wanted)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(back.rasterise(box, shape), wanted)
    part = Box((100 * factor, 120 * factor), (132 * factor, 152 * factor))
    got = back.rasterise(part, (32, 32))
    np.testing.assert_array_equal(got, MARKS.rasterise(part, (32, 32)))
    opened = open_pyramid(out)
    assert opened.shape == shape
    np.testing.assert_allclose(opened.pixel_size, 0.25 * factor, rtol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    assert (back.class_names, back.class_colors) == (
        MARKS.class_names,
        MARKS.class_colors,
    )
    if suffix == "zarr":
        first = opened.translation
        np.testing.assert_allclose(first, 0.25 * (factor - 1) / 2)
    else:
        with tifffile.TiffFile(out) as file:
            assert file.pages[0].is_tiled


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([0.5, 1, 3]))
@settings(max_examples=25, deadline=None)
def test_any_size_and_factor(tmp_path_factory, height, width, factor):
    folder = tmp_path_factory.mktemp("l")
    marks = Annotations((Ellipse(7, (30, 20), (25, 12), 40),))
    image = slide((height, width))
    for name in ("a.zarr", "a.tif"):
        out = write_label_image(marks, image, folder / name, factor=factor)
        shape = tuple(int(np.ceil(n / factor)) for n in (height, width))
        box = Box.from_shape(tuple(n * factor for n in shape))
        back = Annotations.from_labels(out, scale=factor).rasterise(box, shape)
        np.testing.assert_array_equal(back, marks.rasterise(box, shape))


def test_a_slide_that_is_viewed_at_another_size(tmp_path):
    view = slide((300, 400), pixel_size=0.25).viewed_at(0.5)
    marks = Annotations((Rectangle(1, (10, 20), (30, 40)),))
    out = write_label_image(marks, view, tmp_path / "a.zarr")
    labels = open_pyramid(out)
    assert labels.shape == (150, 200)
    np.testing.assert_allclose(labels.pixel_size, 0.5)
    assert int(labels.read(labels.extent, 1, (150, 200)).sum()) == 30 * 40


def test_what_cannot_be_written_is_refused(tmp_path):
    image = slide()
    with pytest.raises(OutputError, match="none of"):
        write_label_image(MARKS, image, tmp_path / "a.png")
    (tmp_path / "a.tif").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        write_label_image(MARKS, image, tmp_path / "a.tif")
    volume = np.zeros((4, 8, 8), np.uint8)
    for marks, over in (
        (MARKS, slide(volume.shape, ndim=3)),
        (Annotations.from_labels(volume, ndim=3), image),
    ):
        with pytest.raises(AnnotationError, match="volume"):
            write_label_image(marks, over, tmp_path / "b.tif")
    for factor in (0, np.nan, -1):
        with pytest.raises(AnnotationError, match="factor"):
            write_label_image(MARKS, image, tmp_path / "b.tif", factor=factor)
    for name in ("b.tif", "b.zarr"):
        with pytest.raises(OutputError):
            write_label_image(MARKS, image, tmp_path / "a.tif" / name)
        calls = []
        with pytest.raises(Cancelled):
            write_label_image(
                MARKS,
                image,
                tmp_path / name,
                should_stop=lambda calls=calls: calls.append(1) or len(calls) > 2,
            )
    assert (tmp_path / "a.tif").read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
