import multiprocessing
import pickle
import threading

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import PyramidError
from napari_muvit.core.geometry import Box


def read_all(pyramid):
    return pyramid.read(pyramid.extent, 1, pyramid.shape)


def random_image(shape, dtype=np.uint8, seed=0):
    return (np.random.default_rng(seed).random(shape) * 250).astype(dtype)


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([None, (16, 16), (32, 16)]),
    st.sampled_from([None, "zlib"]),
    st.sampled_from([np.uint8, np.uint16, ">u2", np.float32]),
    st.sampled_from(["yx", "rgb", "cyx"]),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_round_trips(tmp_path_factory, h, w, tile, compression, dtype, kind, big):
    if kind == "rgb" and np.dtype(dtype) == np.float32:
        dtype = np.uint8
    shape = {"yx": (h, w), "rgb": (h, w, 3), "cyx": (5, h, w)}[kind]
    image = random_image(shape, dtype)
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    tifffile.imwrite(
        path,
        image,
        tile=tile,
        compression=compression,
        bigtiff=big,
        photometric="rgb" if kind == "rgb" else "minisblack",
        metadata={"axes": "CYX"} if kind == "cyx" else None,
    )
    pyramid = open_pyramid(path)
    want = {"yx": image[None], "rgb": np.moveaxis(image, -1, 0), "cyx": image}
    if kind == "cyx" and h == w == 1:
        return
    np.testing.assert_array_equal(
        read_all(pickle.loads(pickle.dumps(pyramid))), want[kind].astype(np.float32)
    )
    assert pyramid.rgb == (kind == "rgb" and image.dtype == np.uint8)


def write_pyramidal(path, image, levels, **options):
    with tifffile.TiffWriter(path) as file:
        file.write(image, subifds=levels, tile=(32, 32), **options)
        for k in range(1, levels + 1):
            part = image[..., :: 2**k, :: 2**k]
            if options.get("photometric") == "rgb":
                part = image[:: 2**k, :: 2**k]
            file.write(part, subfiletype=1, tile=(32, 32), **options)


def test_ome_tiff_with_sub_levels(tmp_path):
    image = random_image((3, 130, 170), np.uint16)
    write_pyramidal(
        tmp_path / "a.ome.tif",
        image,
        2,
        photometric="minisblack",
        metadata={
            "axes": "CYX",
            "PhysicalSizeX": 325,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 325,
            "PhysicalSizeYUnit": "nm",
            "Channel": {"Name": ["DAPI", "GFP", "Cy5"]},
        },
    )
    pyramid = open_pyramid(tmp_path / "a.ome.tif")
    assert pyramid.name == "a"
    assert pyramid.scale_factors == (1, 2, 4)
    assert pyramid.pixel_size == pytest.approx((0.325, 0.325))
    assert pyramid.channel_names == ("DAPI", "GFP", "Cy5")
    assert not pyramid.rgb
    np.testing.assert_array_equal(read_all(pyramid), image)
    coarse = pyramid.read(Box.from_shape((128, 128)), 4, (32, 32))
    np.testing.assert_array_equal(coarse, image[:, ::4, ::4][:, :32, :32])


def test_an_aperio_like_slide(tmp_path):
    image = random_image((300, 260, 3))
    text = "Aperio Image Library v1\r\n300x260 JPEG/RGB|AppMag = 20|MPP = 0.499"
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        file.write(image, description=text, metadata=None, **options)
        thumbnail = {"photometric": "rgb", "metadata": None}
        file.write(image[::10, ::10], description="Aperio thumbnail", **thumbnail)
        file.write(image[::4, ::4], description=text, metadata=None, **options)
    pyramid = open_pyramid(tmp_path / "a.svs")
    assert pyramid.rgb
    assert pyramid.pixel_size == (0.499, 0.499)
    assert pyramid.scale_factors == (1, 4)
    np.testing.assert_array_equal(read_all(pyramid), np.moveaxis(image, -1, 0))


def test_alpha_is_dropped(tmp_path):
    image = random_image((40, 50, 4))
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=[2])
    pyramid = open_pyramid(tmp_path / "a.tif")
    assert pyramid.rgb
    np.testing.assert_array_equal(read_all(pyramid), np.moveaxis(image[..., :3], -1, 0))


