"""The headless API: everything that the panel and the command do, without napari or Qt.

Names are loaded when first used, so importing this package is quick and does not load
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ModelConfig, PredictionConfig, TrainingConfig
    from .data.annotations import Annotations
    from .data.named_labels import read_annotations
    from .data.open import open_pyramid
    from .data.pyramid import Pyramid
    from .data.synthetic import write_synthetic
    from .errors import Cancelled, MuvitError
    from .evaluation import Evaluation, evaluate, write_result
    from .evaluation.box_noise import BoxNoiseResult
    from .evaluation.linear_probe import LinearProbeResult
    from .evaluation.mae_error import MAEErrorResult
    from .export import Export, ExportConfig, export_prediction
    from .geometry import Box, NestedCrop
    from .model.checkpoint import load_model, save_model
    from .model.encoder import MuViTEncoder
    from .model.mae import MuViTMAE
    from .model.reference import (
        export_reference_checkpoint,
        load_reference_checkpoint,
        load_reference_encoder,
    )
    from .model.segmenter import MuViTSegmenter, build_model
    from .prediction.areas import ClassArea, measure_areas
    from .prediction.chain import SlideResult
    from .prediction.context_difference import ContextDifference, context_difference
    from .prediction.entry import predict
    from .prediction.estimate import PredictionEstimate, estimate_prediction
    from .prediction.many import predict_many
    from .prediction.outlined import read_outlines
    from .prediction.plan import PredictionPlan, plan_prediction
    from .prediction.predicted import PredictedTile
    from .prediction.preview import Preview
    from .prediction.preview_paint import preview_slide
    from .prediction.run import PredictionRun
    from .prediction.seam_result import SeamScore
    from .prediction.seams import seam_score
    from .prediction.speed import PredictionSpeed, measure_speed
    from .prediction.suggestions import Suggestion, uncertain_places
    from .presets import PRESETS, preset
    from .progress import Progress
    from .training.finetuning import finetune
    from .training.interactive import InteractiveTrainer
    from .training.prepare import model_config_for
    from .training.pretraining import pretrain
    from .training.probing.linear import probe_linear
    from .training.probing.run import probe_boxes, probe_mae
    from .training.result import TrainingResult

_HOMES = {
    "config": ("ModelConfig", "PredictionConfig", "TrainingConfig"),
    "data.annotations": (
        "Annotations",
        "BrushMask",
        "Ellipse",
        "LabelImage",
        "Polygon",
        "Rectangle",
        "Region",
    ),
    "data.convert": ("Conversion", "convert"),
    "data.geojson": ("read_geojson", "write_geojson"),
    "data.named_labels": ("read_annotations",),
    "data.label_export": ("write_label_image",),
    "data.open": ("open_pyramid",),
    "data.project": ("Project",),
    "data.pyramid": ("Pyramid",),
    "data.synthetic": ("write_synthetic",),
    "data.tissue": ("TissueMask", "find_tissue"),
    "errors": ("Cancelled", "MuvitError"),
    "evaluation": ("Evaluation", "evaluate", "write_result"),
    "evaluation.box_noise": ("BoxNoiseResult",),
    "evaluation.linear_probe": ("LinearProbeResult",),
    "evaluation.mae_error": ("MAEErrorResult",),
    "export": ("Export", "ExportConfig", "export_prediction"),
    "geometry": ("Box", "NestedCrop"),
    "model.checkpoint": ("load_model", "save_model"),
    "model.encoder": ("MuViTEncoder",),
    "model.mae": ("MuViTMAE",),
    "model.reference": (
        "export_reference_checkpoint",
        "load_reference_checkpoint",
        "load_reference_encoder",
    ),
    "model.segmenter": ("MuViTSegmenter", "build_model"),
    "prediction.plan": ("PredictionPlan", "plan_prediction"),
    "prediction.areas": ("ClassArea", "measure_areas"),
    "prediction.chain": ("SlideResult",),
    "prediction.context_difference": ("ContextDifference", "context_difference"),
    "prediction.entry": ("predict",),
    "prediction.estimate": ("PredictionEstimate", "estimate_prediction"),
    "prediction.many": ("predict_many",),
    "prediction.outlined": ("read_outlines",),
    "prediction.predicted": ("PredictedTile",),
    "prediction.preview": ("Preview",),
    "prediction.preview_paint": ("preview_slide",),
    "prediction.run": ("PredictionRun",),
    "prediction.seam_result": ("SeamScore",),
    "prediction.seams": ("seam_score",),
    "prediction.speed": ("PredictionSpeed", "measure_speed"),
    "prediction.suggestions": ("Suggestion", "uncertain_places"),
    "presets": ("PRESETS", "preset"),
    "progress": ("Progress",),
    "training.interactive": ("InteractiveTrainer",),
    "training.probing.linear": ("probe_linear",),
    "training.prepare": ("model_config_for",),
    "training.pretraining": ("pretrain",),
    "training.probing.run": ("probe_boxes", "probe_mae"),
    "training.result": ("TrainingResult",),
    "training.finetuning": ("finetune",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order in which a reader meets them
    "open_pyramid", "Pyramid", "Box", "NestedCrop", "Annotations", "Progress",
    "ModelConfig", "TrainingConfig", "PredictionConfig", "PRESETS", "preset",
    "model_config_for", "MuViTEncoder", "MuViTMAE", "MuViTSegmenter", "build_model",
    "load_model", "save_model", "load_reference_checkpoint", "load_reference_encoder",
    "export_reference_checkpoint", "pretrain", "finetune", "InteractiveTrainer",
    "TrainingResult",
    "plan_prediction", "PredictionPlan", "read_outlines",
    "predict", "PredictionRun", "PredictedTile", "predict_many", "SlideResult",
    "measure_speed", "PredictionSpeed", "estimate_prediction", "PredictionEstimate",
    "measure_areas", "ClassArea", "uncertain_places", "Suggestion",
    "context_difference", "ContextDifference", "evaluate", "Evaluation",
    "preview_slide", "Preview", "seam_score", "SeamScore",
    "export_prediction", "ExportConfig", "Export", "write_synthetic",
    "convert", "Conversion", "read_annotations", "read_geojson", "write_geojson",
    "find_tissue", "TissueMask", "Polygon", "Rectangle", "Ellipse", "BrushMask",
    "LabelImage", "Region", "Project", "write_label_image",
    "probe_linear", "LinearProbeResult", "probe_mae", "MAEErrorResult", "probe_boxes",
    "BoxNoiseResult", "write_result",
    "MuvitError", "Cancelled",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
