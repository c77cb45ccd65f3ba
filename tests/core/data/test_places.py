"""Zarr stores in zips and behind web addresses."""

import contextlib
import functools
import http.server
import multiprocessing
import os
import pickle
import shutil
import socket
import threading
import zipfile

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data import stores
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.place import MARKERS, Place, find_place
from napari_muvit.core.data.zarr_nodes import read_label_info
from napari_muvit.core.data.zarr_writer import create_label_pyramid, write_pyramid
from napari_muvit.core.errors import (
    ImageNotFoundError,
    MissingExtraError,
    PyramidError,
)

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 300, 260), dtype=np.uint8)


def read_all(pyramid):
    return pyramid.read(pyramid.extent, 1, pyramid.shape)


@pytest.fixture
def folder(tmp_path):
    write_pyramid(tmp_path / "a.zarr", IMAGE, pixel_size=0.5, smallest=64, chunk=64)
    return tmp_path / "a.zarr"


def zipped(folder, path, top="", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for part in sorted(folder.rglob("*")):
            if part.is_file():
                name = f"{top}/{part.relative_to(folder)}".lstrip("/")
                file.write(part, name)
    return path


@pytest.mark.parametrize("top", ["", "a.zarr"])
@pytest.mark.parametrize("suffix", [".zip", ".ozx", ".zarr.zip"])
@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips(folder, tmp_path, top, suffix, packed):
    path = zipped(folder, tmp_path / f"b{suffix}", top, packed)
    pyramid = open_pyramid(path)
    assert (pyramid.name, pyramid.path, pyramid.url) == ("b", path, None)
    assert pyramid.contents.store == "zarr zip"
    assert pyramid.scale_factors == open_pyramid(folder).scale_factors
    assert pyramid.pixel_size == (0.5, 0.5)
    np.testing.assert_array_equal(read_all(pyramid), IMAGE)
    copy = pickle.loads(pickle.dumps(pyramid))
    np.testing.assert_array_equal(read_all(copy), IMAGE)


def test_threads_and_a_fork_read_the_same_zip(folder, tmp_path):
    pyramid = open_pyramid(zipped(folder, tmp_path / "b.zip"), max_bytes=0)
    wrong = []

    def work():
        if not np.array_equal(read_all(pyramid), IMAGE):
            wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["zip", "http"])
def test_a_fork_opens_the_store_anew(folder, tmp_path, request, kind):
    if kind == "zip":
        source = zipped(folder, tmp_path / "b.zip")
    else:
        source = request.getfixturevalue("address") + "/a.zarr"
    pyramid = open_pyramid(source, max_bytes=0)
    read_all(pyramid)
    before = pyramid.levels[0].source.array.store._opened
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child():
        same = bool((read_all(pyramid) == IMAGE).all())
        sender.send((pyramid.levels[0].source.array.store._opened is before, same))

    process = context.Process(target=child)
    process.start()
    assert receiver.poll(60)
    assert receiver.recv() == (False, True)
    process.join()
    np.testing.assert_array_equal(read_all(pyramid), IMAGE)


def test_a_zip_that_is_replaced_while_it_is_open(folder, tmp_path):
    path = zipped(folder, tmp_path / "b.zip")
    pyramid = open_pyramid(path, max_bytes=0)
    zipped(folder, path, "a.zarr")
    with pytest.raises(PyramidError, match="changed after it was opened"):
        read_all(pyramid)
    path.unlink()
    with pytest.raises(ImageNotFoundError, match="any more"):
        read_all(pyramid)


@pytest.fixture(scope="module")
def small_zip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zip")
    write_pyramid(folder / "a.zarr", IMAGE[:, :40, :40], smallest=32, chunk=32)
    return zipped(folder / "a.zarr", folder / "a.zip", "", zipfile.ZIP_DEFLATED)


