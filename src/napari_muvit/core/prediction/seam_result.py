"""What a comparison of two tilings found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.scores import dice_from_confusion
from ..evaluation.tables import finite, number, text_table
from .checks import PixelBox


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SeamScore:
    """How much two tilings of the same slide differ, near seams and away from them."""

    near_confusion: NDArray[np.int64]
    """(K + 1, K + 1) pixels near seams: label by the usual tiling along rows, by the
    shifted one along columns; 0 is *not predicted*."""
    away_confusion: NDArray[np.int64]
    """The same, away from seams."""
    class_names: tuple[str, ...]
    """In label order."""
    tiles: tuple[PixelBox, ...]
    """What was compared, (y0, x0, y1, x1) in output pixels."""
    overlap: float
    """Of neighbouring crops, as a share of their edge."""
    context: str
    """``own`` or ``shared``."""

    @property
    def near(self) -> float:
        """Share of the pixels near seams that differ; NaN where there are none."""
        return _differing(self.near_confusion)

    @property
    def away(self) -> float:
        """Share of the pixels away from seams that differ; NaN where there are none."""
        return _differing(self.away_confusion)

    @property
    def difference(self) -> float:
        """``near - away``: the share that seams cost."""
        return self.near - self.away

    @property
    def ratio(self) -> float:
        """``near / away``: 1 where seams do not show, or nothing differs at all.

        Infinite where pixels differ near seams only.
        """
        if self.away == 0:
            return 1.0 if self.near == 0 else math.inf
        return self.near / self.away

    @property
    def near_dice(self) -> tuple[float, ...]:
        """Dice of each class between the tilings near seams; NaN for an absent one."""
        return tuple(dice_from_confusion(self.near_confusion).tolist())

    @property
    def away_dice(self) -> tuple[float, ...]:
        """Dice of each class between the tilings away from seams."""
        return tuple(dice_from_confusion(self.away_confusion).tolist())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; what is not defined, or infinite, is None."""
        return {
            "near": finite(self.near),
            "away": finite(self.away),
            "difference": finite(self.difference),
            "ratio": finite(self.ratio),
            "near_pixels": int(self.near_confusion.sum()),
            "away_pixels": int(self.away_confusion.sum()),
            "near_dice": [finite(v) for v in self.near_dice],
            "away_dice": [finite(v) for v in self.away_dice],
            "class_names": list(self.class_names),
            "overlap": self.overlap,
            "context": self.context,
            "tiles": [list(box) for box in self.tiles],
        }


def seam_line(score: Mapping[str, Any]) -> str:
    """Return one line for people, of what `SeamScore.to_dict` returned."""
    if score["near"] is None or score["away"] is None:
        return "Seams: there are none, as one crop sees all."
    return (
        f"Seams: {score['near']:.3%} of the pixels near them differ between two "
        f"tilings, {score['away']:.3%} away from them."
    )


def seam_table(scores: Mapping[str, SeamScore]) -> str:
    """Return the scores of several slides as a text table."""
    head = ["slide", "near seams", "away", "ratio", "pixels near", "away", "tiles"]
    rows = [head]
    for name, score in scores.items():
        rows.append(
            [
                name,
                _percent(score.near),
                _percent(score.away),
                number(score.ratio, 2),
                str(score.near_confusion.sum()),
                str(score.away_confusion.sum()),
                str(len(score.tiles)),
            ]
        )
    return text_table(rows)


def _percent(share: float) -> str:
    text = number(100 * share, 3)
    return f"{text} %" if math.isfinite(share) else text


def _differing(confusion: NDArray[np.int64]) -> float:
    total = int(confusion.sum())
    return 1 - float(np.trace(confusion)) / total if total else math.nan
