"""Files cut off anywhere and with bytes turned: read or refused, never worse."""

import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_muvit.core.data.ome_zarr import write_pyramid

DATA = Path(__file__).parents[4] / "shared" / "data"
SEED = 7
NOTES = {"zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"}


def write_files(folder):
    """One small file of each kind; name -> path."""
    rng = np.random.default_rng(SEED)
    gray = (rng.random((70, 90)) * 200).astype(np.uint8)
    rgb = (rng.random((80, 100, 3)) * 200).astype(np.uint8)
    many = (rng.random((3, 60, 70)) * 60_000).astype(np.uint16)
    tiles = {"tile": (32, 32), "compression": "zlib"}
    imwrite = tifffile.imwrite
    imwrite(folder / "strips.tif", gray)
    imwrite(folder / "deflated.tif", gray, compression="zlib", rowsperstrip=8)
    imwrite(folder / "tiles.tif", gray, **tiles)
    imwrite(folder / "big.tif", gray, bigtiff=True, tile=(32, 32))
    imwrite(folder / "lzw.tif", gray, tile=(32, 32), compression="lzw")
    imwrite(folder / "jpeg.tif", rgb, tile=(32, 32), compression="jpeg")
    imwrite(folder / "motorola.tif", many, byteorder=">", photometric="minisblack")
    imwrite(folder / "imagej.tif", many, imagej=True, metadata={"axes": "CYX"})
    with tifffile.TiffWriter(folder / "levels.ome.tif") as file:
        options = {"photometric": "minisblack", **tiles}
        file.write(many, subifds=1, metadata={"axes": "CYX"}, **options)
        file.write(many[:, ::2, ::2], subfiletype=1, **options)
    aperio = "Aperio Image Library v1\r\n100x80 JPEG/RGB|AppMag = 20|MPP = 0.499"
    with tifffile.TiffWriter(folder / "aperio.svs") as file:
        options = {"photometric": "rgb", "metadata": None}
        file.write(rgb, description=aperio, **tiles, **options)
        file.write(rgb[::10, ::10], description="thumbnail", **options)
        file.write(rgb[::4, ::4], description=aperio, **tiles, **options)
    for name in ("rgb.png", "rgb.jpg"):
        Image.fromarray(rgb).save(folder / name)
    Image.fromarray(many[0]).save(folder / "deep.png")
    areas = [[[0, 0], [40, 0], [40, 40], [0, 40], [0, 0]]]
    (folder / "areas.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": '
        f'{{"type": "Polygon", "coordinates": {areas}}}, "properties": '
        '{"classification": {"name": "Tumor", "color": [200, 0, 0]}}}]}'
    )
    return sorted(folder.iterdir())


def damaged(content, rng):
    """Cut off, or with some bytes changed; headers and ends more often."""
    data = bytearray(content)
    size = len(data)
    if rng.random() < 0.25:
        return bytes(data[: rng.randrange(size)])
    for _ in range(rng.choice([1, 1, 2, 4, 16, 64])):
        first = rng.randrange(min(size, 256))
        last = size - 1 - rng.randrange(min(size, 600))
        at = rng.choice([first, last, rng.randrange(size), rng.randrange(size)])
        turned = data[at] ^ (1 << rng.randrange(8))
        data[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256), turned])
    return bytes(data)


def check(reader, path, keep):
    """Read a damaged file; a copy of it stays in ``keep`` when that goes wrong."""
    outcome = reader.read(path)
    is_small = path.is_dir() or path.stat().st_size < 2**20
    is_good = outcome.is_fine if is_small else outcome.is_clear
    if not is_good or outcome.nbytes > 2**30:
        keep.mkdir(exist_ok=True)
        copy = keep / path.name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
        pytest.fail(f"{copy}: {outcome}")


def check_files(reader, paths, work, seed, seconds, most):
    """Damage files in turn; return how many were checked."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    for number in range(most):
        if time.monotonic() > end:
            return number
        path = paths[number % len(paths)]
        target = work / path.name
        target.write_bytes(damaged(path.read_bytes(), rng))
        check(reader, target, work / "kept")
    return most


def check_stores(reader, store, work, seed, seconds, most):
    """Damage one file of a zarr at a time; return how often."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    inside = sorted(p.relative_to(store) for p in store.rglob("*") if p.is_file())
    for number in range(most):
        if time.monotonic() > end:
            return number
        target = work / f"{number}.zarr"
        shutil.copytree(store, target)
        # Metadata are few among many chunks, and matter more.
        notes = [
            p for p in inside if p.name.endswith("json") or p.name.startswith(".z")
        ]
        chosen = target / rng.choice(rng.choice([notes, inside]))
        chosen.chmod(0o600)
        chosen.write_bytes(damaged(chosen.read_bytes(), rng))
        check(reader, target, work / "kept")
        shutil.rmtree(target)
    return most


def write_store(folder):
    image = (np.random.default_rng(SEED).random((90, 80)) * 200).astype(np.uint8)
    write_pyramid(folder / "a.zarr", image, pixel_size=(0.5, 0.5), chunk=32)
    return folder / "a.zarr"


@pytest.fixture
def folders(tmp_path):
    for name in ("good", "work"):
        (tmp_path / name).mkdir()
    return tmp_path / "good", tmp_path / "work"


def test_damaged_files(reader, folders):
    good, work = folders
    assert check_files(reader, write_files(good), work, SEED, 3, 300)


def test_damaged_stores(reader, folders):
    good, work = folders
    assert check_stores(reader, write_store(good), work, SEED, 2, 60)


def test_files_of_any_length(reader, folders):
    good, work = folders
    for path in write_files(good):
        content = path.read_bytes()
        for length in (0, 1, 4, 8, 100, len(content) // 2, len(content) - 1):
            target = work / path.name
            target.write_bytes(content[:length])
            check(reader, target, work / "kept")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_damaged_files(reader, folders, seed):
    good, work = folders
    paths = write_files(good)
    done = check_files(reader, paths, work, 100 + seed, 100, 10_000)
    assert done >= len(paths)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_many_damaged_stores(reader, folders, seed):
    good, work = folders
    assert check_stores(reader, write_store(good), work, 100 + seed, 60, 2_000)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs real files")
def test_damaged_real_files(reader, folders):
    paths = sorted((DATA / "wsi").iterdir())
    for name in ("brain_sections", "glomeruli_pas"):
        paths += sorted((DATA / name).glob("*.tif"))[:4]
    assert check_files(reader, paths, folders[1], 200, 100, 1_000) >= len(paths)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs real files")
def test_damaged_real_stores(reader, folders):
    for store in sorted((DATA / "omezarr").iterdir()):
        work = folders[1] / store.name
        work.mkdir()
        assert check_stores(reader, store, work, 300, 30, 200)
