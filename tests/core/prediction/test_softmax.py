"""Probabilities as bytes: the softmax, whatever the threads and the bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.prediction import softmax

BOTH = ("probabilities", "confidence")


def by_hand(logits: np.ndarray) -> np.ndarray:
    """255 times the softmax, float64."""
    shares = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    return np.asarray(255 * shares / shares.sum(axis=0))


def run(logits: torch.Tensor, unit: float = 1.0, outputs: Any = BOTH) -> Any:
    return softmax.softmax_bytes(logits, logits.amax(dim=0), unit, outputs)


@settings(max_examples=25, deadline=None)
@given(classes=st.integers(1, 7), seed=st.integers(0, 99), spread=st.floats(0, 50))
def test_it_is_the_softmax_rounded(classes: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(classes, 9, 13)) * spread).astype(np.float32)
    found = run(torch.from_numpy(logits))
    expected = by_hand(logits)
    # Half a step, and what float32 is off by.
    assert np.abs(found["probabilities"].numpy() - expected).max() <= 0.501
    assert torch.equal(found["confidence"], found["probabilities"].amax(dim=0))
    only = run(torch.from_numpy(logits), outputs=("confidence",))
    assert list(only) == ["confidence"]
    assert torch.equal(only["confidence"], found["confidence"])


def test_whole_numbers_stand_for_parts_of_a_logit() -> None:
    logits = torch.tensor([[[3.0, -999.0]], [[0.5, 1000.0]]])
    whole = (logits * 2**20).to(torch.int32)
    found = run(whole, 2.0**-20)["probabilities"]
    assert found[:, 0, 0].tolist() == [236, 19]
    assert found[:, 0, 1].tolist() == [0, 255]


def test_neither_bands_nor_threads_change_a_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = torch.randn(5, 300, 211, generator=torch.Generator().manual_seed(0)) * 3
    first = run(logits)["probabilities"]
    threads = torch.get_num_threads()
    try:
        for count, band in ((1, 2**10), (2, 2**20), (3, 2**14), (2, 1)):
            torch.set_num_threads(count)
            monkeypatch.setattr(softmax, "BAND_VALUES", band)
            assert torch.equal(run(logits)["probabilities"], first)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_not_a_number_is_zero(wrong: float) -> None:
    logits = torch.zeros(3, 4, 5)
    logits[1, 2, 3] = wrong
    logits[:, 0, 0] = -torch.inf
    logits[2, 1, 1] = -torch.inf  # a class that is ruled out is no error
    found = run(logits)
    zero = torch.zeros(4, 5, dtype=torch.bool)
    zero[2, 3] = zero[0, 0] = True
    assert torch.equal(found["confidence"] == 0, zero)
    assert torch.equal((found["probabilities"] == 0).all(dim=0), zero)
    assert found["probabilities"][:, 1, 1].tolist() == [128, 128, 0]
