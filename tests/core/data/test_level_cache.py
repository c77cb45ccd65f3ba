"""Coarse levels kept on disk: the pixels of reading without, through any mishap."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data import cache_folder, level_build, level_store
from napari_muvit.core.data import level_cache as module
from napari_muvit.core.data.cache_folder import CacheFolder
from napari_muvit.core.data.cache_settings import CacheSettings
from napari_muvit.core.data.identity import hash_image
from napari_muvit.core.data.level_cache import kept_levels, with_coarse_levels
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import Cancelled, ConfigError
from napari_muvit.core.geometry import Box

FACTORS = (1, 8, 32)
SHAPE = (1100, 900)
BLOCKS = 3 * 2 + 1
"""Of SHAPE: chunks of 64 pixels at 1/8 and 1/32."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small slides are dear, and have many chunks."""
    monkeypatch.setattr(module, "DEAR_PIXELS", 1)
    monkeypatch.setattr(module, "BLOCK_PIXELS", 2**18)


@pytest.fixture
def cache(tmp_path):
    return CacheSettings(folder=tmp_path / "cache")


@pytest.fixture
def slide(tmp_path):
    return write(tmp_path / "a.zarr", picture())


def picture(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def write(path, pixels):
    chunks = (*pixels.shape[:-2], 128, 128)
    zarr.create_array(path, data=pixels, chunks=chunks)
    return path


def whole(image, factor):
    shape = tuple(int(n / factor) + 2 for n in image.extent.shape)
    box = Box((0.0,) * len(shape), tuple(n * factor for n in shape))
    return image.read(box, factor, shape, fill=7)


def said_by(image, cache, **options):
    events = []
    found = with_coarse_levels(
        image, FACTORS, cache=cache, on_progress=events.append, **options
    )
    return found, " ".join(e.message for e in events if e.message), events


def entry_of(cache):
    (entry,) = CacheFolder(cache).entries()
    return entry


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(4, 400), st.integers(4, 400)),
    dtype=st.sampled_from(["uint8", "int16", ">u2", "float32"]),
    view=st.sampled_from([None, 1.0, 0.5, 0.93]),
    factor=st.sampled_from([8, 32]),
    corner=st.tuples(st.floats(-300, 400), st.floats(-300, 400)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    on_grid=st.booleans(),
    holes=st.booleans(),
)
def test_the_same_pixels_as_without(
    tmp_path_factory, shape, dtype, view, factor, corner, size, on_grid, holes
):
    folder = tmp_path_factory.mktemp("slide")
    rng = np.random.default_rng(sum(shape))
    pixels = rng.normal(100, 30, shape).astype(dtype)
    if holes and pixels.dtype.kind == "f":
        pixels[..., ::37, ::41] = np.nan
    image = open_pyramid(write(folder / "a.zarr", pixels), pixel_size=1.0)
    image = image.viewed_at(view)
    kept = with_coarse_levels(
        image, FACTORS, cache=CacheSettings(folder=folder / "cache")
    )
    wanted = [image.missing_level(f) for f in FACTORS]
    assert len(kept.averaged) == sum(
        m is not None and np.prod(m.step) >= module.DEAR_AVERAGE and all(m.shape)
        for m in wanted
    )
    lower = [round(c / factor) * factor if on_grid else c for c in corner]
    upper = [v + n * factor for v, n in zip(lower, size, strict=True)]
    box = Box(tuple(lower), tuple(upper))
    read = [p.read(box, factor, size, fill=(3.0,) * shape[0]) for p in (image, kept)]
    np.testing.assert_array_equal(read[1], read[0])


def test_reading_touches_the_slide_no_more(slide, cache):
    kept = with_coarse_levels(open_pyramid(slide), FACTORS, cache=cache)
    plain = [whole(open_pyramid(slide), f) for f in (8, 32)]
    other = open_pyramid(slide)
    again = with_coarse_levels(other, FACTORS, cache=cache)
    for chunk in slide.glob("c/*/*"):
        chunk.unlink()
    for image in (kept, again, pickle.loads(pickle.dumps(again))):
        for factor, wanted in zip((8, 32), plain, strict=True):
            np.testing.assert_array_equal(whole(image, factor), wanted)


