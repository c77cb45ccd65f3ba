"""The list of known models."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from napari_muvit.core.config import ModelConfig
from napari_muvit.widgets.model_chooser import ModelChooser
from napari_muvit.widgets.state import PanelState, SavedModel

CONFIG = ModelConfig(num_classes=2)


def known(name: str, title: str = "") -> SavedModel:
    return SavedModel(Path(name), CONFIG, title or name)


@pytest.fixture
def chooser(qtbot: QtBot) -> ModelChooser:
    made = ModelChooser(PanelState(), "none", optional=False, tooltip="Which.")
    qtbot.addWidget(made)
    return made


def test_the_word_for_none_goes_when_a_model_is_known(chooser: ModelChooser) -> None:
    assert chooser.chosen is None
    assert chooser.combo.currentText() == "none"
    chooser.state.remember(known("a"))
    chooser.show_models()
    assert chooser.chosen == known("a")
    assert chooser.combo.count() == 1


def test_none_stays_a_choice_where_it_is_one(qtbot: QtBot) -> None:
    chooser = ModelChooser(PanelState(), "new", optional=True, tooltip="Which.")
    qtbot.addWidget(chooser)
    chooser.state.remember(known("a"))
    chooser.show_models()
    assert chooser.chosen is None
    assert chooser.combo.count() == 2


def test_the_choice_outlives_newer_models(chooser: ModelChooser) -> None:
    chooser.state.remember(known("a"))
    chooser.show_models()
    chooser.state.remember(known("b"))
    chooser.show_models()
    assert chooser.chosen == known("a")
    chooser.show_models(Path("b"))
    assert chooser.chosen == known("b")


def test_it_tells_of_a_change_and_of_nothing_else(
    qtbot: QtBot, chooser: ModelChooser
) -> None:
    """A list filled anew without a change wiped what a page had said."""
    chooser.state.remember(known("a"))
    with qtbot.waitSignal(chooser.changed):
        chooser.show_models()
    with qtbot.assertNotEmitted(chooser.changed):
        chooser.show_models()
    with qtbot.waitSignal(chooser.changed):
        chooser.show_models(Path("a"))  # read anew: its classes may be others
    chooser.state.remember(known("b"))
    chooser.show_models()
    with qtbot.waitSignal(chooser.changed):
        chooser.combo.setCurrentIndex(0)


def test_a_folder_that_is_no_model_is_refused_and_nothing_changes(
    qtbot: QtBot, chooser: ModelChooser, tmp_path: Path
) -> None:
    chooser.state.remember(known("a"))
    chooser.show_models()
    with qtbot.waitSignal(chooser.refused) as said:
        chooser.use(tmp_path)
    assert str(tmp_path) in said.args[0]
    assert chooser.chosen == known("a")
    assert chooser.state.models == [known("a")]


def test_a_saved_model_is_added_and_chosen(
    chooser: ModelChooser, saved_model: Path
) -> None:
    chooser.state.remember(known("a"))
    chooser.show_models()
    chooser.use(saved_model)
    chosen = chooser.chosen
    assert chosen is not None
    assert chosen.path == saved_model
    assert chosen.title == saved_model.name
