"""Outlines are those of the whole image, whatever the blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_muvit.core.data.polygons import Polygon
from napari_muvit.core.errors import AnnotationError, OutputError
from napari_muvit.core.export import pieces
from napari_muvit.core.export.features import corners_of
from napari_muvit.core.export.pieces import PIECE, CornerFile, PieceTable
from napari_muvit.core.geometry import Box

SHAPES = st.tuples(st.integers(1, 13), st.integers(1, 13))
LABELS = SHAPES.flatmap(lambda s: arrays(np.uint8, s, elements=st.integers(0, 2)))
RING_WITH_LEAK = np.array(
    [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0], [1, 1, 1, 1]], np.uint8
)
"""Holes that touch at corners, the last one the outside."""
SPIRAL = np.array(
    [[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1] * 5],
    np.uint8,
)
LATE = np.array([[1, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
"""Parts that touch at corners before they turn out to be one."""


def corners(objects, piece: int) -> np.ndarray:
    return np.concatenate(list(corners_of(objects.ring(piece))))


def painted(objects, index: int, shape: tuple[int, int]) -> np.ndarray:
    rings = [corners(objects, p)[:, ::-1].astype(float) for p in objects.rings(index)]
    out = np.zeros(shape, dtype=np.uint8)
    Polygon(1, rings[0], tuple(rings[1:])).fill(out, Box((0, 0), shape))
    return out.astype(bool)


@settings(max_examples=120, deadline=None)
@given(
    labels=LABELS,
    block=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    part_runs=st.sampled_from([1, 5, 1000]),
    least=st.integers(1, 5),
    most=st.sampled_from([0, 1, 2, 6]),
)
@example(RING_WITH_LEAK, (1, 2), 1, 1, 0)
@example(RING_WITH_LEAK, (2, 4), 1, 1, 1)
@example(SPIRAL, (1, 1), 1, 1, 0)
@example(LATE, (1, 3), 1, 1, 0)
@example(LATE, (2, 1), 1, 2, 1)
def test_objects_are_those_of_the_whole_image(
    follow, plain, reference, labels, block, part_runs, least, most
) -> None:
    with follow(labels, least=least, most=most) as objects:
        whole = plain(objects)
        wanted = reference(labels, least, most)
        assert [v for v, *_ in whole] == [v for v, _ in wanted]
        for k, (_, mask) in enumerate(wanted):
            np.testing.assert_array_equal(painted(objects, k, labels.shape), mask)
            y, x = np.nonzero(mask)
            assert objects.area[k] == len(y)
            assert objects.centroid[k] == pytest.approx(
                [y.mean() + 0.5, x.mean() + 0.5]
            )
            limits = [y.min(), x.min(), y.max() + 1, x.max() + 1]
            assert objects.box[k].tolist() == limits
            for piece in objects.rings(k):
                ring = corners(objects, piece).tolist()
                # No ring comes to a corner twice, or goes straight through one.
                assert len(set(map(tuple, ring))) == len(ring)
                steps = np.diff([*ring, ring[0]], axis=0)
                assert (np.count_nonzero(steps, axis=1) == 1).all()
    with follow(labels, block, part_runs, least, most) as objects:
        assert plain(objects) == whole


def test_pieces_of_complete_small_parts_are_forgotten(follow) -> None:
    labels = np.zeros((400, 9), dtype=np.uint8)
    labels[::2, ::2] = 1
    labels[6:301, 4] = 1
    with follow(labels, (4, 9), least=10) as objects:
        assert objects.area.tolist() == [295]
        assert objects.dropped == 852
        assert len(objects.pieces) < 300


def test_noise_is_refused(monkeypatch, follow) -> None:
    monkeypatch.setattr(pieces, "MOST_PIECES", 20)
    labels = np.zeros((20, 20), dtype=np.uint8)
    labels[::2, ::2] = 1
    with pytest.raises(AnnotationError, match="more than 20 outlines"), follow(labels):
        pass


def test_a_table_grows() -> None:
    table = PieceTable()
    for start in (0, 1500, 3000):
        rows = np.zeros(1500, dtype=PIECE)
        rows["area"] = np.arange(start, start + 1500)
        table.append(rows)
    assert len(table) == 4500
    assert table.rows["area"].tolist() == list(range(4500))


def test_corners_without_any(tmp_path: Path) -> None:
    with CornerFile(tmp_path / "c") as file:
        file.append(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
        assert file.read().shape == (0, 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_full_disk_is_said() -> None:
    with (
        CornerFile(Path("/dev/full")) as file,
        pytest.raises(OutputError, match="free the disk"),
    ):
        file.append(np.arange(3), np.arange(3))
