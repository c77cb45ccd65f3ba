"""Settings that are typed wrongly in "More options"."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QLineEdit

from napari_muvit.core.errors import MuvitError
from napari_muvit.widgets import MuViTPanel
from napari_muvit.widgets.train_options import MODEL

WRONG = ("abc", "-1", "0", "1e400", "nan", "1, 2, 3", "", "99999999999", "[", "(" * 999)


def type_in(panel: MuViTPanel, name: str, words: str) -> None:
    forms = (panel.train.options.training, panel.train.options.model)
    (editor,) = [f.editors[name] for f in forms if name in f.editors]
    assert isinstance(editor, QLineEdit)
    editor.setText(words)
    editor.editingFinished.emit()


@pytest.fixture
def drawn(panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray) -> Any:
    viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    layer = panel.annotate.new_layer()
    assert layer is not None
    layer.add_polygons([np.array([[100, 100], [100, 250], [250, 250]])])
    return layer


def test_a_wrong_number_is_said_and_other_pages_do_not_see_it(
    panel: MuViTPanel, drawn: Any
) -> None:
    # The Data page took "abc" pixels times 4 for the view of the model.
    type_in(panel, "crop_size", "abc")
    said = panel.train.problem.text()
    assert "crop_size" in said
    panel.show_step(0)
    assert panel.data.table.rowCount() == 2
    # It does not train with other settings than those on screen.
    panel.train.train()
    assert panel.train.problem.text() == said
    assert not panel.runner.busy
    type_in(panel, "crop_size", "32")
    assert panel.train.problem.text() == ""
    model = panel.train.task().model
    assert model is not None
    assert model.crop_size == 32


def test_whatever_is_typed_is_one_plain_sentence(panel: MuViTPanel, drawn: Any) -> None:
    names = [
        n for n in MODEL if isinstance(panel.train.options.model.editors[n], QLineEdit)
    ]
    names += ["batch_size", "learning_rate", "box_shift", "device"]
    assert len(names) > 8
    said: list[str] = []
    for name in names:
        for words in WRONG:
            type_in(panel, name, words)
            panel.data.refresh()
            try:
                panel.train.task()
            except MuvitError as error:
                said.append(str(error))
        panel.train._on_preset()  # as it was
    assert len(said) > 50
    assert not [words for words in said if "\n" in words]
