"""A layer that shows where the surroundings changed the answer of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from .._layers import layer_kwargs, placement
from .result_layers import CONTEXT, place_of_results, results

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from ..core.config import ModelConfig
    from ..core.prediction.context_difference import ContextDifference


def show_difference(
    viewer: ViewerModel, image: Image, found: ContextDifference, model: ModelConfig
) -> Labels:
    """Add a layer over the region; one that was made before is replaced.

    Its colour is that of the class which the model would see without context, and the
    status bar says both.
    """
    from napari.layers import Labels

    name = f"{image.name} · changed by context"
    place = placement(image)
    corner = np.array([found.box[:2]], dtype=np.float64)
    kwargs: dict[str, Any] = layer_kwargs(image)
    # The centre of the region's first pixel.
    kwargs["translate"] = tuple(place.to_world(corner + 0.5)[0])
    layer = Labels(
        pair_values(found, model.num_classes),
        name=name,
        colormap=_colormap(model),
        features=_features(model),
        metadata={"muvit": CONTEXT},
        opacity=0.8,
        **kwargs,
    )
    layer.editable = False
    remove_difference(viewer, image)
    # Below what is annotated, which may be taken over from the prediction.
    viewer.layers.insert(place_of_results(viewer, image), layer)
    return layer


def remove_difference(viewer: ViewerModel, image: Image) -> None:
    """Take the layer away; it belongs to one prediction."""
    for layer in results(viewer, image):
        if layer.metadata.get("muvit") == CONTEXT:
            viewer.layers.remove(layer)


def pair_values(found: ContextDifference, classes: int) -> NDArray[Any]:
    """Return a number for each changed pair of classes (with, without), 0 elsewhere."""
    pairs = (found.with_context.astype(np.uint16) - 1) * classes + found.without
    kind = np.uint8 if classes**2 <= 255 else np.uint16
    return np.where(found.changed, pairs, 0).astype(kind)


def _pairs(model: ModelConfig) -> list[tuple[int, int, int]]:
    """Value, class with context and class without, counted from 0."""
    count = model.num_classes
    return [
        (one * count + other + 1, one, other)
        for one in range(count)
        for other in range(count)
        if one != other
    ]


def _colormap(model: ModelConfig) -> DirectLabelColormap:
    table: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    table |= {value: model.colors[other] for value, _, other in _pairs(model)}
    return DirectLabelColormap(color_dict=table)


def _features(model: ModelConfig) -> dict[str, list[Any]]:
    pairs, names = _pairs(model), model.names
    words = [f"{names[one]}, {names[other]} without" for _, one, other in pairs]
    return {
        "index": [0, *(value for value, _, _ in pairs)],
        "class": ["the same without context", *words],
    }
