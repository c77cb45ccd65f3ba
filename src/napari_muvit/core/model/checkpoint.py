"""Model folders: ``model.safetensors``, ``config.json`` and a ``README.md`` for people.

Nothing is unpickled. Files are written beside their final place and then renamed, so a
killed run leaves the last good model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ..checks import finite_json
from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError, OutputError

if TYPE_CHECKING:
    import torch

    from .segmenter import MuViTSegmenter

FORMAT_VERSION = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
KIND = "MuViTSegmenter"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What of a checkpoint was taken over and what stays new."""

    taken: tuple[str, ...]
    """Parameters that were loaded."""
    fresh: tuple[str, ...]
    """Parameters of the new model that the checkpoint does not have in this shape."""


def is_model_folder(path: str | Path) -> bool:
    """Whether ``path`` holds a model."""
    return (Path(path) / CONFIG).is_file() and (Path(path) / WEIGHTS).is_file()


def read_config(path: str | Path) -> ModelConfig:
    """Read the configuration of a model folder, without loading torch.

    Raises
    ------
    CheckpointError
        If the folder is no model of this package, or of a newer format.
    """
    folder = Path(path)
    if not is_model_folder(folder):
        raise CheckpointError(
            f"{folder} is no model folder: it needs {WEIGHTS} and {CONFIG}, as "
            "`napari-muvit finetune --out` writes them."
        )
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version, kind, values = (
            content["format_version"], content["kind"], content["config"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} cannot be read as a model configuration: {error}."
        ) from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has format version {version}, this package reads up to "
            f"{FORMAT_VERSION}. Update napari-muvit."
        )
    if kind != KIND:
        raise CheckpointError(f"{folder} holds a {kind}; a {KIND} is needed.")
    try:
        return ModelConfig.from_dict(values)
    except (ConfigError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error


def load_model(path: str | Path) -> MuViTSegmenter:
    """Load a segmenter, on the CPU and in evaluation mode.

    Raises
    ------
    CheckpointError
        If the folder cannot be read or its weights do not fit its configuration.
    """
    from .segmenter import build_model

    model = build_model(read_config(path))
    weights = _read_weights(Path(path))
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in weights.items()}
    if expected != found:
        wrong = sorted(
            k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)
        )
        raise CheckpointError(
            f"{Path(path) / WEIGHTS} does not fit its {CONFIG}: {wrong[0]} is "
            f"{found.get(wrong[0], 'missing')}, {expected.get(wrong[0], 'nothing')} is "
            f"needed ({len(wrong)} such parameters). The folder is damaged or mixed."
        )
    model.load_state_dict(weights)
    return model.eval()


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} cannot be read: {error}. The file is damaged."
        ) from error


def load_matching(model: MuViTSegmenter, path: str | Path) -> LoadReport:
    """Take over every parameter of a model folder that fits by name and shape."""
    read_config(path)
    return take_matching(model, _read_weights(Path(path)), str(path))


def take_matching(
    model: MuViTSegmenter, weights: Mapping[str, torch.Tensor], source: str
) -> LoadReport:
    """Take over every parameter that fits by name and shape.

    Raises
    ------
    CheckpointError
        If none fits; ``source`` names where they came from.
    """
    own = model.state_dict()
    taken = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    if not taken:
        raise CheckpointError(
            f"No parameter of {source} fits the new model; its preset, levels or patch "
            "size differ. Start from a model of the same preset, or from nothing."
        )
    model.load_state_dict(taken, strict=False)
    fresh = tuple(k for k in own if k not in taken)
    return LoadReport(tuple(taken), fresh)


def weights_hash(model: MuViTSegmenter) -> str:
    """SHA-256 over the names, types and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_model(
    model: MuViTSegmenter,
    path: str | Path,
    *,
    metrics: Mapping[str, float] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder; each file appears whole or not at all.

    Parameters
    ----------
    model
        The segmenter; its config is stored with it.
    path
        Folder, made if needed.
    metrics
        Figures for the card, such as the validation Dice.
    training
        What is to be kept about the training, plain JSON types.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    from safetensors.torch import save

    folder = Path(path)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    content = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "package_version": __version__,
        "config": model.config.to_dict(),
        "metrics": finite_json(metrics or {}),
        "training": finite_json(training or {}),
    }
    card = model_card(model.config, folder.name, metrics or {})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / WEIGHTS, save(weights, metadata={"format": "pt"}))
        _replace(folder / CARD, card.encode("utf-8"))
        _replace(
            folder / CONFIG, (json.dumps(content, indent=2) + "\n").encode("utf-8")
        )
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only ever an empty one
        raise OutputError(
            f"The model could not be written to {folder}: {error.strerror or error}."
        ) from error
    return folder


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        # Half a file on a full disk is of no use, and takes the room.
        temporary.unlink(missing_ok=True)
        raise


def model_card(config: ModelConfig, name: str, metrics: Mapping[str, float]) -> str:
    """Return the text of a model folder's ``README.md``."""
    size = "unknown" if config.pixel_size is None else f"{config.pixel_size:g} µm"
    factors = ", ".join(f"{f:g}" for f in config.scale_factors)
    views = ", ".join(f"{config.crop_size * f:g}" for f in config.scale_factors)
    lines = [
        f"# {name}",
        "",
        "A MuViT segmentation model for napari-muvit.",
        "",
        f"- classes: {', '.join(config.names)}",
        f"- channels: {config.in_channels} (normalisation: {config.normalisation})",
        f"- pixel size: {size}",
        f"- scale factors: {factors} (fields of view: {views} px)",
        f"- decoder: {config.decoder}, encoder: {config.depth} layers of width "
        f"{config.embed_dim}",
    ]
    lines += [f"- {key}: {value:.4f}" for key, value in metrics.items()]
    lines += [
        "",
        "Predict with `napari-muvit predict IMAGE --model THIS_FOLDER --out DIR`, or "
        "choose this folder in the Predict step of the napari panel.",
        "",
    ]
    return "\n".join(lines)
