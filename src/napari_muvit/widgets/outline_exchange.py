"""Annotations of the page from and to GeoJSON files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .._layer_annotations import shape_data
from .._layers import shown_plane
from ..core.data.annotations import Annotations
from ..core.data.geojson import read_geojson, write_geojson
from ..core.data.label_image import LabelImage
from ..core.errors import AnnotationError
from .class_amounts import regions
from .outline_files import take_classes
from .shapes import add_outlines, fit_outlines
from .slide_annotations import SlideAnnotations

if TYPE_CHECKING:
    from napari.layers import Image, Shapes


def import_outlines(
    path: Path,
    slide: SlideAnnotations,
    layer_for: Callable[[], Shapes],
    refresh: Callable[[], None],
) -> str:
    """Add the outlines of a GeoJSON file; return what was done, in words.

    Parameters
    ----------
    path
        The file.
    slide
        What they are added to, as one step to undo.
    layer_for
        Gives the 2D Shapes layer that they go to.
    refresh
        Called when the list of classes and the layer have changed.

    Raises
    ------
    AnnotationError
        If the file holds none, or napari cannot draw them.
    """
    file = read_geojson(path, shown_plane(slide.image, slide.viewer.dims.point))
    if not file.outlines:
        left_out = f" ({file.note})" if file.note else ""
        raise AnnotationError(
            f"{path.name} holds no outlined area with a class{left_out}; give the "
            "annotations a class, and export them again."
        )
    layer = layer_for()
    replace = not slide.state.touched and not len(layer.data)
    with slide.as_one():
        names = take_classes(slide.state, file, replace=replace)
        fit_outlines(slide.viewer, layer)
        outlines = shape_data(file.outlines, layer, slide.image)
        try:
            add_outlines(layer, outlines, names, slide.state)
        finally:
            refresh()
    said = f"{regions(len(outlines))} imported from {path.name}"
    return f"{said}; {file.note}." if file.note else f"{said}."


def export_outlines(
    path: Path, annotations: Annotations, image: Image, point: tuple[float, ...]
) -> str:
    """Write annotations of the slide as GeoJSON; return what was done, in words."""
    write_geojson(annotations, path, shown_plane(image, point))
    if any(isinstance(item, LabelImage) for item in annotations.items):
        return f"The painted classes were exported to {path.name}."
    return f"{regions(len(annotations.items))} exported to {path.name}."
