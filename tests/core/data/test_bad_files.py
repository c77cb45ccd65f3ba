"""TIFF, slide and picture files that are wrong in every way."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_muvit.core.data.ome_zarr import write_pyramid
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.tissue import find_tissue
from napari_muvit.core.errors import ImageNotFoundError, PyramidError

READ, REFUSED = "read", "refused"
WIDTH, HEIGHT, BITS, CODEC, COLOUR, SAMPLES = 256, 257, 258, 259, 262, 277
ROWS, AT, COUNT = 278, 273, 279
TILE_WIDTH, TILE_HEIGHT, TILE_AT, TILE_COUNT = 322, 323, 324, 325
SUB_IFDS, NOTHING, DEFLATE = 330, 1, 8
STRIP = {
    WIDTH: 64, HEIGHT: 64, BITS: 8, CODEC: NOTHING, COLOUR: 1, SAMPLES: 1, ROWS: 64,
    AT: 500, COUNT: 4096,
}  # fmt: skip
TILES = {
    WIDTH: 512, HEIGHT: 512, BITS: 8, CODEC: NOTHING, COLOUR: 1, SAMPLES: 1,
    TILE_WIDTH: 256, TILE_HEIGHT: 256, TILE_AT: [500] * 4, TILE_COUNT: [65536] * 4,
}  # fmt: skip


def directory(tags, place=8, after=0):
    """Bytes of an image file directory; every value a 32-bit integer."""
    entries, values = b"", b""
    free = place + 2 + 12 * len(tags) + 4
    for code, value in sorted(tags.items()):
        numbers = value if isinstance(value, list) else [value]
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        entries += struct.pack("<HHI", code, 4, len(numbers))
        if len(numbers) == 1:
            entries += packed
        else:
            entries += struct.pack("<I", free + len(values))
            values += packed
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", after) + values


def write_tiff(path, tags, data=b"\5" * 65536, after=0):
    head = b"II*\0" + struct.pack("<I", 8) + directory(tags, after=after)
    path.write_bytes(head.ljust(500, b"\0") + data)
    return path


def write_pages(path, count):
    """Many pages that share their pixels, and say nothing of what they are."""
    tags = {**STRIP, WIDTH: 8, HEIGHT: 8, ROWS: 8, AT: 8, COUNT: 64}
    size = len(directory(tags))
    out = [b"II*\0" + struct.pack("<I", 128) + b"\7" * 120]
    for k in range(count):
        place = 128 + k * size
        out.append(directory(tags, place, place + size if k < count - 1 else 0))
    path.write_bytes(b"".join(out))
    return path


BIG = 2**31 - 1
BOMB = zlib.compress(b"\0" * 2**28)
TIFFS = {
    "good": (STRIP, READ),
    "good_tiles": (TILES, READ),
    "huge_strip": ({**STRIP, WIDTH: BIG, HEIGHT: BIG, ROWS: BIG}, REFUSED),
    "huge_deflated": (
        {**STRIP, WIDTH: BIG, HEIGHT: BIG, ROWS: BIG, CODEC: DEFLATE},
        REFUSED,
    ),
    "wide": ({**STRIP, WIDTH: 2**32 - 1, HEIGHT: 1}, REFUSED),
    "high": ({**STRIP, HEIGHT: 2**32 - 1, ROWS: 1, CODEC: DEFLATE}, REFUSED),
    "huge_of_tiles": ({**TILES, WIDTH: BIG, HEIGHT: BIG}, REFUSED),
    "huge_tiles": ({**TILES, TILE_WIDTH: 2**24, TILE_HEIGHT: 2**24}, REFUSED),
    "no_tile_width": ({**TILES, TILE_WIDTH: 0}, REFUSED),
    "small_tiles": ({**TILES, TILE_WIDTH: 1, TILE_HEIGHT: 1}, REFUSED),
    "few_tiles": ({**TILES, TILE_AT: 500, TILE_COUNT: 65536}, REFUSED),
    "far_tiles": ({**TILES, TILE_AT: [BIG] * 4}, REFUSED),
    "long_tiles": ({**TILES, TILE_COUNT: [BIG] * 4}, REFUSED),
    "sparse_tiles": ({**TILES, TILE_AT: [0] * 4, TILE_COUNT: [0] * 4}, READ),
    "no_width": ({k: v for k, v in STRIP.items() if k != WIDTH}, REFUSED),
    "no_pixels": ({**STRIP, WIDTH: 0}, REFUSED),
    "many_samples": ({**STRIP, SAMPLES: 65535}, REFUSED),
    "odd_bits": ({**STRIP, BITS: 63}, REFUSED),
    "unknown_codec": ({**STRIP, CODEC: 1234}, REFUSED),
    "wrong_codec": ({**STRIP, CODEC: 7}, REFUSED),
    "own_child": ({**STRIP, SUB_IFDS: 8}, READ),
    "far_child": ({**STRIP, SUB_IFDS: BIG}, READ),
}


@pytest.mark.parametrize("name", TIFFS)
def test_tiffs(reader, tmp_path, name):
    tags, kind = TIFFS[name]
    outcome = reader.read(write_tiff(tmp_path / "a.tif", tags))
    assert (outcome.kind, outcome.is_fine) == (kind, True), outcome
    assert outcome.nbytes < 2**29


def test_directories_in_a_loop(reader, tmp_path):
    outcome = reader.read(write_tiff(tmp_path / "a.tif", STRIP, after=8))
    assert outcome.is_fine, outcome


def test_bombs(reader, tmp_path):
    tags = {**STRIP, CODEC: DEFLATE, COUNT: len(BOMB)}
    write_tiff(tmp_path / "strip.tif", tags, BOMB)
    size = {WIDTH: 256, HEIGHT: 256, CODEC: DEFLATE}
    tags = {**TILES, **size, TILE_AT: 500, TILE_COUNT: len(BOMB)}
    write_tiff(tmp_path / "tile.tif", tags, BOMB)
    write_png(tmp_path / "square.png", 19_000, 19_000, BOMB)
    write_png(tmp_path / "huge.png", BIG, BIG, b"")
    write_png(tmp_path / "longer.png", 10, 10, BOMB)
    write_png(tmp_path / "text.png", 1, 1, zlib.compress(b"\0\0"), BOMB)
    for path in sorted(tmp_path.iterdir()):
        outcome = reader.read(path)
        assert outcome.is_fine, (path, outcome)
        assert outcome.nbytes < 2**27, (path, outcome)


def write_png(path, width, height, pixels, text=b""):
    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header)]
    if text:
        parts.append(chunk(b"zTXt", b"a\0\0" + text))
    parts += [chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_is_png_or_jpeg_whatever_its_name(reader, tmp_path, suffix):
    """Pillow would hand PostScript over to another program."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    outcome = reader.read(path)
    assert outcome.kind == REFUSED
    assert "Ghostscript" not in outcome.message


