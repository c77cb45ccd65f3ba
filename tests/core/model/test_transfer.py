from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import CheckpointError
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.encoder import MuViTEncoder
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model
from napari_muvit.core.model.transfer import (
    load_encoder_into,
    load_matching,
    take_matching,
)

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=32, embed_dim=32, depth=1,
    num_heads=2, num_classes=3, pyramid_channels=(8, 8, 8, 8), mae_dim=16,
)  # fmt: skip
FOUR_LEVELS = dataclasses.replace(CONFIG, scale_factors=(1, 2, 4, 16))


@pytest.fixture
def pretrained() -> MuViTMAE:
    torch.manual_seed(1)
    return MuViTMAE(FOUR_LEVELS)


@pytest.fixture
def segmenter() -> MuViTSegmenter:
    torch.manual_seed(0)
    return build_model(CONFIG).eval()


def test_a_pretrained_encoder_of_more_levels(
    pretrained: MuViTMAE, segmenter: MuViTSegmenter, tmp_path: Path
) -> None:
    decoder = {k: v.clone() for k, v in segmenter.decoder.state_dict().items()}
    folder = save_model(pretrained, tmp_path / "m")
    report = load_encoder_into(segmenter, folder)
    wanted = pretrained.encoder.extract_levels((1, 4)).state_dict()
    for name, value in segmenter.encoder.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    for name, value in segmenter.decoder.state_dict().items():
        assert torch.equal(value, decoder[name]), name
    assert all(name.startswith("encoder.") for name in report.taken)
    assert all(name.startswith("decoder.") for name in report.fresh)
    assert len(report.taken) == len(wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 3}, "has in_channels 1, this model needs 3"),
        ({"patch_size": 4, "pyramid_channels": (8, 8, 8)}, "has patch"),
        ({"embed_dim": 64}, "has embed_dim 32, this model needs 64"),
        ({"rotary_position": "corner"}, "rotary_position centre"),
        ({"scale_factors": (1, 8)}, "levels 1, 2, 4, 16, this model needs 1, 8"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(
    changes: dict[str, object], message: str, pretrained: MuViTMAE
) -> None:
    model = build_model(ModelConfig(**{**CONFIG.to_dict(), **changes}))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_encoder_into(model, pretrained.encoder)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_load_matching_says_what_it_took(
    segmenter: MuViTSegmenter, tmp_path: Path
) -> None:
    save_model(segmenter, tmp_path / "m")
    changes = {"num_classes": 5, "class_names": None, "class_colors": None}
    other = build_model(ModelConfig(**{**CONFIG.to_dict(), **changes}))
    report = load_matching(other, tmp_path / "m")
    assert all(".head." in name for name in report.fresh)
    assert torch.equal(other.encoder.level_embedding, segmenter.encoder.level_embedding)


def test_levels_are_taken_by_their_factor(
    pretrained: MuViTMAE, segmenter: MuViTSegmenter, tmp_path: Path
) -> None:
    # By their index, factor 4 would have got the weights of factor 2.
    load_matching(segmenter, save_model(pretrained, tmp_path / "m"))
    theirs, ours = pretrained.encoder, segmenter.encoder
    assert ours.level_embedding is not None
    assert theirs.level_embedding is not None
    assert torch.equal(ours.level_embedding[1], theirs.level_embedding[2])
    for level, source in ((0, 0), (1, 2)):
        mine, other = (
            encoder.patch_embeddings[index].state_dict()
            for encoder, index in ((ours, level), (theirs, source))
        )
        assert all(torch.equal(v, other[k]) for k, v in mine.items())


def test_a_missing_level_takes_the_nearest(pretrained: MuViTMAE) -> None:
    model = build_model(dataclasses.replace(CONFIG, scale_factors=(1, 20)))
    report = take_matching(
        model, pretrained.state_dict(), FOUR_LEVELS.scale_factors, "it"
    )
    mine, theirs = (
        e.patch_embeddings[i].state_dict()
        for e, i in ((model.encoder, 1), (pretrained.encoder, 3))
    )
    assert all(torch.equal(v, theirs[k]) for k, v in mine.items())
    assert not any(name.startswith("encoder.") for name in report.fresh)


def test_a_folder_with_an_encoder_alone(
    pretrained: MuViTMAE, segmenter: MuViTSegmenter, tmp_path: Path
) -> None:
    load_matching(segmenter, save_model(pretrained.encoder, tmp_path / "m"))
    mine, theirs = (
        e.blocks[0].state_dict() for e in (segmenter.encoder, pretrained.encoder)
    )
    assert all(torch.equal(v, theirs[k]) for k, v in mine.items())


def test_nothing_that_fits_is_an_error(segmenter: MuViTSegmenter) -> None:
    other = MuViTEncoder(dataclasses.replace(CONFIG, embed_dim=48, num_heads=4))
    with pytest.raises(CheckpointError, match="No parameter of it fits"):
        take_matching(segmenter, other.state_dict(), (1, 4), "it")


def test_counters_alone_are_no_start(segmenter: MuViTSegmenter) -> None:
    # The counter of a batch norm is a single number and fitted any model.
    changes = {"embed_dim": 64, "pyramid_channels": (16, 16, 16, 16), "num_classes": 5}
    other = build_model(dataclasses.replace(
        CONFIG, **changes, class_names=None, class_colors=None, rotary_mode="none",
        num_queries=None,
    ))  # fmt: skip
    weights = {k: v for k, v in other.state_dict().items() if k.startswith("decoder.")}
    with pytest.raises(CheckpointError, match="No parameter of it fits"):
        take_matching(segmenter, weights, (1, 4), "it")


@pytest.mark.parametrize("decoder", ["pyramid", "unetr"])
def test_levels_of_a_decoder_are_taken_by_their_factor_too(decoder: str) -> None:
    whole = build_model(
        dataclasses.replace(FOUR_LEVELS, decoder=decoder, level_heads=True)
    )
    part = build_model(dataclasses.replace(CONFIG, decoder=decoder, level_heads=True))
    take_matching(part, whole.state_dict(), FOUR_LEVELS.scale_factors, "it")
    levels = [part.decoder.levels, whole.decoder.levels]
    if decoder == "unetr":
        levels += [part.decoder.branches.branches, whole.decoder.branches.branches]  # type: ignore[union-attr]
    for mine, theirs in zip(levels[::2], levels[1::2], strict=True):
        wanted = theirs[2].state_dict()
        for name, value in mine[1].state_dict().items():
            if name in wanted:
                assert torch.equal(value, wanted[name]), name


def test_what_would_mean_something_else_is_not_taken(
    segmenter: MuViTSegmenter, tmp_path: Path
) -> None:
    folder = save_model(segmenter, tmp_path / "m")
    heads = build_model(dataclasses.replace(CONFIG, num_heads=4))
    taken = load_matching(heads, folder).taken
    assert not any(".attention." in name for name in taken)
    turned = build_model(
        dataclasses.replace(CONFIG, class_names=("c", "b", "a"), class_colors=None)
    )
    taken = load_matching(turned, folder).taken
    assert not any(".head." in name for name in taken)
    assert any("encoder.blocks" in name for name in taken)
    with torch.no_grad():
        segmenter.encoder.level_embedding[0, 0] = float("inf")  # type: ignore[index]
    with pytest.raises(CheckpointError, match="not finite"):
        load_matching(turned, save_model(segmenter, tmp_path / "bad"))
