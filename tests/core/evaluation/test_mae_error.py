"""Errors by level: the same crops and masks for every arm, whatever the batches."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import Cancelled, ConfigError
from napari_muvit.core.evaluation.mae_error import (
    MAEArm,
    MAEErrorResult,
    crop_masks,
    mae_errors,
    summarise,
)
from napari_muvit.core.figures import png_bytes
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.patches import patchify

SIZE = {
    "scale_factors": (1, 4), "crop_size": 32, "embed_dim": 16, "depth": 1,
    "num_heads": 2, "mae_dim": 16, "mae_depth": 1,
}  # fmt: skip


def crops(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(count, 2, 1, 32, 32, generator=generator)
    lower = -torch.rand(count, 1, 2, generator=generator) * 96
    fine = torch.tensor([[0.0, 0.0], [32.0, 32.0]]).expand(count, -1, -1)
    coarse = torch.cat((lower, lower + 128), dim=1)
    return pixels, torch.stack((fine, coarse), dim=1)


def model(seed: int = 0, **changes: object) -> MuViTMAE:
    torch.manual_seed(seed)
    return MuViTMAE(ModelConfig(**{**SIZE, **changes}))


def parts(size: int, count: int = 7) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(*(part.split(size) for part in crops(count)), strict=True))


@pytest.mark.parametrize("normalise", [False, True])
def test_errors_are_those_of_each_crop_alone(normalise: bool) -> None:
    mae = model(normalise_target=normalise)
    errors, guesses = mae_errors([MAEArm("m", mae, "true")], parts(3), seed=4)
    assert errors.shape == (1, 7, 2)
    for index, (pixels, box) in enumerate(parts(1)):
        mask = crop_masks(mae.config, index, 1, 4)
        with torch.inference_mode():
            alone = mae.eval()(pixels, box, mask)
        np.testing.assert_allclose(errors[0, index], alone.level_losses, rtol=1e-4)
        target = mae.target(patchify(pixels, (8, 8)))[0]
        hidden = mask.hidden.view(2, 16)
        for level in range(2):
            shown = target[level][~hidden[level]]
            if not len(shown):
                shown = target[~hidden]
            missed = target[level][hidden[level]]
            wanted = (missed - shown.mean(dim=0)).square().mean()
            np.testing.assert_allclose(guesses[index, level], wanted, rtol=1e-4)


def test_masks_do_not_depend_on_the_batch() -> None:
    config = ModelConfig(**SIZE)
    whole = crop_masks(config, 0, 6, 9).hidden
    split = torch.cat([crop_masks(config, k, 2, 9).hidden for k in (0, 2, 4)])
    assert torch.equal(whole, split)
    assert len({tuple(row.tolist()) for row in whole}) == 6
    assert not torch.equal(whole, crop_masks(config, 0, 6, 10).hidden)
    assert whole.sum(dim=1).tolist() == [24] * 6


class Teller(MuViTMAE):
    """Its error says what it was told: the distance of the coarse box's corner."""

    def forward(self, x, bboxes, mask=None, generator=None):
        found = super().forward(x, bboxes, mask, generator)
        corner = bboxes[:, 1, 0].sum(dim=1)
        assert not self.training
        found.crop_losses[:] = corner[:, None].expand(-1, 2)
        return found


def test_arms_get_the_same_crops_with_other_boxes() -> None:
    torch.manual_seed(0)
    teller = Teller(ModelConfig(**SIZE)).train()
    arms = [MAEArm("m", teller, "true"), MAEArm("m", teller, "naive")]
    errors, _ = mae_errors(arms, parts(4))
    corners = crops(7)[1][:, 1, 0].sum(dim=1)
    np.testing.assert_allclose(errors[0, :, 0], corners, rtol=1e-5)
    # Fixed and centred: (32 - 128) / 2 along each of two axes.
    np.testing.assert_allclose(errors[1], -96)
    assert teller.training


def test_the_same_arm_twice_differs_in_nothing() -> None:
    mae = model()
    arms = [MAEArm("a", mae, "true"), MAEArm("b", mae, "true")]
    errors, _ = mae_errors(arms, parts(7))
    rows, crops_ = summarise(arms, errors)
    assert rows[1].difference == rows[1].difference_error == (0.0, 0.0)
    assert rows[0].error == rows[1].error
    assert crops_ == (7, 7)


def test_means_leave_out_what_is_not_defined() -> None:
    rng = np.random.default_rng(0)
    errors = rng.random((2, 50, 2))
    errors[:, :45, 1] = np.nan
    arms = [MAEArm("a", model(), boxes) for boxes in ("true", "naive")]
    (first, second), counted = summarise(arms, errors)
    assert counted == (50, 5)
    assert first.error == pytest.approx(np.nanmean(errors[0], axis=0))
    known = errors[:, 45:, 1]
    assert first.standard_error[1] == pytest.approx(known[0].std(ddof=1) / 5**0.5)
    paired = known[1] - known[0]
    assert second.difference[1] == pytest.approx(paired.mean())
    assert second.difference_error[1] == pytest.approx(paired.std(ddof=1) / 5**0.5)
    (lone, _), _ = summarise(arms, errors[:, :1])
    assert np.isnan(lone.standard_error).all()
    assert np.isnan(lone.error[1])


def test_nothing_to_look_at_and_stopping() -> None:
    with pytest.raises(ConfigError, match="No model"):
        mae_errors([], parts(2))
    with pytest.raises(ConfigError, match="No crop"):
        mae_errors([MAEArm("m", model(), "true")], [])
    with pytest.raises(Cancelled):
        mae_errors([MAEArm("m", model(), "true")], parts(2), should_stop=lambda: True)


def result(other: str = "m") -> MAEErrorResult:
    errors = np.random.default_rng(0).random((3, 40, 2))
    errors[:, :, 1] = np.nan
    mae = model()
    arms = [
        MAEArm("m", mae, "true"), MAEArm("m", mae, "naive"), MAEArm(other, mae, "naive")
    ]  # fmt: skip
    rows, counted = summarise(arms, errors)
    return MAEErrorResult(
        scale_factors=(1, 4), rows=rows, guess=(0.5, float("nan")), crops=counted,
        images=("a", "b"), mask_ratio=0.75, unit="pixels", seed=3, notes=("a note",),
    )  # fmt: skip


def test_all_forms_say_the_same() -> None:
    found = result("other")
    assert found.titles() == [
        "m, true boxes", "m, naive boxes", "other, naive boxes"
    ]  # fmt: skip
    assert result().titles() == ["true boxes", "naive boxes", "naive boxes"]
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    page, table = found.markdown(), found.table()
    for row, entry in zip(found.rows, content["rows"], strict=True):
        assert entry["levels"][0]["error"] == row.error[0]
        assert entry["levels"][1]["error"] is None
        for text in (page, table):
            assert f"{row.error[0]:.3e}" in text
    share = 100 * found.rows[1].difference[0] / found.rows[0].error[0]
    assert f"({share:+.1f} ± " in page
    assert "40 crops of 2 images, 75 % of the tokens hidden" in page
    assert content["error_of_the_mean_visible_patch"] == [0.5, None]


def test_the_plot() -> None:
    found = result("other")
    figure = found.figure()
    left, right = figure.axes
    heights = [bar.get_height() for bar in left.patches]
    wanted = np.nan_to_num(np.concatenate([row.error for row in found.rows]))
    assert heights == pytest.approx(list(wanted))
    assert len(right.patches) == 4
    assert png_bytes(figure).startswith(b"\x89PNG")
