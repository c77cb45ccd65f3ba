"""The widget that napari docks."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_muvit.widgets import MuViTPanel, loading
from napari_muvit.widgets.loading import LoadingPanel

TIMEOUT = 10_000


@pytest.fixture
def docked(qtbot: Any, viewer: ViewerModel) -> LoadingPanel:
    made = LoadingPanel(viewer)
    qtbot.addWidget(made)
    return made


def test_it_becomes_the_panel(
    qtbot: Any, docked: LoadingPanel, viewer: ViewerModel
) -> None:
    assert docked._said.text().startswith("Loading")
    viewer.add_image(np.zeros((50, 60), np.uint8), name="a slide")
    docked.reset_choices()  # before it is loaded
    qtbot.waitUntil(lambda: docked.panel is not None, timeout=TIMEOUT)
    assert docked.data.image.layer is viewer.layers["a slide"]
    viewer.add_image(np.zeros((50, 60), np.uint8), name="another")
    docked.reset_choices()
    assert docked.data.image.count() == 2


def test_who_asks_early_gets_it_at_once(docked: LoadingPanel) -> None:
    docked.show_step(2)
    assert isinstance(docked.panel, MuViTPanel)
    assert docked.pages.currentIndex() == 2
    with pytest.raises(AttributeError, match="native"):
        _ = docked.native


def test_it_lets_go_when_it_is_taken_out_of_the_dock(
    qtbot: Any, docked: LoadingPanel
) -> None:
    from qtpy.QtWidgets import QVBoxLayout, QWidget

    panel = docked.load()
    dock = QWidget()
    qtbot.addWidget(dock)
    QVBoxLayout(dock).addWidget(docked)
    docked.setParent(None)
    assert panel._closed
    dock.layout().addWidget(docked)
    assert not panel._closed
    docked.setParent(None)


def test_what_cannot_be_imported_is_said(
    qtbot: Any, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def fail(_name: str) -> None:
        raise ImportError("No module named 'bermuda'")

    monkeypatch.setattr(loading.importlib, "import_module", fail)
    made = LoadingPanel(viewer)
    qtbot.addWidget(made)
    qtbot.waitUntil(lambda: "bermuda" in made._said.text(), timeout=TIMEOUT)
    assert made.panel is None
    assert "cannot be loaded" in caplog.text


def test_it_imports_nothing_heavy_itself(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        import napari_muvit.widgets.loading
        heavy = {"torch", "lightning", "scipy", "zarr", "pandas", "napari"}
        print(sorted(heavy & set(sys.modules)))
        print("napari_muvit.widgets.panel" in sys.modules)
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["[]", "False"]
