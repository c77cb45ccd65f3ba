import json
import math
import pickle
import shutil

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.ome_zarr import (
    create_label_pyramid,
    open_label_pyramid,
    open_ome_zarr,
    read_label_info,
    write_pyramid,
)
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.zarr_writer import halve_labels, halve_mean
from napari_muvit.core.errors import Cancelled, OutputError, PyramidError


def write_04(path, shape, scales, *, translations=None, axes="yx", unit="micrometer"):
    """A 0.4 store by hand: zarr format 2, constant k at level k."""
    group = zarr.create_group(path, zarr_format=2)
    kinds = {"t": "time", "c": "channel"}
    datasets = []
    for k, scale in enumerate(scales):
        factor = [s / f for s, f in zip(scale, scales[0], strict=True)]
        size = [math.ceil(n / f) for n, f in zip(shape, factor, strict=True)]
        array = group.create_array(str(k), shape=size, dtype="u2", chunks=size)
        array[...] = k + 1
        transforms = [{"type": "scale", "scale": list(scale)}]
        if translations:
            transforms.append(
                {"type": "translation", "translation": list(translations[k])}
            )
        datasets.append({"path": str(k), "coordinateTransformations": transforms})
    entries = [
        {"name": a, "type": kinds.get(a, "space")}
        | ({"unit": unit} if unit and a in "zyx" else {})
        for a in axes
    ]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": entries, "datasets": datasets}
    ]
    return group


