"""Models that can be started from, and those that cannot."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import CheckpointError
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.encoder import MuViTEncoder
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.reference import export_reference_checkpoint
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model
from napari_muvit.core.model.source import open_source, read_source_header

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=16, embed_dim=16, depth=1,
    num_heads=2, pyramid_channels=(8, 8, 8, 8), mae_dim=16,
)  # fmt: skip
KINDS = {"segmenter": MuViTSegmenter, "mae": MuViTMAE, "encoder": MuViTEncoder}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["object", "compiled", "folder"])
def test_every_kind_in_every_form(kind: str, form: str, tmp_path: Path) -> None:
    model = KINDS[kind](CONFIG)
    source: Any = model
    if form == "compiled":
        source = torch.compile(model, backend="eager")
    elif form == "folder":
        source = save_model(model, tmp_path / "m")
    header = read_source_header(source)
    assert header.kind == type(model).__name__
    assert header.config == CONFIG
    found = open_source(source)
    assert found.kind == header.kind
    prefix = "encoder." if kind == "encoder" else ""
    wanted = {prefix + name: value for name, value in model.state_dict().items()}
    assert set(found.weights) == set(wanted)
    assert all(torch.equal(found.weights[name], wanted[name]) for name in wanted)


def test_a_folder_of_the_authors_is_told_from_ours(tmp_path: Path) -> None:
    theirs = dataclasses.replace(
        CONFIG, rotary_position="corner", mae_context="all", embed_dim=32, mae_dim=32
    )
    mae = MuViTMAE(theirs)
    folder = export_reference_checkpoint(mae, tmp_path / "theirs")
    assert read_source_header(folder).kind == "MuViTMAE"
    found = open_source(folder)
    assert found.of_the_authors
    assert all(torch.equal(v, found.weights[k]) for k, v in mae.state_dict().items())
    # A settings file of the same name beside our weights makes no folder of theirs.
    ours = save_model(build_model(CONFIG), tmp_path / "ours")
    (ours / "config.yaml").write_text("command: finetune\n")
    assert read_source_header(ours).kind == "MuViTSegmenter"
    assert not open_source(ours).of_the_authors


def damage_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def damage_settings(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    # The copy in the weights is of no help where it cannot be read either.
    (folder / "model.safetensors").write_bytes(b"")


def make_newer(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["format_version"] = 99
    del content["id"]
    (folder / "config.json").write_text(json.dumps(content))
    file = folder / "model.safetensors"
    save_file(load_file(file), file)


def make_infinite(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    next(v for v in weights.values() if v.is_floating_point()).fill_(float("nan"))
    save_file(weights, file)


def take_a_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights.pop("encoder.level_embedding")
    save_file(weights, file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, "cannot be read"),
        (damage_settings, "cannot be read as a model configuration"),
        (make_newer, "format version 99, .* Update napari-muvit"),
        (make_infinite, "not finite"),
        (take_a_weight, "encoder.level_embedding is missing"),
    ],
)
def test_a_bad_folder_is_one_line(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = save_model(build_model(CONFIG), tmp_path / "m")
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_source(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half/config.yaml").write_text("dim: 3\n")
    (tmp_path / "file.pth").write_bytes(b"")
    cases: list[tuple[Any, str]] = [
        (tmp_path / "none", "does not exist"),
        (str(tmp_path / "none\0"), "does not exist"),
        (tmp_path / "file.pth", "is a file"),
        (tmp_path / "empty", "neither model.safetensors and config.json"),
        (tmp_path / "half", "nor model.pth and config.yaml"),
        (torch.nn.Linear(1, 1), "A Linear was given"),
        (3, "A int was given"),
    ]
    for source, message in cases:
        for read in (read_source_header, open_source):
            with pytest.raises(CheckpointError, match=message) as caught:
                read(source)
            assert "\n" not in str(caught.value)


def test_an_object_that_has_failed_is_refused() -> None:
    model = build_model(CONFIG)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="the given model holds numbers"):
        open_source(model)