def test_three_axes_and_planes(tmp_path, cache):
    stack = picture((70, 60, 50))
    array = zarr.open_array(write_stack(tmp_path / "s.zarr", stack), mode="r")
    image = dataclasses.replace(open_pyramid([array], axes="czyx"), path=tmp_path)
    assert image.ndim == 2  # the readers fix z
    levels = [
        dataclasses.replace(
            level,
            source=dataclasses.replace(level.source, spatial="zyx"),
            scale=(1.0,) * 3,
            offset=(0.0,) * 3,
        )
        for level in image.levels
    ]
    image = dataclasses.replace(image, levels=tuple(levels))
    kept = with_coarse_levels(image, (1, 8), cache=cache)
    assert kept.averaged[0].source.shape == (1, 9, 7, 6)
    box = Box((-8, 3, 5), (64, 51, 45))
    read = [p.read(box, 8, (9, 6, 5)) for p in (image, kept)]
    np.testing.assert_array_equal(read[1], read[0])


def write_stack(path, stack):
    zarr.create_array(path, data=stack[None], chunks=(1, 16, 16, 16))
    return path


def test_left_alone_where_it_is_not_dear(slide, cache, monkeypatch):
    image = open_pyramid(slide)
    off = CacheSettings(folder=cache.folder, enabled=False)
    in_memory = dataclasses.replace(open_pyramid(picture()), path=slide)
    for pyramid, factors, where in (
        (image, FACTORS, off),
        (image, (1, 4), cache),
        (in_memory, FACTORS, cache),
        (dataclasses.replace(image, path=None), FACTORS, cache),
    ):
        assert with_coarse_levels(pyramid, factors, cache=where) is pyramid
    assert with_coarse_levels(image, FACTORS, cache=cache, build=False) is image
    monkeypatch.setattr(module, "DEAR_PIXELS", 2**27)
    assert with_coarse_levels(image, FACTORS, cache=cache) is image
    assert not cache.folder.exists()


def test_one_entry_for_what_is_read_whatever_its_name(tmp_path, cache):
    path = write(tmp_path / "a.zarr", picture((3, *SHAPE)))
    image = open_pyramid(path, channels=[0, 2])
    kept = with_coarse_levels(image, FACTORS, cache=cache)
    named = dataclasses.replace(open_pyramid(path, channels=[0, 2]), name="other")
    found, said, _ = said_by(named, cache)
    assert found.averaged
    assert not said
    assert hash_image(kept) == hash_image(image)
    # Other channels are other pixels.
    other = open_pyramid(kept, channels=[1])
    assert not other.averaged
    np.testing.assert_array_equal(
        whole(with_coarse_levels(other, FACTORS, cache=cache), 8)[0],
        whole(open_pyramid(path, channels=[2]), 8)[0],
    )
    assert len(CacheFolder(cache).entries()) == 2
    assert kept_levels(image, cache).scale_factors == (8, 32)


def test_a_changed_file_is_another_slide(slide, cache):
    with_coarse_levels(open_pyramid(slide), FACTORS, cache=cache)
    array = zarr.open_array(slide, mode="r+")
    array[3, 5] = array[3, 5] ^ 1
    image = open_pyramid(slide)
    kept = with_coarse_levels(image, FACTORS, cache=cache)
    assert len(CacheFolder(cache).entries()) == 2
    np.testing.assert_array_equal(whole(kept, 8), whole(image, 8))


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("harm", [flipped, cut, Path.unlink])
@pytest.mark.parametrize(
    "name", ["0/c/0/1/1", "1/c/0/0/0", "0/zarr.json", level_store.RECORD]
)
@pytest.mark.parametrize("opened", [True, False])
def test_damage_never_shows(slide, cache, harm, name, opened):
    image = open_pyramid(slide)
    plain = {f: whole(image, f) for f in (8, 32)}
    kept = with_coarse_levels(image, FACTORS, cache=cache)
    harm(entry_of(cache).path / name)
    if not opened:
        kept = with_coarse_levels(open_pyramid(slide), FACTORS, cache=cache)
    for factor, wanted in plain.items():
        np.testing.assert_array_equal(whole(kept, factor), wanted)
    # Whoever opens it next finds it whole again.
    anew, _, _ = said_by(open_pyramid(slide), cache)
    for level in anew.averaged:
        level.source.read((0, 0), level.source.shape[1:])
    assert not (entry_of(cache).path / level_store.DAMAGED).exists()


def stopper(calls):
    count = iter(range(1000))
    return lambda: next(count) >= calls


