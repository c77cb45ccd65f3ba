"""Where a label image lies upon its image, also when it has pixels of another size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import AnnotationError
from .annotations import Annotations
from .pyramid import Pyramid


def labels_upon(
    labels: Pyramid,
    image: Pyramid,
    zero_is_background: bool = False,
    values: Mapping[int, int] | None = None,
) -> Annotations:
    """See a label image as annotations of an image.

    Of the same shape, pixel lies upon pixel. Else both have to say the size of their
    pixels, and to cover the same field up to one pixel of the coarser one.

    Parameters
    ----------
    labels
        One channel of whole numbers.
    image
        In its own pixels, not viewed at another size.
    zero_is_background
        Pixel value v means label v + 1.
    values
        Label of each pixel value, instead.

    Returns
    -------
    Annotations
        In finest pixels of the image.

    Raises
    ------
    AnnotationError
        If the label image does not cover the image, or is none.
    """
    if labels.shape == image.shape:
        return Annotations.from_labels(
            labels, values=values, zero_is_background=zero_is_background
        )
    refusal = (
        f"The labels {labels.name} have the shape {labels.shape}, their image "
        f"{image.name} has {image.shape}; the same shape is needed"
    )
    if labels.pixel_size is None or image.pixel_size is None:
        raise AnnotationError(f"{refusal}, or a pixel size of both.")
    if labels.ndim != image.ndim:
        raise AnnotationError(f"{refusal}.")
    own, pixel = np.asarray(labels.pixel_size), np.asarray(image.pixel_size)
    scale = own / pixel
    offset = _edge(labels, own, image, pixel)
    beyond = offset + np.asarray(labels.shape) * scale - image.shape
    # In pixels of the coarser one, which its writer may have rounded.
    if (np.maximum(np.abs(offset), np.abs(beyond)) > np.maximum(scale, 1)).any():
        raise AnnotationError(f"{refusal}, or the same field; by their pixel sizes "
                              "they cover different ones.")  # fmt: skip
    return Annotations.from_labels(
        labels,
        values=values,
        zero_is_background=zero_is_background,
        offset=tuple(float(v) for v in offset),
        scale=tuple(float(v) for v in scale),
    )


def _edge(
    labels: Pyramid, own: np.ndarray, image: Pyramid, pixel: np.ndarray
) -> np.ndarray:
    """Lower edge of the labels, in pixels of the image from its lower edge."""
    zero = np.zeros(len(own))
    there = zero if labels.translation is None else np.asarray(labels.translation)
    here = zero if image.translation is None else np.asarray(image.translation)
    if np.allclose(there, here):
        # Files without places of their own are taken to agree at their outer edges.
        return zero
    return np.asarray(((there - own / 2) - (here - pixel / 2)) / pixel)
