"""A project file that follows what is on screen."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.areas import Rectangle
from napari_muvit.core.data.named_labels import read_project
from napari_muvit.core.data.project import Project
from napari_muvit.core.data.project_changes import MirroredProject, plan_changes
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.geometry import Box

NAMES, COLORS = ("a", "b", "c"), ("#111111", "#222222", "#333333")
POOL = [
    Rectangle(1 + k % 3, (3 * (k // 4), 3 * (k % 4)), (5, 4 + k % 2)) for k in range(12)
]
PICTURE = Box((0, 0), (20, 20)), (20, 20)


def picture(items):
    return Annotations(tuple(items)).rasterise(*PICTURE)


def applied(held, changes):
    """What `Project.edit` would make of it."""
    stay = {k: v for k, v in held.items() if k not in changes.remove}
    new = enumerate(changes.add, max(held, default=0) + 1)
    return dict(sorted({**stay, **changes.replace, **dict(new)}.items()))


orders = st.lists(st.sampled_from(POOL), max_size=9)


@settings(max_examples=60)
@given(st.lists(orders, min_size=1, max_size=5))
def test_any_changes_lead_to_the_same_picture(steps):
    held = {}
    for wanted in steps:
        held = applied(held, plan_changes(held, wanted))
        assert sorted(map(id, held.values())) == sorted(map(id, wanted))
        np.testing.assert_array_equal(picture(held.values()), picture(wanted))


def test_few_lines_for_what_users_do():
    a, b, c, d = POOL[0], POOL[1], POOL[2], POOL[11]
    held = {3: a, 5: b, 6: c}
    assert plan_changes(held, [a, b, c, d]).add == (d,)
    assert plan_changes(held, [a, c]).remove == (5,)
    edited = plan_changes(held, [a, POOL[5], c])
    assert (edited.remove, dict(edited.replace), edited.add) == ((), {5: POOL[5]}, ())
    # Put back in the middle: only what overlaps it is written again.
    back = plan_changes({3: a, 7: d}, [a, b, d])
    assert (back.remove, back.add) == ((), (b,))


@pytest.fixture
def mirror(tmp_path):
    path = tmp_path / "x.muvit.jsonl"
    with Project.create(path, shape=(20, 30), class_names=NAMES) as project:
        yield MirroredProject(project)


def test_a_class_is_taken_out_in_one_line(mirror):
    path = mirror.project.path
    mirror.write(POOL[:6], NAMES, COLORS)
    lines = path.read_bytes().count(b"\n")
    kept = [
        Rectangle(item.label - 1, item.corner, item.size)
        for item in POOL[:6]
        if item.label > 1
    ]
    assert mirror.write(kept, NAMES[1:], COLORS[1:])
    # A crash between labels and names would give regions the class of others.
    assert path.read_bytes().count(b"\n") == lines + 1
    found = read_project(path)
    assert found.class_names == NAMES[1:]
    np.testing.assert_array_equal(picture(found.items), picture(kept))
    assert not mirror.write(kept, NAMES[1:], COLORS[1:])
    assert mirror.project.undo()
    np.testing.assert_array_equal(
        picture(mirror.project.items.values()), picture(POOL[:6])
    )
    assert mirror.project.class_names == NAMES
    assert mirror.project.redo()
    assert mirror.project.class_names == NAMES[1:]


def test_an_edit_of_many_parts_is_one_to_undo_also_after_compaction(mirror):
    project = mirror.project
    mirror.write(POOL[:4], NAMES, COLORS)
    mirror.write([POOL[0], POOL[7], POOL[8]], NAMES, COLORS)
    project.undo()
    project.compact()
    assert len(project.items) == 4
    assert project.redo()
    assert len(project.items) == 3
    assert project.undo()
    assert project.undo()
    assert not project.items
    with Project.create(project.path.with_name("y.muvit.jsonl")) as other:
        assert other.shape is None
    assert project.shape == (20, 30)


def test_what_cannot_be_written_changes_nothing(mirror):
    mirror.write(POOL[:3], NAMES, COLORS)
    before = mirror.project.path.read_bytes()
    for bad in (
        {"classes": (NAMES[:1], None)},
        {"add": [Rectangle(9, (0, 0), (1, 1))]},
    ):
        with pytest.raises(AnnotationError):
            mirror.project.edit(remove=[1], **bad)
    with pytest.raises(AnnotationError, match="at once"):
        mirror.project.edit(remove=[1], replace={1: POOL[5]})
    with pytest.raises(AnnotationError, match="no item"):
        mirror.project.edit(remove=[77])
    assert mirror.project.path.read_bytes() == before
