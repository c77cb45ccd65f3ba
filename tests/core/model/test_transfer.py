from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import CheckpointError
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.encoder import MuViTEncoder
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model
from napari_muvit.core.model.source import open_source
from napari_muvit.core.model.transfer import (
    load_encoder_into,
    load_matching,
    take_over,
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
        ({"in_channels": 3}, "in_channels 1 there and 3 here"),
        ({"patch_size": 4, "pyramid_channels": (8, 8, 8)}, "patch 8 x 8 there"),
        ({"embed_dim": 64}, "embed_dim 32 there and 64 here"),
        ({"rotary_position": "corner"}, "rotary_position centre there"),
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
    report = take_over(model, open_source(pretrained))
    assert report.levels == ((1, 1), (20, 16))
    assert "(levels 1, 20 from 16)" in report.summary()
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
    before = {k: v.clone() for k, v in segmenter.state_dict().items()}
    message = (
        "No parameter of the given model fits the new model: embed_dim 48 there and "
        "32 here; num_heads 4 there and 2 here"
    )
    with pytest.raises(CheckpointError, match=message):
        take_over(segmenter, open_source(other))
    assert all(torch.equal(v, before[k]) for k, v in segmenter.state_dict().items())


def test_frequencies_alone_are_no_start(segmenter: MuViTSegmenter) -> None:
    # Heads of the same width in networks of other widths: only RoPE's numbers fit.
    other = MuViTMAE(dataclasses.replace(CONFIG, embed_dim=64, num_heads=4, mae_dim=32))
    with pytest.raises(CheckpointError, match="No parameter of"):
        take_over(segmenter, open_source(other))


def test_counters_alone_are_no_start(segmenter: MuViTSegmenter) -> None:
    # The counter of a batch norm is a single number and fitted any model.
    changes = {"embed_dim": 64, "pyramid_channels": (16, 16, 16, 16), "num_classes": 5}
    other = build_model(dataclasses.replace(
        CONFIG, **changes, class_names=None, class_colors=None, rotary_mode="none",
        num_queries=None,
    ))  # fmt: skip
    with pytest.raises(CheckpointError, match="No parameter of"):
        take_over(segmenter, open_source(other))


@pytest.mark.parametrize("decoder", ["pyramid", "unetr"])
def test_levels_of_a_decoder_are_taken_by_their_factor_too(decoder: str) -> None:
    whole = build_model(
        dataclasses.replace(FOUR_LEVELS, decoder=decoder, level_heads=True)
    )
    part = build_model(dataclasses.replace(CONFIG, decoder=decoder, level_heads=True))
    take_over(part, open_source(whole))
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


def head_of(model: MuViTSegmenter) -> torch.Tensor:
    name = next(n for n in model.state_dict() if n.endswith("head.weight"))
    return model.state_dict()[name]


@pytest.mark.parametrize("decoder", ["pyramid", "unetr", "mask2former"])
def test_heads_go_by_the_name_of_their_class(decoder: str) -> None:
    names = {"class_colors": None, "background": None, "decoder": decoder}
    old = build_model(dataclasses.replace(
        CONFIG, class_names=("background", "tumour", "necrosis"), context_skip=None,
        level_heads=None, **names,
    ))  # fmt: skip
    new = build_model(dataclasses.replace(
        old.config, class_names=("Background", "stroma", "Tumour "), **names,
    ))  # fmt: skip
    before = head_of(new).clone()
    report = load_matching(new, old)
    assert torch.equal(head_of(new)[0], head_of(old)[0])
    assert torch.equal(head_of(new)[2], head_of(old)[1])
    assert torch.equal(head_of(new)[1], before[1])
    assert not torch.equal(head_of(new)[1], head_of(old)[2])
    assert report.kept_classes == ("Background", "Tumour ")
    assert report.new_classes == ("stroma",)
    assert report.lost_classes == ("necrosis",)
    assert report.fresh == ()
    assert report.mixed
    assert all(".head." in name for name in report.mixed)
    assert report.summary() == (
        "Start: the given model (segmentation model, levels 1, 4): encoder taken over "
        "whole (levels 1, 4); decoder taken over; heads kept for 'Background', "
        "'Tumour ', new for 'stroma'; no more 'necrosis'."
    )


@pytest.mark.parametrize("decoder", ["pyramid", "unetr", "mask2former"])
def test_the_same_classes_in_another_order(decoder: str) -> None:
    changes = {"class_colors": None, "context_skip": None, "level_heads": None}
    old = build_model(dataclasses.replace(
        CONFIG, decoder=decoder, class_names=("a", "b", "c"), **changes
    ))  # fmt: skip
    new = build_model(
        dataclasses.replace(old.config, class_names=("c", "a", "b"), class_colors=None)
    )
    report = load_matching(new, old)
    assert torch.equal(head_of(new), head_of(old)[[2, 0, 1]])
    assert report.fresh == report.mixed == report.new_classes == ()
    assert sorted(report.taken) == sorted(new.state_dict())
    assert "decoder taken over whole." in report.summary()


def test_many_more_queries_than_before_leave_the_head_new() -> None:
    config = dataclasses.replace(
        CONFIG, decoder="mask2former", context_skip=None, level_heads=None
    )
    more = ModelConfig(**{
        **config.to_dict(), "num_classes": 20, "class_names": None,
        "class_colors": None, "num_queries": None,
    })  # fmt: skip
    report = load_matching(build_model(more), build_model(config))
    assert report.kept_classes == ()
    assert "decoder.queries" in report.fresh
    assert "heads new for 'class 1'" in report.summary()
    assert "'class 5', 15 more" in report.summary()


def test_other_pixels_leave_the_patch_embeddings_new() -> None:
    # One channel of 8 x 8 pixels has as many numbers as four of 4 x 4.
    wide = dataclasses.replace(
        CONFIG, in_channels=4, patch_size=4, pyramid_channels=(8, 8, 8)
    )
    source, model = MuViTMAE(wide), build_model(CONFIG)
    before = model.encoder.patch_embeddings[0][0].weight.clone()  # type: ignore[index]
    report = load_matching(model, source)
    assert torch.equal(model.encoder.patch_embeddings[0][0].weight, before)  # type: ignore[index]
    theirs = source.encoder.blocks[0].state_dict()
    for name, value in model.encoder.blocks[0].state_dict().items():
        assert torch.equal(value, theirs[name])
    assert not report.encoder_is_whole
    assert report.summary() == (
        "Start: the given model (masked autoencoder, levels 1, 4): encoder taken over "
        "(levels 1, 4) but for its patch embeddings, which are new (in_channels 4 "
        "there and 1 here, patch 4 x 4 there and 8 x 8 here); decoder new."
    )


def test_a_decoder_of_another_kind_is_new(segmenter: MuViTSegmenter) -> None:
    unetr = dataclasses.replace(
        CONFIG, decoder="unetr", decoder_dim=8, context_skip=True, level_heads=True
    )
    model = build_model(unetr)
    report = load_matching(model, segmenter)
    assert all(name.startswith("encoder.") for name in report.taken)
    assert report.encoder_is_whole
    assert report.summary().endswith("decoder new (pyramid there, unetr here).")


def test_part_of_an_encoder(pretrained: MuViTMAE) -> None:
    model = build_model(dataclasses.replace(CONFIG, depth=2))
    report = load_matching(model, pretrained)
    assert {n.split(".")[2] for n in report.fresh if "encoder.blocks" in n} == {"1"}
    assert not report.encoder_is_whole
    assert "depth 1 there and 2 here" in report.summary()


def test_an_autoencoder_goes_on_with_some_of_its_levels(pretrained: MuViTMAE) -> None:
    model = MuViTMAE(CONFIG)
    report = load_matching(model, pretrained)
    assert report.fresh == ()
    assert torch.equal(model.mask_tokens[1], pretrained.mask_tokens[2])
    theirs = pretrained.decoders[2].state_dict()
    for name, value in model.decoders[1].state_dict().items():
        assert torch.equal(value, theirs[name]), name
    assert report.summary() == (
        "Start: the given model (masked autoencoder, levels 1, 2, 4, 16): encoder "
        "taken over whole (levels 1, 4); MAE decoders taken over whole."
    )


def test_an_autoencoder_from_a_segmenter(segmenter: MuViTSegmenter) -> None:
    model = MuViTMAE(CONFIG)
    before = model.head.weight.clone()
    report = load_matching(model, segmenter)
    assert torch.equal(model.head.weight, before)
    assert torch.equal(
        model.encoder.blocks[0].mlp[0].weight,  # type: ignore[union-attr,index]
        segmenter.encoder.blocks[0].mlp[0].weight,  # type: ignore[union-attr,index]
    )
    assert "MAE decoders new" in report.summary()


def test_other_axes_are_refused(pretrained: MuViTMAE) -> None:
    # Frequencies are shared out over the axes: the same shapes, another meaning.
    volume = MuViTMAE(dataclasses.replace(CONFIG, ndim=3, crop_size=16))
    with pytest.raises(CheckpointError, match="has 2 spatial axes, the new model 3"):
        load_matching(volume, pretrained)


CONFIGS = st.builds(
    lambda patch, names, **fields: ModelConfig(
        **fields, patch_size=patch, crop_size=16, decoder_dim=16, mae_dim=32,
        num_classes=len(names), class_names=tuple(names),
        pyramid_channels=(8, 8, 8) if patch == 4 else (8, 8, 8, 8),
    ),
    patch=st.sampled_from((4, 8, (4, 8))),
    names=st.lists(st.sampled_from("abcd"), min_size=2, max_size=3, unique=True),
    decoder=st.sampled_from(("pyramid", "unetr", "mask2former")),
    scale_factors=st.sampled_from(((1,), (1, 4), (1, 8, 32))),
    in_channels=st.sampled_from((1, 3)),
    embed_dim=st.sampled_from((32, 48)),
    depth=st.sampled_from((1, 2)),
    num_heads=st.sampled_from((2, 4)),
    rotary_mode=st.sampled_from(("per_layer", "shared", "none")),
    level_embedding=st.booleans(),
)  # fmt: skip


@settings(max_examples=25)
@given(
    CONFIGS,
    CONFIGS,
    st.sampled_from((build_model, MuViTMAE, MuViTEncoder)),
    st.sampled_from((build_model, MuViTMAE)),
)
def test_every_parameter_is_taken_or_new(
    theirs: ModelConfig, ours: ModelConfig, source: Any, target: Any
) -> None:
    model = target(ours)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    refused = ""
    try:
        report = load_matching(model, source(theirs))
        untouched: tuple[str, ...] = report.fresh
        assert sorted((*report.taken, *untouched, *report.mixed)) == sorted(before)
        refused = report.summary()
    except CheckpointError as error:
        untouched, refused = tuple(before), str(error)
    assert "\n" not in refused
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in untouched)
