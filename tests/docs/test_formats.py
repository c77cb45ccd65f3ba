"""The table of formats in the documentation says what the readers really do.

Every row is a file that is made here, or a real one where it is at hand, opened and
asked. ``WRITE_DOCS=1 pytest tests/docs/test_formats.py`` writes the table anew.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.pyramid import Pyramid
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import PyramidError

DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
DATA = Path(__file__).parents[3] / "shared" / "data"
BEGIN, END = "<!-- table -->\n", "<!-- /table -->\n"
GREY = np.random.default_rng(0).integers(0, 255, (256, 320), dtype=np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


@dataclass(frozen=True)
class Row:
    """One format, and a file of it."""

    title: str
    extra: str
    make: Callable[[Path], Path | str] | str
    """Makes a file in a folder; or the name of a real one."""
    tested: str


def ome_tiff(folder: Path) -> Path:
    path = folder / "a.ome.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        metadata = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        file.write(GREY, subifds=1, tile=(64, 64), metadata=metadata)
        file.write(GREY[::2, ::2], subfiletype=1, tile=(64, 64))
    return path


def plain_tiff(folder: Path) -> Path:
    tifffile.imwrite(
        folder / "a.tif", COLOUR, photometric="rgb", tile=(64, 64),
        resolution=(20000, 20000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return folder / "a.tif"


def imagej_tiff(folder: Path) -> Path:
    tifffile.imwrite(
        folder / "a.tif", np.stack([GREY, GREY]), imagej=True,
        resolution=(4.0, 4.0), metadata={"axes": "CYX", "unit": "um"},
    )  # fmt: skip
    return folder / "a.tif"


def zarr_05(folder: Path) -> Path:
    write_pyramid(folder / "a.zarr", GREY, pixel_size=0.5, smallest=64)
    return folder / "a.zarr"


def plain_zarr(folder: Path) -> Path:
    array = zarr.create_array(folder / "a.zarr", data=GREY, chunks=(64, 64))
    assert array.shape == GREY.shape
    return folder / "a.zarr"


def zipped_zarr(folder: Path) -> Path:
    zarr_05(folder)
    with zipfile.ZipFile(folder / "a.ozx", "w") as file:
        for part in (folder / "a.zarr").rglob("*"):
            file.write(part, part.relative_to(folder / "a.zarr"))
    return folder / "a.ozx"


def remote_zarr(folder: Path) -> str:
    """In a store of fsspec, as http:// and s3:// are."""
    fsspec = pytest.importorskip("fsspec")
    path = zarr_05(folder)
    fsspec.filesystem("memory").put(str(path), "/formats/a.zarr", recursive=True)
    return "memory://formats/a.zarr"


def picture(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        Image.fromarray(COLOUR).save(folder / f"a{suffix}")
        return folder / f"a{suffix}"

    return make


ROWS = (
    Row("OME-Zarr 0.5", "", zarr_05, "made by this package"),
    Row("OME-Zarr 0.5, sharded", "", "omezarr/6001240_labels_v0.5.zarr", "real"),
    Row("OME-Zarr 0.4", "", "omezarr/tubhiswt4D_sub.zarr", "real"),
    Row("OME-Zarr plate (a well and field, else the first)", "",
        "omezarr/plate_ones_mip.zarr", "real"),
    Row("zipped OME-Zarr (.zip, .ozx)", "", zipped_zarr, "made by this package"),
    Row("OME-Zarr behind http://, https://, s3://", "`remote`", remote_zarr,
        "made by this package, served over http; S3 itself untested"),
    Row("zarr array or group of arrays", "", plain_zarr, "made by zarr"),
    Row("OME-TIFF, BigTIFF, levels in sub-IFDs", "", ome_tiff, "made by tifffile"),
    Row("TIFF, tiled or in strips", "", plain_tiff, "made by tifffile"),
    Row("ImageJ TIFF", "", imagej_tiff, "made by tifffile"),
    Row("Aperio SVS, JPEG 2000", "", "wsi/tcga-cr-7395-01a-01-ts1.svs", "real"),
    Row("Aperio SVS, JPEG", "", "wsi/cmu-1-small-region.svs", "real"),
    Row("PerkinElmer QPTIFF", "", "wsi/small_vectra.qptiff", "real"),
    Row("PNG", "", picture(".png"), "made by Pillow"),
    Row("JPEG", "", picture(".jpg"), "made by Pillow"),
)  # fmt: skip
UNTESTED = (
    ("Hamamatsu NDPI, Leica SCN, Philips TIFF, Trestle", "`wsi` as second choice"),
    ("MIRAX MRXS, Ventana BIF, Zeiss CZI, DICOM, Hamamatsu VMS, Sakura", "`wsi`"),
)
"""Formats that the libraries read, of which no file was at hand."""


def described(row: Row, image: Pyramid) -> str:
    factors = ", ".join(f"{f:g}" for f in image.scale_factors)
    size = "-"
    if image.pixel_size is not None:
        size = f"{image.pixel_size[0]:.3g} µm"
    channels = "RGB" if image.rgb else str(image.num_channels)
    return (
        f"| {row.title} | {row.extra or '-'} | {factors} | {channels} | {size} | "
        f"{row.tested} |"
    )


def opened(row: Row, folder: Path) -> Pyramid:
    path: Path | str
    if isinstance(row.make, str):
        path = DATA / row.make
        if not path.exists():
            pytest.skip("needs real files")
    else:
        path = row.make(folder)
    return open_pyramid(path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_each_row_is_what_the_reader_says(row: Row, tmp_path: Path) -> None:
    image = opened(row, tmp_path)
    last = image.levels[-1].source
    assert last.read((0, 0), (1, 1)).shape == (image.num_channels, 1, 1)
    if not os.environ.get("WRITE_DOCS"):
        assert described(row, image) in DOCS.read_text(encoding="utf-8")


def test_what_cannot_be_opened_is_refused_in_one_line() -> None:
    if not DATA.exists():
        pytest.skip("needs real files")
    for name in ("small_dicom.dcm", "broken.svs"):
        with pytest.raises(PyramidError) as error:
            open_pyramid(DATA / "wsi" / name)
        assert "\n" not in str(error.value)


@pytest.mark.skipif(not os.environ.get("WRITE_DOCS"), reason="WRITE_DOCS is not set")
def test_write_the_table(tmp_path: Path) -> None:
    lines = [
        "| format | extra | levels | channels | pixel size | tested on a file |",
        "|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(ROWS):
        folder = tmp_path / str(number)
        folder.mkdir()
        lines.append(described(row, opened(row, folder)))
    lines += [
        f"| {title} | {extra} | | | | none at hand |" for title, extra in UNTESTED
    ]
    text = DOCS.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    table = "\n".join(lines) + "\n"
    DOCS.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")
