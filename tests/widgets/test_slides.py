"""The slides of a project: ticked, annotated, kept as a list."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_muvit.core.data.annotations import Annotations, Polygon
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.project import Project
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import AnnotationError, MuvitError
from napari_muvit.widgets.slide_list import SlideList
from napari_muvit.widgets.slides import (
    SlideEntry,
    file_entry,
    open_list,
    prediction_slides,
    put,
    save_list,
    training_slides,
)
from napari_muvit.widgets.state import PanelState

SQUARE = np.array([[0.0, 0], [0, 9], [9, 9], [9, 0]])
NAMES = ("stroma", "gland")


def make(folder: Path, name: str, regions: int = 0) -> SlideEntry:
    """A slide on disk with so many annotated regions."""
    path = folder / f"{name}.zarr"
    write_pyramid(path, np.zeros((2, 64, 64), np.uint8), pixel_size=0.5)
    project = folder / f"{name}.muvit.jsonl"
    if regions:
        with_names = Project.create(project, class_names=("gland", "stroma"))
        with_names.extend([Polygon(1, SQUARE)] * regions)
        with_names.close()
    return file_entry(path, project)


def untick(entry: SlideEntry) -> SlideEntry:
    return dataclasses.replace(entry, ticked=False)


def test_annotations_of_all_ticked_slides_are_read(tmp_path: Path) -> None:
    one, two, three = (make(tmp_path, n, k) for n, k in (("a", 2), ("b", 0), ("c", 1)))
    found = training_slides([one, two, untick(three)], NAMES)
    assert [s.entry.name for s in found] == ["a"]
    # The file lists its classes in another order than the user.
    assert [item.label for item in found[0].annotations.items] == [2, 2]
    assert found[0].entry.pyramid().num_channels == 2


def test_the_shown_slide_comes_first_as_it_is_on_screen(tmp_path: Path) -> None:
    one, two = make(tmp_path, "a", 2), make(tmp_path, "b", 3)
    pyramid = open_pyramid(np.zeros((64, 64), np.uint8))
    shown = dataclasses.replace(two, opened=lambda: pyramid)
    drawn = Annotations((Polygon(1, SQUARE),), NAMES)
    first, second = training_slides([one, two], NAMES, shown, drawn)
    assert first.entry.pyramid() is pyramid
    assert first.annotations is drawn
    assert second.entry == one
    assert prediction_slides([one, two], shown)[0].pyramid() is pyramid
    # Unticked, it is left out though it is on screen.
    (only,) = training_slides([one, untick(two)], NAMES, shown, drawn)
    assert only.entry == one
    assert prediction_slides([one, untick(two)], shown) == [one]


def test_what_cannot_be_trained_on_is_said(tmp_path: Path) -> None:
    plain, marked = make(tmp_path, "a"), make(tmp_path, "b", 1)
    with pytest.raises(AnnotationError, match="No slide is ticked"):
        training_slides([untick(plain)], NAMES)
    with pytest.raises(AnnotationError, match="annotated"):
        training_slides([plain], NAMES)
    with pytest.raises(AnnotationError, match="'gland'"):
        training_slides([marked], ("stroma", "vessel"))


def test_a_slide_that_is_gone_says_so(tmp_path: Path) -> None:
    gone = SlideEntry("a", tmp_path / "a.muvit.jsonl", opened=lambda: None)
    assert not gone.alive
    with pytest.raises(MuvitError, match="is gone"):
        gone.pyramid()
    missing = file_entry(tmp_path / "no.svs", tmp_path / "no.muvit.jsonl")
    with pytest.raises(MuvitError, match="no image"):
        missing.pyramid()


def test_a_slide_is_there_once_and_keeps_its_tick(tmp_path: Path) -> None:
    one = untick(make(tmp_path, "a"))
    again = dataclasses.replace(one, ticked=True, pixel_size=0.3)
    (only,) = put([one], again)
    assert (only.ticked, only.pixel_size) == (False, 0.3)


def test_a_list_may_be_moved_with_its_slides(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    entries = [
        dataclasses.replace(make(folder / "deep", "a", 1), channels=(1,)),
        untick(dataclasses.replace(make(folder, "b"), pixel_size=0.3)),
        SlideEntry("memory", folder / "m.muvit.jsonl", opened=lambda: None),
    ]
    assert save_list(entries, folder / "x.muvit-slides.json") == 2
    moved = tmp_path / "two"
    folder.rename(moved)
    first, second = open_list(moved / "x.muvit-slides.json")
    assert first.pyramid().num_channels == 1
    assert second.pyramid().pixel_size == (0.3, 0.3)
    assert (first.ticked, second.ticked) == (True, False)
    (slide,) = training_slides([first, second], NAMES)
    assert slide.entry.name == "a"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "x", "version": 1, "slides": []}',
     '{"format": "napari-muvit slides", "version": 9, "slides": []}',
     '{"format": "napari-muvit slides", "version": 1, "slides": [{}]}',
     '{"format": "napari-muvit slides", "version": 1, "slides": 3}'],
)  # fmt: skip
def test_what_is_no_list_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.muvit-slides.json"
    path.write_text(text)
    with pytest.raises(AnnotationError, match="no list of slides") as error:
        open_list(path)
    assert "\n" not in str(error.value)


# ---- the widget


@pytest.fixture
def slides(qtbot: Any) -> SlideList:
    made = SlideList(PanelState())
    qtbot.addWidget(made)
    return made


def rows(slides: SlideList) -> list[str]:
    return [slides.list.item(k).text() for k in range(slides.list.count())]


def test_files_are_added_and_their_regions_counted(
    slides: SlideList, tmp_path: Path
) -> None:
    entries = [make(tmp_path, n, k) for n, k in (("a", 2), ("b", 1), ("c", 0))]
    paths = [e.path for e in entries if e.path is not None]
    slides.add([paths[0], paths[1] / "zarr.json", paths[2], paths[0]])
    assert rows(slides) == ["a  ·  2 regions", "b  ·  1 region", "c  ·  no regions"]
    assert [e.project for e in slides.state.slides] == [e.project for e in entries]
    with_one = Project.open(entries[0].project)
    with_one.add(Polygon(1, SQUARE))
    with_one.close()
    entries[2].project.write_text("broken")
    slides.show_slides()
    assert rows(slides)[0] == "a  ·  3 regions"
    assert rows(slides)[2] == "c  ·  unreadable annotations"


def test_ticks_and_the_delete_key(slides: SlideList, tmp_path: Path) -> None:
    slides.add([tmp_path / "a.svs", tmp_path / "b.svs"])
    slides.list.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert [e.ticked for e in slides.state.slides] == [False, True]
    slides.list.item(0).setSelected(True)
    QTest.keyClick(slides.list, Qt.Key.Key_Delete)
    assert [e.name for e in slides.state.slides] == ["b"]


def test_lists_are_saved_and_opened(
    qtbot: Any, slides: SlideList, tmp_path: Path
) -> None:
    made = make(tmp_path, "a", 1)
    assert made.path is not None
    slides.add([made.path, tmp_path / "gone.svs"])
    slides.save(tmp_path / "mine.json")
    path = tmp_path / "mine.muvit-slides.json"
    assert len(json.loads(path.read_text())["slides"]) == 2
    slides.state.slides.clear()
    with qtbot.waitSignal(slides.said) as said:
        slides.load(path)
    assert "gone cannot be found" in said.args[0]
    assert rows(slides) == ["a  ·  1 region", "gone  ·  no regions"]
    with qtbot.waitSignal(slides.said) as said:
        slides.load(tmp_path / "no.json")
    assert "no list of slides" in said.args[0]
    slides.state.slides.clear()
    with qtbot.waitSignal(slides.said) as said:
        slides.save(path)
    assert "no list to save" in said.args[0]
