from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_muvit.core.model.losses import label_fractions, segmentation_loss


def loss(logits: torch.Tensor, target: torch.Tensor, dice: float = 1.0) -> torch.Tensor:
    return segmentation_loss(
        logits, target, class_weights=torch.ones(logits.shape[1]), dice_weight=dice,
        dice_labels=range(2, logits.shape[1] + 1),
    )  # fmt: skip


def test_cross_entropy_equals_torchs() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 4, (2, 8, 8))
    wanted = F.cross_entropy(logits, labels - 1, ignore_index=-1)
    assert loss(logits, labels, dice=0.0) == pytest.approx(float(wanted), rel=1e-5)


def test_unlabelled_pixels_give_zero_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    labels = torch.randint(1, 4, (2, 8, 8))
    labels[:, 3:6] = 0
    loss(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, 3:6] == 0).all()
    assert (logits.grad[:, :, :3].abs().sum(1) > 0).all()


def test_nothing_annotated_is_zero_and_finite() -> None:
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    value = loss(logits, torch.zeros(2, 8, 8, dtype=torch.uint8))
    value.backward()
    assert float(value.detach()) == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_shares_of_whole_pixels_equal_labels() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 4, (2, 8, 8))
    shares = label_fractions(labels, 3)
    assert torch.allclose(loss(logits, labels), loss(logits, shares))


def test_a_perfect_answer_has_almost_no_loss() -> None:
    labels = torch.randint(1, 4, (2, 16, 16))
    assert float(loss(40 * label_fractions(labels, 3), labels)) < 1e-3


def test_finite_in_bfloat16_and_with_one_class() -> None:
    labels = torch.ones(1, 8, 8, dtype=torch.uint8)
    logits = torch.randn(1, 1, 8, 8, dtype=torch.bfloat16)
    value = segmentation_loss(
        logits, labels, class_weights=torch.ones(1), dice_weight=1.0, dice_labels=(1,)
    )
    assert torch.isfinite(value)
