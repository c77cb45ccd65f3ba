"""The cache gives the right pixels by few calls, and keeps its budget."""

import dataclasses
import multiprocessing
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.block_cache import BlockCache, BlockGrid, shared_cache
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.geometry import Box


class Counted:
    """A level that counts its calls."""

    def __init__(self, image, edges):
        self.image, self.calls = image, []
        self.grid = BlockGrid(self, image.shape, image.dtype, edges, self.read)

    def read(self, lower, upper):
        self.calls.append((tuple(lower), tuple(upper)))
        spans = tuple(map(slice, lower, upper))
        return self.image[(slice(None), *spans)]


def level(height=50, width=70, edges=(16, 16)):
    image = np.arange(2 * height * width, dtype=np.uint16).reshape(2, height, width)
    return Counted(image, edges)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from([0, 3_000, 60_000, 2**20]),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=6),
)  # fmt: skip
def test_any_part_is_right_whatever_the_budget(height, width, edges, budget, parts):
    source, cache = level(height, width, edges), BlockCache(budget)
    for y0, x0, y1, x1 in parts:
        low = [int(y0 * (height - 1)), int(x0 * (width - 1))]
        high = [low[0] + 1 + int(y1 * (height - low[0] - 1)),
                low[1] + 1 + int(x1 * (width - low[1] - 1))]  # fmt: skip
        got = cache.read(source.grid, low, high)
        spans = tuple(map(slice, low, high))
        np.testing.assert_array_equal(got, source.image[(slice(None), *spans)])
        assert cache.nbytes <= max(budget, source.grid.block_nbytes)


def test_blocks_are_read_once_and_by_one_call():
    source, cache = level(), BlockCache(40_000)
    assert source.grid.nbytes > 40_000 // 8
    cache.read(source.grid, (10, 10), (20, 20))
    assert source.calls == [((0, 0), (32, 32))]
    cache.read(source.grid, (0, 0), (32, 32))
    assert len(source.calls) == 1


def test_a_small_level_is_kept_as_one_array():
    source, cache = level(), BlockCache(2**20)
    first = cache.read(source.grid, (3, 3), (5, 5))
    assert source.calls == [((0, 0), (16, 16))]
    with pytest.raises(ValueError, match="read-only"):
        first[:] = 0
    cache.read(source.grid, (0, 0), (50, 70))
    assert len(source.calls) == 2
    cache.read(source.grid, (0, 0), (50, 70))
    assert len(source.calls) == 2


def test_a_block_larger_than_the_cache_is_not_kept():
    source, cache = level(), BlockCache(1000)
    cache.read(source.grid, (1, 1), (3, 3))
    assert source.calls == [((1, 1), (3, 3))]
    assert cache.nbytes == 0


def test_threads_share_a_cache():
    source, cache = level(400, 400), BlockCache(100_000)
    errors = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(200):
            low = rng.integers(0, 370, 2)
            got = cache.read(source.grid, tuple(low), tuple(low + 30))
            want = source.image[:, low[0] : low[0] + 30, low[1] : low[1] + 30]
            errors.extend([] if np.array_equal(got, want) else [low])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert cache.nbytes <= 100_000


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork"
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_thread_that_it_lacks():
    source, cache = level(), BlockCache()
    begun, go_on = threading.Event(), threading.Event()

    def slow(lower, upper):
        begun.set()
        go_on.wait()
        return source.read(lower, upper)

    grid = dataclasses.replace(source.grid, read=slow)
    args = (grid, (0, 0), (4, 4))
    thread = threading.Thread(target=cache.read, args=args)
    thread.start()
    begun.wait()
    child = multiprocessing.get_context("fork").Process(
        target=cache.read, args=(source.grid, *args[1:])
    )
    child.start()
    go_on.set()
    thread.join()
    child.join(20)
    child.kill()
    assert child.exitcode == 0


def test_all_slides_share_the_budget_of_the_process():
    images = [open_pyramid(np.zeros((64, 64), np.uint8)) for _ in range(2)]
    assert images[0].cache is images[1].cache is shared_cache()
    assert pickle.loads(pickle.dumps(images[0])).cache is shared_cache()
    assert open_pyramid(images[0], max_bytes=5).cache is not shared_cache()


def test_chosen_channels_do_not_mix_in_the_cache():
    image = np.stack([np.full((300, 300), k, np.uint8) for k in range(3)])
    pyramid = open_pyramid(image)
    box = Box((0, 0), (256, 256))
    for chosen in ([2, 0], [1]):
        got = open_pyramid(pyramid, channels=chosen).read(box, 8, (32, 32))
        assert [int(c) for c in got[:, 0, 0]] == chosen


def test_an_averaged_level_and_a_block_of_its_source_are_not_mixed():
    # A step of (2.0, 2.0) equals the index (2, 2).
    class Stored:
        shape, dtype, chunks = (9000, 9000), np.dtype(np.uint8), (256, 256)

        def __getitem__(self, key):
            rows, columns = (np.arange(s.start, s.stop) // 2 for s in key)
            return (rows[:, None] + columns).astype(np.uint8)

    pyramid = open_pyramid(Stored(), max_bytes=256 * 2**20)
    coarse = pyramid.read(Box((0, 0), (512, 512)), 2, (256, 256))
    fine = pyramid.read(Box((512, 512), (768, 768)), 1, (256, 256))
    place = np.arange(256)
    np.testing.assert_array_equal(coarse[0], (place[:, None] + place) % 256)
    place = place // 2
    np.testing.assert_array_equal(fine[0], (place[:, None] + place + 512) % 256)
