"""Which image, plane and axes of a file are opened; pixel types."""

import pickle

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import AnnotationError, PyramidError
from napari_muvit.core.geometry import Box

KINDS = {"t": "time", "c": "channel"}


def read_all(pyramid):
    return pyramid.read(pyramid.extent, 1, pyramid.shape)


def random_image(shape, dtype=np.uint8):
    return (np.random.default_rng(0).random(shape) * 250).astype(dtype)


def write_ome(path, arrays, scales, axes, chunks=None):
    """An OME-Zarr 0.4 with one scale a level, in micrometres."""
    group = zarr.create_group(path, zarr_format=2)
    for k, array in enumerate(arrays):
        group.create_array(str(k), data=array, chunks=chunks or array.shape)
    entries = [
        {"name": a, "type": KINDS[a]} if a in KINDS
        else {"name": a, "type": "space", "unit": "micrometer"}
        for a in axes
    ]  # fmt: skip
    datasets = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": s}]}
        for k, s in enumerate(scales)
    ]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": entries, "datasets": datasets}
    ]


# --- images ---------------------------------------------------------------------------


@pytest.fixture
def plate(tmp_path):
    group = zarr.create_group(tmp_path / "p.zarr", zarr_format=2)
    group.attrs["plate"] = {"wells": [{"path": "B/03"}, {"path": "B/04"}]}
    for number, well in enumerate(("B/03", "B/04")):
        inner = group.create_group(well)
        inner.attrs["well"] = {"images": [{"path": "0"}, {"path": "1"}]}
        for field in (0, 1):
            image = np.full((20, 30), 10 * number + field, np.uint8)
            write_pyramid(tmp_path / "p.zarr" / well / str(field), image)
    return tmp_path / "p.zarr"


@pytest.mark.parametrize(
    ("image", "value", "opened"),
    [
        (None, 0, "B/03/0"),
        ("B/03/1", 1, "B/03/1"),
        ("B/04", 10, "B/04/0"),
        ("/B/04/1/", 11, "B/04/1"),
        (1, 10, "B/04/0"),
    ],
)
def test_an_image_of_a_plate(plate, image, value, opened):
    pyramid = open_pyramid(plate, image=image)
    assert read_all(pyramid).max() == value
    assert pyramid.contents.image == opened
    assert pyramid.contents.images == ("B/03", "B/04")
    assert pyramid.path == plate
    assert ("first well" in pyramid.note) == (image is None)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("C/03", r"no image 'C/03'; choose from B/03, B/04"),
        ("B/03/7", "choose from 0, 1"),
        ("B/03/0/5", "holds one image only"),
        (2, "choose from B/03"),
    ],
)
def test_a_wrong_image_lists_the_right_ones(plate, image, message):
    with pytest.raises(PyramidError, match=message):
        open_pyramid(plate, image=image)


def test_the_name_tells_images_apart(plate):
    assert open_pyramid(plate, image="B/03/1").name == "p_B_03_1"
    assert open_pyramid(plate, image="B/03/1", name="q").name == "q"


