"""Cross-entropy and Dice on partly annotated crops.

Reference: MuViT (arXiv 2602.24222), section 3.4: CE + lambda Dice, Dice without
background. Label 0 is *not annotated* and gives no gradient.

Shapes: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def label_fractions(labels: Tensor, num_classes: int) -> Tensor:
    """Integer labels (B, *spatial), 0..K, to shares (B, K, *spatial), float32.

    A pixel that is not annotated has all shares 0.
    """
    hot = F.one_hot(labels.long(), num_classes + 1)[..., 1:]
    return hot.movedim(-1, 1).float()


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Tensor,
    dice_weight: float,
    dice_labels: Sequence[int],
) -> Tensor:
    """CE + lambda Dice over the annotated pixels.

    Parameters
    ----------
    logits
        (B, K, *spatial).
    target
        Labels (B, *spatial), integers 0..K, or the share of each class in each pixel
        (B, K, *spatial), as coarse levels have it.
    class_weights
        (K,) weights of the cross-entropy.
    dice_weight
        Lambda.
    dice_labels
        Labels (from 1) whose Dice counts; those without a pixel in the batch are left
        out.

    Returns
    -------
    Tensor
        Scalar, float32; 0 with zero gradient when nothing is annotated.
    """
    logits = logits.float()
    if target.ndim < logits.ndim:
        target = label_fractions(target, logits.shape[1])
    target = target.float()
    log_p = logits.log_softmax(dim=1)
    weights = class_weights.view(1, -1, *[1] * (logits.ndim - 2))
    weighted = weights * target
    cross_entropy = -(weighted * log_p).sum() / weighted.sum().clamp(min=1e-6)
    if dice_weight == 0 or not dice_labels:
        return cross_entropy
    axes = (0, *range(2, logits.ndim))
    annotated = target.sum(dim=1, keepdim=True)
    truth = target.sum(axes)
    overlap = (log_p.exp() * target).sum(axes)
    predicted = (log_p.exp() * annotated).sum(axes)
    counted = torch.zeros_like(truth)
    counted[[k - 1 for k in dice_labels if k > 0]] = 1.0
    counted = counted * (truth > 0)
    dice = (2 * overlap + 1.0) / (truth + predicted + 1.0)
    loss = ((1 - dice) * counted).sum() / counted.sum().clamp(min=1.0)
    return cross_entropy + dice_weight * loss
