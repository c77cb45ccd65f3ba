from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.augment import Augmentation, Turn
from napari_muvit.core.data.crops import SlideNormalisation
from napari_muvit.core.data.datasets import SegmentationDataset
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.sampling import (
    CropSampler,
    HoldOut,
    TrainingSlide,
    hold_out,
)
from napari_muvit.core.geometry import Box

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=16, patch_size=8, embed_dim=32,
    depth=1, num_heads=2, num_classes=3, class_names=("background", "a", "b"),
    pyramid_channels=(4, 4, 4, 4),
)  # fmt: skip


def slide(labels: np.ndarray, pixels: np.ndarray | None = None) -> TrainingSlide:
    image = open_pyramid(labels.astype(np.float32) if pixels is None else pixels)
    marks = Annotations.from_labels(labels)
    index = marks.index(image.extent, 3, seed=0)
    return TrainingSlide(image, marks, SlideNormalisation((0.0,), (1.0,)), index)


def blobs(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.ones((200, 240), np.uint8)
    for k in (2, 3):
        for _ in range(12):
            y, x = rng.integers(0, 190), rng.integers(0, 230)
            labels[y : y + 6, x : x + 6] = k
    return labels


def test_a_draw_depends_on_its_index_only() -> None:
    slides = [slide(blobs())]
    a = CropSampler(slides, CONFIG, foreground_share=0.5, seed=3)
    b = CropSampler(slides, CONFIG, foreground_share=0.5, seed=3)
    assert [b.draw(i).crop for i in (9, 4, 0)] == [a.draw(i).crop for i in (9, 4, 0)]
    c = CropSampler(slides, CONFIG, foreground_share=0.5, seed=4)
    assert c.draw(0).crop != a.draw(0).crop


def test_the_wanted_share_holds_foreground_and_rare_classes_come_as_often() -> None:
    labels = np.ones((400, 400), np.uint8)
    labels[100:140, 100:140] = 2
    labels[300:304, 300:304] = 3  # a hundred times rarer
    sampler = CropSampler([slide(labels)], CONFIG, foreground_share=0.6, seed=0)
    seen = {2: 0, 3: 0}
    for i in range(600):
        box = sampler.draw(i).crop.boxes[0]
        (y, x), (v, u) = (
            tuple(int(e) for e in edge) for edge in (box.lower, box.upper)
        )
        for k in seen:
            seen[k] += bool((labels[y:v, x:u] == k).any())
    assert 0.25 < seen[3] / 600 < 0.36
    assert seen[2] / 600 > 0.27


def test_only_annotated_places_are_drawn() -> None:
    labels = np.zeros((300, 300), np.uint8)
    labels[50:60, 200:220] = 2
    sampler = CropSampler([slide(labels)], CONFIG, foreground_share=0.5, seed=0)
    data = SegmentationDataset(sampler, CONFIG)
    assert all(bool((data[i].labels == 2).any()) for i in range(50))


def test_held_out_labels_are_never_shown_to_training() -> None:
    labels = blobs()
    item = slide(labels)
    out = hold_out(item.index, 16, 0.2, seed=0)
    assert out is not None
    sides = []
    for held_only in (False, True):
        sampler = CropSampler(
            [item], CONFIG, foreground_share=0.5, seed=0, hold_outs=[out],
            held_only=held_only,
        )  # fmt: skip
        data = SegmentationDataset(
            sampler, CONFIG, hold_outs=[out], held_only=held_only
        )
        seen = np.zeros(labels.shape, bool)
        for i in range(300):
            box = sampler.draw(i).crop.boxes[0]
            y, x = (int(v) for v in box.lower)
            seen[y : y + 16, x : x + 16] |= data[i].labels.numpy() > 0
        sides.append(seen)
    assert not (sides[0] & sides[1]).any()
    assert sides[0].mean() > 0.4
    assert 0.03 < sides[1].mean() < 0.5


def test_hold_out_leaves_every_class_something_to_train_on() -> None:
    labels = np.zeros((200, 200), np.uint8)
    labels[10:60, 10:60] = 1
    labels[100:103, 100:103] = 2  # one tiny region
    labels[150:190, 20:60] = 3
    out = hold_out(slide(labels).index, 16, 0.3, seed=1)
    assert out is not None
    for k in (1, 2, 3):
        points = slide(labels).index.points[k]
        assert (~out.at(points)).any()


def test_too_little_is_not_split() -> None:
    labels = np.zeros((200, 200), np.uint8)
    labels[100, 100] = 2
    assert hold_out(slide(labels).index, 16, 0.2, seed=0) is None
    assert hold_out(slide(blobs()).index, 16, 0.0, seed=0) is None


@pytest.mark.parametrize("flips", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_flips_keep_the_levels_registered(
    flips: tuple[bool, bool], order: tuple[int, int]
) -> None:
    # A fine crop cut out of the flipped coarse crop is the flipped fine crop.
    rng = np.random.default_rng(0)
    coarse = rng.random((64, 64))
    fine = coarse[8:24, 40:56]
    boxes = np.array([[[8.0, 40.0], [24.0, 56.0]], [[0.0, 0.0], [64.0, 64.0]]])
    flipped = Turn(flips, order).boxes(boxes)
    place = (flipped[0] - flipped[1, :1]).astype(int)
    again = Turn(flips, order).pixels(coarse)[
        place[0, 0] : place[1, 0], place[0, 1] : place[1, 1]
    ]
    assert np.array_equal(again, Turn(flips, order).pixels(fine))


def test_samples_have_labels_at_their_place_on_all_levels() -> None:
    labels = blobs()
    sampler = CropSampler([slide(labels)], CONFIG, foreground_share=0.5, seed=0)
    data = SegmentationDataset(sampler, CONFIG, augmentation=Augmentation(flips=True))
    for i in range(20):
        batch = data[i]
        assert batch.pixels.shape == (2, 1, 16, 16)
        assert batch.coarse_shares.shape == (1, 3, 16, 16)
        # The image is the label itself, so both must agree everywhere inside.
        assert np.array_equal(batch.pixels[0, 0].numpy(), batch.labels.numpy())
        mean = (
            batch.coarse_shares[0].numpy() * np.array([1, 2, 3])[:, None, None]
        ).sum(0)
        assert np.allclose(batch.pixels[1, 0].numpy(), mean, atol=1e-5)
        size = batch.bboxes[:, 1] - batch.bboxes[:, 0]
        assert size.tolist() == [[16, 16], [64, 64]]
        assert batch.bboxes[0, 0].tolist() == [0, 0]


def test_upright_samples_are_mirrored_on_all_levels() -> None:
    sampler = CropSampler([slide(blobs())], CONFIG, foreground_share=0.5, seed=0)
    plain = SegmentationDataset(sampler, CONFIG)
    change = Augmentation(flips=True, upright=True)
    upright = SegmentationDataset(sampler, CONFIG, augmentation=change)
    mirrored = 0
    for i in range(20):
        before, after = plain[i], upright[i]
        if (before.bboxes[:, :, 1] == after.bboxes[:, :, 1]).all():
            assert (before.pixels == after.pixels).all()
            continue
        mirrored += 1
        assert (before.pixels.flip(-1) == after.pixels).all()
        assert (before.labels.flip(-1) == after.labels).all()
        assert (before.coarse_shares.flip(-1) == after.coarse_shares).all()
        # Upper corner of the fine box against the coarse one, seen in a mirror.
        place = before.bboxes[1, 1, 1] - before.bboxes[0, 1, 1]
        assert place == after.bboxes[0, 0, 1] - after.bboxes[1, 0, 1]
        assert (before.bboxes[:, :, 0] == after.bboxes[:, :, 0]).all()
    assert 4 < mirrored < 17


def test_naive_boxes_are_fed_when_asked_for() -> None:
    import dataclasses

    config = dataclasses.replace(CONFIG, boxes="naive")
    sampler = CropSampler([slide(blobs())], config, foreground_share=0.5, seed=0)
    data = SegmentationDataset(sampler, config, augmentation=Augmentation(flips=True))
    assert len({tuple(data[i].bboxes.flatten().tolist()) for i in range(10)}) == 1


def test_jitter_keeps_the_background_and_is_the_same_at_all_levels() -> None:
    # A shift of the brightness drowned sparse bright cells at coarse levels.
    import dataclasses

    config = dataclasses.replace(CONFIG, background_value=(1.0,))
    sampler = CropSampler([slide(blobs())], config, foreground_share=1.0, seed=0)
    plain = SegmentationDataset(sampler, config)
    jittered = SegmentationDataset(
        sampler, config, augmentation=Augmentation(intensity_jitter=0.2)
    )
    factors = set()
    for i in range(8):
        before, after = plain[i].pixels - 1, jittered[i].pixels - 1
        factor = float(after.max() / before.max())
        assert np.allclose(after.numpy(), before.numpy() * factor, atol=1e-5)
        factors.add(round(factor, 4))
    assert len(factors) > 4
    assert all(0.8 <= f <= 1.2 for f in factors)


@pytest.mark.parametrize("held_only", [False, True])
@pytest.mark.parametrize("factor", [4, 32])
def test_coarse_shares_hold_nothing_of_the_other_side(
    held_only: bool, factor: float
) -> None:
    """A coarse pixel wider than a cell took in labels that were held out."""
    config = dataclasses.replace(CONFIG, scale_factors=(1, factor), crop_size=8)
    labels = np.kron(np.random.default_rng(0).integers(1, 4, (16, 16)), np.ones((8, 8)))
    labels = labels.astype(np.uint8)
    edge = 6.0
    held = np.random.default_rng(1).random((22, 22)) < 0.3
    out = HoldOut(edge, (0.0, 0.0), held)
    theirs = out.mask(Box.from_shape(labels.shape), labels.shape) != held_only
    changed = np.where(theirs, labels % 3 + 1, labels).astype(np.uint8)
    shares = []
    for marks in (labels, changed):
        item = dataclasses.replace(
            slide(labels), annotations=Annotations.from_labels(marks)
        )
        sampler = CropSampler([item], config, foreground_share=0.5, seed=0)
        data = SegmentationDataset(
            sampler, config, hold_outs=[out], held_only=held_only
        )
        shares.append(np.stack([data[i].coarse_shares.numpy() for i in range(8)]))
    np.testing.assert_array_equal(shares[0], shares[1])
    # Of a pixel that lies on both sides, this side's part is still learned from.
    assert 0 < shares[0].sum(axis=2).max() <= 1
    if factor > edge:
        inside = shares[0].sum(axis=2)
        assert ((inside > 0.05) & (inside < 0.95)).any()