def test_a_stopped_build_goes_on(slide, cache, monkeypatch):
    with pytest.raises(Cancelled):
        with_coarse_levels(
            open_pyramid(slide), FACTORS, cache=cache, should_stop=stopper(3)
        )
    part = entry_of(cache)
    assert not part.complete
    state = part.path / level_build.STATE
    # As if killed in the middle of a line, and of a chunk.
    state.write_text(state.read_text() + "[0, [1")
    (part.path / "0" / "c" / "0" / "0.partial").write_bytes(b"x")
    image, said, events = said_by(open_pyramid(slide), cache)
    assert "averaged once" in said
    done = [e.done for e in events if not e.message]
    assert done == list(range(4, BLOCKS + 1))
    assert {e.stage for e in events} == {"levels"}
    np.testing.assert_array_equal(whole(image, 8), whole(open_pyramid(slide), 8))
    assert not list(entry_of(cache).path.rglob("*.partial"))


def test_two_at_once_one_builds_the_other_waits(slide, cache, monkeypatch):
    monkeypatch.setattr(level_build, "POLL_SECONDS", 0.01)
    real, begun, may_go, count = level_build._average_block, threading.Event(), [], []

    def slow(*arguments):
        begun.set()
        count.append(1)
        while not may_go:
            time.sleep(0.005)
        real(*arguments)

    monkeypatch.setattr(level_build, "_average_block", slow)
    results = []
    first = threading.Thread(
        target=lambda: results.append(said_by(open_pyramid(slide), cache))
    )
    first.start()
    assert begun.wait(20)
    with pytest.raises(Cancelled):
        with_coarse_levels(
            open_pyramid(slide), FACTORS, cache=cache, should_stop=stopper(2)
        )
    with monkeypatch.context() as patch:
        patch.setattr(level_build, "PATIENCE_SECONDS", 0.05)
        impatient, said, _ = said_by(open_pyramid(slide), cache)
    assert "does not get on" in said
    assert not impatient.averaged
    second = threading.Thread(
        target=lambda: results.append(said_by(open_pyramid(slide), cache))
    )
    second.start()
    may_go.append(True)
    first.join()
    second.join()
    assert len(count) == BLOCKS
    wanted = whole(open_pyramid(slide), 8)
    for image, _, _ in results:
        np.testing.assert_array_equal(whole(image, 8), wanted)


USING = """
import sys, time
from pathlib import Path
from napari_muvit.core.data.cache_folder import CacheFolder
from napari_muvit.core.data.cache_settings import CacheSettings
folder = CacheFolder(CacheSettings(folder=Path(sys.argv[1])))
folder.use(sys.argv[2])
print("ready", flush=True)
time.sleep(60)
"""


