"""The curves as they are drawn: their names do not lie upon them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtGui import QColor

from napari_muvit.widgets.loss_plot import DICE_COLOR, MARGIN_BOTTOM, LossPlot
from napari_muvit.widgets.ui import readable


def pixels_of(plot: LossPlot, color: QColor) -> np.ndarray:
    """(y, x) of pixels of about a colour."""
    image = plot.grab().toImage()
    wanted = np.array(color.getRgb()[:3])
    found = [
        (y, x)
        for y in range(image.height())
        for x in range(image.width())
        if np.abs(np.array(image.pixelColor(x, y).getRgb()[:3]) - wanted).max() < 40
    ]
    return np.array(found).reshape(-1, 2)


@pytest.mark.parametrize("width", [250, 420])
def test_names_of_curves_stand_below_them(qtbot: Any, width: int) -> None:
    plot = LossPlot()
    qtbot.addWidget(plot)
    plot.resize(width, 130)
    for step in range(50):
        plot.add_train(step, 1.0 - step / 60)
        # It lies low, so that nothing but its name could be green at the top.
        plot.add_dice(step, 0.2)
    rows = pixels_of(plot, readable(QColor(DICE_COLOR)))[:, 0]
    assert rows.min() > plot.height() / 2
    assert rows.max() > plot.height() - MARGIN_BOTTOM
