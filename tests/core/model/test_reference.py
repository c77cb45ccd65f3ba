"""The same numbers as the authors' package, from its own folders and back."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import CheckpointError, ConfigError, OutputError
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.masking import draw_mask
from napari_muvit.core.model.reference import (
    export_reference_checkpoint,
    load_reference_checkpoint,
    load_reference_encoder,
)

SIZE: dict[str, Any] = {
    "in_channels": 2, "levels": (1, 4), "patch_size": 4, "num_layers": 2,
    "dim": 96, "heads": 2, "num_layers_decoder": 2, "dim_decoder": 96,
}  # fmt: skip
LIMIT = 1e-4


def reference(ndim: int) -> Any:
    """Their class for a number of axes; importing it warns and logs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mae = pytest.importorskip("muvit.mae")
    logging.getLogger("muvit").handlers.clear()
    return getattr(mae, f"MuViTMAE{ndim}d")


def their_folder(folder: Path, ndim: int, **changes: Any) -> tuple[Any, Path]:
    torch.manual_seed(0)
    theirs = reference(ndim)(**{**SIZE, **changes}).eval()
    with torch.no_grad():
        # As after training: no two frequencies and no two norms alike.
        for parameter in theirs.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    theirs.save(folder)
    return theirs, folder


def example(
    ndim: int, place: float, edge: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 2, 2, *[edge] * ndim, generator=generator)
    lower = torch.tensor([[3.0] * ndim, [-9.5] * ndim]).expand(2, 2, ndim) + place
    lower = lower + torch.tensor([0.0, 2.25])[:, None, None]
    extent = torch.tensor([float(edge), 4.0 * edge])[None, :, None]
    return x, torch.stack((lower, lower + extent), dim=2)


