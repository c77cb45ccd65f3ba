from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.evaluation.probe import (
    _objective,
    fit_linear_probe,
    pooled_features,
    roc_auc_ovr,
)
from napari_muvit.core.model.encoder import MuViTEncoder


def blobs(distance: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([3, 5, 9], 60)
    centres = {3: (0, 0), 5: (distance, 0), 9: (0, distance)}
    places = np.array([centres[k] for k in labels])
    constant = np.full((len(labels), 1), 7.0)
    return np.hstack((places + rng.normal(size=places.shape), constant)), labels


def test_separable_groups_are_told_apart() -> None:
    probe = fit_linear_probe(*blobs(20))
    features, labels = blobs(20, seed=1)
    chances = probe.predict_proba(features)
    assert np.allclose(chances.sum(axis=1), 1)
    assert (probe.classes[chances.argmax(axis=1)] == labels).all()
    assert roc_auc_ovr(chances, labels, probe.classes)[0] == 1.0


def test_noise_is_not() -> None:
    probe = fit_linear_probe(*blobs(0))
    features, labels = blobs(0, seed=1)
    mean, _ = roc_auc_ovr(probe.predict_proba(features), labels, probe.classes)
    assert 0.35 < mean < 0.65


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    features, truth = rng.normal(size=(9, 4)), np.eye(3)[rng.integers(0, 3, 9)]
    error = check_grad(
        lambda t: _objective(t, features, truth, 0.7)[0],
        lambda t: _objective(t, features, truth, 0.7)[1],
        rng.normal(size=15),
    )
    assert error < 1e-5


def test_auc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, (40, 3)).astype(float), rng.integers(0, 3, 40)
    mean, areas = roc_auc_ovr(scores, labels)
    for k in range(3):
        pairs = itertools.product(scores[labels == k, k], scores[labels != k, k])
        wanted = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
        assert areas[k] == pytest.approx(wanted)
    assert mean == pytest.approx(areas.mean())


def test_a_class_that_does_not_occur_is_left_out() -> None:
    mean, areas = roc_auc_ovr([[0.1, 0.9, 0.0], [0.8, 0.2, 0.0]], [1, 0])
    assert mean == 1.0
    assert np.isnan(areas[2])
    assert np.isnan(roc_auc_ovr([[1.0], [2.0]], [0, 0])[0])


def test_wrong_input_is_named() -> None:
    with pytest.raises(ConfigError, match="two are needed"):
        fit_linear_probe([[1.0], [2.0]], [4, 4])
    with pytest.raises(ConfigError, match="finite"):
        fit_linear_probe([[1.0], [np.nan]], [0, 1])
    with pytest.raises(ConfigError, match="2 whole numbers"):
        fit_linear_probe([[1.0], [2.0]], [0.0, 1.0])
    with pytest.raises(ConfigError, match="l2 is -1"):
        fit_linear_probe([[1.0], [2.0]], [0, 1], l2=-1)
    for classes in (None, [0], [0, 1, 2]):
        with pytest.raises(ConfigError, match="each label needs a column"):
            roc_auc_ovr([[0.1, 0.2], [0.3, 0.4]], [0, 5], classes)
    with pytest.raises(ConfigError, match="fitted to 3"):
        fit_linear_probe(*blobs(3)).predict_proba([[1.0]])


def test_what_is_constant_but_for_rounding_says_nothing() -> None:
    features, labels = blobs(20)
    features[:, 2] = 1e5 + 0.1 + 1e-11 * np.arange(len(features))
    probe = fit_linear_probe(features, labels)
    features[:, 2] += 1e-3
    chances = probe.predict_proba(features)
    assert roc_auc_ovr(chances, labels, probe.classes)[0] == 1.0
    # Small is not constant.
    tiny = fit_linear_probe(features[:, :2] * 1e-12, labels)
    chances = tiny.predict_proba(features[:, :2] * 1e-12)
    assert roc_auc_ovr(chances, labels, tiny.classes)[0] == 1.0


def test_pooled_features_of_an_encoder() -> None:
    torch.manual_seed(0)
    config = ModelConfig(scale_factors=(1, 4), embed_dim=32, depth=1, num_heads=2)
    encoder = MuViTEncoder(config).train()
    x = torch.rand(3, 2, 1, 16, 16)
    box = torch.tensor([[[0.0, 0.0], [16.0, 16.0]], [[0.0, 0.0], [64.0, 64.0]]])
    box = box.expand(3, -1, -1, -1)
    pooled = pooled_features(encoder, x, box)
    assert encoder.training
    assert pooled.shape == (3, 64)
    level = encoder(x, box)[:, 4:].mean(dim=1)
    assert torch.allclose(pooled[:, 32:], level, atol=1e-5)
