"""What is too small, what is filled, and rings that are read in parts."""

from __future__ import annotations

import numpy as np

from napari_muvit.core.export import rings as rings_module


def nested() -> np.ndarray:
    """A ring of 1 around a ring of 2 around a pixel of 1."""
    labels = np.ones((9, 9), dtype=np.uint8)
    labels[1:8, 1:8] = 0
    labels[2:7, 2:7] = 2
    labels[3:6, 3:6] = 0
    labels[4, 4] = 1
    return labels


def sizes(objects) -> list[tuple[int, int]]:
    return [(int(v), int(a)) for v, a in zip(objects.value, objects.area, strict=True)]


def test_nothing_is_filled_or_dropped(follow) -> None:
    with follow(nested()) as objects:
        assert sizes(objects) == [(1, 32), (2, 16), (1, 1)]
        assert np.diff(objects.hole_bounds).tolist() == [1, 1, 0]
        assert (objects.dropped, objects.filled) == (0, 0)


def test_a_filled_hole_takes_all_that_lies_in_it(follow) -> None:
    with follow(nested(), most=9) as objects:
        assert sizes(objects) == [(1, 32), (2, 25)]
    with follow(nested(), most=49) as objects:
        assert sizes(objects) == [(1, 81)]
        assert objects.filled == 2


def test_what_is_too_small_fills_no_hole(follow) -> None:
    with follow(nested(), least=17, most=9) as objects:
        assert sizes(objects) == [(1, 32)]
        assert np.diff(objects.hole_bounds).tolist() == [1]
        assert objects.dropped == 2
    # Not even where filling would make it large enough.
    with follow(nested(), (2, 2), 1, least=20, most=20) as objects:
        assert sizes(objects) == [(1, 32)]


def test_neighbours_in_a_hole_are_known_to_lie_in_it(follow) -> None:
    labels = np.ones((6, 8), dtype=np.uint8)
    labels[1:5, 1:7] = 0
    labels[2:4, 2:4] = 2
    labels[2:4, 4:6] = 3  # over its first pixel is nothing, whose ring is the hole's
    labels[4, 2:6] = 2
    with follow(labels, (1, 3), 1, most=23) as objects:
        assert len(objects) == 3
    with follow(labels, (1, 3), 1, most=24) as objects:
        assert sizes(objects) == [(1, 48)]


def test_long_rings_are_read_in_parts(monkeypatch, follow, plain) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 40)) < 0.65).astype(np.uint8)
    with follow(labels, (13, 40)) as objects:
        whole = plain(objects)
        monkeypatch.setattr(rings_module, "CHUNK", 3)
        largest = int(objects.area.argmax())
        parts = [len(part) for part in objects.ring(objects.rings(largest)[0])]
        assert max(parts) == 3
        assert len(parts) > 10
        assert plain(objects) == whole


def test_an_image_of_nothing(follow) -> None:
    with follow(np.zeros((5, 4), dtype=np.uint8), (2, 2), most=3) as objects:
        assert len(objects) == 0
