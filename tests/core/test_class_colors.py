"""Default class colours, as eyes with each kind of colour blindness see them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_muvit.core.config import BACKGROUND_COLOR, DEFAULT_COLORS

# Machado, Oliveira and Fernandes (2009), severity 1, upon linear RGB.
SEEN = {
    "all": np.eye(3),
    "no red": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "no blue": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
FIRST, APART = 10, 15.0


def lab(color: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour."""
    rgb = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(seen @ linear, 0, 1) / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (841 / 108) * xyz + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", SEEN)
def test_the_first_colours_can_be_told_apart(kind: str) -> None:
    shown = [lab(c, SEEN[kind]) for c in (BACKGROUND_COLOR, *DEFAULT_COLORS[:FIRST])]
    nearest = min(
        float(np.linalg.norm(a - b)) for a, b in itertools.combinations(shown, 2)
    )
    assert nearest > APART


def test_no_colour_comes_twice() -> None:
    assert len({*DEFAULT_COLORS, BACKGROUND_COLOR}) == len(DEFAULT_COLORS) + 1
