"""What a training will make, in a sentence or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core.data.pyramid import Pyramid
from ..core.errors import MuvitError
from ..core.presets import PRESETS
from .scale_choice import factor_words
from .state import PanelState, SavedModel


def summary(
    state: PanelState,
    start: SavedModel | None,
    pyramids: Callable[[], Sequence[Pyramid]],
) -> str:
    """Say what the model is, and at which scales it will see the chosen slide.

    Parameters
    ----------
    state
        With the preset and the scales.
    start
        The model to start from; None: a new one.
    pyramids
        Opens the slide; raises `MuvitError` while there is none.
    """
    try:
        factors: Sequence[float] = state.factors_for(pyramids()[0])
    except MuvitError:  # said where a slide is needed
        factors = tuple(state.network[1]["scale_factors"])
    scales = f"Sees every point at {factor_words(factors)}."
    if start is not None:
        return f"This model knows {', '.join(start.config.names)}. {scales}"
    words = PRESETS[state.preset].summary
    return f"{words[0].upper()}{words[1:]}. {scales}"
