"""Linear probe: what the features of a frozen encoder say about whole crops.

Reference: MuViT (arXiv 2602.24222), section 4.6 and Table 7: logistic regression on the
features of a frozen, pretrained encoder; one-vs-all ROC-AUC averaged over the groups.

Shapes: n samples, d features, K classes, B batch, L levels, N spatial axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError
from ..progress import StopFn, check_stop, never_stop
from .mode import evaluating

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.encoder import MuViTEncoder

Floats = NDArray[np.float64]
MAX_ITERATIONS = 1000
CONSTANT = 1e-9
"""Spread of a feature against its size, below which it counts as constant."""


@dataclass(frozen=True, eq=False, slots=True)
class LinearProbe:
    """Multinomial logistic regression on standardised features."""

    classes: NDArray[np.int64]
    """(K,) labels in the order of the columns."""
    mean: Floats
    """(d,) of the training features."""
    scale: Floats
    """(d,) of the training features; 1 where a feature is constant."""
    weights: Floats
    """(d, K)."""
    bias: Floats
    """(K,)."""

    def predict_proba(self, features: ArrayLike) -> Floats:
        """(n, d) to the probability of each class, (n, K).

        Raises
        ------
        ConfigError
            If the features are not of the kind that the probe was fitted to.
        """
        given = _features(features)
        if given.shape[1] != len(self.mean):
            raise ConfigError(
                f"{given.shape[1]} features were given; this probe was fitted to "
                f"{len(self.mean)}."
            )
        scores = (given - self.mean) / self.scale @ self.weights + self.bias
        return _softmax(scores)


def fit_linear_probe(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    l2: float = 1.0,
    should_stop: StopFn = never_stop,
) -> LinearProbe:
    """Fit by L-BFGS; the same data give the same probe.

    Parameters
    ----------
    features
        (n, d), finite.
    labels
        (n,) integers of at least two classes.
    l2
        Strength of the penalty ``l2 / 2 * sum(weights ** 2)`` on the summed negative
        log likelihood; the bias is free.
    should_stop
        Asked at each step.

    Raises
    ------
    ConfigError
        If the input is of another form, or the fit does not converge.
    Cancelled
        If ``should_stop`` said so.
    """
    from scipy.optimize import minimize

    given = _features(features)
    classes, index = np.unique(_labels(labels, len(given)), return_inverse=True)
    if len(classes) < 2:
        raise ConfigError(f"The labels hold {len(classes)} class; two are needed.")
    if not 0 <= l2 < np.inf:
        raise ConfigError(f"l2 is {l2}; zero or a positive number is needed.")
    mean, scale = given.mean(axis=0), given.std(axis=0)
    # What is constant but for rounding says nothing; divided, it would say anything.
    scale[scale <= CONSTANT * np.abs(given).max(axis=0)] = 1.0
    standard = (given - mean) / scale
    found = minimize(
        _objective,
        np.zeros((standard.shape[1] + 1) * len(classes)),
        args=(standard, np.eye(len(classes))[index], l2),
        jac=True,
        method="L-BFGS-B",
        callback=lambda _: check_stop(should_stop),
        options={"maxiter": MAX_ITERATIONS},
    )
    if found.status == 1 or not np.isfinite(found.fun):
        raise ConfigError("The probe does not converge; a larger l2 is needed.")
    table = found.x.reshape(-1, len(classes))
    return LinearProbe(classes, mean, scale, table[:-1], table[-1])


def _objective(
    flat: Floats, features: Floats, truth: Floats, l2: float
) -> tuple[float, Floats]:
    """Penalised negative log likelihood, and its gradient."""
    table = flat.reshape(-1, truth.shape[1])
    weights, bias = table[:-1], table[-1]
    scores = features @ weights + bias
    top = scores.max(axis=1, keepdims=True)
    normaliser = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))
    loss = (normaliser - (scores * truth).sum(axis=1)).sum()
    excess = _softmax(scores) - truth
    gradient = np.vstack((features.T @ excess + l2 * weights, excess.sum(axis=0)))
    return float(loss + 0.5 * l2 * np.square(weights).sum()), gradient.ravel()


def _softmax(scores: Floats) -> Floats:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)


def roc_auc_ovr(
    scores: ArrayLike, labels: ArrayLike, classes: ArrayLike | None = None
) -> tuple[float, Floats]:
    """Area under the ROC curve of each class against all others.

    Parameters
    ----------
    scores
        (n, K), higher means more likely.
    labels
        (n,) integers.
    classes
        (K,) label of each column; None: 0 to K - 1.

    Returns
    -------
    mean, areas
        The mean over the classes that can be scored, and (K,) areas: the chance that a
        sample of the class scores above one of the others, ties counting half; NaN
        where all samples are of the class, or none is.

    Raises
    ------
    ConfigError
        If classes and columns, or labels and classes, do not fit.
    """
    from scipy.stats import rankdata

    given = _features(scores)
    truth = _labels(labels, len(given))
    columns = np.arange(given.shape[1]) if classes is None else np.asarray(classes)
    unknown = np.setdiff1d(truth, columns)
    if columns.shape != (given.shape[1],) or len(unknown):
        raise ConfigError(
            f"Labels {np.unique(truth).tolist()} and {given.shape[1]} columns of "
            f"scores were given for the classes {columns.tolist()}; each label "
            "needs a column."
        )
    areas = np.full(given.shape[1], np.nan)
    for k, label in enumerate(columns):
        inside = truth == label
        hits, others = int(inside.sum()), int((~inside).sum())
        if hits and others:
            # Mann and Whitney: the sum of ranks counts the pairs in right order.
            ranks = rankdata(given[:, k])[inside].sum()
            areas[k] = (ranks - hits * (hits + 1) / 2) / (hits * others)
    known = areas[np.isfinite(areas)]
    return (float(known.mean()) if len(known) else float("nan")), areas


def pooled_features(encoder: MuViTEncoder, pixels: Tensor, bboxes: Tensor) -> Tensor:
    """Mean of each level's tokens, levels side by side.

    Parameters
    ----------
    encoder
        Run in evaluation mode without gradients, then left as it was.
    pixels, bboxes
        (B, L, C, *spatial) and (B, L, 2, N) world boxes.

    Returns
    -------
    Tensor
        (B, L * D), float32.
    """
    import torch

    with evaluating(encoder), torch.inference_mode():
        maps = encoder.compute_features(pixels, bboxes)
    return maps.float().flatten(3).mean(dim=3).flatten(1)


def _features(values: ArrayLike) -> Floats:
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 2 or 0 in given.shape or not np.isfinite(given).all():
        raise ConfigError(
            f"Values of shape {given.shape} were given; a table of finite numbers, a "
            "row a sample, is needed."
        )
    return given


def _labels(values: ArrayLike, count: int) -> NDArray[np.int64]:
    given = np.asarray(values)
    if given.shape != (count,) or not np.issubdtype(given.dtype, np.integer):
        raise ConfigError(
            f"Labels of shape {given.shape} and type {given.dtype} were given; "
            f"{count} whole numbers are needed."
        )
    return given.astype(np.int64)
