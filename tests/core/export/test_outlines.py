"""Labels as polygons: filled again they are the same labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.export import outlines
from napari_muvit.core.export.outlines import outline_labels
from napari_muvit.core.geometry import Box

SHAPES = st.tuples(st.integers(1, 17), st.integers(1, 17))
LABELS = SHAPES.flatmap(lambda s: arrays(np.uint8, s, elements=st.integers(0, 3)))


def filled(items: tuple, box: Box, shape: tuple[int, int]) -> np.ndarray:
    return Annotations(items=items, class_names=("a", "b", "c")).rasterise(box, shape)


@settings(max_examples=60, deadline=None)
@given(
    labels=LABELS,
    offset=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    step=st.tuples(st.sampled_from((1, 4)), st.sampled_from((1, 8))),
)
def test_filled_again_they_are_the_same_labels(labels, offset, step) -> None:
    found = outline_labels(labels, offset=offset, step=step, tolerance=0)
    upper = np.add(offset, np.multiply(labels.shape, step))
    again = filled(found, Box(offset, tuple(upper)), labels.shape)
    np.testing.assert_array_equal(again, labels)


def disc() -> np.ndarray:
    y, x = np.mgrid[:200, :200]
    labels = ((y - 90) ** 2 + (x - 110) ** 2 < 70**2).astype(np.uint8)
    labels[80:100, 100:120] = 2
    labels[5, 5] = 3
    return labels


def test_a_tolerance_leaves_few_corners_and_the_area() -> None:
    exact = outline_labels(disc(), tolerance=0, least=2)
    few = outline_labels(disc(), tolerance=1, least=2)
    assert [p.label for p in few] == [p.label for p in exact] == [1, 2]
    assert len(few[0].vertices) < len(exact[0].vertices) / 5
    assert len(few[0].holes) == 1
    box = Box((0, 0), (200, 200))
    wrong = filled(few, box, (200, 200)) != filled(exact, box, (200, 200))
    assert wrong.mean() < 0.01


def test_nothing_and_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outline_labels(np.zeros((9, 9), np.uint8)) == ()
    assert outline_labels(np.eye(9, dtype=np.uint8), least=2) == ()
    monkeypatch.setattr(outlines, "MOST_PIXELS", 80)
    with pytest.raises(ConfigError, match="9 x 9 pixels"):
        outline_labels(np.ones((9, 9), np.uint8))
