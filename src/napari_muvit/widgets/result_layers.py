"""Layers that show what a model says of a slide, and which of them is on top."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

PREDICTION, CONTEXT = "prediction", "context"
"""Marks in the metadata of layers that show what a model says: no annotations."""
PREVIEW = "muvit_preview"
"""In the metadata of what a model in training makes of the screen."""
HIDDEN = "muvit_hidden"
"""In the metadata of layers that were hidden for a newer result, not by the user."""


def results(viewer: ViewerModel, image: Image) -> list[Layer]:
    """Return the layers of results upon an image, the lowest one first."""
    return [
        x
        for x in viewer.layers
        if x.metadata.get("muvit") in (PREDICTION, CONTEXT)
        and x.name.startswith(f"{image.name} · ")
    ]


def previews(viewer: ViewerModel, image: Image) -> list[Layer]:
    """Return what is left on screen of trainings."""
    return [x for x in results(viewer, image) if PREVIEW in x.metadata]


def hide_results(viewer: ViewerModel, image: Image) -> None:
    """Hide older results, so that a newer one can be seen."""
    for layer in results(viewer, image):
        if layer.visible and PREVIEW not in layer.metadata:
            layer.visible = False
            layer.metadata[HIDDEN] = True


def shown_again(layer: Layer) -> bool:
    """Whether a new result in a layer's place is to be seen: not if the user hid it."""
    return bool(layer.visible or HIDDEN in layer.metadata)


def place_of_results(viewer: ViewerModel, image: Image) -> int:
    """Return where a layer lies above all results of an image and below the rest."""
    below = [image, *results(viewer, image)]
    return 1 + max(int(viewer.layers.index(x)) for x in below if x in viewer.layers)
