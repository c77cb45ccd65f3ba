"""Model folders of the authors' package: read, and written.

Reference: the package ``muvit`` (0.1.0) of the paper's authors (MuViT,
arXiv 2602.24222): a folder with ``config.yaml`` and ``model.pth``, 2D to 4D.

Their tokens lie from corner to corner of a box and their MAE decoders look at mask
tokens too, so a model that comes from there has ``rotary_position="corner"`` and
``mae_context="all"``. With these it gives the same numbers. Nothing is unpickled: the
YAML is read by a safe loader that knows tuples, the weights as tensors only.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor

from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError, OutputError
from .checkpoint import ModelHeader, build_checked
from .encoder import MuViTEncoder
from .kinds import ENCODER, MAE
from .mae import MuViTMAE
from .reference_weights import encoder_to_ours, mae_to_ours, mae_to_theirs

M = TypeVar("M", MuViTMAE, MuViTEncoder)
CONFIG, WEIGHTS = "config.yaml", "model.pth"
_ATTENTION = {"all": "joint", "causal": "fine_to_coarse", "same": "within_level"}
_LOSSES = {"mse": False, "norm_mse": True}
_SHARES = {"dirichlet": "dirichlet", "random": "uniform"}
_OF_THE_MAE = (
    "masking_ratio", "masking_mode", "num_layers_decoder", "dim_decoder", "loss",
)  # fmt: skip
_TUPLE = "tag:yaml.org,2002:python/tuple"
_USUAL_CROP = 256
_UNREADABLE = (
    OSError, RuntimeError, EOFError, ValueError, TypeError, KeyError, AttributeError,
    IndexError, ArithmeticError, pickle.UnpicklingError,
)  # fmt: skip
"""What a wrong or damaged folder may raise anywhere."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that also knows tuples."""


def _read_tuple(loader: yaml.SafeLoader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.YAMLError("A tuple is needed where there is something else.")
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor(_TUPLE, _read_tuple)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that also writes tuples."""


_Dumper.add_representer(
    tuple, lambda dumper, value: dumper.represent_sequence(_TUPLE, value)
)


def is_reference_folder(folder: str | Path) -> bool:
    """Whether the authors' package may have written a folder."""
    return (Path(folder) / CONFIG).is_file() and (Path(folder) / WEIGHTS).is_file()


def read_reference_header(folder: str | Path) -> ModelHeader:
    """Return what a folder of the authors' package holds, without its weights.

    An autoencoder whose decoders cannot be read counts as an encoder.

    Raises
    ------
    CheckpointError
        If its configuration cannot be read, or holds what our model does not have.
    """
    path, values = _read_values(folder)
    several = values.get("decoder_mode", "multi") == "multi"
    if several and any(name in values for name in _OF_THE_MAE):
        return ModelHeader(MAE, _config(path, values))
    return ModelHeader(ENCODER, _config(path, _of_the_encoder(values)))


def load_reference_checkpoint(folder: str | Path) -> MuViTMAE:
    """Read an MAE that the authors' package has written, on the CPU, for evaluation.

    Encoder and reconstruction give the same numbers as theirs for the same boxes and
    mask, as far as theirs can tell places apart: they compute angles from absolute
    coordinates, which loses digits from about 10,000 px on. Dropout is not taken over;
    it does nothing in evaluation.

    Parameters
    ----------
    folder
        With ``config.yaml`` and ``model.pth``.

    Raises
    ------
    CheckpointError
        If it cannot be read, or holds what our model does not have.
    """
    path, values, weights = _read(folder)
    if values.get("decoder_mode", "multi") != "multi":
        raise CheckpointError(
            f"{path} has decoder_mode {values['decoder_mode']!r}; only 'multi', a "
            "decoder for each level, can be read. Its encoder can: use "
            "load_reference_encoder."
        )
    config = _config(path, values)
    used = Used(weights)
    mae = _load(MuViTMAE, config, path, lambda: mae_to_ours(used, config))
    _check_all_used(used, path)
    return mae.eval()


def load_reference_encoder(folder: str | Path) -> MuViTEncoder:
    """Read the encoder alone, of a folder with an MAE or an encoder.

    See `load_reference_checkpoint`.
    """
    path, values, weights = _read(folder)
    config = _config(path, _of_the_encoder(values))
    inside = Used({
        name.removeprefix("encoder."): value
        for name, value in weights.items()
        if name.startswith("encoder.") or "mask_token" not in weights
    })  # fmt: skip
    encoder = _load(
        MuViTEncoder, config, path, lambda: encoder_to_ours(inside, config, "")
    )
    _check_all_used(inside, path)
    return encoder.eval()


def export_reference_checkpoint(mae: MuViTMAE, folder: str | Path) -> Path:
    """Write an MAE so that the authors' package can read it.

    Parameters
    ----------
    mae
        With ``rotary_position="corner"``, ``mae_context="all"`` and ``mlp_ratio=2``,
        which is all that their package computes.
    folder
        New or empty.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        If their package would compute something else from these weights, or it is no
        autoencoder.
    OutputError
        If the folder holds something or cannot be written.
    """
    if not isinstance(mae, MuViTMAE):
        raise ConfigError(
            f"A {type(mae).__name__} was given; the authors' package keeps "
            "autoencoders, so a MuViTMAE is needed."
        )
    config, path = mae.config, Path(folder)
    values = _reference_config(config)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} holds something already; choose a new folder.")
    state = {k: v.detach().cpu() for k, v in mae.state_dict().items()}
    try:
        path.mkdir(parents=True, exist_ok=True)
        torch.save(mae_to_theirs(state, config), path / WEIGHTS)
        (path / CONFIG).write_text(yaml.dump(values, Dumper=_Dumper), encoding="utf-8")
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path} cannot be written: {error}.") from error
    return path