def test_imagej_stacks(tmp_path):
    image = random_image((2, 3, 4, 20, 30), np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        image.transpose(0, 2, 1, 3, 4),
        imagej=True,
        resolution=(1 / 0.65, 1 / 0.65),
        metadata={"axes": "TZCYX", "unit": "um"},
    )
    pyramid = open_pyramid(tmp_path / "a.tif")
    assert pyramid.num_channels == 3
    assert pyramid.pixel_size == pytest.approx((0.65, 0.65), rel=1e-3)
    assert "t is fixed at the first of 2; z is fixed at the first of 4" in pyramid.note
    np.testing.assert_array_equal(read_all(pyramid), image[0, :, 0])


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20000, 20000), "CENTIMETER", 0.5),
        ((50800, 50800), "INCH", 0.5),
        ((72, 72), "INCH", None),
        ((96, 96), "INCH", None),
        ((1, 1), "NONE", None),
    ],
)
def test_resolution_tags(tmp_path, resolution, unit, expected):
    tifffile.imwrite(
        tmp_path / "a.tif",
        random_image((20, 30)),
        resolution=resolution,
        resolutionunit=unit,
        metadata=None,
    )
    size = open_pyramid(tmp_path / "a.tif").pixel_size
    assert size == (None if expected is None else pytest.approx((expected, expected)))


def test_a_crop_decodes_its_tiles_only(tmp_path, monkeypatch):
    image = random_image((640, 640))
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64), compression="zlib")
    pyramid = open_pyramid(tmp_path / "a.tif")
    level = pyramid.levels[0].source.array
    asked = []
    inner = level._opened()

    class Spy:
        def __getitem__(self, key):
            asked.append(key)
            return inner[key]

    monkeypatch.setattr(level, "_opened", Spy)
    got = pyramid.read(Box((60, 60), (70, 70)), 1, (10, 10))
    np.testing.assert_array_equal(got[0], image[60:70, 60:70])
    # The four tiles that it touches, by one call.
    assert asked == [(slice(0, 128), slice(0, 128))]


def test_large_strips_are_mapped_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_muvit.core.data.tiff_levels.MAX_WHOLE_BYTES", 10)
    image = random_image((90, 70), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image)
    tifffile.imwrite(tmp_path / "b.tif", image, compression="zlib", rowsperstrip=8)
    for name in ("a.tif", "b.tif"):
        pyramid = open_pyramid(tmp_path / name)
        np.testing.assert_array_equal(read_all(pyramid)[0], image)
        is_mapped = isinstance(pyramid.levels[0].source.array._opened(), np.memmap)
        assert is_mapped == (name == "a.tif")


def test_threads_read_the_same_file(tmp_path):
    image = random_image((512, 512))
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64), compression="zlib")
    pyramid = open_pyramid(tmp_path / "a.tif", max_bytes=0)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            y, x = (int(v) for v in rng.integers(0, 412, 2))
            got = pyramid.read(Box((y, x), (y + 100, x + 100)), 1, (100, 100))[0]
            if not np.array_equal(got, image[y : y + 100, x : x + 100]):
                wrong.append((y, x))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_opens_the_file_anew(tmp_path):
    """Parent and child shared one place in the file and read each other's bytes."""
    image = random_image((512, 512))
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64), compression="zlib")
    pyramid = open_pyramid(tmp_path / "a.tif", max_bytes=0)
    read_all(pyramid)
    before = pyramid.levels[0].source.array._opened()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child():
        after = pyramid.levels[0].source.array._opened()
        sender.send((after is before, bool((read_all(pyramid)[0] == image).all())))

    process = context.Process(target=child)
    process.start()
    assert receiver.poll(30)
    assert receiver.recv() == (False, True)
    process.join()


def test_broken_files_fail_in_one_line(tmp_path):
    image = random_image((100, 100))
    tifffile.imwrite(tmp_path / "whole.tif", image, tile=(32, 32), compression="zlib")
    whole = (tmp_path / "whole.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "whole.tif") as file:
        start, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    broken = {
        "text.tif": b"no image at all",
        "empty.tif": b"",
        "cut.tif": whole[: len(whole) // 2],
        "codec.tif": whole[:start] + b"x" * count + whole[start + count :],
        "slide.mrxs": b"",
        "slide.dcm": b"DICM",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PyramidError, match=r"cannot be read|can be read") as caught:
            open_pyramid(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_a_file_that_vanishes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random_image((40, 50)))
    pyramid = open_pyramid(tmp_path / "a.tif")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(PyramidError, match="any more"):
        read_all(pyramid)
