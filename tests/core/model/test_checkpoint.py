from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import CheckpointError, OutputError
from napari_muvit.core.model.checkpoint import (
    load_model,
    read_config,
    read_header,
    save_model,
    weights_hash,
)
from napari_muvit.core.model.encoder import MuViTEncoder
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=32, embed_dim=32, depth=1,
    num_heads=2, num_classes=3, class_names=("background", "a", "b"), pixel_size=0.5,
    pyramid_channels=(8, 8, 8, 8), background_value=(0.25,),
)  # fmt: skip


@pytest.fixture
def model() -> MuViTSegmenter:
    torch.manual_seed(0)
    return build_model(CONFIG).eval()


def test_round_trip(model: MuViTSegmenter, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m", metrics={"mDSC": 0.5})
    again = load_model(tmp_path / "m")
    assert again.config == CONFIG
    assert weights_hash(again) == weights_hash(model)
    x, box = torch.rand(1, 2, 1, 32, 32), torch.tensor([[[[0.0, 0], [32, 32]]] * 2])
    box[:, 1, 1] = 128
    assert torch.equal(model(x, box), again(x, box))
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert "background, a, b" in (tmp_path / "m" / "README.md").read_text()


def test_refusals(model: MuViTSegmenter, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model folder"):
        load_model(tmp_path)
    folder = save_model(model, tmp_path / "m")
    file = folder / "config.json"
    content = json.loads(file.read_text())
    for change, message in [
        ({"format_version": 99}, "Update napari-muvit"),
        ({"kind": "Something"}, "holds a Something"),
        ({"kind": "MuViTMAE"}, "holds a MuViTMAE; a MuViTSegmenter is needed"),
        ({"config": {**content["config"], "magic": 1}}, "does not know magic"),
        ({"config": {**content["config"], "embed_dim": 64}}, "does not fit"),
        ({"config": {**content["config"], "in_channels": 3,
                     "background_value": None}}, "does not fit"),
    ]:  # fmt: skip
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(CheckpointError, match=message):
            load_model(folder)
    file.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_config(folder)
    file.write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(folder)


def test_every_part_survives_a_folder(model: MuViTSegmenter, tmp_path: Path) -> None:
    torch.manual_seed(0)
    mae = MuViTMAE(dataclasses.replace(CONFIG, mae_dim=16)).eval()
    x, box = torch.rand(1, 2, 1, 32, 32), torch.tensor([[[[0.0, 0], [32, 32]]] * 2])
    parts: dict[str, MuViTMAE | MuViTEncoder | MuViTSegmenter] = {
        "mae": mae, "encoder": mae.encoder, "segmenter": model,
    }  # fmt: skip
    for name, part in parts.items():
        folder = save_model(part, tmp_path / name)
        assert read_header(folder).kind == type(part).__name__
        again = load_model(folder, type(part))
        assert weights_hash(again) == weights_hash(part)
        # Of any folder, the encoder alone.
        encoder = load_model(folder, MuViTEncoder)
        whole = part if isinstance(part, MuViTEncoder) else part.encoder
        assert torch.equal(encoder(x, box), whole(x, box))
        card = (folder / "README.md").read_text()
        assert ("classes:" in card) == (name == "segmenter")
    with pytest.raises(CheckpointError, match="holds a MuViTEncoder; a MuViTMAE is"):
        load_model(tmp_path / "encoder", MuViTMAE)
    with pytest.raises(CheckpointError, match="holds a MuViTMAE; a MuViTSegmenter is"):
        load_model(tmp_path / "mae")


def test_output_that_cannot_be_written(model: MuViTSegmenter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        save_model(model, tmp_path / "file" / "m")


def test_a_full_disk_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OutputError, match="No space left"):
        save_model(build_model(CONFIG), tmp_path / "m")
    assert not (tmp_path / "m").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(OutputError, match="No space left"):
        save_model(build_model(CONFIG), tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_the_configuration_file_is_json_for_everybody(tmp_path: Path) -> None:
    # Python writes NaN, which no other reader of JSON knows.
    history = {"history": [{"loss": float("nan")}]}
    save_model(build_model(CONFIG), tmp_path, training=history)
    stored = json.loads(
        (tmp_path / "config.json").read_text(), parse_constant=pytest.fail
    )
    assert stored["training"]["history"] == [{"loss": None}]
