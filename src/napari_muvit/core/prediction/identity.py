"""What a prediction was made from: model, settings and image, as hashes and as JSON.

Two runs with the same identity write the same bytes, so one may continue the other.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ... import __version__
from ..data.identity import hash_image
from .ensemble import config_of

if TYPE_CHECKING:
    from ..config import ModelConfig, PredictionConfig
    from ..data.crops import SlideNormalisation
    from ..data.pyramid import Pyramid
    from .plan import PredictionPlan


def hash_model(model: nn.Module, config: ModelConfig) -> str:
    """Return the SHA-256 of a model's weights and configuration, as hexadecimals."""
    digest = hashlib.sha256(_json(config.to_dict()))
    state: dict[str, Tensor] = model.state_dict()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_models(models: Sequence[nn.Module]) -> tuple[str, ...]:
    """Return the hash of each of some models that carry their configurations."""
    return tuple(hash_model(model, config_of(model)) for model in models)


def describe_run(
    plan: PredictionPlan,
    pyramid: Pyramid,
    models: Sequence[nn.Module],
    normalisation: SlideNormalisation,
    asked: PredictionConfig,
    precision: str,
    model_name: str,
    outputs: Collection[str] = (),
) -> dict[str, Any]:
    """Return what is stored beside a prediction, in plain JSON types.

    ``identity`` holds one hash each of what decides the pixels; the region and the
    device do not, nor does what is written beside the labels (``outputs``). The rest is
    for people and for later steps.
    """
    settings = {
        "blending": "gaussian" if asked.overlap else "none",
        "overlap": asked.overlap,
        "context": "own" if plan.contexts is None else "shared",
        "average": asked.average,
        "placement": asked.placement,
        "context_stride": plan.contexts and plan.contexts.stride,
        "precision": precision,
        "tile_size": plan.tile_size,
        "batch_size": plan.batch_size,
    }
    config = config_of(models[0])
    return {
        "format": 1,
        "identity": {
            "model": "+".join(hash_models(models)),
            "settings": hashlib.sha256(_json(settings)).hexdigest(),
            "image": hash_image(pyramid),
        },
        "model": model_name,
        "image": {
            "name": pyramid.name,
            "path": pyramid.url or (pyramid.path and str(pyramid.path)),
            "shape": list(pyramid.shape),
            "pixel_size": None
            if pyramid.pixel_size is None
            else list(pyramid.pixel_size),
            "unit": pyramid.unit,
        },
        "settings": settings,
        "outputs": sorted(outputs),
        "normalisation": normalisation.to_dict(),
        "class_names": list(config.names),
        "class_colors": list(config.colors),
        "background": config.background,
        "tiles": list(plan.grid),
        "notes": list(plan.notes),
        "package_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
