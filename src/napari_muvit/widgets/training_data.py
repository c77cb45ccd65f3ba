"""What there is to train on: the ticked slides and their annotations."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.data.annotations import Annotations
from ..core.data.pyramid import Pyramid
from ..core.errors import AnnotationError
from .annotate_page import AnnotatePage
from .data_page import DataPage
from .slides import AnnotatedSlide, training_slides
from .state import PanelState


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Slides to train on."""

    pyramids: tuple[Pyramid, ...]
    annotations: tuple[Annotations, ...]
    """One a slide, in its pixels."""
    shown: bool
    """Whether the first slide is the one on the Data page."""


def gather(state: PanelState, data: DataPage, annotate: AnnotatePage) -> TrainingData:
    """Return the slides to train on, the one on the Data page first.

    Raises
    ------
    MuvitError
        If there is none, or one cannot be opened.
    """
    pyramid = data.pyramid()
    if state.shown is None or not state.slides:
        return TrainingData((pyramid,), (annotate.annotations(),), shown=True)
    found = annotated_slides(state, annotate)
    first = found[0].entry is state.shown
    pyramids = [slide.entry.pyramid() for slide in found[1 if first else 0 :]]
    return TrainingData(
        (*((pyramid,) if first else ()), *pyramids),
        tuple(slide.annotations for slide in found),
        shown=first,
    )


def annotated_slides(state: PanelState, annotate: AnnotatePage) -> list[AnnotatedSlide]:
    """Return the ticked slides with annotations, the one on the Data page first.

    Raises
    ------
    AnnotationError
        If there is none.
    """
    try:
        marked = annotate.annotations()
    except AnnotationError as error:
        try:
            return training_slides(state.slides, state.names, state.shown, None)
        except AnnotationError:
            raise error from None  # what is wrong on screen says more
    return training_slides(state.slides, state.names, state.shown, marked)
