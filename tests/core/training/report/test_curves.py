"""The figure of a run: what it shows, and that nothing keeps it from being drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.config import DEFAULT_COLORS, ModelConfig
from napari_muvit.core.figures import png_bytes
from napari_muvit.core.training.report.curve_lines import (
    drawable,
    line_styles,
    rgb,
    smoothed,
    wants_log,
)
from napari_muvit.core.training.report.curves import draw_curves
from napari_muvit.core.training.report.record import RunRecord, StepLosses

HARD_NAMES = ("_hidden", "$x^{$ & <b>", "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "a\u202eb")


def run(names=("background", "cell"), history=(), losses=None, **changes) -> RunRecord:
    model = ModelConfig(num_classes=len(names), class_names=tuple(names))
    return RunRecord(
        kind=changes.pop("kind", "finetune"), model=model.to_dict(), training={},
        history=tuple(history), losses=losses or StepLosses(), **changes,
    )  # fmt: skip


def losses(*values: float) -> StepLosses:
    count = len(values)
    return StepLosses(
        step=tuple(range(1, count + 1)), loss=values, learning_rate=(1e-3,) * count
    )


def rows(names: Sequence[str], count: int = 4) -> list[dict[str, float]]:
    return [
        {"step": 10.0 * n, "val_loss": 1 / n, "mDSC": n / 10}
        | {f"Dice {name}": n / (10 + k) for k, name in enumerate(names)}
        for n in range(1, count + 1)
    ]


def parts(figure):
    return {axes.get_title(loc="left") or axes.get_ylabel(): axes
            for axes in figure.axes}  # fmt: skip


def legend_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_each_class_and_the_kept_weights_are_shown() -> None:
    history = rows(["background", "cell"])
    record = run(history=history, best=history[1], losses=losses(*[1.0] * 40))
    figure = draw_curves(record)
    score = next(a for t, a in parts(figure).items() if t.startswith("Validation"))
    # The figures are those of the kept weights, the best ones first.
    assert legend_of(score) == [
        "0.200  mDSC",
        "0.200  background (not in mean)",
        "0.182  cell",
    ]
    star = [line for line in score.lines if line.get_marker() == "*"]
    assert [tuple(line.get_xydata()[0]) for line in star] == [(20.0, 0.2)]
    cell = next(li for li in score.lines if li.get_ydata()[-1] == pytest.approx(4 / 11))
    assert cell.get_color() == record.class_colors[1]


def test_pretraining_shows_the_error_of_each_level() -> None:
    history = [{"step": n * 5.0, "val_loss": 1.0, "error 1": 0.5 / n, "error 8": 9.0}
               for n in (1, 2)]  # fmt: skip
    figure = draw_curves(run(kind="pretrain", history=history, best=history[1]))
    score = next(a for t, a in parts(figure).items() if t.startswith("Validation"))
    assert legend_of(score) == ["0.2500  level 1", "9.0000  level 8"]
    assert score.get_yscale() == "log"


def test_fifteen_classes_can_be_told_apart() -> None:
    names = [f"region {n}" for n in range(15)]
    figure = draw_curves(run(names, rows(names)))
    score = next(a for t, a in parts(figure).items() if t.startswith("Validation"))
    lines = [li for li in score.lines if li.get_color() != "black"]
    assert len({(li.get_color(), str(li.get_linestyle())) for li in lines}) == 15
    width, height = (int(v) for v in figure.get_size_inches() * figure.dpi)
    figure.canvas.draw()
    box = score.get_legend().get_window_extent()
    assert box.x1 <= width
    assert box.y0 >= 0
    assert box.y1 <= height
    assert score.get_window_extent().width > width / 4


@pytest.mark.parametrize(
    "record",
    [
        run(),
        RunRecord(kind="finetune", model={}, training={}),
        RunRecord(kind="pretrain", model={}, training={}),
        run(losses=losses(0.5), history=rows(["background", "cell"], 1)),
        run(losses=losses(math.nan, math.nan)),
        run(losses=losses(1.0, math.inf, 0.0, -1.0, math.nan)),
        run(history=[{"step": 1.0}, {"step": 2.0, "mDSC": math.nan}]),
        run(history=[{"step": 1.0, "val_loss": math.inf}], best={"step": 1.0}),
        run(HARD_NAMES, rows(HARD_NAMES)),
        run([str(n) for n in range(60)], rows([str(n) for n in range(60)])),
    ],
    ids=["nothing", "no model", "no pretraining", "one point", "no number", "infinite",
         "no mean", "infinite validation", "names", "sixty classes"],
)  # fmt: skip
def test_it_is_drawn_whatever_there_is(record: RunRecord) -> None:
    assert png_bytes(draw_curves(record)).startswith(b"\x89PNG")


anything = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=6)
@given(values=st.lists(anything, max_size=5), dice=st.lists(anything, max_size=3))
def test_no_number_keeps_it_from_being_drawn(values, dice) -> None:
    history = [{"step": float(n), "val_loss": d, "mDSC": d, "Dice cell": d}
               for n, d in enumerate(dice, start=1)]  # fmt: skip
    best = history[-1] if history else {}
    record = run(losses=losses(*values), history=history, best=best)
    assert png_bytes(draw_curves(record)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "colors",
    [
        DEFAULT_COLORS,
        ["#ff0000"] * 3,
        ["#ff0000"] * 30,
        ["#ffffff", "#fefefe", "#000000", "#010101", "#fff"],
        [*DEFAULT_COLORS, *DEFAULT_COLORS],
    ],
)
def test_no_two_lines_are_alike(colors) -> None:
    styles = line_styles(colors)
    assert len({(color, str(dashes)) for color, dashes in styles}) == len(colors)
    for color, _ in styles:
        red, green, blue = rgb(color)
        assert 0.3 * red + 0.59 * green + 0.11 * blue < 0.63 * 255


def test_classes_keep_their_colours_where_they_can() -> None:
    assert line_styles(["#E41A1C", "#377eb8"]) == [
        ("#E41A1C", "solid"),
        ("#377eb8", "solid"),
    ]


def test_smoothing_leaves_a_constant_and_takes_away_noise() -> None:
    assert smoothed([3.0] * 9, 4).tolist() == pytest.approx([3.0] * 9)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=400)
    assert smoothed(noise, 20).std() < 0.4 * noise.std()
    # No lag: a straight line stays where it is, away from its ends.
    line = np.arange(100.0)
    assert np.abs(smoothed(line, 5) - line)[20:80].max() < 1e-2
    gap = smoothed([1.0, math.nan, 1.0], 2)
    assert np.isnan(gap).tolist() == [False, True, False]
    assert smoothed([], 3).tolist() == []


def test_a_log_axis_only_where_it_shows_more() -> None:
    assert wants_log([1.0, 0.01])
    assert not wants_log([1.0, 0.9])
    assert not wants_log([1.0, 0.0])
    assert not wants_log([math.nan, 5.0])


def test_names_that_the_font_lacks_are_numbered() -> None:
    assert drawable("tumour µ", "class 1") == "tumour µ"
    assert drawable("\N{CJK UNIFIED IDEOGRAPH-4E2D}", "class 3") == "class 3"
    assert drawable(" \n", "class 4") == "class 4"
    assert len(drawable("x" * 200, "class 5")) < 30
    assert rgb("nonsense") == (128, 128, 128)
