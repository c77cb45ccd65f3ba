"""What a model in training makes of the screen, as a layer upon the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._layers import layer_kwargs, placement
from .._tasks.screen import ScreenPicture
from .result_layers import PREDICTION, PREVIEW, hide_results
from .streaming import OPACITY, label_colormap, label_features

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from ..core.config import ModelConfig


class ScreenLayer:
    """Shows the newest picture of one training.

    Parameters
    ----------
    viewer, image
        Where, and upon what.
    model
        For names and colours.
    """

    def __init__(self, viewer: ViewerModel, image: Image, model: ModelConfig) -> None:
        self.viewer = viewer
        self.image = image
        self.model = model
        self.layer: Labels | None = None

    def show(self, picture: ScreenPicture) -> None:
        """Put a picture in the place of the last one."""
        if self.layer is None:
            self.layer = self._add(picture)
        if self.layer not in self.viewer.layers:
            return  # the user took it away
        place = placement(self.image)
        y0, x0 = picture.box[:2]
        corner = np.array([[y0 + picture.step / 2, x0 + picture.step / 2]])
        # Data first: with a new place and the old data it would jump.
        self.layer.data = picture.labels
        self.layer.scale = tuple(s * picture.step for s in place.scale)
        self.layer.translate = tuple(place.to_world(corner)[0])
        self.layer.editable = False  # each new picture is editable again

    def _add(self, picture: ScreenPicture) -> Labels:
        from napari.layers import Labels

        layer = Labels(
            picture.labels,
            name=f"{self.image.name} · live preview",
            colormap=label_colormap(self.model.colors, self.model.background),
            features=label_features(self.model.names),
            metadata={"muvit": PREDICTION, PREVIEW: True},
            opacity=OPACITY,
            **layer_kwargs(self.image),
        )
        hide_results(self.viewer, self.image)
        above = self.viewer.layers.index(self.image) + 1
        # What the user draws on stays the active layer.
        active = self.viewer.layers.selection.active
        self.viewer.layers.insert(above, layer)
        self.viewer.layers.selection.active = active
        return layer

    def remove(self) -> None:
        """Take the layer away."""
        if self.layer is not None and self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
        self.layer = None
