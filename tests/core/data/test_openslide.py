"""OpenSlide as a reader: its pixels, places and errors."""

import multiprocessing
import pickle
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_muvit.core.data import slides
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.openslide_levels import (
    OpenSlideLevel,
    is_openslide,
    open_with_openslide,
)
from napari_muvit.core.errors import MissingExtraError, PyramidError
from napari_muvit.core.geometry import Box

openslide = pytest.importorskip("openslide")
DESCRIPTION = "Aperio Image Library v11\r\n900x700 |MPP = 0.25|AppMag = 40"


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """An Aperio slide of 700 x 900 pixels with a level at factor 4."""
    rows, columns = np.mgrid[:700, :900]
    image = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1)
    image = image.astype(np.uint8)
    path = tmp_path_factory.mktemp("svs") / "a.svs"
    with tifffile.TiffWriter(path) as file:
        options = {"tile": (240, 256), "photometric": "rgb", "metadata": None}
        file.write(image, description=DESCRIPTION, **options)
        file.write(image[::4, ::4], description=DESCRIPTION, **options)
    return path, image


def test_pixels_and_places(slide):
    path, image = slide
    ours = open_with_openslide(path, "a")
    assert is_openslide(path)
    assert ours.rgb
    assert ours.pixel_size == (0.25, 0.25)
    assert ours.scale_factors == (1, 4)
    # Whole tiles in about 512 pixels.
    assert ours.levels[0].source.chunks == (480, 512)
    first = image.transpose(2, 0, 1).astype(np.float32)
    coarse = first[:, ::4, ::4]
    np.testing.assert_array_equal(ours.read(ours.extent, 1, (700, 900)), first)
    box = Box((4, 8), (404, 408))
    np.testing.assert_array_equal(
        ours.read(box, 4, (100, 100)), coarse[:, 1:101, 2:102]
    )
    beyond = ours.read(Box((-20, 850), (108, 978)), 1, (128, 128), fill=7)
    np.testing.assert_array_equal(beyond[:, 20:, :50], first[:, :108, 850:])
    assert (beyond[:, :20] == 7).all()
    np.testing.assert_array_equal(
        ours.levels[0].source.array[10:12, 5:9, 1], image[10:12, 5:9, 1]
    )


def corner(pyramid):
    return pyramid.read(Box((100, 100), (108, 108)), 1, (8, 8))


def test_other_processes_open_it_anew(slide):
    path, _ = slide
    pyramid = open_with_openslide(path, "a")
    want = corner(pyramid)
    np.testing.assert_array_equal(corner(pickle.loads(pickle.dumps(pyramid))), want)
    # A fork shares the place in the file with its parent unless it is opened again.
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map(corner, [pyramid] * 4):
            np.testing.assert_array_equal(found, want)


def test_what_was_not_scanned_has_the_background_colour(slide, monkeypatch):
    path, _ = slide
    level = OpenSlideLevel(path, 0)
    region = Image.new("RGBA", (4, 2), (10, 20, 30, 255))
    region.putpixel((1, 0), (0, 0, 0, 0))
    monkeypatch.setattr(openslide.OpenSlide, "read_region", lambda *_: region)
    found = level[0:2, 0:4]
    assert found[0, 1].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [10, 20, 30]


def test_it_is_the_second_choice(slide, monkeypatch):
    path, _ = slide

    def fails(*_):
        raise ValueError("no codec")

    monkeypatch.setattr(slides, "_open_tiff", fails)
    pyramid = open_pyramid(path)
    assert isinstance(pyramid.levels[0].source.array, OpenSlideLevel)


@pytest.mark.parametrize("name", ["slide.mrxs", "slide.dcm", "slide.czi", "slide.bif"])
def test_broken_slides_are_refused_in_one_line(tmp_path, name):
    path = tmp_path / name
    for content in (b"", b"garbage" * 100):
        path.write_bytes(content)
        with pytest.raises(PyramidError) as error:
            open_pyramid(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_folder_of_dicom_files_is_one_slide(tmp_path):
    (tmp_path / "b.dcm").write_bytes(b"x")
    (tmp_path / "a.dcm").write_bytes(b"x")
    with pytest.raises(PyramidError, match=r"a\.dcm"):
        open_pyramid(tmp_path)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "slide.mrxs"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(MissingExtraError, match=r"napari-muvit\[wsi\]"):
        open_pyramid(path)
    assert not is_openslide(path)


def test_a_slide_that_breaks_while_it_is_read(slide, monkeypatch):
    path, _ = slide
    level = OpenSlideLevel(path, 0)

    def fails(*_):
        raise openslide.OpenSlideError("tile is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(openslide.OpenSlide, "read_region", fails)
        with pytest.raises(PyramidError, match="tile is damaged"):
            level[0:2, 0:2]
    # The handle is opened anew: a network drive may have come back.
    assert level[0:2, 0:2].shape == (2, 2, 3)