def _of_the_encoder(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in _OF_THE_MAE}


def _read_values(folder: str | Path) -> tuple[Path, Mapping[str, Any]]:
    path = Path(folder)
    if not is_reference_folder(path):
        raise CheckpointError(
            f"{path} is no folder of the authors' package: it needs {CONFIG} and "
            f"{WEIGHTS}. A folder of this package is read by load_model."
        )
    try:
        values = yaml.load((path / CONFIG).read_text(encoding="utf-8"), _Loader)
    except (RecursionError, yaml.YAMLError, *_UNREADABLE) as error:
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path / CONFIG} cannot be read: {text}.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path / CONFIG} is no table of settings.")
    return path, values


def _read(folder: str | Path) -> tuple[Path, Mapping[str, Any], Mapping[str, Tensor]]:
    path, values = _read_values(folder)
    try:
        weights = torch.load(path / WEIGHTS, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path / WEIGHTS} cannot be read as tensors: {text}"
        ) from error
    if not isinstance(weights, Mapping) or not all(
        isinstance(v, Tensor) and v.is_floating_point() for v in weights.values()
    ):
        raise CheckpointError(f"{path / WEIGHTS} holds no table of weights.")
    return path, values, weights


def _config(path: Path, values: Mapping[str, Any]) -> ModelConfig:
    """Our configuration of their settings."""
    for name, known in (
        ("attention_mode", _ATTENTION), ("loss", _LOSSES), ("input_space", {"real"}),
    ):  # fmt: skip
        if str(values.get(name, next(iter(known)))) not in known:
            raise CheckpointError(
                f"{path / CONFIG} has {name} {values[name]!r}; only "
                f"{', '.join(known)} can be read."
            )
    try:
        return ModelConfig.from_dict({**_sizes(values), **_choices(values)})
    except KeyError as error:
        raise CheckpointError(f"{path / CONFIG} lacks {error}.") from error
    except (ConfigError, *_UNREADABLE) as error:
        raise CheckpointError(f"{path / CONFIG} cannot be: {error}") from error


def _sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    edge, dim, levels = values["patch_size"], values["dim"], values["levels"]
    edges = tuple(edge) if isinstance(edge, (tuple, list)) else (edge,)
    if not isinstance(levels, (tuple, list)):
        raise ValueError(f"levels is {levels!r}; a list of numbers is needed")
    if any(not isinstance(e, int) or e < 1 for e in edges):
        raise ValueError(f"patch_size is {edge!r}; whole numbers are needed")
    return {
        "ndim": values["ndim"],
        "in_channels": values["in_channels"],
        "scale_factors": tuple(map(float, levels)),
        "patch_size": edge,
        "crop_size": _crop(edges),
        "embed_dim": dim,
        "depth": values["num_layers"],
        "num_heads": values["heads"],
        "mlp_ratio": 2.0,
        "mae_dim": values.get("dim_decoder") or dim,
        "mae_depth": values.get("num_layers_decoder", 2),
    }


