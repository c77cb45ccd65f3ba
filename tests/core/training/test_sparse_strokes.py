"""Pixels that nobody marked teach nothing, and a few strokes are enough to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data.annotations import Annotations, BrushMask, Polygon
from napari_muvit.core.data.augment import Augmentation
from napari_muvit.core.data.datasets import CropBatch, SegmentationDataset
from napari_muvit.core.data.items import Item
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.sampling import CropSampler, HoldOut, hold_out
from napari_muvit.core.model.losses import segmentation_loss
from napari_muvit.core.model.segmenter import MuViTSegmenter
from napari_muvit.core.training.prepare import PreparedData, prepare

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=32, patch_size=8, embed_dim=32,
    depth=1, num_heads=2, num_classes=2, class_names=("background", "bright"),
    pyramid_channels=(8, 8, 8, 8), normalisation="uint8",
)  # fmt: skip
SIZE = 256


def bright_squares() -> tuple[np.ndarray, np.ndarray]:
    """An image, and where its bright squares are."""
    rng = np.random.default_rng(0)
    truth = np.zeros((SIZE, SIZE), bool)
    for _ in range(60):
        y, x = rng.integers(0, SIZE - 12, 2)
        truth[y : y + 12, x : x + 12] = True
    image = rng.normal(60, 10, truth.shape) + 100 * truth
    return image.clip(0, 255).astype(np.uint8), truth


def stroke(label: int, y: int, x: int, length: int, width: int = 2) -> BrushMask:
    return BrushMask(label, np.ones((width, length), bool), (float(y), float(x)))


def strokes_along(truth: np.ndarray, share: float) -> Annotations:
    """Strokes of both classes until they cover a share of the pixels."""
    rng = np.random.default_rng(1)
    items: list[Item] = []
    painted = np.zeros_like(truth)
    while painted.mean() < share:
        y, x = rng.integers(0, SIZE - 8, 2)
        part = truth[y : y + 2, x : x + 8]
        if part.all() or not part.any():
            items.append(stroke(2 if part.all() else 1, y, x, 8))
            painted[y : y + 2, x : x + 8] = True
    return Annotations(tuple(items), CONFIG.class_names)


def mixed_marks() -> Annotations:
    """Brush strokes at odd places and scales, and polygons with slanted edges."""
    wedge = np.array([[20.3, 100.7], [60.1, 118.2], [31.9, 140.4]])
    other = np.array([[150.0, 150.0], [150.0, 171.5], [163.2, 160.0]])
    coarse = BrushMask(1, np.ones((1, 9), bool), (200.4, 30.2), (3.0, 3.0))
    items = (
        Polygon(1, wedge), Polygon(2, other), coarse, stroke(2, 40, 40, 12),
        stroke(1, 90, 20, 3, 5), stroke(2, 41, 44, 2, 1),
    )  # fmt: skip
    return Annotations(items, CONFIG.class_names)


def prepared(marks: Annotations) -> PreparedData:
    image, _ = bright_squares()
    return prepare([open_pyramid(image)], [marks], CONFIG, seed=0)


def dataset_of(
    data: PreparedData, outs: Sequence[HoldOut | None] = (None,), **options: Any
) -> SegmentationDataset:
    held = bool(options.get("held_only"))
    sampler = CropSampler(
        data.slides, data.config, foreground_share=0.5, seed=3, hold_outs=outs,
        held_only=held,
    )  # fmt: skip
    return SegmentationDataset(sampler, data.config, hold_outs=outs, **options)


def batch_of(dataset: SegmentationDataset, indices: range) -> CropBatch:
    batch: CropBatch = default_collate([dataset[i] for i in indices])
    return batch


def losses_of(logits: Sequence[Tensor], batch: CropBatch) -> list[Tensor]:
    targets = [batch.labels, *batch.coarse_shares.unbind(dim=1)]
    return [
        segmentation_loss(
            scores, target, class_weights=torch.tensor([1.0, 3.0]), dice_weight=1.0,
            dice_labels=(1, 2),
        )
        for scores, target in zip(logits, targets, strict=True)
    ]  # fmt: skip


def gradients(batch: CropBatch) -> list[Tensor]:
    """Of the loss with respect to random logits, a level each, (B, K, h, w)."""
    torch.manual_seed(0)
    shape = (len(batch.labels), 2, *batch.labels.shape[1:])
    logits = [torch.randn(shape, requires_grad=True) for _ in range(2)]
    torch.stack(losses_of(logits, batch)).sum().backward()
    return [scores.grad for scores in logits if scores.grad is not None]


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("side", ["all", "training", "validation"])
def test_unmarked_pixels_have_no_gradient(flips: bool, side: str) -> None:
    data = prepared(mixed_marks())
    outs: list[HoldOut | None] = [None]
    if side != "all":
        outs = [hold_out(data.slides[0].index, 32, 0.3, 0)]
        assert outs[0] is not None
    augmentation = Augmentation(flips=flips, intensity_jitter=0.1)
    dataset = dataset_of(
        data, outs, augmentation=augmentation, held_only=side == "validation"
    )
    batch = batch_of(dataset, range(12))
    fine, coarse = gradients(batch)
    marked = batch.labels > 0
    assert 0 < marked.float().mean() < 0.5
    assert fine.shape[2:] == coarse.shape[2:] == (32, 32)
    # To the last bit, though the loss is a quotient of sums over all pixels.
    assert torch.equal(fine.abs().sum(1)[~marked], torch.zeros(int((~marked).sum())))
    assert (fine.abs().sum(1)[marked] > 0).all()
    known = batch.coarse_shares[:, 0].sum(dim=1) > 0
    assert 0 < known.float().mean() < 0.5
    assert torch.equal(coarse.abs().sum(1)[~known], torch.zeros(int((~known).sum())))
    assert (coarse.abs().sum(1)[known] > 0).all()


def test_labels_are_those_of_the_place() -> None:
    # Without flips the labels of a crop are those of the annotations there.
    dataset = dataset_of(prepared(mixed_marks()))
    for number in range(8):
        box = dataset.sampler.draw(number).crop.boxes[0]
        expected = mixed_marks().rasterise(box, (32, 32))
        assert expected.any()
        np.testing.assert_array_equal(dataset[number].labels, expected)


def test_a_crop_without_a_mark_moves_nothing() -> None:
    data = prepared(mixed_marks())
    batch = batch_of(dataset_of(data), range(2))
    empty = batch._replace(
        labels=torch.zeros_like(batch.labels),
        coarse_shares=torch.zeros_like(batch.coarse_shares),
    )
    for found in gradients(empty):
        assert torch.equal(found, torch.zeros_like(found))


def test_strokes_on_a_hundredth_of_the_pixels_train() -> None:
    image, truth = bright_squares()
    marks = strokes_along(truth, 0.01)
    data = prepare([open_pyramid(image)], [marks], CONFIG, seed=0)
    counts = data.slides[0].index.counts
    assert counts[1:].sum() / truth.size == pytest.approx(0.01, rel=0.05)
    assert (counts[1:] > 0).all()
    dataset = dataset_of(data, augmentation=Augmentation(flips=True))
    torch.manual_seed(0)
    model = MuViTSegmenter(data.config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for step in range(30):
        batch = batch_of(dataset, range(8 * step, 8 * step + 8))
        loss = torch.stack(
            losses_of(model.level_logits(batch.pixels, batch.bboxes), batch)
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert np.isfinite(values).all()
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:3])
    # And what was never marked is told apart too.
    model.eval()
    sample = batch_of(dataset_of(data), range(900, 916))
    with torch.inference_mode():
        predicted = model(sample.pixels, sample.bboxes).argmax(dim=1) == 1
    bright = sample.pixels[:, 0, 0] > 110 / 255
    assert (predicted == bright).float().mean() > 0.9
