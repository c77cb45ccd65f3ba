from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import CheckpointError, OutputError
from napari_muvit.core.model import checkpoint
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
        ({"kind": "MuViTMAE"}, "autoencoder; a segmentation model is needed: "),
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
    with pytest.raises(
        CheckpointError,
        match="is an encoder; a masked autoencoder is needed: `napari-muvit pretrain",
    ):
        load_model(tmp_path / "encoder", MuViTMAE)
    with pytest.raises(
        CheckpointError,
        match="is a masked autoencoder; a segmentation model is needed: `napari",
    ):
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


def test_a_killed_overwrite_leaves_one_of_the_two_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Weights were replaced first, and a folder that was cut off there was "mixed".
    old = build_model(CONFIG)
    new = build_model(ModelConfig(**{
        **CONFIG.to_dict(), "num_classes": 2, "class_names": ("x", "y"),
        "class_colors": None, "background": None,
    }))  # fmt: skip
    names = ("model.safetensors", "README.md", "config.json")
    for count in range(4):
        folder = save_model(old, tmp_path / str(count))
        real, done = checkpoint._replace, []

        def dies(
            path: Path,
            content: bytes,
            count: int = count,
            real: Any = real,
            done: list[str] = done,
        ) -> None:
            if len(done) == count:
                raise OSError(28, "No space left on device")
            done.append(path.name)
            real(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "_replace", dies)
            if count < 3:
                with pytest.raises(OutputError, match="No space left"):
                    save_model(new, folder)
            else:
                save_model(new, folder)
        assert tuple(done) == names[:count]
        wanted = old if count == 0 else new
        again = load_model(folder)
        assert again.config == wanted.config
        assert weights_hash(again) == weights_hash(wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": []}, {"kind": {}}, {"kind": None}, {"format_version": True},
        {"format_version": 0}, {"format_version": -3}, {"format_version": "1"},
        {"format_version": 1}, {"config": None}, {"config": []},
        {"embed_dim": 10**12}, {"scale_factors": [1, 10**400]},
        {"pixel_size": 10**400}, {"mlp_ratio": 1e308}, {"mlp_ratio": 1e300},
        {"depth": 10**9},
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused(
    change: dict[str, Any], model: MuViTSegmenter, tmp_path: Path
) -> None:
    folder = save_model(model, tmp_path / "m")
    file = folder / "config.json"
    content = json.loads(file.read_text())
    if set(change) <= set(content):
        content |= change
    else:
        content["config"] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    file.write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(folder)


def test_weights_that_are_no_numbers_are_refused(
    model: MuViTSegmenter, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.encoder.blocks[0].mlp[0].bias[3] = float("nan")  # type: ignore[union-attr,index,operator]
    save_model(model, tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"not finite, in encoder\.blocks\.0"):
        load_model(tmp_path / "m")


def test_compiled_models_subclasses_and_bfloat16(
    model: MuViTSegmenter, tmp_path: Path
) -> None:
    class Mine(MuViTSegmenter):
        pass

    # What torch.compile returns keeps the module so.
    compiled: Any = SimpleNamespace(_orig_mod=model)
    save_model(compiled, tmp_path / "compiled")
    assert weights_hash(load_model(tmp_path / "compiled")) == weights_hash(model)
    save_model(Mine(CONFIG), tmp_path / "mine")
    assert read_header(tmp_path / "mine").kind == "MuViTSegmenter"
    save_model(model.bfloat16(), tmp_path / "half")
    assert len(weights_hash(model)) == 64
    again = load_model(tmp_path / "half")
    assert all(p.dtype == torch.float32 for p in again.parameters())
    with pytest.raises(CheckpointError, match="A Linear was given"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "linear")  # type: ignore[arg-type]


def test_a_configuration_that_was_edited(model: MuViTSegmenter, tmp_path: Path) -> None:
    folder = save_model(model, tmp_path / "m")
    file = folder / "config.json"
    content = json.loads(file.read_text())
    content["config"]["class_names"] = ["background", "x", "y"]
    # As Windows editors write it; and without the number that tells a cut-off folder.
    file.write_text(json.dumps(content), encoding="utf-8-sig")
    assert load_model(folder).config.names == ("background", "x", "y")
    del content["id"]
    file.write_text(json.dumps(content))
    assert load_model(folder).config.names == ("background", "x", "y")


def test_weights_with_metadata_of_another_tool(
    model: MuViTSegmenter, tmp_path: Path
) -> None:
    folder = save_model(model, tmp_path / "m")
    weights = checkpoint.read_weights(folder)
    metadata = {"config": json.dumps({"hidden_size": 768})}
    save_file(weights, folder / "model.safetensors", metadata=metadata)
    assert load_model(folder).config == CONFIG
