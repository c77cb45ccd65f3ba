"""Any slide as an OME-Zarr: the same pixels at the same place, through any kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_muvit.core.data import convert as module
from napari_muvit.core.data.convert import convert
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.pyramid import Pyramid
from napari_muvit.core.data.zarr_nodes import read_label_info
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import Cancelled, OutputError
from napari_muvit.core.geometry import Box

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def small(monkeypatch):
    """Blocks of 64 pixels, so that a small picture has many."""
    monkeypatch.setattr(module, "CHUNK", 32)
    monkeypatch.setattr(module, "SHARD", 64)
    monkeypatch.setattr(module, "SMALLEST", 32)


def picture(shape=(300, 203), seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def whole(path):
    pyramid = open_pyramid(path)
    return [
        level.source.read((0,) * 2, level.shape) for level in pyramid.levels
    ]  # fmt: skip


def test_pixels_places_and_metadata(small, tmp_path):
    image = picture((300, 203, 3))
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb", tile=(32, 32),
        resolution=(20000, 20000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    result = convert(tmp_path / "a.tif", tmp_path / "a.zarr")
    assert result.blocks == result.total == 20 + 6 + 2 + 1 + 1
    assert result.shapes == ((300, 203), (150, 102), (75, 51), (38, 26), (19, 13))
    before, after = open_pyramid(tmp_path / "a.tif"), open_pyramid(tmp_path / "a.zarr")
    assert after.rgb
    assert after.pixel_size == pytest.approx(before.pixel_size)
    assert after.scale_factors == (1, 2, 4, 8, 16)
    array = zarr.open_array(tmp_path / "a.zarr" / "0", mode="r")
    assert array.chunks == (3, 32, 32)
    assert array.shards == (3, 64, 64)
    box = Box((10, 20), (138, 148))
    np.testing.assert_array_equal(
        before.read(box, 1, (128, 128)), after.read(box, 1, (128, 128))
    )
    for factor, shape in ((2, (64, 64)), (4, (32, 32)), (8, (16, 16))):
        box = Box((8, 16), (136, 144))
        close = before.read(box, factor, shape) - after.read(box, factor, shape)
        # Rounded once a level.
        assert abs(close).max() <= 1.6
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "a.zarr" / module.STATE).exists()


@pytest.mark.parametrize("dtype", [np.uint16, ">u2", np.float32, np.int8, bool])
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (64, 64), (65, 129)])
def test_types_and_odd_sizes(small, tmp_path, dtype, shape):
    image = (picture(shape) % 100).astype(dtype)
    convert(image, tmp_path / "a.zarr")
    found = whole(tmp_path / "a.zarr")[0][0]
    np.testing.assert_array_equal(found, image)


def test_labels_keep_the_commonest_value_and_their_names(small, tmp_path):
    labels = np.kron(picture((20, 20)) % 3, np.ones((8, 8), np.uint8))
    write_pyramid(
        tmp_path / "l.zarr", labels, labels=True, class_names=("a", "b"),
        class_colors=("#010203", "#040506"),
    )  # fmt: skip
    convert(tmp_path / "l.zarr", tmp_path / "c.zarr")
    np.testing.assert_array_equal(whole(tmp_path / "c.zarr")[2][0], labels[::4, ::4])
    info = read_label_info(tmp_path / "c.zarr")
    assert dict(info.names) == {1: "a", 2: "b"}
    assert info.colors[2] == "#040506"


def test_labels_without_names_are_labels_too(small, tmp_path):
    # Their coarser levels were averaged: 1 and 3 made 2.
    labels = np.kron(picture((20, 20)) % 3, np.ones((8, 8), np.uint8))
    write_pyramid(tmp_path / "l.zarr", labels, labels=True)
    convert(tmp_path / "l.zarr", tmp_path / "c.zarr")
    np.testing.assert_array_equal(whole(tmp_path / "c.zarr")[2][0], labels[::4, ::4])
    assert read_label_info(tmp_path / "c.zarr").is_label


def test_a_stopped_run_goes_on_and_ends_the_same(small, tmp_path):
    image = open_pyramid(picture(), name="a")
    convert(image, tmp_path / "whole.zarr")
    calls = 0

    def stop():
        nonlocal calls
        calls += 1
        return calls > 5

    with pytest.raises(Cancelled):
        convert(image, tmp_path / "a.zarr", should_stop=stop)
    assert not (tmp_path / "a.zarr").exists()
    state = tmp_path / "a.zarr.part" / module.STATE
    # As if killed in the middle of a line.
    state.write_text(state.read_text() + "[0, 1")
    result = convert(image, tmp_path / "a.zarr")
    assert result.blocks == result.total - 5
    for found, wanted in zip(
        whole(tmp_path / "a.zarr"), whole(tmp_path / "whole.zarr"), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    again = convert(image, tmp_path / "a.zarr")
    assert again.blocks == 0


def test_what_is_there_already(small, tmp_path):
    one, two = (
        open_pyramid(picture(), name="1"),
        open_pyramid(picture(seed=1), name="2"),
    )
    convert(one, tmp_path / "a.zarr")
    with pytest.raises(OutputError, match="something else"):
        convert(two, tmp_path / "a.zarr")
    convert(two, tmp_path / "a.zarr", overwrite=True)
    np.testing.assert_array_equal(whole(tmp_path / "a.zarr")[0][0], picture(seed=1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr"]
    with pytest.raises(Cancelled):
        convert(one, tmp_path / "b.zarr", should_stop=lambda: True)
    with pytest.raises(OutputError, match="left of another conversion"):
        convert(two, tmp_path / "b.zarr")
    convert(two, tmp_path / "b.zarr", overwrite=True)


def test_what_is_no_zarr_is_never_replaced(small, tmp_path):
    # overwrite would have removed any folder, and any "....part" beside it.
    image = open_pyramid(picture(), name="a")
    (tmp_path / "file").write_text("mine")
    for folder in ("folder", "b.zarr.part"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "notes.txt").write_text("mine")
    for name, message in (
        ("file", "is no zarr"), ("folder", "is no zarr"), ("b.zarr", "not of this"),
    ):  # fmt: skip
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=message):
                convert(image, tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"
    for folder in ("folder", "b.zarr.part"):
        assert (tmp_path / folder / "notes.txt").read_text() == "mine"


def test_a_line_cut_off_costs_one_block_only(small, tmp_path):
    # All lines behind it were forgotten, at every further start.
    image = open_pyramid(picture(), name="a")
    state = tmp_path / "a.zarr.part" / module.STATE
    for _ in range(2):
        begun = state.read_text().count("]") if state.exists() else 0
        calls = iter(range(100))
        with pytest.raises(Cancelled):
            convert(
                image, tmp_path / "a.zarr",
                should_stop=lambda calls=calls: next(calls) >= 3,
            )  # fmt: skip
        assert state.read_text().count("]") == begun + 3
        state.write_text(state.read_text() + "[0, 1")
    result = convert(image, tmp_path / "a.zarr")
    assert result.blocks == result.total - 6


def test_never_over_the_image_itself(small, tmp_path):
    convert(picture(), tmp_path / "a.zarr")
    for out in (tmp_path / "a.zarr", tmp_path / "a.zarr" / "b.zarr", tmp_path):
        with pytest.raises(OutputError, match="lie in each other"):
            convert(tmp_path / "a.zarr", out, overwrite=True)


def test_a_full_disk_keeps_what_is_done(small, tmp_path, monkeypatch):
    image = open_pyramid(picture(), name="a")
    real, count = module._write_block, 0

    def fails(*arguments):
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(28, "No space left on device")
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_block", fails)
        with pytest.raises(OutputError, match="No space left"):
            convert(image, tmp_path / "a.zarr")
    result = convert(image, tmp_path / "a.zarr")
    assert result.blocks == result.total - 3


@pytest.mark.skipif(not DATA.is_dir(), reason="needs real files")
@pytest.mark.parametrize("name", ["tcga-cr-7395-01a-01-ts1.svs", "small_vectra.qptiff"])
def test_a_real_slide_and_its_copy_agree(name, tmp_path):
    before = open_pyramid(DATA / "wsi" / name)
    convert(before, tmp_path / "a.zarr")
    after = open_pyramid(tmp_path / "a.zarr")
    assert isinstance(after, Pyramid)
    assert after.pixel_size == before.pixel_size
    for factor in (1, 2, 4, 8):
        edge = 64 * factor
        for corner in ((256, 512), (64, 1024)):
            box = Box(corner, tuple(c + edge for c in corner))
            one, two = (p.read(box, factor, (64, 64)) for p in (before, after))
            # The slide's own coarse level was made by its scanner, and compressed.
            assert abs(one - two).mean() < 0.02 * max(1.0, one.max())


def tiff_copy(slide, path, **codec):
    """The stored levels of an RGB slide as a tiled TIFF."""
    options = {"photometric": "rgb", "tile": (256, 256), "metadata": None, **codec}
    size = slide.pixel_size and 1e4 / slide.pixel_size[0]
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate(slide.levels):
            pixels = np.moveaxis(level.source.read((0, 0), level.shape), 0, -1)
            extra = {"subfiletype": 1} if index else {"subifds": len(slide.levels) - 1}
            if size and not index:
                extra |= {"resolution": (size, size), "resolutionunit": "CENTIMETER"}
            file.write(np.ascontiguousarray(pixels), **options, **extra)
    return open_pyramid(path)


def shift_of(one, two):
    """Pixels (y, x) by which a crop lies beside another, to first order."""
    one, two = one.mean(axis=0), two.mean(axis=0)
    slopes = np.stack([g[2:-2, 2:-2].ravel() for g in np.gradient(one)], axis=1)
    rest = (two - one)[2:-2, 2:-2].ravel()
    return -np.linalg.lstsq(slopes, rest - rest.mean(), rcond=None)[0]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs real files")
@pytest.mark.parametrize("name", ["cmu-1-small-region", "tcga-cr-7395-01a-01-ts1"])
def test_the_same_crop_of_svs_zarr_and_tiff(name, tmp_path):
    slide = open_pyramid(DATA / "wsi" / f"{name}.svs")
    convert(slide, tmp_path / "a.zarr")
    copies = {
        "zarr": open_pyramid(tmp_path / "a.zarr"),
        "tiff": tiff_copy(slide, tmp_path / "a.tif"),
        "jpeg": tiff_copy(slide, tmp_path / "b.tif", compression="jpeg",
                          subsampling=(1, 1), compressionargs={"level": 95}),
    }  # fmt: skip
    for kind, copy in copies.items():
        assert copy.rgb, kind
        assert copy.shape == slide.shape, kind
        for size, wanted in zip(
            copy.pixel_size or (), slide.pixel_size or (), strict=True
        ):
            assert size == pytest.approx(wanted, rel=1e-4), kind
        for factor, corner in ((1, (1000, 900)), (2, (700, 801)), (7.5, (400, 300))):
            upper = tuple(c + 128 * factor for c in corner)
            box = Box(corner, upper)
            want, got = (p.read(box, factor, (128, 128)) for p in (slide, copy))
            assert want.std() > 10
            assert np.abs(shift_of(want, got)).max() < 0.05, (kind, factor)
            off = np.abs(want - got)
            if kind == "tiff" or (kind, factor) == ("zarr", 1):
                assert off.max() <= 1e-3, (kind, factor)
            # JPEG at level 95; and a scanner's own coarse level is compressed too.
            assert off.mean() < 5, (kind, factor, off.mean())


KILLED = """
import sys, numpy as np
from napari_muvit.core.data import convert as module
module.CHUNK, module.SHARD, module.SMALLEST = 32, 64, 32
from napari_muvit.core.data.open import open_pyramid
image = np.random.default_rng(0).integers(0, 255, (900, 900), dtype=np.uint8)
result = module.convert(open_pyramid(image, name="a"), sys.argv[1])
print(result.blocks, result.total)
"""


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path):
    out = tmp_path / "a.zarr"
    command = [sys.executable, "-c", KILLED, str(out)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        state = Path(f"{out}.part") / module.STATE
        began, size = time.monotonic(), state.stat().st_size if state.exists() else 0
        while process.poll() is None and time.monotonic() - began < 60:
            if state.exists() and state.stat().st_size > size + 30:
                time.sleep(float(rng.random()) * 0.02)
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait()
        if out.exists():
            break
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    blocks, total = map(int, last.stdout.split())
    assert blocks < total
    image = np.random.default_rng(0).integers(0, 255, (900, 900), dtype=np.uint8)
    np.testing.assert_array_equal(whole(out)[0][0], image)
    meta = json.loads((out / "zarr.json").read_text())
    assert meta["attributes"]["napari_muvit"]["converted"]["labels"] is False
