"""Zarr folders that are wrong in every way: read rightly, or refused in one line."""

import json
import math
import os
import pickle
import shutil

import numcodecs
import numpy as np
import pytest
import zarr

from napari_muvit.core.data.ome_zarr import read_label_info, write_pyramid
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import ImageNotFoundError, PyramidError

NAN2 = [math.nan, math.nan]


def write_ome(path, shapes=((64, 48), (32, 24)), ome=None, **changes):
    """Two levels of OME-Zarr 0.5; ``changes`` replace entries of the multiscale."""
    group = zarr.create_group(path, zarr_format=3)
    for number, shape in enumerate(shapes):
        array = group.create_array(str(number), shape=shape, dtype="u1", chunks=shape)
        array[...] = number + 1
    multiscale = {
        "axes": [{"name": a, "type": "space"} for a in "yx"],
        "datasets": [dataset(k) for k in range(len(shapes))],
        **changes,
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], **(ome or {})}
    return path


def dataset(number, scale=None, place=None, path=None):
    transforms = [{"type": "scale", "scale": scale or [2.0**number] * 2}]
    if place is not None:
        transforms.append({"type": "translation", "translation": place})
    name = str(number) if path is None else path
    return {"path": name, "coordinateTransformations": transforms}


def axes(*names, **kinds):
    return [{"name": n, "type": kinds.get(n, "space")} for n in names]


def write_raw(path, files=(), **changes):
    """A zarr 2 array by hand."""
    path.mkdir()
    metadata = {
        "zarr_format": 2,
        "shape": [64, 48],
        "chunks": [16, 16],
        "dtype": "|u1",
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        **changes,
    }
    (path / ".zarray").write_text(json.dumps(metadata))
    for name, content in files:
        (path / name).write_bytes(content)
    return path


READ, REFUSED = "read", "refused"
METADATA = {
    "no_scale": ({"datasets": [{"path": "0"}]}, REFUSED),
    "scale_nan": ({"datasets": [dataset(0, NAN2), dataset(1)]}, READ),
    "scale_zero": ({"datasets": [dataset(0, [0, 0]), dataset(1, [0, 0])]}, READ),
    "scale_huge": ({"datasets": [dataset(0, [1e308] * 2)]}, READ),
    "scale_negative": ({"datasets": [dataset(0, [-1, -1])]}, READ),
    "scale_text": ({"datasets": [dataset(0, ["a", "b"])]}, REFUSED),
    "place_nan": ({"datasets": [dataset(0), dataset(1, place=NAN2)]}, REFUSED),
    "place_inf": ({"datasets": [dataset(0, place=[math.inf] * 2)]}, REFUSED),
    "place_far": ({"datasets": [dataset(0), dataset(1, place=[1e9] * 2)]}, REFUSED),
    "xy": ({"axes": axes("x", "y")}, READ),
    "yc": ({"axes": axes("y", "c", c="channel")}, REFUSED),
    "twice": ({"axes": axes("y", "y")}, REFUSED),
    "one_axis": ({"axes": axes("y")}, REFUSED),
    "axes_text": ({"axes": "yx"}, REFUSED),
    "axes_none": ({"axes": None}, REFUSED),
    "unit_number": ({"axes": [{**a, "unit": 5} for a in axes("y", "x")]}, READ),
    "no_levels": ({"datasets": []}, REFUSED),
    "levels_text": ({"datasets": ["0", "1"]}, REFUSED),
    "levels_none": ({"datasets": None}, REFUSED),
    "up": ({"datasets": [dataset(0, path="../other.zarr")]}, REFUSED),
    "absolute": ({"datasets": [dataset(0, path="/etc")]}, REFUSED),
    "itself": ({"datasets": [dataset(0, path=".")]}, REFUSED),
    "nothing": ({"datasets": [dataset(0, path="")]}, REFUSED),
    "nul": ({"datasets": [dataset(0, path="0\0")]}, REFUSED),
    "long": ({"datasets": [dataset(0, path="a" * 5000)]}, REFUSED),
    "deep": ({"datasets": [dataset(0, path="/".join("a" * 500))]}, REFUSED),
    "missing": ({"datasets": [dataset(0, path="7")]}, REFUSED),
    "grows": ({"shapes": ((32, 24), (64, 48))}, REFUSED),
    "unrelated": ({"shapes": ((64, 48), (37, 5))}, READ),
    "dimensions": ({"shapes": ((64, 48), (1, 32, 24))}, REFUSED),
    "one_pixel": ({"shapes": ((1, 1), (1, 1))}, READ),
    "one_row": ({"shapes": ((1, 64), (1, 32))}, READ),
    "one_column": ({"shapes": ((64, 1), (32, 1))}, READ),
    "to_one_pixel": ({"shapes": ((64, 48), (1, 1))}, READ),
    "empty_level": ({"shapes": ((64, 48), (0, 24))}, REFUSED),
    "omero": ({"ome": {"omero": {"channels": [{"label": 5, "color": None}]}}}, READ),
    "no_multiscale": ({"ome": {"multiscales": []}}, REFUSED),
    "multiscale_text": ({"ome": {"multiscales": "x"}}, REFUSED),
}


