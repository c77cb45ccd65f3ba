"""Names that a user may type for a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_muvit.core.data.named_labels import read_project
from napari_muvit.widgets import MuViTPanel
from napari_muvit.widgets.class_table import NAME

TIMEOUT = 10_000


def type_name(panel: MuViTPanel, index: int, name: str) -> str:
    """Type a name as the user does; return what is said of it."""
    item = panel.annotate.classes.tree.topLevelItem(index)
    assert item is not None
    item.setText(NAME, name)
    shown = panel.annotate.classes.tree.topLevelItem(index)
    assert shown is not None
    assert shown.text(NAME) == panel.state.names[index]
    return panel.annotate.classes.problem.text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "needs a name"), ("   ", "needs a name"),
        # A project file would take both for one class.
        ("Background", "'background' already"), ("background ", "already"),
        # Its regions would count as taken away.
        ("cells*", "ends with *"), ("Region*", "ends with *"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_is_refused_in_words(
    panel: MuViTPanel, name: str, said: str
) -> None:
    assert said in type_name(panel, 1, name)
    assert panel.state.names == ("background", "class 1")
    assert type_name(panel, 1, "cells") == ""


@pytest.mark.parametrize(
    "name", ["tumör «β» / \\ , ; % : ? < > |", "Class 1", "0", '"', "🔬", "x" * 300]
)
def test_an_odd_name_comes_back_from_the_file(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray, name: str
) -> None:
    viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    annotate = panel.annotate
    qtbot.waitUntil(lambda: annotate.slide._ready, timeout=TIMEOUT)
    assert type_name(panel, 1, name) == ""
    annotate.classes.choose(1)
    layer = annotate.new_layer()
    assert layer is not None
    layer.add_polygons([np.array([[100, 100], [100, 250], [250, 250]])])
    assert annotate.slide is not None
    assert annotate.slide.autosave.flush()
    found = read_project(annotate.slide.path)
    assert found.class_names[found.items[0].label - 1] == name
