"""Commands of the menus and the command palette."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari.viewer  # noqa: TC002 - napari looks the type up when it calls
from napari.utils.notifications import show_warning

from ..core.errors import MuvitError
from .last_model import last_model

if TYPE_CHECKING:
    from .panel import MuViTPanel

TRAIN_STEP, PREDICT_STEP = 2, 3


def predict_whole_slide(viewer: napari.viewer.Viewer) -> None:
    """Predict the active image with the last model; opens the panel if need be.

    Parameters
    ----------
    viewer
        napari passes it by the type of this parameter.
    """
    _dock, panel = viewer.window.add_plugin_dock_widget("napari-muvit", "MuViT")
    begin(panel, viewer)


def begin(panel: MuViTPanel, viewer: Any) -> None:
    """Predict the active image as the Predict page would, or say why not."""
    try:
        _choose(panel, viewer)
    except MuvitError as error:
        show_warning(str(error))
        return
    panel.show_step(PREDICT_STEP)
    panel.predict.predict_whole()


def _choose(panel: MuViTPanel, viewer: Any) -> None:
    from napari.layers import Image

    if panel.runner.busy:
        raise MuvitError(
            "MuViT is at work. Wait until it is done, or press Stop in its panel."
        )
    active = viewer.layers.selection.active
    if isinstance(active, Image):
        panel.data.image.choose(active)
    if panel.data.image.layer is None:
        raise MuvitError("There is no image to predict. Open a slide first.")
    if panel.predict.model.chosen is None:
        folder = last_model()
        if folder is None:
            panel.show_step(PREDICT_STEP)
            raise MuvitError(
                "There is no model yet. Train one on the Train page, or choose a saved "
                "one with … on the Predict page."
            )
        panel.predict.model.use(folder)


def start_training(viewer: napari.viewer.Viewer) -> None:
    """Train on what is annotated, as the Train page would; opens the panel if need be.

    Parameters
    ----------
    viewer
        napari passes it by the type of this parameter.
    """
    _dock, panel = viewer.window.add_plugin_dock_widget("napari-muvit", "MuViT")
    panel.show_step(TRAIN_STEP)
    if panel.runner.busy:
        show_warning("MuViT is at work. Wait until it is done, or stop it.")
        return
    panel.train.train()


def stop_work(viewer: napari.viewer.Viewer) -> None:
    """Stop what MuViT is at, and keep what is done.

    Parameters
    ----------
    viewer
        napari passes it by the type of this parameter.
    """
    _dock, panel = viewer.window.add_plugin_dock_widget("napari-muvit", "MuViT")
    panel.stop()