def read_all(pyramid):
    return pyramid.read(pyramid.extent, 1, pyramid.shape)


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.integers(0, 9),
)
@settings(max_examples=20, deadline=None)
def test_written_pyramids_come_back(tmp_path_factory, height, width, c, dtype, seed):
    rng = np.random.default_rng(seed)
    image = (rng.random((c, height, width)) * 200).astype(dtype)
    path = tmp_path_factory.mktemp("zarr") / "a.ome.zarr"
    write_pyramid(path, image, chunk=16, smallest=16, pixel_size=0.25)
    yaozarrs.validate_zarr_store(path)
    pyramid = open_pyramid(path)
    np.testing.assert_array_equal(read_all(pyramid), image.astype(np.float32))
    assert pyramid.pixel_size == (0.25, 0.25)
    assert max(pyramid.levels[-1].shape) <= 16
    want = image
    for k, level in enumerate(pyramid.levels):
        assert level.shape == tuple(-(-n // 2**k) for n in (height, width))
        assert level.scale == (2**k, 2**k)
        assert level.offset == (0, 0)
        got = level.source.read([0, 0], level.shape)
        np.testing.assert_array_equal(got, want)
        want = halve_mean(want)


def test_halves():
    block = np.array([[[0, 1, 5], [2, 3, 7], [8, 8, 9]]], np.uint8)
    np.testing.assert_array_equal(halve_mean(block), [[[2, 6], [8, 9]]])
    np.testing.assert_array_equal(
        halve_mean(block.astype(np.float32)), [[[1.5, 6], [8, 9]]]
    )


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_the_most_frequent_label_stays(values):
    got = halve_labels(np.array(values, np.uint8).reshape(2, 2))
    counts = np.bincount(values, minlength=4)
    # Ties go to the larger label, so that small objects and classes outlive zero.
    assert got[0, 0] == max(np.flatnonzero(counts == counts.max()))


def test_blocks_of_a_function_are_bounded(tmp_path):
    seen = []

    def source(lower, upper):
        seen.append([u - v for v, u in zip(lower, upper, strict=True)])
        y, x = np.mgrid[lower[0] : upper[0], lower[1] : upper[1]]
        return (y * 31 + x).astype(np.uint16)

    events = []
    write_pyramid(
        tmp_path / "a.zarr",
        source,
        shape=(2500, 1100),
        dtype=np.uint16,
        on_progress=events.append,
    )
    assert max(map(max, seen)) <= 1024
    assert events[-1].done == events[-1].total == len(events)
    got = (
        open_pyramid(tmp_path / "a.zarr")
        .levels[0]
        .source.read([2000, 1000], [2003, 1004])
    )
    y, x = np.mgrid[2000:2003, 1000:1004]
    np.testing.assert_array_equal(got[0], (y * 31 + x).astype(np.uint16))


def test_writing_stops_and_never_overwrites(tmp_path):
    image = np.zeros((20, 20), np.uint8)
    write_pyramid(tmp_path / "a.zarr", image)
    with pytest.raises(OutputError, match="exists already"):
        write_pyramid(tmp_path / "a.zarr", image)
    with pytest.raises(Cancelled):
        write_pyramid(tmp_path / "b.zarr", image, should_stop=lambda: True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_pyramid(tmp_path / "file", image)
    with pytest.raises(PyramidError, match="shape and dtype"):
        write_pyramid(tmp_path / "c.zarr", lambda *_: image)
    with pytest.raises(OutputError, match="colour"):
        write_pyramid(
            tmp_path / "d.zarr", image, labels=True, class_names=["a"],
            class_colors=["red"],
        )  # fmt: skip


def test_a_disk_that_fills_up_is_said_with_the_path(tmp_path, monkeypatch):
    # It came out as a bare OSError: no path, and a traceback on the command line.
    def refuse(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", refuse)
    with pytest.raises(OutputError, match="zarr cannot be written: No space left"):
        write_pyramid(tmp_path / "a.zarr", np.ones((8, 8), np.uint8))


def test_an_image_becomes_a_pyramid_with_its_metadata(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    source = open_pyramid(image, pixel_size=(0.5, 0.4), name="tissue")
    write_pyramid(tmp_path / "a.zarr", source, smallest=32)
    pyramid = open_pyramid(tmp_path / "a.zarr")
    assert pyramid.rgb
    assert pyramid.channel_names == ("Red", "Green", "Blue")
    assert pyramid.pixel_size == (0.5, 0.4)
    np.testing.assert_array_equal(read_all(pyramid), read_all(source))


@pytest.mark.parametrize("shape", [(100, 90), (513, 700), (5000, 3001)])
@pytest.mark.parametrize("size", [None, 0.5])
def test_label_pyramids(tmp_path, shape, size):
    image = open_pyramid(
        zarr.zeros(shape, chunks=(512, 512), dtype="u1"), pixel_size=size
    )
    image = type(image)(**{**vars(image), "translation": (3.0, -4.0) if size else None})
    arrays = create_label_pyramid(
        tmp_path / "l.zarr", image, ["a", "b"], ["#ff0000", "#0080ff"], chunk=512
    )
    yaozarrs.validate_zarr_store(tmp_path / "l.zarr")
    meta = yaozarrs.open_group(tmp_path / "l.zarr").ome_metadata()
    assert isinstance(meta, yaozarrs.v05.LabelImage)
    (multiscale,) = meta.multiscales
    assert [a.name for a in multiscale.axes] == ["y", "x"]
    assert [a.unit for a in multiscale.axes] == ["micrometer" if size else None] * 2
    edge = size or 1
    for k, (array, dataset) in enumerate(zip(arrays, multiscale.datasets, strict=True)):
        assert array.shape == tuple(-(-n // 2**k) for n in shape)
        assert array.dtype == np.uint8
        assert array.fill_value == 0
        assert array.attrs.asdict() == {}
        assert dataset.path == str(k)
        assert dataset.scale_transform.scale == [edge * 2**k] * 2
        half = (2**k - 1) / 2 * edge
        origin = (3.0, -4.0) if size else (0.0, 0.0)
        assert dataset.translation_transform.translation == [o + half for o in origin]
    assert max(arrays[-1].shape) <= 512
    assert len(arrays) == 1 or max(arrays[-2].shape) > 512
    info = read_label_info(tmp_path / "l.zarr")
    assert info.names == {1: "a", 2: "b"}
    assert info.colors == {1: "#ff0000", 2: "#0080ff"}
    arrays[0][5, 6] = 2
    pyramid = pickle.loads(pickle.dumps(open_label_pyramid(tmp_path / "l.zarr")))
    assert pyramid.shape == shape
    assert pyramid.levels[0].source.read([5, 6], [6, 7]).item() == 2
    assert all(level.offset == (0, 0) for level in pyramid.levels)
    with pytest.raises(OutputError, match="exists already"):
        create_label_pyramid(tmp_path / "l.zarr", image, [], [])


def test_levels_are_no_more_than_a_chunk_can_be_halved(tmp_path):
    image = open_pyramid(zarr.zeros((9000, 9000), chunks=(512, 512), dtype="u1"))
    arrays = create_label_pyramid(tmp_path / "l.zarr", image, [], [], chunk=4)
    assert len(arrays) == 3


def test_an_image_is_no_label_image(tmp_path):
    write_pyramid(tmp_path / "a.zarr", np.zeros((20, 20), np.float32))
    with pytest.raises(PyramidError, match="no label image"):
        open_label_pyramid(tmp_path / "a.zarr")
    assert read_label_info(tmp_path / "a.zarr").names == {}


def test_version_04_with_all_axes(tmp_path):
    write_04(
        tmp_path / "a.zarr",
        (2, 3, 4, 40, 50),
        [(1, 1, 2, 500, 500), (1, 1, 2, 1000, 1000)],
        axes="tczyx",
        unit="nanometer",
    )
    pyramid = open_ome_zarr(tmp_path / "a.zarr")
    assert (pyramid.num_channels, pyramid.shape) == (3, (40, 50))
    assert pyramid.pixel_size == (0.5, 0.5)
    assert pyramid.scale_factors == (1, 2)
    assert pyramid.note == "t is fixed at the first of 2; z is fixed at the first of 4"


@pytest.mark.parametrize("unit", [None, "pixel", "furlong"])
def test_an_unknown_unit_is_no_pixel_size(tmp_path, unit):
    write_04(tmp_path / "a.zarr", (40, 50), [(0.5, 0.5)], unit=unit)
    pyramid = open_ome_zarr(tmp_path / "a.zarr")
    assert pyramid.pixel_size is None
    assert pyramid.translation is None


def test_translations_place_the_levels(tmp_path):
    scales = [(0.5, 0.5), (1.0, 1.0), (2.0, 2.0)]
    # Half-pixel translations: the outer edges agree.
    half = [(10.0, 20.0), (10.25, 20.25), (10.75, 20.75)]
    write_04(tmp_path / "a.zarr", (40, 48), scales, translations=half)
    pyramid = open_ome_zarr(tmp_path / "a.zarr")
    assert [level.offset for level in pyramid.levels] == [(0, 0)] * 3
    assert pyramid.translation == (10, 20)
    # Strided levels: pixel 0 keeps its centre where only some levels say so.
    strided = [(0.0, 0.0), (0.0, 0.0), (0.5, 0.0)]
    write_04(tmp_path / "b.zarr", (40, 48), scales, translations=strided)
    offsets = [level.offset for level in open_ome_zarr(tmp_path / "b.zarr").levels]
    assert offsets == [(0, 0), (-0.5, -0.5), (-0.5, -1.5)]
    # No translations, or one for all: said to be a stage position, not a shift.
    write_04(tmp_path / "c.zarr", (40, 48), scales, translations=[(7.0, 7.0)] * 3)
    assert [v.offset for v in open_ome_zarr(tmp_path / "c.zarr").levels] == [(0, 0)] * 3


def test_a_scale_for_all_levels_multiplies(tmp_path):
    group = write_04(tmp_path / "a.zarr", (40, 48), [(1.0, 1.0), (2.0, 2.0)])
    entry = group.attrs["multiscales"]
    entry[0]["coordinateTransformations"] = [{"type": "scale", "scale": [0.3, 0.3]}]
    group.attrs["multiscales"] = entry
    assert open_ome_zarr(tmp_path / "a.zarr").pixel_size == (0.3, 0.3)


@pytest.mark.parametrize("named", [True, False])
def test_rgb_by_name_or_colour(tmp_path, named):
    write_pyramid(tmp_path / "a.zarr", np.zeros((3, 20, 20), np.uint8), rgb=True)
    meta = json.loads((tmp_path / "a.zarr/zarr.json").read_text())
    for channel in meta["attributes"]["ome"]["omero"]["channels"]:
        channel["color" if named else "label"] = "808080" if named else "x"
    (tmp_path / "a.zarr/zarr.json").write_text(json.dumps(meta))
    assert open_ome_zarr(tmp_path / "a.zarr").rgb


def test_plain_arrays_and_groups(tmp_path):
    image = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)
    zarr.save_array(tmp_path / "a.zarr", image)
    assert "without OME metadata" in open_ome_zarr(tmp_path / "a.zarr").note
    group = zarr.create_group(tmp_path / "b.zarr", zarr_format=2)
    for k in range(3):
        group.create_array(str(k), data=image[:: 2**k, :: 2**k])
    pyramid = open_pyramid(tmp_path / "b.zarr")
    assert pyramid.scale_factors == (1, 2, 4)
    np.testing.assert_array_equal(read_all(pyramid)[0], image)
    zarr.create_group(tmp_path / "c.zarr").create_array("pixels", data=image)
    assert open_pyramid(tmp_path / "c.zarr").shape == (20, 30)


def nest(path, attributes, version):
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", **attributes}}
    group.attrs.update(attributes)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_first_image_of_a_plate_or_collection(tmp_path, version):
    image = np.full((20, 30), 5, np.uint8)
    nest(tmp_path / "p.zarr", {"plate": {"wells": [{"path": "B/3"}]}}, version)
    nest(tmp_path / "p.zarr/B/3", {"well": {"images": [{"path": "2"}]}}, version)
    write_pyramid(tmp_path / "p.zarr/B/3/2", image)
    pyramid = open_pyramid(tmp_path / "p.zarr")
    assert pyramid.note == "the first well (B/3) of a plate; its first field (2)"
    nest(tmp_path / "c.zarr", {"bioformats2raw.layout": 3}, version)
    write_pyramid(tmp_path / "c.zarr/0", image)
    assert "first image (0) of a collection" in open_pyramid(tmp_path / "c.zarr").note
    nest(tmp_path / "c.zarr/OME", {"series": ["7"]}, version)
    write_pyramid(tmp_path / "c.zarr/7", image + 1)
    assert read_all(open_pyramid(tmp_path / "c.zarr")).max() == 6
    nest(tmp_path / "l.zarr", {"labels": ["cells"]}, version)
    write_pyramid(tmp_path / "l.zarr/cells", image, labels=True)
    assert "first label image (cells)" in open_pyramid(tmp_path / "l.zarr").note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.clear(), "empty or broken 'multiscales'"),
        (lambda m: m[0].pop("axes"), "wrong at axes: Field required"),
        (lambda m: m[0]["axes"].pop(), "wrong at axes"),
        (lambda m: m[0]["datasets"].clear(), "wrong at datasets"),
        (lambda m: m[0]["datasets"][0].update(path="9"), "level '9'"),
        (
            lambda m: m[0]["datasets"][0].pop("coordinateTransformations"),
            "wrong at datasets.0",
        ),
    ],
)
def test_malformed_metadata_is_named(tmp_path, change, message):
    group = write_04(tmp_path / "a.zarr", (40, 48), [(1.0, 1.0), (2.0, 2.0)])
    entry = group.attrs["multiscales"]
    change(entry)
    group.attrs["multiscales"] = entry
    with pytest.raises(PyramidError, match=message) as caught:
        open_ome_zarr(tmp_path / "a.zarr")
    assert "\n" not in str(caught.value)


def test_broken_stores_fail_in_one_line(tmp_path):
    write_pyramid(tmp_path / "a.zarr", np.zeros((20, 20), np.uint8))
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    (tmp_path / "a.zarr/zarr.json").write_text("{ not json")
    shutil.rmtree(tmp_path / "b.zarr/0")
    zarr.create_group(tmp_path / "c.zarr")
    nest(tmp_path / "d.zarr", {"plate": {"wells": []}}, "0.4")
    for name in "abcd":
        with pytest.raises(PyramidError) as caught:
            open_pyramid(tmp_path / f"{name}.zarr")
        assert "\n" not in str(caught.value)


def test_a_damaged_chunk_fails_in_one_line(tmp_path):
    write_pyramid(tmp_path / "a.zarr", np.ones((20, 20), np.uint8))
    (tmp_path / "a.zarr/0/c/0/0").write_bytes(b"damaged")
    pyramid = open_pyramid(tmp_path / "a.zarr")
    with pytest.raises(PyramidError, match=r"a\.zarr.*cannot be read") as caught:
        read_all(pyramid)
    assert "\n" not in str(caught.value)
