from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from napari_muvit.core.errors import ConfigError
from napari_muvit.core.evaluation.box_noise import (
    BoxNoiseResult,
    BoxNoiseRow,
    box_noise_curve,
    jitter_boxes,
)
from napari_muvit.core.figures import png_bytes

BOXES = torch.tensor([[[0.0, 0.0], [8.0, 8.0]], [[-12.0, -12.0], [20.0, 20.0]]])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_boxes_shift_by_level_and_axis_and_keep_their_extent() -> None:
    boxes = BOXES.expand(5000, -1, -1, -1)
    moved = jitter_boxes(boxes, 3.0, generator())
    shift = (moved - boxes)[:, :, 0].flatten(1)
    assert torch.allclose(moved.diff(dim=2), boxes.diff(dim=2), atol=1e-5)
    assert torch.allclose(shift.std(dim=0), torch.full((4,), 3.0), rtol=0.05)
    assert torch.corrcoef(shift.T).fill_diagonal_(0).abs().max() < 0.05


def test_the_same_seed_the_same_noise() -> None:
    boxes = BOXES[None].double()
    first, second = (jitter_boxes(boxes, 2.0, generator()) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float64
    assert torch.equal(jitter_boxes(boxes, 0.0, generator()), boxes)
    with pytest.raises(ConfigError, match="sigma is -1"):
        jitter_boxes(boxes, -1)


def test_labels_that_are_no_whole_numbers_are_refused() -> None:
    pixels, labels = torch.zeros(2, 2, 1, 8, 8), torch.full((2, 8, 8), 1.7)
    batches = [(pixels, BOXES.expand(2, -1, -1, -1), labels)]
    with pytest.raises(ConfigError, match="no whole numbers"):
        box_noise_curve(by_place, batches, (0.0,))


def by_place(pixels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Says class 1 where the coarse box lies where it should, else class 2."""
    right = (boxes[:, 1, 0] - boxes[:, 0, 0] + 12).abs().amax(dim=1) < 4
    scores = torch.stack((right, ~right), dim=1).float()
    return scores[:, :, None, None].expand(-1, -1, *pixels.shape[3:])


def test_the_curve_falls_where_the_model_trusts_its_boxes() -> None:
    pixels, labels = torch.zeros(200, 2, 1, 8, 8), torch.ones(200, 8, 8)
    labels[:, :4] = 0
    batches = [(pixels, BOXES.expand(200, -1, -1, -1), labels)] * 2
    rows = box_noise_curve(by_place, iter(batches), (0, 1, 8), seed=1)
    assert [row.sigma for row in rows] == [0, 1, 8]
    assert rows[0].mdice == 1.0
    assert rows[0].mdice > rows[1].mdice > rows[2].mdice
    assert rows[2].dice[1] == 0
    again = box_noise_curve(by_place, iter(batches), (8,), background=2, seed=1)
    assert again[0].dice == rows[2].dice
    assert again[0].mdice == rows[2].dice[0]


def test_wrong_input_is_named() -> None:
    pixels, boxes = torch.zeros(3, 2, 1, 8, 8), BOXES.expand(3, -1, -1, -1)
    good = torch.ones(3, 8, 8)
    for batches, sigmas, message in (
        ([], (0,), "No batch"),
        ([(pixels, boxes, good)], (), "No sigma"),
        ([(pixels, boxes, good * 7)], (0,), "Labels from 7 to 7 .* 1 to 2"),
        ([(pixels, boxes, -good)], (0,), "Labels from -1"),
        ([(pixels, boxes, good[:, :1])], (0,), r"\(3, 8, 8\) is needed"),
        ([(pixels, boxes.long(), good)], (0,), "floating point"),
        ([(pixels, boxes[0], good)], (0,), "batch, levels, 2, axes"),
    ):
        with pytest.raises(ConfigError, match=message):
            box_noise_curve(by_place, batches, sigmas)


def test_a_module_runs_in_evaluation_mode_and_is_left_as_it_was() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.free = torch.nn.Identity().eval(), torch.nn.Identity()
            self.seen: list[bool] = []

        def forward(self, pixels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
            self.seen += [module.training for module in self.modules()]
            return by_place(pixels, boxes)

    model = Model()
    batch = (torch.zeros(1, 2, 1, 8, 8), BOXES[None], torch.ones(1, 8, 8))
    box_noise_curve(model, [batch], (0,))
    assert not any(model.seen)
    assert [model.training, model.frozen.training, model.free.training] == [
        True, False, True,
    ]  # fmt: skip


def result(classes: int, sigmas: tuple[float, ...] = (8, 0, 2)) -> BoxNoiseResult:
    rng = np.random.default_rng(0)
    rows = []
    for sigma in sigmas:
        dice = rng.random(classes)
        dice[-1] = np.nan
        rows.append(BoxNoiseRow(sigma, float(np.nanmean(dice)), tuple(dice)))
    return BoxNoiseResult(
        model="m", class_names=tuple(f"class {k}" for k in range(classes)),
        class_colors=("#ffff33",) * classes, background=1, scale_factors=(1, 8),
        crop_size=64, rows=tuple(rows), crops=9, images=("a",), seed=3,
        notes=("a note",),
    )  # fmt: skip


def test_all_forms_say_the_same() -> None:
    found = result(3)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    page, table = found.markdown(), found.table()
    for row, entry in zip(found.rows, content["curve"], strict=True):
        assert (entry["sigma"], entry["mDSC"]) == (row.sigma, row.mdice)
        assert entry["dice"] == {"class 0": row.dice[0], "class 1": row.dice[1],
                                 "class 2": None}  # fmt: skip
        line = f"| {row.sigma:g} | {row.mdice:.4f} | {row.dice[0]:.4f} |"
        assert line in page
        assert f"{row.mdice:.4f}" in table
    assert "9 crops of 1 images" in page
    assert "- a note" in page


@pytest.mark.parametrize("classes", [2, 15])
def test_the_plot_is_in_the_order_of_sigma(classes: int) -> None:
    found = result(classes)
    figure = found.figure()
    (axes,) = figure.axes
    mean, *lines = axes.get_lines()
    assert list(mean.get_xdata()) == [0, 2, 8]
    by_sigma = {row.sigma: row.mdice for row in found.rows}
    assert list(mean.get_ydata()) == [by_sigma[s] for s in (0, 2, 8)]
    # A class that does not occur has no line; yellow would not be seen on white.
    assert len(lines) == classes - 1
    assert max(lines[0].get_color()) < 0.8
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_a_plot_without_noise() -> None:
    assert png_bytes(result(2, (0,)).figure()).startswith(b"\x89PNG")