def test_zips_that_are_refused(folder, tmp_path, monkeypatch):
    (tmp_path / "text.zip").write_bytes(b"no zip")
    whole = zipped(folder, tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("readme.txt", "hello")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as file:
        file.writestr("a/zarr.json", "{}")
        file.writestr("b/zarr.json", "{}")
    for name, message in {
        "text": "no zip that can be read",
        "cut": "no zip that can be read",
        "other": "it holds none",
        "two": r"it holds 2 of them \(a, b\)",
    }.items():
        with pytest.raises(PyramidError, match=message) as caught:
            open_pyramid(tmp_path / f"{name}.zip")
        assert "\n" not in str(caught.value)


@given(st.integers(0, 10**9), st.integers(1, 12), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_damaged_zip_is_read_or_refused(small_zip, place, count, seed):
    """Bytes overwritten anywhere: metadata, chunks, or the list of entries."""
    content = bytearray(small_zip.read_bytes())
    start = place % len(content)
    noise = np.random.default_rng(seed).bytes(count)[: len(content) - start]
    content[start : start + len(noise)] = noise
    path = small_zip.with_name("damaged.zip")
    path.write_bytes(content)
    with contextlib.suppress(PyramidError):
        read_all(open_pyramid(path))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.zip"
    zeros = bytes(2**20)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("zarr.json", "w", force_zip64=True) as entry,
    ):
        for _ in range(65):
            entry.write(zeros)
    assert path.stat().st_size < 2**17
    with pytest.raises(PyramidError, match=r"unpacks to 65 MiB; at most 64 MiB"):
        open_pyramid(path)


def test_a_path_in_metadata_never_leaves_the_image(folder):
    place = Place(folder) / "a" / "b/"
    assert (place.inside, str(place)) == ("a/b", f"{folder}/a/b")
    for path in ("..", "a/../../b", "/etc", "C:/x", "a\\..\\b", "s3://b/c", ""):
        with pytest.raises(PyramidError, match="no path inside it"):
            place / path
    plate = zarr.create_group(folder.parent / "p.zarr", zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "../a.zarr"}]}
    with pytest.raises(PyramidError, match="no path inside it"):
        open_pyramid(folder.parent / "p.zarr")


def test_a_chunk_of_absurd_size_is_refused(tmp_path):
    zarr.create_array(
        tmp_path / "a.zarr", shape=(40_000, 40_000), chunks=(40_000, 40_000), dtype="u1"
    )
    with pytest.raises(PyramidError, match=r"40000 x 40000 pixels \(1\.49 GiB each\)"):
        open_pyramid(tmp_path / "a.zarr")
    # A shard may be large: its chunks are read one by one.
    zarr.create_array(
        tmp_path / "b.zarr", shape=(40_960, 40_960), chunks=(256, 256), dtype="u1",
        shards=(40_960, 40_960),
    )  # fmt: skip
    assert open_pyramid(tmp_path / "b.zarr").shape == (40_960, 40_960)


# --- web addresses --------------------------------------------------------------------


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    failing = "never"
    missing_is = 404

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.failing in self.path:
            self.send_error(503)
        elif not os.path.exists(self.translate_path(self.path)):
            self.send_error(self.missing_is)
        else:
            super().do_GET()


@pytest.fixture
def address(tmp_path):
    pytest.importorskip("aiohttp")
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_http(folder, address):
    pyramid = open_pyramid(f"{address}/a.zarr/")
    assert (pyramid.name, pyramid.path) == ("a", None)
    assert pyramid.url == f"{address}/a.zarr"
    assert pyramid.contents.store == "zarr http"
    assert pyramid.scale_factors == open_pyramid(folder).scale_factors
    np.testing.assert_array_equal(read_all(pyramid), IMAGE)
    copy = pickle.loads(pickle.dumps(pyramid))
    np.testing.assert_array_equal(read_all(copy), IMAGE)


def test_shards_from_a_server_that_sends_whole_files_only(tmp_path, address):
    # So does python -m http.server: "checksum do not match".
    array = zarr.create_array(
        tmp_path / "s.zarr", shape=(96, 96), chunks=(16, 16), shards=(48, 48),
        dtype="u1",
    )  # fmt: skip
    array[:] = IMAGE[0, :96, :96]
    pyramid = open_pyramid(f"{address}/s.zarr")
    part = pyramid.levels[0].source.read((20, 30), (55, 61))
    np.testing.assert_array_equal(part[0], IMAGE[0, 20:55, 30:61])


