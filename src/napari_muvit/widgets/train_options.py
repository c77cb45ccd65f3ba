"""Everything that may be chosen about a training, in two folded forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QVBoxLayout, QWidget

from ..core.config import ModelConfig, TrainingConfig
from .config_form import ConfigForm
from .foldout import Foldout

TRAINING = (
    "batch_size", "accumulate", "learning_rate", "encoder_learning_rate",
    "weight_decay", "schedule", "warmup", "ema", "clip_norm", "dice_weight",
    "foreground_weight", "foreground_share", "level_weight", "flips", "upright",
    "intensity_jitter", "stain_jitter", "box_shift", "box_scale", "freeze_encoder",
    "validation_share", "validation_crops", "early_stop", "steps", "steps_per_epoch",
    "checkpoint_minutes", "seed", "device", "precision", "compile", "num_threads",
    "num_workers",
)  # fmt: skip
"""Fields of a training on one device; several ones belong on a server."""
MODEL = (
    "crop_size", "patch_size", "attention", "decoder", "embed_dim",
    "depth", "num_heads", "mlp_ratio", "decoder_dim", "pyramid_channels",
    "pyramid_norm", "context_skip", "level_heads", "rotary_mode", "num_queries",
)  # fmt: skip
"""Fields of a new model; the rest is chosen on the first two pages."""


def minutes_box(tooltip: str) -> QDoubleSpinBox:
    """Return a field for a time in minutes."""
    box = QDoubleSpinBox()
    box.setRange(0.1, 10_000)
    box.setDecimals(1)
    box.setSuffix(" min")
    box.setToolTip(tooltip)
    return box


_DEFAULTS = {each.name: each.default for each in dataclasses.fields(ModelConfig)}
"""Settings of a model that a preset leaves open; those that follow are empty."""


class TrainOptions(QWidget):
    """The advanced settings, empty of opinion until the user changes one."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.training = ConfigForm(TrainingConfig, TRAINING)
        self.model = ConfigForm(ModelConfig, MODEL)
        self.training_part = Foldout("More options", "All settings of the training")
        self.training_part.content.addWidget(self.training)
        self.model_part = Foldout("Network", "All settings of a new model")
        self.model_part.content.addWidget(self.model)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.training_part)
        layout.addWidget(self.model_part)
        for form in (self.training, self.model):
            form.changed.connect(self.changed)

    def show_values(
        self, training: Mapping[str, Any], model: Mapping[str, Any]
    ) -> None:
        """Show the settings of a preset, from which changes count."""
        self.training.show_values(training)
        self.model.show_values({**_DEFAULTS, **model})