@pytest.mark.parametrize("name", METADATA)
def test_wrong_metadata(reader, tmp_path, name):
    changes, kind = METADATA[name]
    outcome = reader.read(write_ome(tmp_path / "a.zarr", **changes))
    assert (outcome.kind, outcome.is_fine) == (kind, True), outcome


@pytest.mark.parametrize("way", ["../other.zarr", "/", "", ".", None, ["0"], "a\\b"])
@pytest.mark.parametrize("key", ["plate", "well", "labels", "series"])
def test_collections_stay_in_their_folder(tmp_path, key, way):
    write_ome(tmp_path / "other.zarr")
    listed = {
        "plate": {"wells": [{"path": way}]},
        "well": {"images": [{"path": way}]},
        "labels": [way],
        "series": [way],
    }
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", key: listed[key]}
    with pytest.raises(PyramidError, match=r"no path inside|cannot be read"):
        open_pyramid(tmp_path / "a.zarr")


def test_a_scale_that_is_none_leaves_the_pixel_size_unknown(tmp_path):
    um = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    for number, scale in enumerate(([0.0, 0.0], NAN2, [1e300] * 2, [1e-300] * 2)):
        path = write_ome(
            tmp_path / f"{number}.zarr",
            ((64, 48),),
            axes=um,
            datasets=[dataset(0, scale)],
        )
        pyramid = open_pyramid(path)
        assert pyramid.pixel_size is None
        assert "pixel size" in pyramid.note


ARRAYS = {
    "chunk_of_a_terabyte": ({"chunks": [10**6, 10**6]}, "chunks of"),
    "all_one_chunk": ({"shape": [2**40] * 2, "chunks": [2**40] * 2}, "chunks of"),
    "no_chunk": ({"chunks": [0, 16]}, "hold nothing"),
    "negative": ({"shape": [-5, 48]}, "non-negative"),
    "beyond_numbers": ({"shape": [10**30, 10**30]}, "says that it has"),
    "many_channels": ({"shape": [10**7, 64, 48], "chunks": [1, 16, 16]}, "axes"),
    "texts": ({"shape": ["64", "48"]}, "can be read"),
    "no_axes": ({"shape": [], "chunks": []}, "axes"),
    "complex": ({"dtype": "<c8", "fill_value": [0, 0]}, "complex64"),
    "structured": ({"dtype": [["a", "<u2"], ["b", "<f4"]]}, "can be read"),
    "unknown_type": ({"dtype": "<q9"}, "can be read"),
    "unknown_codec": ({"compressor": {"id": "nosuch"}}, "nosuch"),
    "unknown_filter": ({"filters": [{"id": "nosuch"}]}, "nosuch"),
    "another_format": ({"zarr_format": 7}, "can be read"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_absurd_arrays_are_refused(reader, tmp_path, name):
    changes, message = ARRAYS[name]
    outcome = reader.read(write_raw(tmp_path / "a.zarr", **changes))
    assert outcome.kind == REFUSED, outcome
    assert outcome.is_fine
    assert message in outcome.message


def test_a_huge_array_without_chunks_reads_fast(reader, tmp_path):
    path = write_raw(tmp_path / "a.zarr", shape=[2**40, 2**40], chunks=[256, 256])
    outcome = reader.read(path)
    assert outcome.kind == READ, outcome
    assert outcome.is_fine
    assert outcome.nbytes < 2**29


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"dtype": "|O"},
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "pickle"}},
    ],
)
def test_nothing_is_unpickled(reader, tmp_path, changes):
    """The codec unpickles whatever it is given, unless the array is refused before."""
    evil = pickle.dumps([_Evil(tmp_path / "written")])
    path = write_raw(tmp_path / "a.zarr", [("0.0", evil)], **changes)
    outcome = reader.read(path)
    assert not (tmp_path / "written").exists()
    assert outcome.kind == REFUSED, outcome


