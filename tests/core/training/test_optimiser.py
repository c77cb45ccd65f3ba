"""What decays, and what a state file keeps of the optimiser."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import CheckpointError
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import finetune, pretrain, state
from napari_muvit.core.training.base_module import TrainingModule
from napari_muvit.core.training.mae_module import PretrainModule
from napari_muvit.core.training.modules import FineTuneModule
from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.state import RunState, read_state, write_state

Slide = tuple[np.ndarray, np.ndarray]
Hashes = Callable[[Path], list[str]]
CONFIG = TrainingConfig(
    steps=6, steps_per_epoch=2, batch_size=4, validation_crops=4, device="cpu",
    precision="32-true", num_threads=1,
)  # fmt: skip
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


def module_of(kind: str, config: ModelConfig) -> TrainingModule:
    if kind == "mae":
        return PretrainModule(MuViTMAE(config), CONFIG)
    return FineTuneModule(build_model(config), CONFIG)


@pytest.mark.parametrize("kind", ["pyramid", "unetr", "mask2former", "mae"])
@pytest.mark.parametrize("rotary_mode", ["per_layer", "shared"])
def test_only_the_weights_of_layers_decay(
    tiny_config: ModelConfig, kind: str, rotary_mode: Any
) -> None:
    # Level embeddings, mask tokens and queries did too: they are tables of vectors.
    fields: dict[str, Any] = {"rotary_mode": rotary_mode}
    if kind in ("unetr", "mask2former"):
        fields |= {"decoder": kind, "decoder_dim": 16, "context_skip": False,
                   "level_heads": False}  # fmt: skip
    module = module_of(kind, dataclasses.replace(tiny_config, **fields))
    groups = module.configure_optimizers().param_groups
    decaying = {p for g in groups if g["weight_decay"] for p in g["params"]}
    found = [p for group in groups for p in group["params"]]
    assert len(found) == len(set(found))
    names = {p: name for name, p in module.network.named_parameters()}
    assert set(found) == set(names)
    wanted = {
        p
        for layer in module.network.modules()
        for name, p in layer.named_parameters(recurse=False)
        if isinstance(layer, LAYERS) and name == "weight"
    }
    assert {names[p] for p in wanted} <= {names[p] for p in decaying}
    rest = {names[p].rpartition(".")[2] for p in set(found) - decaying}
    tables = {"mae": "mask_tokens", "mask2former": "queries"}
    assert {"bias", "level_embedding", *filter(None, [tables.get(kind)])} <= rest
    for name in ("level_embedding", "mask_tokens", "queries", "frequencies"):
        assert name not in {names[p].rpartition(".")[2] for p in decaying}
    assert all(p.ndim > 1 for p in decaying)


def as_first_format(file: Path, module: TrainingModule) -> None:
    """Rewrite a state as the first version did: by number, matrices first."""
    found = read_state(file)
    numbers: dict[str, int] = {}
    names = {p: name for name, p in module.network.named_parameters()}
    for modules, _ in module.parts():
        parameters = [p for m in modules for p in m.parameters()]
        for matrices in (True, False):
            for p in parameters:
                if (p.ndim > 1) is matrices:
                    numbers[names[p]] = len(numbers)
    tensors = {}
    for key, value in found.tensors.items():
        if key.startswith("optimizer."):
            name, entry = key.removeprefix("optimizer.").rsplit(".", 1)
            key = f"optimizer.{numbers[name]}.{entry}"
        tensors[key] = value
    assert len(tensors) == len(found.tensors) > 3 * len(numbers)
    facts = {k: v for k, v in found.facts.items() if k != "format_version"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "FORMAT_VERSION", 1)
        write_state(file, RunState(tensors=tensors, facts=facts))


@pytest.mark.parametrize("kind", ["pyramid", "mae"])
def test_a_state_of_the_first_format_goes_on_to_the_same_weights(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path, hashes: Hashes, kind: str
) -> None:
    def train(name: str, **options: Any) -> None:
        options |= {"model": tiny_config, "out": tmp_path / name}
        if kind == "mae":
            pretrain([slide[0]], CONFIG, **options)
        else:
            finetune([slide[0]], [slide[1]], CONFIG, **options)

    seen: list[Progress] = []
    train("new", on_progress=seen.append,
          should_stop=lambda: sum(e.stage == "train" for e in seen) >= 3)  # fmt: skip
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    file = RunFolder(tmp_path / "old").state
    as_first_format(file, module_of(kind, tiny_config))
    facts = read_state(file).facts
    assert facts["format_version"] == 1
    train("whole")
    for name in ("new", "old"):
        train(name, resume=True)
        assert hashes(tmp_path / name) == hashes(tmp_path / "whole")


def test_a_state_of_a_later_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "FORMAT_VERSION", 3)
        write_state(file, RunState(tensors={}, facts={}))
    with pytest.raises(CheckpointError, match=r"has the format 3.*up to 2"):
        read_state(file)