def test_plain_groups_and_labels_over_http(tmp_path, address):
    group = zarr.create_group(tmp_path / "p.zarr")
    for k in range(3):
        group.create_array(str(k), data=IMAGE[0, :: 2**k, :: 2**k])
    assert open_pyramid(f"{address}/p.zarr").scale_factors == (1, 2, 4)
    image = open_pyramid(IMAGE)
    create_label_pyramid(tmp_path / "l.zarr", image, ["a"], ["#ff0000"])
    assert read_label_info(f"{address}/l.zarr").names == {1: "a"}


def test_what_a_server_refuses_ends_in_one_line(folder, address, monkeypatch):
    with pytest.raises(ImageNotFoundError, match=r"There is no image at http.*b\.zarr"):
        open_pyramid(f"{address}/b.zarr")
    monkeypatch.setattr(QuietHandler, "failing", "/c.zarr")
    with pytest.raises(PyramidError, match="503") as caught:
        open_pyramid(f"{address}/c.zarr")
    assert "\n" not in str(caught.value)
    # A chunk that is not there was never written: zeros, as the format says. A server
    # that fails is no such chunk.
    shutil.rmtree(folder / "0" / "c")
    pyramid = open_pyramid(f"{address}/a.zarr")
    assert read_all(pyramid).max() == 0
    monkeypatch.setattr(QuietHandler, "failing", "/0/c/")
    with pytest.raises(PyramidError, match="503") as caught:
        read_all(open_pyramid(f"{address}/a.zarr"))
    assert "\n" not in str(caught.value)


def test_a_bucket_that_denies_what_it_does_not_have(tmp_path, address, monkeypatch):
    group = zarr.create_group(tmp_path / "p.zarr", zarr_format=2)
    group.create_array("0", data=IMAGE[0])
    monkeypatch.setattr(QuietHandler, "missing_is", 403)
    pyramid = open_pyramid(f"{address}/p.zarr")
    np.testing.assert_array_equal(read_all(pyramid)[0], IMAGE[0])
    (tmp_path / "p.zarr/0/0.0").unlink()
    with pytest.raises(PyramidError, match="403"):
        read_all(open_pyramid(f"{address}/p.zarr"))
    with pytest.raises(ImageNotFoundError, match="may be read"):
        open_pyramid(f"{address}/q.zarr")


def test_nobody_there_and_nobody_answering(monkeypatch):
    pytest.importorskip("aiohttp")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with pytest.raises(PyramidError, match="Cannot connect") as caught:
        open_pyramid(f"http://127.0.0.1:{port}/a.zarr")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(stores, "READ_SECONDS", 0.3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(PyramidError, match=r"(?i)time"):
            open_pyramid(f"http://127.0.0.1:{server.getsockname()[1]}/a.zarr")


def test_other_stores_of_fsspec(folder):
    """The way of s3:// and gs://, in memory."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "bucket/a.zarr", recursive=True)
    pyramid = open_pyramid("memory://bucket/a.zarr")
    np.testing.assert_array_equal(read_all(pyramid), IMAGE)
    with pytest.raises(ImageNotFoundError, match="There is no image at memory"):
        open_pyramid("memory://bucket/b.zarr")


def test_missing_packages_are_named(monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("Please install s3fs")

    monkeypatch.setattr(stores.FsspecStore, "from_url", missing)
    for scheme in ("http", "s3", "gs"):
        with pytest.raises(MissingExtraError, match=r"napari-muvit\[remote\]"):
            open_pyramid(f"{scheme}://bucket/a.zarr")


def test_s3_without_credentials_goes_without(monkeypatch):
    pytest.importorskip("s3fs")
    monkeypatch.setattr(stores, "_has_credentials", lambda: False)
    assert stores._options("s3")["anon"] is True
    store = stores.open_store(find_place("s3://bucket/a.zarr"))
    assert store == pickle.loads(pickle.dumps(store))


def test_file_addresses_and_markers(folder):
    assert open_pyramid(f"file://{folder}").path == folder
    assert "zarr.json" in MARKERS