def test_seventy_thousand_pages_open_at_once(reader, tmp_path):
    path = write_pages(tmp_path / "a.tif", 70_000)
    outcome = reader.read(path)
    assert (outcome.kind, outcome.is_fine) == (READ, True), outcome
    pyramid = open_pyramid(path)
    assert "the first of 70000 pages" in pyramid.note
    assert pyramid.shape == (8, 8)


def write_ome(path, attributes="", inside="<TiffData/>", size='SizeX="64" SizeC="1"'):
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
        '2016-06"><Image ID="Image:0"><Pixels ID="P" DimensionOrder="XYCZT" Type='
        f'"uint8" SizeY="64" SizeZ="1" SizeT="1" {size} {attributes}>{inside}</Pixels>'
        "</Image></OME>"
    )
    options = {"description": text, "metadata": None}
    tifffile.imwrite(path, np.ones((64, 64), np.uint8), **options)
    return path


@pytest.mark.parametrize(
    "size",
    ['SizeX="2147483648" SizeC="1"', 'SizeX="64" SizeC="10000000"', 'SizeX="a"'],
)
def test_ome_xml_of_other_sizes(reader, tmp_path, size):
    outcome = reader.read(write_ome(tmp_path / "a.ome.tif", size=size))
    assert outcome.is_fine, outcome


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "1e308", "1e-300", "x"])
def test_pixel_sizes_that_are_none(tmp_path, value):
    both = f'PhysicalSizeX="{value}" PhysicalSizeY="{value}"'
    assert open_pyramid(write_ome(tmp_path / "a.ome.tif", both)).pixel_size is None
    description = f"Aperio Image|MPP = {value}"
    image = np.ones((64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", image, description=description, metadata=None)
    assert open_pyramid(tmp_path / "b.tif").pixel_size is None


@pytest.mark.parametrize("name", ["../other.tif", "/dev/zero", "pipe.tif"])
def test_the_parts_of_an_image_lie_in_its_folder(reader, tmp_path, name):
    folder = tmp_path / "inside"
    folder.mkdir()
    os.mkfifo(folder / "pipe.tif")
    part = f'<TiffData><UUID FileName="{name}">urn:uuid:1</UUID></TiffData>'
    outcome = reader.read(write_ome(folder / "a.ome.tif", inside=part))
    assert (outcome.kind, outcome.is_fine) == (REFUSED, True), outcome
    assert name in outcome.message


def test_a_unit_that_is_no_text_does_not_matter(tmp_path):
    text = "ImageJ=1.54\nunit=\\x\n"
    image = np.ones((64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, description=text, metadata=None)
    assert open_pyramid(tmp_path / "a.tif").pixel_size is None


def test_paths_that_are_no_files(reader, tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    os.mkfifo(tmp_path / "pipe.geojson")
    os.symlink("/dev/zero", tmp_path / "zero.tif")
    os.symlink("/dev/zero", tmp_path / "zero.geojson")
    os.symlink("knot.tif", tmp_path / "knot.tif")
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "folder.geojson").mkdir()
    paths = [*tmp_path.iterdir(), Path("/dev/null"), tmp_path / ("a" * 5000)]
    for path in paths:
        outcome = reader.read(path)
        assert (outcome.kind, outcome.is_fine) == (REFUSED, True), (path, outcome)


@pytest.mark.parametrize(
    "name", ["ä 'q\" \t%s{}.tif", "a\nb.tif", "\u202etif", ".tif", "-n", "a.b.c"]
)
def test_odd_names(reader, tmp_path, name):
    tifffile.imwrite(tmp_path / "a", np.ones((20, 20), np.uint8))
    (tmp_path / "a").rename(tmp_path / name)
    outcome = reader.read(tmp_path / name)
    assert (outcome.kind, outcome.is_fine) == (READ, True), outcome


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads all")
def test_a_locked_file_and_a_locked_folder(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((20, 20), np.uint8))
    (tmp_path / "a.tif").chmod(0)
    with pytest.raises(PyramidError, match="ermission"):
        open_pyramid(tmp_path / "a.tif")
    tmp_path.chmod(0)
    try:
        with pytest.raises(PyramidError, match="ermission"):
            open_pyramid(tmp_path / "a.tif")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("tile", [None, (64, 64)])
@pytest.mark.parametrize("is_read", [False, True])
def test_a_file_that_is_replaced_is_not_mixed(tmp_path, tile, is_read):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((300, 200), np.uint8), tile=tile)
    pyramid = open_pyramid(path)
    source = pyramid.levels[0].source
    if is_read:
        source.read([0, 0], [1, 1])
    tifffile.imwrite(path, np.full((300, 201), 2, np.uint8), tile=tile)
    with pytest.raises(PyramidError, match="changed after it was opened"):
        source.read([100, 100], [200, 200])
    path.unlink()
    with pytest.raises(ImageNotFoundError, match="any more"):
        source.read([100, 100], [200, 200])


def test_a_picture_that_is_replaced(tmp_path):
    path = write_png(tmp_path / "a.png", 9, 9, zlib.compress(b"\0" * 90))
    pyramid = open_pyramid(path)
    write_png(path, 5, 5, zlib.compress(b"\0" * 30))
    with pytest.raises(PyramidError, match="changed after it was opened"):
        pyramid.read(pyramid.extent, 1, pyramid.shape)


def test_pixels_that_are_not_finite(reader, tmp_path):
    image = np.random.default_rng(0).random((300, 300)).astype(np.float32)
    image[:100] = np.nan
    image[200:, :50] = np.inf
    image[250:, 200:] = -np.inf
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, tile=(64, 64))
    outcome = reader.read(path)
    assert (outcome.kind, outcome.is_fine) == (READ, True), outcome
    pyramid = open_pyramid(path)
    got = pyramid.read(pyramid.extent, 1, pyramid.shape)[0]
    np.testing.assert_array_equal(got, image)
    half = pyramid.read(pyramid.extent, 2, (150, 150))[0]
    # What is not finite spoils the pixels that it is part of, and no others.
    spoiled = ~np.isfinite(image).reshape(150, 2, 150, 2).all(axis=(1, 3))
    np.testing.assert_array_equal(~np.isfinite(half), spoiled)
    assert 0 <= find_tissue(pyramid).share <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, 5e-310])