def test_an_image_of_a_collection_and_labels_of_an_image(tmp_path):
    group = zarr.create_group(tmp_path / "c.zarr", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    for k in range(3):
        write_pyramid(tmp_path / f"c.zarr/{k}", np.full((20, 30), k, np.uint8))
    pyramid = open_pyramid(tmp_path / "c.zarr", image="2")
    assert (read_all(pyramid).max(), pyramid.contents.images) == (2, ("0", "1", "2"))
    labels = zarr.create_group(tmp_path / "c.zarr/1/labels", zarr_format=2)
    labels.attrs["labels"] = ["cells", "nuclei"]
    write_pyramid(
        tmp_path / "c.zarr/1/labels/nuclei", np.full((20, 30), 7, np.uint8), labels=True
    )
    nuclei = open_pyramid(tmp_path / "c.zarr", image="1/labels/nuclei")
    assert read_all(nuclei).max() == 7


def test_an_image_of_a_tiff(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for number, edge in enumerate((40, 64)):
            file.write(
                np.full((edge, 50), number + 1, np.uint8),
                metadata={"axes": "YX", "Name": f"scene {number}",
                          "PhysicalSizeX": edge, "PhysicalSizeY": edge},
            )  # fmt: skip
    first = open_pyramid(tmp_path / "a.ome.tif")
    assert "the first of 2 images" in first.note
    assert first.contents.images == ("scene 0", "scene 1")
    for image in (1, "1", "scene 1"):
        pyramid = open_pyramid(tmp_path / "a.ome.tif", image=image)
        assert (pyramid.shape, pyramid.pixel_size) == ((64, 50), (64, 64))
        copy = pickle.loads(pickle.dumps(pyramid))
        assert read_all(copy).min() == read_all(copy).max() == 2
    with pytest.raises(PyramidError, match=r"choose from 0 \(scene 0\), 1 \(scene 1\)"):
        open_pyramid(tmp_path / "a.ome.tif", image="scene 3")


# --- planes and 3D --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zarr", "imagej", "array"])
def test_one_plane(tmp_path, kind):
    image = random_image((4, 5, 2, 20, 30), np.uint16)  # t z c y x
    source, axes = image, None
    if kind == "zarr":
        source = tmp_path / "a.zarr"
        write_ome(source, [image.swapaxes(1, 2)], [[1, 1, 2, 0.5, 0.5]], "tczyx")
    elif kind == "imagej":
        source = tmp_path / "a.tif"
        tifffile.imwrite(source, image, imagej=True, metadata={"axes": "TZCYX"})
    else:
        axes = "tzcyx"
    pyramid = open_pyramid(source, axes=axes, planes={"t": 3, "z": 1})
    np.testing.assert_array_equal(read_all(pyramid), image[3, 1])
    assert pyramid.note == "t is 3 of 0 to 3; z is 1 of 0 to 4"
    assert pyramid.contents.planes == {"t": 3, "z": 1}
    first = open_pyramid(source, axes=axes)
    np.testing.assert_array_equal(read_all(first), image[0, 0])
    for planes, message in [
        ({"z": 5}, "no plane z=5; z runs from 0 to 4"),
        ({"z": -1}, "whole number from 0"),
        ({"z": 1.5}, "whole number from 0"),
        ({"q": 0}, "no axis 'q'.*it has t, z"),
        ({"y": 0}, "no axis 'y'"),
    ]:
        with pytest.raises(PyramidError, match=message):
            open_pyramid(source, axes=axes, planes=planes)


@pytest.mark.parametrize("shape", [(0, 20, 30), (3, 0, 30)])
def test_an_axis_of_no_length(tmp_path, shape):
    write_ome(tmp_path / "a.zarr", [np.zeros((3, 20, 30), "u1")], [[1, 1, 1]], "zyx")
    zarr.open_group(tmp_path / "a.zarr")["0"].resize(shape)
    with pytest.raises(PyramidError, match="empty"):
        open_pyramid(tmp_path / "a.zarr")


def test_a_plane_of_a_level_with_coarser_z(tmp_path):
    image = np.arange(9, dtype=np.uint8).repeat(400).reshape(9, 20, 20)
    write_ome(
        tmp_path / "a.zarr", [image, image[1::2, ::2, ::2]],
        [[1, 1, 1], [2, 2, 2]], "zyx",
    )  # fmt: skip
    pyramid = open_pyramid(tmp_path / "a.zarr", planes={"z": 7})
    assert pyramid.levels[1].source.read([0, 0], [1, 1]).item() == 7


def blocks(image, factor):
    """Mean over the whole blocks of factor x factor x factor pixels, (c, z, y, x)."""
    whole = tuple(n // factor * factor for n in image.shape[1:])
    image = image[:, : whole[0], : whole[1], : whole[2]].astype(float)
    c, z, y, x = (image.shape[0], *(n // factor for n in whole))
    return image.reshape(c, z, factor, y, factor, x, factor).mean(axis=(2, 4, 6))


@given(
    st.tuples(st.integers(5, 11), st.integers(17, 33), st.integers(17, 33)),
    st.sampled_from(["zarr", "tiff", "array"]),
    st.sampled_from([1, 2, 4]),
)
@settings(max_examples=20, deadline=None)
def test_3d_agrees_with_means_over_blocks(tmp_path_factory, shape, kind, factor):
    image = random_image((2, *shape), np.uint16)
    folder = tmp_path_factory.mktemp("stack")
    source = image
    if kind == "zarr":
        # z is not downsampled, as in most files.
        even = image[..., : shape[1] // 2 * 2, : shape[2] // 2 * 2]
        coarse = even.reshape(2, shape[0], shape[1] // 2, 2, shape[2] // 2, 2)
        arrays = [image, coarse.mean(axis=(3, 5)).astype(np.float32)]
        arrays[0] = image.astype(np.float32)
        write_ome(
            folder / "a.zarr", arrays, [[1, 2, 0.5, 0.5], [1, 2, 1, 1]], "czyx",
            chunks=(1, 4, 16, 16),
        )  # fmt: skip
        source = folder / "a.zarr"
    elif kind == "tiff":
        source = folder / "a.tif"
        tifffile.imwrite(
            source, image.swapaxes(0, 1), imagej=True, resolution=(2, 2),
            metadata={"axes": "ZCYX", "unit": "um", "spacing": 2.0},
        )  # fmt: skip
    pyramid = pickle.loads(pickle.dumps(open_pyramid(source, ndim=3)))
    assert (pyramid.ndim, pyramid.shape) == (3, shape)
    if kind != "array":
        assert pyramid.pixel_size == pytest.approx((2, 0.5, 0.5))
        assert pyramid.translation in (None, (0, 0, 0))
    if kind == "zarr":
        assert pyramid.levels[1].scale == (1, 2, 2)
    want = blocks(image, factor)
    box = Box.from_shape(tuple(n * factor for n in want.shape[1:]))
    got = pyramid.read(box, factor, want.shape[1:])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=0.05)


def test_3d_at_another_pixel_size_takes_coarse_levels(tmp_path):
    """z is coarser than the model's pixel everywhere: y and x decide on the level."""
    image = random_image((6, 64, 64)).astype(np.float32)
    coarse = image.reshape(6, 32, 2, 32, 2).mean(axis=(2, 4))
    write_ome(
        tmp_path / "a.zarr", [image, coarse], [[4, 1, 1], [4, 2, 2]], "zyx"
    )  # fmt: skip
    pyramid = open_pyramid(tmp_path / "a.zarr", ndim=3).viewed_at(1.0)
    assert pyramid.zoom == (4, 1, 1)
    assert pyramid._finer_level(1) == 0
    assert pyramid._finer_level(2) == 1
    got = pyramid.read(Box.from_shape((24, 64, 64)), 2, (12, 32, 32))
    # Linear along z, where pixels are made up: the centres agree.
    assert got.shape == (1, 12, 32, 32)
    assert abs(got.mean() - image.mean()) < 1


def test_unnamed_pages_are_planes_of_a_volume(tmp_path):
    image = random_image((5, 20, 30))
    tifffile.imwrite(tmp_path / "a.tif", image, metadata=None)
    assert open_pyramid(tmp_path / "a.tif").num_channels == 5
    volume = open_pyramid(tmp_path / "a.tif", ndim=3)
    np.testing.assert_array_equal(read_all(volume)[0], image)


def test_3d_of_what_is_flat(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random_image((20, 30)))
    Image.fromarray(random_image((20, 30))).save(tmp_path / "a.png")
    for source in (tmp_path / "a.tif", tmp_path / "a.png", random_image((20, 30))):
        with pytest.raises(PyramidError, match="but z is needed"):
            open_pyramid(source, ndim=3)
    with pytest.raises(PyramidError, match="ndim=4"):
        open_pyramid(random_image((20, 30)), ndim=4)


# --- pixel types ----------------------------------------------------------------------

TYPES = ["u1", "<u2", ">u2", "i2", "<u4", "i4", "f2", ">f4", "f8", "?"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["zarr", "tiff", "array"])
def test_pixel_types(tmp_path, dtype, kind):
    image = random_image((40, 50), dtype)
    source = image
    if kind == "zarr":
        zarr.save_array(tmp_path / "a.zarr", image, zarr_format=2)
        source = tmp_path / "a.zarr"
    elif kind == "tiff":
        order = ">" if dtype.startswith(">") else "<"
        source = tmp_path / "a.tif"
        tifffile.imwrite(source, image, byteorder=order, tile=(16, 16))
    pyramid = open_pyramid(source)
    np.testing.assert_array_equal(read_all(pyramid)[0], image.astype(np.float32))
    coarse = pyramid.read(Box.from_shape((40, 48)), 4, (10, 12))
    want = image[:, :48].astype(float).reshape(10, 4, 12, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse[0], want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colour(tmp_path, channels):
    image = (random_image((20, 30, channels), np.uint16)) * 200
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb",
        extrasamples=[2] if channels == 4 else None,
    )  # fmt: skip
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    for name in ("a.tif", "a.png"):
        pyramid = open_pyramid(tmp_path / name)
        assert (pyramid.num_channels, pyramid.dtype, pyramid.rgb) == (
            3, np.uint16, False,
        )  # fmt: skip
        want = np.moveaxis(image[..., :3], -1, 0)
        np.testing.assert_array_equal(
            read_all(pickle.loads(pickle.dumps(pyramid))), want
        )


def test_palettes_and_bits(tmp_path):
    indices = random_image((20, 30)) % 5
    picture = Image.fromarray(indices)
    picture.putpalette([10, 20, 30] * 256)
    picture.save(tmp_path / "a.png")
    colours = open_pyramid(tmp_path / "a.png")
    assert colours.rgb
    assert read_all(colours)[:, 0, 0].tolist() == [10, 20, 30]
    labels = pickle.loads(
        pickle.dumps(open_pyramid(tmp_path / "a.png", as_labels=True))
    )
    np.testing.assert_array_equal(read_all(labels)[0], indices)
    bits = indices > 2
    Image.fromarray(bits).save(tmp_path / "b.png")
    assert read_all(open_pyramid(tmp_path / "b.png")).max() == 255
    flat = open_pyramid(tmp_path / "b.png", as_labels=True)
    np.testing.assert_array_equal(read_all(flat)[0], bits)
    colormap = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(
        tmp_path / "c.tif", indices, photometric="palette", colormap=colormap
    )
    pyramid = open_pyramid(tmp_path / "c.tif")
    np.testing.assert_array_equal(read_all(pyramid)[0], indices)
    assert "palette" in pyramid.note
    assert open_pyramid(tmp_path / "c.tif", as_labels=True).note == ""


# --- labels in 3D ---------------------------------------------------------------------


def test_labels_of_a_volume(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (6, 40, 36), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "l.ome.tif", labels, metadata={"axes": "ZYX"})
    annotations = Annotations.from_labels(tmp_path / "l.ome.tif", ndim=3)
    assert annotations.ndim == 3
    box = Box.from_shape(labels.shape)
    np.testing.assert_array_equal(annotations.rasterise(box, labels.shape), labels)
    shares = annotations.fractions(box, (3, 20, 18), 3)
    cells = labels.reshape(3, 2, 20, 2, 18, 2)
    for k in range(4):
        np.testing.assert_allclose(shares[k], (cells == k).mean(axis=(1, 3, 5)))
    index = annotations.index(box, 3, seed=0)
    np.testing.assert_array_equal(index.counts, np.bincount(labels.ravel()))
    for k in (1, 2, 3):
        places = np.floor(index.points[k]).astype(int)
        assert (labels[tuple(places.T)] == k).all()
    moved = annotations.scaled((1, 2, 2))
    wide = moved.rasterise(Box((0, 0, 0), (6, 80, 72)), labels.shape)
    np.testing.assert_array_equal(wide, labels)


def test_outlines_lie_in_a_plane():
    volume = Annotations.from_labels(np.zeros((4, 20, 20), np.uint8), ndim=3)
    outline = Annotations.from_polygons([(1, [(0, 0), (5, 0), (5, 5)])])
    with pytest.raises(AnnotationError, match="lie in a plane"):
        Annotations((*volume.items, *outline.items))
    with pytest.raises(AnnotationError, match="need 2 numbers"):
        Annotations.from_labels(np.zeros((20, 20), np.uint8), offset=(1, 2, 3))