def _choices(values: Mapping[str, Any]) -> dict[str, Any]:
    # Older folders have a switch where newer ones have a mode.
    switch = "per_layer" if values.get("use_rotary_embed", True) else "none"
    return {
        "rotary_mode": values.get("rotary_mode", switch),
        "rotary_base": float(values.get("rotary_base", 10000)),
        "rotary_position": "corner",
        "level_embedding": values.get("use_level_embed", True),
        "attention": _ATTENTION[values.get("attention_mode", "all")],
        "mask_ratio": float(values.get("masking_ratio", 0.75)),
        # Shares by hand have no name here; they matter to training only.
        "mask_shares": _SHARES.get(str(values.get("masking_mode")), "dirichlet"),
        "mae_context": "all",
        "normalise_target": _LOSSES[values.get("loss", "mse")],
    }


def _crop(edges: tuple[int, ...]) -> int:
    """Return a usual crop edge that the patches divide; theirs is not stored."""
    step = math.lcm(*edges)
    return step * max(1, round(_USUAL_CROP / step))


class Used(dict[str, Tensor]):
    """Weights by name, and which of them were asked for."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__(weights)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.asked.add(name)
        return super().__getitem__(name)


def _check_all_used(weights: Used, path: Path) -> None:
    """Refuse weights that nothing of ours has: it would be another network."""
    left = sorted(set(weights) - weights.asked)
    # A rotation that all layers share is stored with each of them as well.
    shared = any(re.match(r"(.*\.)?rotary_pos_embs\.", name) for name in weights.asked)
    if shared:
        left = [n for n in left if not re.search(r"layers\.\d+\.rotary_pos_embs\.", n)]
    if left:
        raise CheckpointError(
            f"{path / WEIGHTS} holds {left[0]} and {len(left) - 1} more that its "
            f"{CONFIG} does not speak of; the folder is mixed, or of another version."
        )


def _load(
    kind: type[M],
    config: ModelConfig,
    path: Path,
    convert: Callable[[], Mapping[str, Tensor]],
) -> M:
    try:
        weights = convert()
    except _UNREADABLE as error:
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path / WEIGHTS} does not fit its {CONFIG}: {text}"
        ) from error
    return build_checked(kind, config, weights, path / WEIGHTS)


def _check_exportable(config: ModelConfig) -> None:
    """Raise `ConfigError` for what their package would compute otherwise."""
    needed = {"rotary_position": "corner", "mae_context": "all", "mlp_ratio": 2.0}
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise ConfigError(
                f"{name} is {getattr(config, name)!r}; the authors' package computes "
                f"{value!r} only, so its numbers would differ.",
                name,
            )
    if config.num_heads == 1:
        raise ConfigError(
            "num_heads is 1; the authors' package has no output projection then, so "
            "its numbers would differ.",
            "num_heads",
        )
    if config.attention not in _ATTENTION.values():
        raise ConfigError(
            f"attention is {config.attention}, which the authors' package does not "
            "have.",
            "attention",
        )
    if config.mask_shares not in _SHARES.values():
        raise ConfigError(
            f"mask_shares is {config.mask_shares}, which the authors' package does not "
            "have.",
            "mask_shares",
        )


def _reference_config(config: ModelConfig) -> dict[str, Any]:
    """Their settings of our configuration."""
    _check_exportable(config)
    attention = {ours: name for name, ours in _ATTENTION.items()}
    shares = {ours: name for name, ours in _SHARES.items()}
    return {
        "ndim": config.ndim,
        "in_channels": config.in_channels,
        "levels": tuple(config.scale_factors),
        "patch_size": config.patch_size,
        "num_layers": config.depth,
        "dim": config.embed_dim,
        "heads": config.num_heads,
        "use_level_embed": config.level_embedding,
        "rotary_mode": config.rotary_mode,
        "rotary_base": config.rotary_base,
        "attention_mode": attention[config.attention],
        "decoder_mode": "multi",
        "loss": "norm_mse" if config.normalise_target else "mse",
        "masking_ratio": config.mask_ratio,
        "masking_mode": shares[config.mask_shares],
        "num_layers_decoder": config.mae_depth,
        "dim_decoder": config.mae_dim,
        "dropout": 0.0,
        "input_space": "real",
    }