def their_answer(
    theirs: Any, x: torch.Tensor, box: torch.Tensor, hidden: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Their loss and reconstruction for a given mask."""
    order = hidden.to(torch.uint8).argsort(dim=1, stable=True)
    visible = int((~hidden[0]).sum())
    encoder = theirs.encoder

    def given(*_args: Any, **_kwargs: Any) -> Any:
        tokens, patches, coords = encoder.patch_embed(x, box)
        rows = torch.arange(len(x))[:, None]
        keep, rest = order[:, :visible], order[:, visible:]
        levels = torch.arange(tokens.shape[1]) // (tokens.shape[1] // x.shape[1])
        tokens = tokens[rows, keep]
        for layer in encoder.layers:
            tokens = layer(
                tokens, level_idx=levels[keep], coords=coords[rows, keep],
                attention_mode=encoder.attention_mode,
            )  # fmt: skip
        return tokens, coords, patches, rows, keep, rest

    encoder.forward_masked = given
    with torch.no_grad():
        return theirs(x, box, return_all=True)  # type: ignore[no-any-return]


@pytest.mark.reference
@pytest.mark.parametrize("ndim", [2, 3, 4])
@pytest.mark.parametrize("mode", ["none", "fixed", "shared", "per_layer"])
@pytest.mark.parametrize("place", [0.0, 700.0, -3333.5])
def test_the_same_numbers(ndim: int, mode: str, place: float, tmp_path: Path) -> None:
    theirs, folder = their_folder(tmp_path / "m", ndim, rotary_mode=mode)
    ours = load_reference_checkpoint(folder)
    x, box = example(ndim, place)
    with torch.no_grad():
        tokens, _, _ = theirs.encoder(x, box)
        assert (ours.encoder(x, box) - tokens).abs().max() <= LIMIT
        features = theirs.encoder.compute_features(x, box)
        assert (ours.encoder.compute_features(x, box) - features).abs().max() <= LIMIT
    mask = draw_mask(2, 2, 2**ndim, generator=torch.Generator().manual_seed(0))
    wanted = their_answer(theirs, x, box, mask.hidden)
    found = ours(x, box, mask)
    assert found.loss.item() == pytest.approx(wanted["loss"].item(), abs=1e-5)
    pictures = ours.reconstruct(x, box, mask)
    assert (pictures.reconstruction - wanted["reco"]).abs().max() <= LIMIT
    assert torch.equal(pictures.hidden, wanted["mask"])
    # The test compares something.
    assert tokens.abs().max() > 0.1


@pytest.mark.reference
@pytest.mark.parametrize(
    "changes",
    [
        {"attention_mode": "causal"},
        {"attention_mode": "same"},
        {"loss": "norm_mse"},
        {"use_level_embed": False},
        {"patch_size": (2, 4), "levels": (1, 8)},
        {"in_channels": 2, "heads": 4, "dim": 192},
        {"dim_decoder": None},
        {"levels": (0.5, 3)},
    ],
)
def test_the_same_numbers_with_other_options(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    theirs, folder = their_folder(tmp_path / "m", 2, **changes)
    ours = load_reference_checkpoint(folder)
    x, box = example(2, 12.0)
    with torch.no_grad():
        tokens, _, _ = theirs.encoder(x, box)
    assert (ours.encoder(x, box) - tokens).abs().max() <= LIMIT
    mask = draw_mask(2, 2, tokens.shape[1] // 2, shares="equal")
    wanted = their_answer(theirs, x, box, mask.hidden)
    assert ours(x, box, mask).loss.item() == pytest.approx(
        wanted["loss"].item(), abs=1e-5
    )
    reconstruction = ours.reconstruct(x, box, mask).reconstruction
    assert (reconstruction - wanted["reco"]).abs().max() <= LIMIT


@pytest.mark.reference
@pytest.mark.parametrize("ndim", [2, 3, 4])
@pytest.mark.parametrize("mode", ["none", "fixed", "shared", "per_layer"])
def test_their_package_reads_what_we_export(
    ndim: int, mode: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        ndim=ndim, in_channels=2, scale_factors=(1, 4), patch_size=4, crop_size=8,
        embed_dim=96, depth=2, num_heads=2, mae_dim=96, rotary_mode=mode,
        rotary_position="corner", mae_context="all",
    )  # fmt: skip
    ours = MuViTMAE(config).eval()
    folder = export_reference_checkpoint(ours, tmp_path / "m")
    theirs = reference(ndim).from_folder(folder).eval()
    x, box = example(ndim, 5.0)
    with torch.no_grad():
        tokens, _, _ = theirs.encoder(x, box)
    assert (ours.encoder(x, box) - tokens).abs().max() <= LIMIT
    again = load_reference_checkpoint(folder)
    for name, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.reference
def test_an_encoder_alone(tmp_path: Path) -> None:
    theirs, folder = their_folder(tmp_path / "m", 2, decoder_mode="multi_iso")
    x, box = example(2, 0.0)
    with pytest.raises(CheckpointError, match="load_reference_encoder"):
        load_reference_checkpoint(folder)
    theirs.encoder.save(tmp_path / "e")
    with torch.no_grad():
        tokens, _, _ = theirs.encoder(x, box)
    for path in (folder, tmp_path / "e"):
        encoder = load_reference_encoder(path)
        assert (encoder(x, box) - tokens).abs().max() <= LIMIT
    assert encoder.extract_levels((1,)).config.scale_factors == (1,)


def exported(folder: Path) -> Path:
    config = ModelConfig(
        scale_factors=(1, 4), embed_dim=32, depth=2, num_heads=2, mae_dim=32,
        rotary_position="corner", mae_context="all",
    )  # fmt: skip
    return export_reference_checkpoint(MuViTMAE(config), folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 64}, "does not fit"),
        ({"dim": "wide"}, "cannot be"),
        ({"dim": None}, "cannot be"),
        ({"levels": (4, 1)}, "ascending"),
        ({"attention_mode": "random"}, "only all, causal, same can be read"),
        ({"loss": "mse_fft"}, "only mse, norm_mse"),
        ({"input_space": "fourier"}, "only real"),
        ({"decoder_mode": "single"}, "decoder_mode 'single'"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = exported(tmp_path / "m") / "config.yaml"
    values = {**yaml.unsafe_load(file.read_text()), **changes}
    file.write_text(yaml.dump(values))
    with pytest.raises(CheckpointError, match=message):
        load_reference_checkpoint(tmp_path / "m")


def test_nothing_is_run_that_a_folder_says(tmp_path: Path) -> None:
    folder = exported(tmp_path / "m")
    good = (folder / "config.yaml").read_text()
    harm = tmp_path / "harm"
    (folder / "config.yaml").write_text(
        f"{good}\nx: !!python/object/apply:pathlib.Path.touch\n"
        f"- !!python/object/apply:pathlib.Path [{harm}]\n"
    )
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_reference_checkpoint(folder)
    (folder / "config.yaml").write_text(good)
    torch.save({"a": Path}, folder / "model.pth")
    with pytest.raises(CheckpointError, match="cannot be read as tensors"):
        load_reference_checkpoint(folder)
    (folder / "model.pth").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read as tensors"):
        load_reference_checkpoint(folder)
    torch.save([1], folder / "model.pth")
    with pytest.raises(CheckpointError, match="no table of weights"):
        load_reference_checkpoint(folder)
    assert not harm.exists()


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="needs config"):
        load_reference_checkpoint(tmp_path)
    file = exported(tmp_path / "m") / "config.yaml"
    values = yaml.unsafe_load(file.read_text())
    del values["heads"]
    file.write_text(yaml.dump(values))
    with pytest.raises(CheckpointError, match="lacks 'heads'"):
        load_reference_checkpoint(tmp_path / "m")
    file.write_text("- 1\n")
    with pytest.raises(CheckpointError, match="no table of settings"):
        load_reference_checkpoint(tmp_path / "m")


def test_what_they_would_compute_otherwise_is_not_exported(tmp_path: Path) -> None:
    good = {"rotary_position": "corner", "mae_context": "all"}
    size = {"scale_factors": (1, 4), "embed_dim": 32, "depth": 1, "num_heads": 2}
    for name, value in (
        ("rotary_position", "centre"), ("mae_context", "visible"), ("mlp_ratio", 3.0),
        ("attention", "coarse_to_fine"), ("mask_shares", "equal"),
    ):  # fmt: skip
        mae = MuViTMAE(ModelConfig(**{**size, **good, name: value}))
        with pytest.raises(ConfigError) as caught:
            export_reference_checkpoint(mae, tmp_path / "m")
        assert caught.value.field == name
    encoder = MuViTMAE(ModelConfig(**{**size, **good})).encoder
    with pytest.raises(ConfigError, match="a MuViTMAE is needed"):
        export_reference_checkpoint(encoder, tmp_path / "m")  # type: ignore[arg-type]
    exported(tmp_path / "full")
    with pytest.raises(OutputError, match="holds something"):
        exported(tmp_path / "full")


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size": 0}, {"patch_size": (0, 8)}, {"dim": float("inf")},
        {"dim": 10**12}, {"dim": 32.7}, {"levels": "14"}, {"levels": 4},
        {"attention_mode": [1]}, {"loss": {}}, {"input_space": []}, {"heads": "two"},
        {"num_layers": 1}, {"num_layers_decoder": 1}, {"use_level_embed": False},
        {"rotary_mode": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_do_not_fit_the_weights_are_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    # Asking for less than there is gave another network without a word.
    folder = exported(tmp_path / "m")
    file = folder / "config.yaml"
    values = yaml.unsafe_load(file.read_text())
    assert set(changes) <= set(values)
    file.write_text(yaml.dump({**values, **changes}))
    with pytest.raises(CheckpointError) as error:
        load_reference_checkpoint(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mask_token", 3), ("mask_token", "text"), ("mask_token", torch.tensor(1.0)),
        ("encoder.level_embed", torch.zeros(2, 2)),
        ("final.bias", torch.full((16,), float("nan"))),
        ("final.bias", torch.zeros(16, dtype=torch.int64)),
        ("something.new", torch.zeros(3)),
    ],
    ids=lambda v: str(v)[:20],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(
    name: str, value: object, tmp_path: Path
) -> None:
    folder = exported(tmp_path / "m")
    weights = torch.load(folder / "model.pth", weights_only=True)
    torch.save({**weights, name: value}, folder / "model.pth")
    with pytest.raises(CheckpointError) as error:
        load_reference_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_yaml_in_yaml_in_yaml(tmp_path: Path) -> None:
    folder = exported(tmp_path / "m")
    (folder / "config.yaml").write_text("a: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_reference_checkpoint(folder)


@pytest.mark.parametrize("rotary_mode", ["per_layer", "shared", "fixed"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_heads_that_do_not_divide_among_the_axes(
    ndim: int, rotary_mode: str, tmp_path: Path
) -> None:
    # 11 or 17 pairs of a head: the rest goes to the first axis.
    dim = {2: 44, 3: 68}[ndim]
    theirs, folder = their_folder(
        tmp_path / "m", ndim, dim=dim, dim_decoder=dim, rotary_mode=rotary_mode
    )
    ours = load_reference_encoder(folder)
    x = torch.rand(1, 2, 2, *[8] * ndim)
    box = torch.zeros(1, 2, 2, ndim)
    box[0, 0], box[0, 1, 1] = torch.tensor([[4.0] * ndim, [12.0] * ndim]), 32.0
    with torch.no_grad():
        wanted = theirs.encoder(x, box)[0]
        assert (ours(x, box) - wanted).abs().max() <= LIMIT


@pytest.mark.parametrize("ndim", [2, 3])
def test_one_head_has_no_output_projection(ndim: int, tmp_path: Path) -> None:
    theirs, folder = their_folder(tmp_path / "m", ndim, heads=1, dim=32, dim_decoder=32)
    ours = load_reference_checkpoint(folder)
    x = torch.rand(1, 2, 2, *[8] * ndim)
    box = torch.zeros(1, 2, 2, ndim)
    box[0, 0], box[0, 1, 1] = torch.tensor([[4.0] * ndim, [12.0] * ndim]), 32.0
    with torch.no_grad():
        wanted = theirs.encoder(x, box)[0]
        assert (ours.encoder(x, box) - wanted).abs().max() <= LIMIT
    with pytest.raises(ConfigError, match="no output projection"):
        export_reference_checkpoint(ours, tmp_path / "back")


def test_an_encoder_does_not_depend_on_settings_of_the_autoencoder(
    tmp_path: Path,
) -> None:
    folder = exported(tmp_path / "m")
    values = yaml.unsafe_load((folder / "config.yaml").read_text())
    values |= {"masking_ratio": 1.0, "num_layers_decoder": 0}
    (folder / "config.yaml").write_text(yaml.dump(values))
    assert load_reference_encoder(folder).config.depth == 2