def test_the_least_recently_used_goes_unless_in_use(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(cache_folder, "_marks", {})
    names = ("a", "b", "c")
    slides = [write(tmp_path / f"{n}.zarr", picture(seed=ord(n))) for n in names]

    def build(slide, limit):
        found, said, _ = said_by(
            open_pyramid(slide), dataclasses.replace(cache, limit_bytes=limit)
        )
        # As if the process had ended.
        for mark in cache_folder._marks.values():
            mark._lock.release()
        monkeypatch.setattr(cache_folder, "_marks", {})
        return found, said

    folder = CacheFolder(cache)
    build(slides[0], 10**9)
    first = entry_of(cache)
    build(slides[1], 10**9)
    (second,) = (e for e in folder.entries() if e.key != first.key)
    for age, entry in ((20, first), (10, second)):
        os.utime(entry.path, (time.time() - age, time.time() - age))
    plans = module.dear_levels(open_pyramid(slides[0]), FACTORS)
    # Room for one that is there, and for one more.
    limit = first.nbytes + sum(plan.nbytes for plan in plans) + 100
    command = [sys.executable, "-c", USING, str(cache.folder), first.key]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert build(slides[2], limit)[0].averaged
        keys = {e.key for e in folder.entries()}
        assert first.key in keys
        assert second.key not in keys
        assert folder.clear()[1] == first.nbytes
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert folder.clear() == (first.nbytes, 0)
    found, said = build(slides[2], 1000)
    assert not found.averaged
    assert "do not fit" in said


def test_without_a_place_it_goes_on_without(slide, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    image, said, _ = said_by(
        open_pyramid(slide), CacheSettings(folder=tmp_path / "file")
    )
    assert not image.averaged
    assert "not kept" in said
    cache = CacheSettings(folder=tmp_path / "cache")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(level_build, "_average_block", full)
        image, said, _ = said_by(open_pyramid(slide), cache)
    assert not image.averaged
    assert "No space left" in said
    assert not CacheFolder(cache).entries()
    assert with_coarse_levels(image, FACTORS, cache=cache).averaged


def test_a_slide_that_changes_meanwhile_is_not_kept(slide, cache):
    def change(event):
        if event.done == 2:
            zarr.open_array(slide, mode="r+")[:] = 0

    image = open_pyramid(slide)
    kept = with_coarse_levels(image, FACTORS, cache=cache, on_progress=change)
    assert not kept.averaged
    assert not CacheFolder(cache).entries()


@pytest.mark.parametrize("step", ["write_record", "rename"])
def test_a_kill_at_the_very_end_loses_nothing(slide, cache, monkeypatch, step):
    # The ledger was removed first, so a kill before the record had all done again.
    class Killed(BaseException):
        pass

    def kill(*_args, **_options):
        raise Killed

    image = open_pyramid(slide)
    with monkeypatch.context() as patched:
        patched.setattr(level_build if step == "write_record" else Path, step, kill)
        with pytest.raises(Killed):
            with_coarse_levels(image, FACTORS, cache=cache)
    averaged = []
    monkeypatch.setattr(level_build, "_average_block", lambda *a: averaged.append(a))
    kept = with_coarse_levels(open_pyramid(slide), FACTORS, cache=cache)
    assert kept.averaged
    assert not averaged
    assert entry_of(cache).complete
    assert not list(cache.folder.rglob(level_build.STATE))


def test_settings_by_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_MUVIT_CACHE", str(tmp_path))
    monkeypatch.setenv("NAPARI_MUVIT_CACHE_LIMIT_GB", "0.5")
    wanted = CacheSettings(folder=tmp_path, limit_bytes=500_000_000)
    assert CacheSettings.from_environment() == wanted
    monkeypatch.setenv("NAPARI_MUVIT_CACHE", "off")
    assert not CacheSettings.from_environment().enabled
    monkeypatch.delenv("NAPARI_MUVIT_CACHE")
    assert "napari-muvit" in str(CacheSettings.from_environment().folder)
    for wrong in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("NAPARI_MUVIT_CACHE_LIMIT_GB", wrong)
        with pytest.raises(ConfigError, match="gigabytes"):
            CacheSettings.from_environment()


KILLED = """
import sys
from pathlib import Path
from napari_muvit.core.data import level_cache as module
from napari_muvit.core.data.cache_settings import CacheSettings
from napari_muvit.core.data.open import open_pyramid
module.DEAR_PIXELS, module.BLOCK_PIXELS = 1, 2**18
image, cache = open_pyramid(sys.argv[1]), CacheSettings(folder=Path(sys.argv[2]))
print(bool(module.with_coarse_levels(image, (8, 32), cache=cache).averaged))
"""


def files_of(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path, cache):
    slide = write(tmp_path / "a.zarr", picture((3200, 3200)))
    command = [sys.executable, "-c", KILLED, str(slide), str(cache.folder)]
    rng = np.random.default_rng(0)
    kills, most = 0, 0
    while kills < 20:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        size, began = ledger_size(cache), time.monotonic()
        while process.poll() is None and time.monotonic() - began < 60:
            if ledger_size(cache) > size:
                time.sleep(float(rng.random()) * 0.01)
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        process.wait()
        entry = entry_of(cache)
        # Killed between the last two steps: whole, but not yet in its place.
        whole = entry.complete or (entry.path / level_store.RECORD).is_file()
        assert ledger_size(cache) >= size or whole
        most = max(most, ledger_size(cache))
        if entry_of(cache).complete:
            break
    assert kills >= 15
    assert most > 0
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    assert last.stdout.strip() == "True"
    undisturbed = CacheSettings(folder=tmp_path / "other")
    with_coarse_levels(open_pyramid(slide), (8, 32), cache=undisturbed)
    assert files_of(entry_of(cache).path) == files_of(entry_of(undisturbed).path)


def ledger_size(cache):
    states = list(cache.folder.glob(f"*/*.part/{level_build.STATE}"))
    return states[0].stat().st_size if states else 0
