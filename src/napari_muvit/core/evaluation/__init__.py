"""How good a prediction, a model or an encoder is."""

from .box_noise import BoxNoiseResult, BoxNoiseRow, box_noise_curve, jitter_boxes
from .comparison import Comparison, open_comparison
from .dice import evaluate
from .output import write_result
from .probe import LinearProbe, fit_linear_probe, pooled_features, roc_auc_ovr
from .scores import Evaluation, dice_from_confusion, mean_dice

__all__ = [
    "BoxNoiseResult",
    "BoxNoiseRow",
    "Comparison",
    "Evaluation",
    "LinearProbe",
    "box_noise_curve",
    "dice_from_confusion",
    "evaluate",
    "fit_linear_probe",
    "jitter_boxes",
    "mean_dice",
    "open_comparison",
    "pooled_features",
    "roc_auc_ovr",
    "write_result",
]
