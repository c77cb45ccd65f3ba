from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import AnnotationError, Cancelled, ConfigError
from napari_muvit.core.evaluation import pooled_features
from napari_muvit.core.evaluation.linear_probe import (
    CropFeatures,
    LinearProbeResult,
    LinearProbeRow,
    crop_features,
    level_sets,
    majority_label,
    score_levels,
)
from napari_muvit.core.figures import png_bytes
from napari_muvit.core.model.encoder import MuViTEncoder

CONFIG = ModelConfig(
    scale_factors=(1, 2, 4), crop_size=16, embed_dim=16, depth=2, num_heads=2
)


def crops(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(count, 3, 1, 16, 16, generator=generator)
    edges = torch.tensor([16.0, 32.0, 64.0])[:, None, None]
    lower = torch.rand(count, 3, 1, 2, generator=generator) * 8 - edges[:, 0:1] / 4
    return pixels, torch.cat((lower, lower + edges), dim=2)


def test_levels_alone_then_growing() -> None:
    assert level_sets((1,)) == ((1,),)
    assert level_sets((1, 8)) == ((1,), (8,), (1, 8))
    assert level_sets((1, 8, 32)) == ((1,), (8,), (32,), (1, 8), (1, 8, 32))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_the_majority_of_what_is_annotated(labels: list[int]) -> None:
    found = majority_label(torch.tensor(labels, dtype=torch.uint8))
    known = [label for label in labels if label]
    most = max((known.count(k) for k in known), default=0)
    wanted = min((k for k in known if known.count(k) == most), default=0)
    assert found == wanted


@pytest.mark.parametrize(
    ("cells", "label"),
    [((0, 0), 1), ((0, 1), 1), ((0, 2), 3), ((3, 1), 2), ((0, 150), 3)],
)
def test_the_background_counts_where_there_is_nothing_else(
    cells: tuple[int, int], label: int
) -> None:
    labels = torch.ones(202, dtype=torch.uint8)
    labels[:2] = 0
    labels[2 : 2 + cells[0]] = 2
    labels[10 : 10 + cells[1]] = 3
    assert majority_label(labels, background=1) == label
    assert majority_label(labels) == (3 if cells[1] == 150 else 1)
    assert majority_label(labels * 0, background=1) == 0
    assert majority_label(labels, background=9) == majority_label(labels)


def test_features_are_those_of_the_levels_that_are_seen() -> None:
    torch.manual_seed(0)
    encoder = MuViTEncoder(CONFIG).train()
    pixels, boxes = crops(6)
    labels = torch.tensor([1, 0, 2, 2, 0, 3])
    sets = ((1.0,), (4.0,), (1.0, 2.0, 4.0))
    batches = [(pixels[:4], boxes[:4], labels[:4]), (pixels[4:], boxes[4:], labels[4:])]
    found = crop_features(encoder, batches, sets)
    known = labels > 0
    assert found.labels.tolist() == [1, 2, 2, 3]
    assert found.skipped == 2
    assert found.counts(4) == (1, 2, 1, 0)
    whole = pooled_features(encoder, pixels[known], boxes[known])
    np.testing.assert_allclose(found.by_levels[sets[2]], whole, atol=1e-6)
    alone = encoder.extract_levels((4,))
    coarse = pooled_features(alone, pixels[known][:, 2:], boxes[known][:, 2:])
    np.testing.assert_allclose(found.by_levels[sets[1]], coarse, atol=1e-6)
    # What else is in the crop is not seen, and the encoder is as it was.
    other = pixels.clone()
    other[:, 1:] = 0
    again = crop_features(encoder, [(other, boxes, labels)], sets[:1])
    np.testing.assert_allclose(again.by_levels[sets[0]], found.by_levels[sets[0]],
                               atol=1e-6)  # fmt: skip
    assert encoder.training


def test_crops_without_any_class_are_refused() -> None:
    pixels, boxes = crops(3)
    batch = (pixels, boxes, torch.zeros(3, dtype=torch.long))
    with pytest.raises(AnnotationError, match="None of 3 crops has a class"):
        crop_features(MuViTEncoder(CONFIG), [batch], ((1.0,),))
    classed = (pixels, boxes, torch.ones(3, dtype=torch.long))
    with pytest.raises(ConfigError, match="levels 8"):
        crop_features(MuViTEncoder(CONFIG), [classed], ((8.0,),))
    with pytest.raises(Cancelled):
        crop_features(MuViTEncoder(CONFIG), [classed], ((1.0,),), lambda: True)


def features(labels: list[int], seed: int, noise: float = 0.1) -> CropFeatures:
    """The first set tells the classes apart, the second nothing."""
    rng = np.random.default_rng(seed)
    truth = np.array(labels)
    telling = np.eye(6)[truth] + noise * rng.normal(size=(len(truth), 6))
    silent = rng.normal(size=(len(truth), 6))
    by_levels = {
        (1.0,): telling.astype(np.float32), (8.0,): silent.astype(np.float32)
    }  # fmt: skip
    return CropFeatures(by_levels, truth, 0)


def test_scores() -> None:
    train = features([1, 2, 4] * 40, 0)
    # Class 3 is in neither, 5 in the test only, 4 in the training only.
    test = features([1, 2] * 40 + [5] * 7, 1)
    telling, silent = score_levels(train, test, 5, untrained=True)
    assert telling.levels == (1.0,)
    assert telling.untrained
    assert telling.class_auc[:2] == pytest.approx((1.0, 1.0))
    assert np.isnan(telling.class_auc[2:]).all()
    assert telling.auc == telling.accuracy == 1.0
    assert 0.3 < silent.auc < 0.7
    assert 0.1 < silent.accuracy < 0.6


def test_accuracy_counts_each_class_alike() -> None:
    train = features([1, 2] * 50, 0, noise=3.0)
    test = features([1] * 190 + [2] * 10, 1, noise=3.0)
    (row, _) = score_levels(train, test, 2)
    from napari_muvit.core.evaluation import fit_linear_probe

    probe = fit_linear_probe(train.by_levels[1.0,], train.labels)
    guess = probe.classes[probe.predict_proba(test.by_levels[1.0,]).argmax(axis=1)]
    right = guess == test.labels
    assert row.accuracy == pytest.approx((right[:190].mean() + right[190:].mean()) / 2)
    assert row.accuracy != pytest.approx(right.mean(), abs=1e-3)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(AnnotationError, match="All 5 training crops are of one class"):
        score_levels(features([2] * 5, 0), features([1, 2], 0), 2)
    with pytest.raises(AnnotationError, match="none of the classes"):
        score_levels(features([1, 2] * 5, 0), features([3, 3], 0), 3)
    with pytest.raises(Cancelled):
        score_levels(
            features([1, 2] * 5, 0), features([1, 2], 0), 2, should_stop=lambda: True
        )


def result(classes: int, sets: int = 3) -> LinearProbeResult:
    rng = np.random.default_rng(0)
    names = tuple(f"class number {k}" for k in range(classes))
    rows = []
    for levels in level_sets((1, 8, 32))[:sets]:
        areas = rng.uniform(0.3, 1, classes)
        areas[0] = np.nan
        rows.append(LinearProbeRow(levels, 0.7, tuple(areas), 0.6, len(levels) > 1))
    return LinearProbeResult(
        model="m", kind="MuViTMAE", class_names=names, rule="a rule", rows=tuple(rows),
        train_images=("a", "b"), test_images=("c",), train_crops=(3,) * classes,
        test_crops=(2,) * classes, skipped=4, seed=5, notes=("a note",),
    )  # fmt: skip


def test_all_forms_say_the_same() -> None:
    found = result(4, 5)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    page, table = found.markdown(), found.table()
    for row, entry in zip(found.rows, content["levels"], strict=True):
        assert entry["class_roc_auc"]["class number 0"] is None
        for k in (1, 2, 3):
            area = row.class_auc[k]
            assert entry["class_roc_auc"][f"class number {k}"] == area
            assert f"{area:.4f}" in page
            assert f"{area:.4f}" in table
    assert content["train"]["crops"] == {f"class number {k}": 3 for k in range(4)}
    assert "12 crops of 2 images, tested on 8 of 1 others; 4 crops without" in page
    assert "[1, 8, 32] untrained" in page
    assert "- a note" in page


@pytest.mark.parametrize("classes", [2, 15])
def test_the_plot(classes: int) -> None:
    found = result(classes)
    figure = found.figure()
    bars, cells = figure.axes
    assert [bar.get_width() for bar in bars.patches] == [0.7] * 3
    shown = np.ma.filled(cells.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shown, np.array([r.class_auc for r in found.rows]).T)
    assert png_bytes(figure).startswith(b"\x89PNG")
