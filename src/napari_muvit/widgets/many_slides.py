"""All ticked slides of the list as pieces of one prediction. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from .._tasks.predicting_many import Slide, SlideEnd
from ..core.data.pyramid import Pyramid
from ..core.errors import ConfigError
from . import describe
from .places import prediction_paths
from .slides import SlideEntry

MAX_OUTPUTS = 100
"""Predictions of one image that may lie side by side."""


def outputs_of(name: str, path: Path | None) -> tuple[Path, ...]:
    """Return places for the prediction of a slide, best first."""
    return tuple(islice(prediction_paths(name, path), MAX_OUTPUTS))


def as_slides(
    entries: Sequence[SlideEntry], shown: SlideEntry | None, pyramid: Pyramid
) -> tuple[Slide, ...]:
    """Return what is to be predicted.

    Parameters
    ----------
    entries
        Ticked ones.
    shown
        The entry on the Data page.
    pyramid
        That slide, with the channels that were chosen there.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if not entries:
        raise ConfigError(
            "No slide is ticked. Tick those to predict in the list of slides on the "
            "Data page."
        )
    return tuple(_slide(e, pyramid if e == shown else None) for e in entries)


def _slide(entry: SlideEntry, opened: Pyramid | None) -> Slide:
    if opened is None and entry.path is None:
        opened = entry.pyramid()
    if opened is not None:
        return Slide(entry.name, opened, outputs_of(opened.name, opened.path))
    path = Path(entry.path or "")
    return Slide(
        entry.name, path, outputs_of(entry.name, path), entry.channels, entry.pixel_size
    )


def said_of(ends: Sequence[SlideEnd]) -> tuple[str, str]:
    """Return what became of slides, and what went wrong, in words."""
    done = [end for end in ends if end.path is not None and not end.stopped]
    failed = [end for end in ends if end.error]
    what = "1 slide is" if len(done) == 1 else f"{len(done)} slides are"
    kept = f"{what} predicted."
    folders = sorted({describe.place(end.path) for end in done if end.path})
    if folders:
        kept += f" The results lie {' and '.join(folders)}."
    return kept, " ".join(f"{end.name}: {end.error}" for end in failed)
