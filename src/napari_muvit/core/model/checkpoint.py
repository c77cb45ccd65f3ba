"""Model folders: ``model.safetensors``, ``config.json`` and a ``README.md`` for people.

Nothing is unpickled. Files are written beside their final place and then renamed. The
weights carry a copy of their configuration and a number that ``config.json`` has too:
where a killed run has replaced the one and not yet the other, the copy counts, so a
folder is the old model or the new one, not a mixture (one writer at a time).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ... import __version__
from ..checks import finite_json
from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError, OutputError
from .kinds import ENCODER, PURPOSES, SEGMENTER, wrong_kind

if TYPE_CHECKING:
    import torch

    from .encoder import MuViTEncoder
    from .mae import MuViTMAE
    from .segmenter import MuViTSegmenter

    Model = MuViTEncoder | MuViTMAE | MuViTSegmenter
    M = TypeVar("M", bound=Model)

FORMAT_VERSION = 2
"""1 was of development versions that were never released."""
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    RecursionError,
)  # fmt: skip
MAX_HEADER_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """What a model folder holds."""

    kind: str
    """Class name: ``MuViTSegmenter``, ``MuViTMAE`` or ``MuViTEncoder``."""
    config: ModelConfig


def is_model_folder(path: str | Path) -> bool:
    """Whether ``path`` holds a model."""
    return (Path(path) / CONFIG).is_file() and (Path(path) / WEIGHTS).is_file()


def read_header(path: str | Path) -> ModelHeader:
    """Read what a model folder holds, without loading torch.

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
        # Windows editors put a mark before the text.
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8-sig"))
        inside = _config_inside(folder / WEIGHTS)
        if inside is not None and inside["id"] != content.get("id", inside["id"]):
            content = inside
        version, kind, values = (
            content["format_version"], content["kind"], content["config"],
        )  # fmt: skip
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{folder / CONFIG} cannot be read as a model configuration: {error}."
        ) from error
    _check_version(folder, version)
    if not isinstance(kind, str) or kind not in PURPOSES:
        raise CheckpointError(
            f"{folder} holds a {kind}; one of {', '.join(PURPOSES)} is needed."
        )
    try:
        return ModelHeader(kind, ModelConfig.from_dict(values))
    except (ConfigError, *_UNREADABLE) as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error


def _check_version(folder: Path, version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise CheckpointError(f"{folder} has no format version, but {version!r}.")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has format version {version}, this package reads up to "
            f"{FORMAT_VERSION}. Update napari-muvit."
        )
    if version < FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has format version {version}, of a development version that was "
            "never released. Train the model again."
        )


def _config_inside(file: Path) -> dict[str, Any] | None:
    """Return the copy of the configuration that the weights carry, where it is read."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        if not 0 < size <= MAX_HEADER_BYTES:
            return None
        text = opened.read(size)
    try:
        found = json.loads(json.loads(text)["__metadata__"]["config"])
    except _UNREADABLE:
        # Damaged: reading the weights says so.
        return None
    ours = isinstance(found, dict) and {"format_version", "id", "config"} <= set(found)
    return found if ours else None


def read_config(path: str | Path, kind: str = SEGMENTER) -> ModelConfig:
    """Read the configuration of a model folder, without loading torch.

    Raises
    ------
    CheckpointError
        If the folder is no model of this package, of a newer format or another kind.
    """
    header = read_header(path)
    if header.kind != kind:
        raise wrong_kind(str(path), header.kind, kind)
    return header.config


@overload
def load_model(path: str | Path) -> MuViTSegmenter: ...
@overload
def load_model(path: str | Path, kind: type[M]) -> M: ...


def load_model(path: str | Path, kind: type[Any] | None = None) -> Any:
    """Load a model, on the CPU and in evaluation mode.

    Parameters
    ----------
    path
        Model folder.
    kind
        `MuViTSegmenter` (also None), `MuViTMAE` or `MuViTEncoder`. An encoder is taken
        out of any folder.

    Raises
    ------
    CheckpointError
        If the folder cannot be read, holds another kind, or its weights do not fit its
        configuration.
    """
    from .encoder import MuViTEncoder
    from .segmenter import MuViTSegmenter

    kind = kind or MuViTSegmenter
    header = read_header(path)
    weights = read_weights(path)
    if kind is MuViTEncoder and header.kind != ENCODER:
        prefix = "encoder."
        weights = {
            name.removeprefix(prefix): value
            for name, value in weights.items()
            if name.startswith(prefix)
        }
    elif header.kind != kind.__name__:
        raise wrong_kind(str(path), header.kind, kind.__name__)
    model = build_checked(kind, header.config, weights, Path(path) / WEIGHTS)
    return model.eval()


def build_checked(
    kind: type[M], config: ModelConfig, weights: Mapping[str, torch.Tensor], file: Path
) -> M:
    """Build a model and load weights that have exactly its names and shapes.

    Raises
    ------
    CheckpointError
        If they have not, or are no finite numbers.
    """
    import torch

    try:
        # Shapes alone: a configuration may ask for more memory than there is.
        with torch.device("meta"):
            needed = kind(config).state_dict()
    except (RuntimeError, *_UNREADABLE) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file.parent} cannot be built: {reason}") from error
    _check_fit(file, needed, weights)
    check_numbers(file, weights)
    model = kind(config)
    model.load_state_dict(weights)
    return model


def check_numbers(file: Path | str, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise `CheckpointError` for weights that are no finite numbers."""
    for name, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(
                f"{file} holds numbers that are not finite, in {name}; its training "
                "has failed, or the file is damaged."
            )


