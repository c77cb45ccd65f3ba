"""What is wrong with annotations, said before a training starts."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.data.annotations import Annotations, LabelImage
from ..core.data.pyramid import Pyramid
from ..core.errors import AnnotationError
from ..core.geometry import Box


def check_place(annotations: Annotations, pyramid: Pyramid) -> None:
    """Raise `AnnotationError` when no annotation lies upon the slide."""
    slide = Box((0.0, 0.0), tuple(float(n) for n in pyramid.shape))
    if not annotations.touches(slide):
        raise AnnotationError(
            f"All annotations lie outside the image {pyramid.name!r}. Outline regions "
            "upon it, or give the annotation layer the image's scale and translate."
        )


def missing_classes(annotations: Sequence[Annotations], names: Sequence[str]) -> str:
    """Return which classes nothing was marked as, in words."""
    marked: set[int] = set()
    for item in (item for one in annotations for item in one.items):
        if isinstance(item, LabelImage):
            marked.update((item.values or {}).values())
        else:
            marked.add(item.label)
    missing = [n for k, n in enumerate(names, start=1) if k not in marked]
    if not missing:
        return ""
    one = len(missing) == 1
    return (
        f"Nothing is annotated as {', '.join(missing)}: the model cannot learn "
        f"{'this class' if one else 'these classes'}."
    )
