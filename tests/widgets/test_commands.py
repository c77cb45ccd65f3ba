"""What menus and the command palette do."""

from __future__ import annotations

import types
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from napari.components import ViewerModel
from qtpy.QtWidgets import QShortcut

import napari_muvit
from napari_muvit.widgets import MuViTPanel, one_click

if TYPE_CHECKING:
    from conftest import FakeCore

TIMEOUT = 10_000


def window_of(panel: MuViTPanel) -> Any:
    """What a command gets: a viewer whose window has the panel."""
    window = types.SimpleNamespace(
        add_plugin_dock_widget=lambda _plugin, _name: (None, panel)
    )
    return types.SimpleNamespace(window=window)


def test_every_command_of_the_manifest_is_there() -> None:
    path = Path(napari_muvit.__file__).parent / "napari.yaml"
    contributions = yaml.safe_load(path.read_text())["contributions"]
    commands = {c["id"]: c["python_name"] for c in contributions["commands"]}
    for name in commands.values():
        module, attribute = name.split(":")
        assert callable(getattr(import_module(module), attribute))
    for entries in contributions["menus"].values():
        assert {entry["command"] for entry in entries} <= set(commands)


def test_training_starts_and_stops_by_command(
    qtbot: Any, viewer: ViewerModel, panel: MuViTPanel, slide: np.ndarray,
    core: FakeCore,
) -> None:  # fmt: skip
    viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    layer = panel.annotate.new_layer()
    assert layer is not None
    layer.add_polygons([np.array([[100, 100], [100, 250], [250, 250]])])
    one_click.start_training(window_of(panel))
    assert panel.pages.currentIndex() == 2
    qtbot.waitUntil(lambda: bool(core.live), timeout=TIMEOUT)
    one_click.start_training(window_of(panel))  # says that it is at work
    assert len(core.live) == 1
    one_click.stop_work(window_of(panel))
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=TIMEOUT)


def test_stopping_without_work_does_no_harm(panel: MuViTPanel) -> None:
    one_click.stop_work(window_of(panel))
    assert not panel.runner.busy
    assert panel.status.text() != "Stopping …"


@pytest.mark.parametrize("step", range(4))
def test_the_steps_have_keys(panel: MuViTPanel, step: int) -> None:
    panel.show_step((step + 1) % 4)
    # Without a window manager no window is active, so that no key would arrive.
    keys = {s.key().toString(): s for s in panel.findChildren(QShortcut)}
    keys[f"Ctrl+{step + 1}"].activated.emit()
    assert panel.pages.currentIndex() == step
    assert f"Ctrl+{step + 1}" in panel.step_buttons[step].toolTip()


def test_what_it_sees_is_said_for_the_slide(
    panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray
) -> None:
    viewer.add_image(np.zeros((4000, 4000), np.uint8), name="large")
    panel.show_step(2)
    assert "1×, 4×, 16×" in panel.train.summary.text()
    layer = viewer.add_image(slide, name="small")
    panel.data.image.choose(layer)
    panel.show_step(2)
    assert "1×, 4×." in panel.train.summary.text()