def test_images_of_one_odd_value(reader, tmp_path, value):
    tifffile.imwrite(tmp_path / "a.tif", np.full((90, 90), value), tile=(64, 64))
    outcome = reader.read(tmp_path / "a.tif")
    assert (outcome.kind, outcome.is_fine) == (READ, True), outcome


def open_files():
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("the system does not list open files")
    return len(list(folder.iterdir()))


def test_opening_leaves_nothing_open(tmp_path):
    image = np.ones((600, 600), np.uint8)
    write_pyramid(tmp_path / "a.zarr", image, chunk=64)
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64))
    tifffile.imwrite(tmp_path / "b.tif", image)
    write_png(tmp_path / "a.png", 9, 9, zlib.compress(b"\0" * 90))
    names = [path.name for path in tmp_path.iterdir()]
    open_pyramid(tmp_path / "a.zarr")  # zarr starts threads
    before = open_files()
    pyramids = [open_pyramid(tmp_path / name) for _ in range(20) for name in names]
    assert len(pyramids) == 80
    assert open_files() <= before + 2


def test_more_slides_are_read_than_files_may_be_open(tmp_path):
    image = (np.random.default_rng(0).random((100, 100)) * 250).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64))
    before = open_files()
    sources = [open_pyramid(tmp_path / "a.tif").levels[0].source for _ in range(200)]
    for _ in range(2):
        for source in sources:
            np.testing.assert_array_equal(
                source.read([40, 50], [90, 99])[0], image[40:90, 50:99]
            )
    assert open_files() <= before + 70