@pytest.mark.parametrize("codec", ["zstd", "blosc", "zlib", "lz4"])
def test_damaged_chunks(reader, tmp_path, codec):
    compress = numcodecs.get_codec({"id": codec}).encode
    good = bytes(compress(np.full((16, 16), 7, np.uint8)))
    damaged = {
        "cut": good[: len(good) // 2],
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(300),
        "short": bytes(compress(np.full(10, 7, np.uint8))),
        "bomb": bytes(compress(np.zeros(2**26, np.uint8))),
    }
    for name, chunk in damaged.items():
        path = tmp_path / f"{name}.zarr"
        write_raw(path, [("0.0", chunk)], compressor={"id": codec})
        outcome = reader.read(path)
        assert outcome.kind == REFUSED, (name, outcome)
        assert outcome.is_fine


def test_loops_and_pipes(reader, tmp_path):
    folders = {}
    for name in ("itself", "loop", "out", "group", "pipe", "deep", "list"):
        folders[name] = write_ome(tmp_path / f"{name}.zarr")
        shutil.rmtree(folders[name] / "0")
    os.symlink(".", folders["itself"] / "0")
    os.symlink("0", folders["loop"] / "0")
    os.symlink(tmp_path / "nowhere", folders["out"] / "0")
    zarr.create_group(folders["group"] / "0")
    (folders["pipe"] / "0").mkdir()
    os.mkfifo(folders["pipe"] / "0/.zarray")
    (folders["deep"] / "zarr.json").write_text("[" * 100_000 + "]" * 100_000)
    (folders["list"] / "zarr.json").write_text("[1, 2]")
    os.symlink("knot.zarr", tmp_path / "knot.zarr")
    folders["knot"] = tmp_path / "knot.zarr"
    for name, folder in folders.items():
        outcome = reader.read(folder)
        assert outcome.kind == REFUSED, (name, outcome)
        assert outcome.is_fine


def test_label_info_of_any_kind(tmp_path):
    wrong = [
        {"colors": [{"label-value": 1, "rgba": ["a", None, 3, 4]}]},
        {"colors": [{"label-value": 1, "rgba": [999, -5, 1e300, 0]}]},
        {"properties": [{"label-value": math.nan, "class": "a"}]},
        {"properties": [{"label-value": math.inf, "class": "a"}]},
        {"properties": {"a": 1}},
        "text",
    ]
    for number, label in enumerate(wrong):
        path = write_ome(tmp_path / f"{number}.zarr", ome={"image-label": label})
        info = read_label_info(path)
        assert not info.names
        assert not info.colors


def test_a_zarr_that_is_removed_or_replaced_is_no_zeros(tmp_path):
    path = tmp_path / "a.zarr"
    write_pyramid(path, np.ones((300, 200), np.uint8), chunk=64)
    pyramid = open_pyramid(path)
    assert pyramid.levels[0].source.read([0, 0], [1, 1]) == 1
    shutil.rmtree(path)
    with pytest.raises(ImageNotFoundError, match="any more"):
        pyramid.levels[0].source.read([0, 0], [100, 100])
    write_pyramid(path, np.ones((100, 90), np.uint8), chunk=32)
    with pytest.raises(PyramidError, match="changed"):
        pyramid.levels[0].source.read([0, 0], [100, 100])