def _check_fit(
    file: Path,
    needed: Mapping[str, torch.Tensor],
    given: Mapping[str, torch.Tensor],
) -> None:
    expected = {k: tuple(v.shape) for k, v in needed.items()}
    found = {k: tuple(v.shape) for k, v in given.items()}
    if expected != found:
        wrong = sorted(
            k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)
        )
        raise CheckpointError(
            f"{file} does not fit its configuration: {wrong[0]} is "
            f"{found.get(wrong[0], 'missing')}, {expected.get(wrong[0], 'nothing')} is "
            f"needed ({len(wrong)} such parameters). The folder is damaged or mixed."
        )


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the weights of a model folder.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(path) / WEIGHTS
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{file} cannot be read: {error}. The file is damaged."
        ) from error


def weights_hash(model: Model) -> str:
    """SHA-256 over the names, types and bytes of all weights."""
    import torch

    digest = hashlib.sha256()
    model = getattr(model, "_orig_mod", model)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        # As bytes: numpy does not know bfloat16.
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_model(
    model: Model,
    path: str | Path,
    *,
    metrics: Mapping[str, float] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder; each file appears whole or not at all.

    Parameters
    ----------
    model
        A segmenter, an autoencoder or an encoder, compiled or not; its config is stored
        with it. Weights keep their type in the file and are float32 when loaded.
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
    CheckpointError
        If it is no such model.
    """
    from safetensors.torch import save

    folder = Path(path)
    # torch.compile wraps a module in another one.
    model = getattr(model, "_orig_mod", model)
    kind = next((c.__name__ for c in type(model).__mro__ if c.__name__ in PURPOSES), "")
    if not kind:
        raise CheckpointError(
            f"A {type(model).__name__} was given; one of {', '.join(PURPOSES)} can be "
            "saved."
        )
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    content = {
        "format_version": FORMAT_VERSION,
        "id": uuid.uuid4().hex,
        "kind": kind,
        "package_version": __version__,
        "config": model.config.to_dict(),
        "metrics": finite_json(metrics or {}),
        "training": finite_json(training or {}),
    }
    card = model_card(kind, model.config, folder.name, metrics or {})
    copied = {k: content[k] for k in ("format_version", "id", "kind", "config")}
    metadata = {"format": "pt", "config": json.dumps(copied)}
    # All of it, before the first file is replaced.
    files = {
        WEIGHTS: save(weights, metadata=metadata),
        CARD: card.encode("utf-8", "replace"),
        CONFIG: (json.dumps(content, indent=2) + "\n").encode("utf-8"),
    }
    _write(folder, files)
    return folder


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace the files one after another.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _replace(folder / name, content)
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only ever an empty one
        raise OutputError(
            f"The model could not be written to {folder}: {error.strerror or error}."
        ) from error


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


def model_card(
    kind: str, config: ModelConfig, name: str, metrics: Mapping[str, float]
) -> str:
    """Return the text of a model folder's ``README.md``."""
    size = "unknown" if config.pixel_size is None else f"{config.pixel_size:g} µm"
    factors = ", ".join(f"{f:g}" for f in config.scale_factors)
    views = ", ".join(f"{config.crop_size * f:g}" for f in config.scale_factors)
    segmenter = kind == SEGMENTER
    lines = [
        f"# {name}",
        "",
        PURPOSES[kind],
        "",
        *([f"- classes: {', '.join(config.names)}"] if segmenter else []),
        f"- channels: {config.in_channels} (normalisation: {config.normalisation})",
        f"- pixel size: {size}",
        f"- scale factors: {factors} (fields of view: {views} px)",
        f"- encoder: {config.depth} layers of width {config.embed_dim}",
        *([f"- decoder: {config.decoder}"] if segmenter else []),
    ]
    lines += [f"- {key}: {value:.4f}" for key, value in metrics.items()]
    use = (
        "Predict with `napari-muvit predict IMAGE --model THIS_FOLDER --out DIR`, or "
        "choose this folder in the Predict step of the napari panel."
        if segmenter
        else f"Load it with `napari_muvit.core.load_model(THIS_FOLDER, {kind})`."
    )
    return "\n".join([*lines, "", use, ""])
