"""Real files of many formats, where they are at hand beside the checkout."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_muvit.core.data.annotations import Annotations, label_classes
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import PyramidError
from napari_muvit.core.geometry import Box

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs real files")


def check(pyramid):
    """Read a corner of each level through a copy, as another process would."""
    copy = pickle.loads(pickle.dumps(pyramid))
    for factor in pyramid.scale_factors:
        box = Box.from_shape((8 * factor, 8 * factor))
        got = copy.read(box, factor, (8, 8))
        assert got.shape == (pyramid.num_channels, 8, 8)
        assert np.isfinite(got).all()


@pytest.mark.parametrize("folder", ["brain_sections", "glomeruli_pas"])
def test_all_tissue_images(folder):
    paths = sorted((DATA / folder).glob("*.tif"))
    assert paths
    for path in paths:
        pyramid = open_pyramid(path)
        assert pyramid.pixel_size is None
        assert pyramid.num_channels == (
            3 if folder == "glomeruli_pas" and "image" in path.name else 1
        )
        check(pyramid)


def test_labels_of_tissue():
    path = DATA / "brain_sections" / "s0225_labels.tif"
    whole = tifffile.imread(path)
    annotations = Annotations.from_labels(path)
    assert label_classes(annotations).largest == whole.max()
    index = annotations.index(Box.from_shape(whole.shape), 15, seed=0)
    np.testing.assert_array_equal(
        index.counts, np.bincount(whole.ravel(), minlength=16)
    )


@pytest.mark.parametrize(
    ("name", "shape", "factors", "size", "channels"),
    [
        ("tcga-cr-7395-01a-01-ts1.svs", (3567, 4443), (1, 2), None, 3),
        ("cmu-1-small-region.svs", (2967, 2220), (1,), 0.499, 3),
        ("small_vectra.qptiff", (1440, 1920), (1,), 0.49653463, 3),
    ],
)
def test_slides(name, shape, factors, size, channels):
    pyramid = open_pyramid(DATA / "wsi" / name)
    assert (pyramid.shape, pyramid.scale_factors) == (shape, factors)
    assert pyramid.num_channels == channels
    assert pyramid.rgb == name.endswith(".svs")
    if size is None:
        assert pyramid.pixel_size is None
    else:
        assert pyramid.pixel_size == pytest.approx((size, size))
    check(pyramid)
    want = tifffile.imread(DATA / "wsi" / name, series=0, level=0)
    want = np.moveaxis(want, -1, 0) if pyramid.rgb else want
    got = pyramid.read(Box((700, 900), (1100, 1200)), 1, (400, 300))
    np.testing.assert_array_equal(got, want[:, 700:1100, 900:1200])


@pytest.mark.parametrize("name", ["broken.svs", "small_dicom.dcm"])
def test_what_is_no_slide(name):
    with pytest.raises(PyramidError) as caught:
        open_pyramid(DATA / "wsi" / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "factors", "note"),
    [
        ("tubhiswt4D_sub.zarr", (512, 512), (1, 2, 4), "t is fixed"),
        ("tubhiswt4D_sub.zarr/labels", (512, 512), (1, 2, 4), "first label image"),
        ("6001240_labels_v0.5.zarr", (68, 67), (1,), "z is fixed"),
        ("6001240_labels_v0.5.zarr/labels/0", (275, 271), (1, 2, 4, 8), "z is fixed"),
        ("plate_ones_mip.zarr", None, None, "first well (B/03)"),
    ],
)
def test_ome_zarr(name, shape, factors, note):
    pyramid = open_pyramid(DATA / "omezarr" / name)
    assert note in pyramid.note
    if shape is not None:
        assert (pyramid.shape, pyramid.scale_factors) == (shape, factors)
    assert pyramid.pixel_size is not None
    check(pyramid)
