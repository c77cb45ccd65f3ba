from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.areas import Rectangle
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.pyramid import Pyramid
from napari_muvit.core.errors import AnnotationError, CheckpointError, ConfigError
from napari_muvit.core.model.checkpoint import load_model, save_model
from napari_muvit.core.model.encoder import MuViTEncoder
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.reference import export_reference_checkpoint
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model
from napari_muvit.core.presets import PRESETS
from napari_muvit.core.progress import Progress, ignore_progress
from napari_muvit.core.settings import RunSettings, read_settings, write_settings
from napari_muvit.core.training import finetune
from napari_muvit.core.training.continued import continued_fields, fitting_widths
from napari_muvit.core.training.prepare import open_annotations
from napari_muvit.core.training.start import (
    Start,
    choose_config,
    choose_mae_config,
    given_class_names,
    initial_model,
    matching_preset,
    preferred_class_names,
    reads_zero_as_background,
    start_header,
    start_mae,
    start_segmenter,
)

EARLIER = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=32, embed_dim=32, num_heads=2,
    depth=1, normalisation="uint8", background_value=(0.5,),
)  # fmt: skip
PRETRAINED = ModelConfig(
    scale_factors=(1, 8, 32, 64), crop_size=32, embed_dim=32, num_heads=2, depth=2,
    mae_dim=16, attention="joint", normalisation="percentile", background_value=(0.1,),
    pixel_size=0.25, rotary_position="corner", mask_ratio=0.5,
)  # fmt: skip


def continued(changes: dict[str, object], channels: int = 1) -> ModelConfig:
    fields = continued_fields(EARLIER, changes, channels)
    return ModelConfig(**{**fields, "in_channels": channels})


def test_without_changes_it_is_the_same_model() -> None:
    assert continued({}) == EARLIER
    assert continued({"scale_factors": [1, 4]}) == EARLIER


def test_every_option_of_the_network_is_kept() -> None:
    # New options were forgotten in a list, and a model went on as another one.
    options = {
        "attention": "coarse_to_fine", "context_strides": (1, 8), "mae_dim": 64,
        "rotary_position": "corner", "level_embedding": False, "pyramid_norm": "group",
    }  # fmt: skip
    earlier = dataclasses.replace(EARLIER, **options)
    assert ModelConfig(**continued_fields(earlier, {}, 1)) == earlier


def test_another_decoder_chooses_its_own_context_skip() -> None:
    # The pyramid decoder's was handed on, and unetr refused it.
    assert continued({"decoder": "unetr"}).context_skip is False
    alone = dataclasses.replace(
        EARLIER, scale_factors=(1,), context_skip=None, level_heads=None
    )
    fields = continued_fields(alone, {"scale_factors": (1, 4)}, 1)
    assert ModelConfig(**fields).context_skip is True


def test_other_channels_drop_the_padding_value() -> None:
    # "background_value has 1 entries; 3 are needed" was no help to anybody.
    config = continued({}, channels=3)
    assert config.background_value is None
    assert config.normalisation == "auto"


# ---- which configuration


def slide(channels: int = 1, size: float | None = None) -> Pyramid:
    pixels = np.zeros((channels, 64, 64), np.uint8)
    return open_pyramid(pixels, pixel_size=size)


def marks(*labels: int, names: tuple[str, ...] | None = None) -> Annotations:
    items = tuple(Rectangle(k, (32.0, 32.0), (16.0, 16.0)) for k in labels)
    return Annotations(items, names)


def chosen(start: Start, *labels: int, names: Any = None, **options: Any) -> Any:
    image = options.pop("image", slide())
    model = options.pop("model", None)
    annotations = [marks(*(labels or (1, 2)), names=names)]
    return choose_config(model, start, [image], annotations, **options)


def test_from_nothing_it_is_the_preset_and_the_data() -> None:
    config = chosen(None, 1, 3, image=slide(2, 0.5), changes={"crop_size": 32})
    assert (config.embed_dim, config.decoder) == (128, "pyramid")
    assert (config.in_channels, config.num_classes, config.pixel_size) == (2, 3, 0.5)
    assert config.crop_size == 32
    assert chosen(None, model="small").embed_dim == 192
    assert chosen(None, model=PRETRAINED) is PRETRAINED


def segmenter(**changes: Any) -> MuViTSegmenter:
    return build_model(dataclasses.replace(EARLIER, **changes))


NAMED: dict[str, Any] = {
    "num_classes": 3, "class_names": ("background", "tumour", "stroma"),
    "class_colors": ("#111111", "#222222", "#333333"), "background": 1,
}  # fmt: skip


def test_a_segmenter_goes_on_as_it_is() -> None:
    start = segmenter(**NAMED)
    for names in (None, start.config.names, start.config.names[:2]):
        assert chosen(start, 1, 2, names=names) == start.config
    assert chosen(start, 3) == start.config


def test_a_segmenter_goes_on_with_changes() -> None:
    config = chosen(segmenter(**NAMED), changes={"scale_factors": (1, 8)})
    assert config.scale_factors == (1, 8)
    assert config.names == NAMED["class_names"]
    assert config.colors == NAMED["class_colors"]
    with pytest.raises(ConfigError, match="no multiple of patch_size"):
        chosen(segmenter(), changes={"crop_size": 33})


def test_labels_with_other_names_are_other_classes() -> None:
    start = segmenter(**NAMED)
    config = chosen(start, 1, 2, names=("tumour", "Background", "vessel"))
    assert config.names == ("tumour", "Background", "vessel")
    assert config.background == 2
    # What stays keeps its colour, what is new has one of its own.
    assert config.colors[:2] == ("#222222", "#111111")
    assert len(set(config.colors)) == 3
    ours = initial_model(config, start, ignore_progress)
    head, theirs = (
        model.state_dict()["decoder.levels.0.head.weight"] for model in (ours, start)
    )
    assert torch.equal(head[0], theirs[1])
    assert torch.equal(head[1], theirs[0])


def test_larger_labels_are_new_classes() -> None:
    start = segmenter(**NAMED)
    config = chosen(start, 1, 5)
    assert config.names == (*NAMED["class_names"], "class 4", "class 5")
    report = start_segmenter(config, start, ignore_progress).report
    assert report is not None
    assert report.new_classes == ("class 4", "class 5")
    # A class may have the name of another number.
    odd = segmenter(class_names=("class 3", "b"))
    assert chosen(odd, 3).names == ("class 3", "b", "class 3 (new)")


def test_given_classes_win() -> None:
    start = segmenter(**NAMED)
    config = chosen(start, names=("x", "y"), classes=("stroma", "y"))
    assert config.names == ("stroma", "y")
    config = chosen(start, changes={"class_names": ["p", "q"]})
    assert config.names == ("p", "q")


def test_a_background_by_another_name_stays_the_background() -> None:
    start = segmenter(class_names=("glass", "tissue"), background=1)
    assert chosen(start).background == 1
    assert chosen(start, names=("tissue", "glass", "fold")).background == 2
    assert chosen(start, names=("a", "b")).background is None


def test_many_queries_go_on() -> None:
    start = build_model(ModelConfig(
        decoder="mask2former", scale_factors=(1, 4), crop_size=16, embed_dim=32,
        depth=1, num_heads=2, num_classes=20, decoder_dim=16,
    ))  # fmt: skip
    config = chosen(start, 1, 2, names=("class 3", "other"))
    assert (config.num_classes, config.num_queries) == (2, 20)
    report = start_segmenter(config, start, ignore_progress).report
    assert report is not None
    assert report.kept_classes == ("class 3",)


def test_zero_as_a_class_goes_on() -> None:
    start = segmenter(class_names=("background", "cell"), zero_is_background=True)
    assert reads_zero_as_background(None, start)
    assert chosen(start, 2).zero_is_background
    assert not chosen(start, 2, zero_is_background=False).zero_is_background
    wanted = {"zero_is_background": False}
    assert not chosen(start, 2, changes=wanted).zero_is_background


def test_other_channels_are_new_patch_embeddings() -> None:
    start = segmenter(**NAMED)
    config = chosen(start, image=slide(3))
    assert (config.in_channels, config.background_value) == (3, None)
    report = start_segmenter(config, start, ignore_progress).report
    assert report is not None
    assert "but for its patch embeddings" in report.summary()
    assert "(in_channels 1 there and 3 here)" in report.summary()


@pytest.mark.parametrize("kind", [MuViTMAE, MuViTEncoder])
def test_an_encoder_gives_what_is_the_encoders(
    kind: type[MuViTMAE] | type[MuViTEncoder], tmp_path: Path
) -> None:
    folder = save_model(kind(PRETRAINED), tmp_path / "m")
    config = chosen(folder, image=slide(1, 0.5), names=("a", "b", "c"))
    for name in (
        "embed_dim", "depth", "num_heads", "patch_size", "scale_factors", "crop_size",
        "rotary_position", "attention", "normalisation", "background_value",
        "pixel_size", "mask_ratio", "mae_dim",
    ):  # fmt: skip
        assert getattr(config, name) == getattr(PRETRAINED, name), name
    # The decoder is the preset's, the classes are those of the labels.
    assert config.decoder == "pyramid"
    assert config.decoder_dim == PRESETS["tiny"].model["decoder_dim"]
    assert config.context_skip
    assert config.names == ("a", "b", "c")
    assert given_class_names(None, folder) is None
    assert preferred_class_names(None, folder) is None
    assert not reads_zero_as_background(None, folder)
    initial = start_segmenter(config, folder, ignore_progress)
    assert initial.report is not None
    assert initial.report.encoder_is_whole


def test_some_levels_of_an_encoder(tmp_path: Path) -> None:
    mae = MuViTMAE(PRETRAINED)
    folder = save_model(mae, tmp_path / "m")
    config = chosen(folder, changes={"scale_factors": (1, 8)})
    events: list[Progress] = []
    model = start_segmenter(config, folder, events.append).model
    wanted = mae.encoder.extract_levels((1, 8)).state_dict()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    assert [event.message for event in events] == [
        f"Start: {folder} (masked autoencoder, levels 1, 8, 32, 64): encoder taken "
        "over whole (levels 1, 8); decoder new."
    ]


def test_a_level_alone_has_no_context(tmp_path: Path) -> None:
    folder = save_model(MuViTMAE(PRETRAINED), tmp_path / "m")
    config = chosen(folder, changes={"scale_factors": [1]})
    assert not config.context_skip
    initial_model(config, folder, ignore_progress)


def test_a_preset_named_gives_the_decoder_only() -> None:
    config = chosen(MuViTMAE(PRETRAINED), model="paper")
    assert (config.decoder, config.embed_dim) == ("unetr", 32)
    assert config.rotary_position == "corner"
    config = chosen(MuViTMAE(PRETRAINED), changes={"decoder": "mask2former"})
    assert config.decoder_dim % config.num_heads == 0
    initial_model(config, MuViTMAE(PRETRAINED), ignore_progress)
    # Of a segmenter it gives everything but the weights.
    assert chosen(segmenter(), model="tiny").embed_dim == 128


def test_an_encoder_without_a_pixel_size_takes_the_slides() -> None:
    start = MuViTEncoder(dataclasses.replace(PRETRAINED, pixel_size=None))
    assert chosen(start, image=slide(1, 0.5)).pixel_size == 0.5
    assert chosen(start, image=slide(3)).normalisation == "auto"


@pytest.mark.parametrize("edge", [2, 4, 8, 16, (4, 8)])
@pytest.mark.parametrize("decoder", ["pyramid", "unetr", "mask2former"])
def test_the_decoder_fits_the_patch_and_the_heads(edge: Any, decoder: str) -> None:
    config = ModelConfig(
        patch_size=edge, crop_size=32, embed_dim=48, num_heads=6, depth=1, mae_dim=48,
    )  # fmt: skip
    start = MuViTEncoder(config)
    found = chosen(start, changes={"decoder": decoder})
    assert found.patch_size == edge
    report = start_segmenter(found, start, ignore_progress).report
    assert report is not None
    assert report.encoder_is_whole


@pytest.mark.parametrize("kind", [None, MuViTSegmenter, MuViTMAE, MuViTEncoder])
def test_a_stored_configuration_asked_for_again_is_itself(
    kind: Any, tmp_path: Path
) -> None:
    # As when a run is repeated from its settings.
    start = None if kind is None else kind(dataclasses.replace(EARLIER, mae_dim=16))
    first = chosen(start, names=("a", "b"), changes={"scale_factors": (1, 8)})
    settings = RunSettings(model=first.to_dict())
    stored = read_settings(write_settings(tmp_path / "c.yaml", settings)).model
    assert chosen(start, names=("a", "b"), changes=stored) == first
    assert choose_mae_config(None, start, [slide()], changes=stored) == first


def test_fitting_widths() -> None:
    assert fitting_widths((24, 48, 48, 96), 8) == (24, 48, 48, 96)
    assert fitting_widths((24, 48, 48, 96), 4) == (24, 48, 96)
    assert fitting_widths((24, 48, 48, 96), 16) == (24, 48, 48, 96, 96)
    assert fitting_widths((24, 48, 48, 96), 1) == (96,)


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_of_a_size(name: str) -> None:
    assert matching_preset(ModelConfig.from_dict(PRESETS[name].model)) == name


# ---- pretraining


def test_pretraining_from_nothing() -> None:
    config = choose_mae_config("small", None, [slide(2, 0.5)])
    assert (config.embed_dim, config.in_channels, config.pixel_size) == (192, 2, 0.5)
    changed = {"crop_size": 128, "scale_factors": (1, 2)}
    config = choose_mae_config(None, None, [slide()], changes=changed)
    assert (config.embed_dim, config.crop_size) == (128, 128)
    assert config.scale_factors == (1, 2)
    assert choose_mae_config(EARLIER, None, [slide()]) == EARLIER


@pytest.mark.parametrize("kind", [MuViTMAE, MuViTEncoder, MuViTSegmenter])
def test_pretraining_goes_on(kind: Any, tmp_path: Path) -> None:
    first = dataclasses.replace(PRETRAINED, decoder="unetr", decoder_dim=16)
    folder = save_model(kind(first), tmp_path / "m")
    config = choose_mae_config(None, folder, [slide()])
    assert config.scale_factors == PRETRAINED.scale_factors
    assert (config.mask_ratio, config.mae_dim) == (0.5, 16)
    events: list[Progress] = []
    found = start_mae(config, folder, events.append)
    assert found.report is not None
    assert found.report.encoder_is_whole
    whole = "MAE decoders taken over whole" in events[0].message
    assert whole == (kind is MuViTMAE)
    assert start_mae(config, None, ignore_progress).report is None


def test_pretraining_on_other_channels() -> None:
    mae = MuViTMAE(PRETRAINED)
    config = choose_mae_config(None, mae, [slide(3)])
    report = start_mae(config, mae, ignore_progress).report
    assert report is not None
    assert {n for n in report.fresh if not n.startswith("encoder.patch_")} == {
        "head.weight",
        "head.bias",
    }
    assert "MAE decoders taken over in part" in report.summary()


# ---- the authors' package


def test_nothing_is_guessed_of_a_folder_of_the_authors(tmp_path: Path) -> None:
    mae = MuViTMAE(dataclasses.replace(PRETRAINED, mae_context="all"))
    folder = export_reference_checkpoint(mae, tmp_path / "theirs")
    config = chosen(folder, image=slide(1, 0.5), changes={"scale_factors": (1, 8)})
    assert (config.pixel_size, config.normalisation) == (0.5, "auto")
    assert (config.rotary_position, config.mae_context) == ("corner", "all")
    events: list[Progress] = []
    model = initial_model(config, folder, events.append)
    wanted = mae.encoder.extract_levels((1, 8)).state_dict()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    assert events[0].message == (
        f"Start: {folder} (masked autoencoder of the authors' package, levels 1, 8, "
        "32, 64): encoder taken over whole (levels 1, 8); decoder new; crops of 256 px "
        "(theirs are not stored)."
    )


@pytest.mark.reference
@pytest.mark.parametrize("whole", [True, False], ids=["mae", "encoder"])
def test_a_true_checkpoint_of_the_authors(whole: bool, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("muvit.mae")
    logging.getLogger("muvit").handlers.clear()
    torch.manual_seed(0)
    theirs = module.MuViTMAE2d(
        in_channels=1, levels=(1, 8, 32), patch_size=8, num_layers=2, dim=96, heads=2,
        num_layers_decoder=1, dim_decoder=96,
    ).eval()  # fmt: skip
    (theirs if whole else theirs.encoder).save(tmp_path / "theirs")
    start = tmp_path / "theirs"
    header = start_header(start)
    assert header is not None
    assert header.kind == ("MuViTMAE" if whole else "MuViTEncoder")
    config = chosen(start, names=("a", "b"), changes={"crop_size": 32})
    found = start_segmenter(config, start, ignore_progress)
    assert found.report is not None
    assert found.report.encoder_is_whole
    x = torch.rand(2, 3, 1, 32, 32)
    edges = torch.tensor([32.0, 256.0, 1024.0])
    lower = torch.tensor([500.0, 400.0, 100.0])[None, :, None].expand(2, 3, 2)
    box = torch.stack((lower, lower + edges[None, :, None]), dim=2)
    with torch.no_grad():
        wanted, _, _ = theirs.encoder(x, box)
        assert (found.model.eval().encoder(x, box) - wanted).abs().max() < 1e-4
        assert wanted.abs().max() > 0.1
    # Pretraining goes on from it, with their way to decode.
    config = choose_mae_config(None, start, [slide()])
    report = start_mae(config, start, ignore_progress).report
    assert report is not None
    assert (report.fresh == ()) == whole


# ---- label files


def outlines(path: Path, *classes: str) -> str:
    """A GeoJSON file with a square of each class, side by side."""
    features = []
    for k, name in enumerate(classes):
        x, y = 20 * k, 4
        ring = [[x, y], [x + 16, y], [x + 16, y + 30], [x, y + 30], [x, y]]
        features.append({
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": name}},
        })  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def test_files_with_other_classes_are_read_by_their_own_names(tmp_path: Path) -> None:
    start = segmenter(**NAMED)
    preferred = preferred_class_names(None, start)
    for classes, wanted in (
        (("Tumour", "background"), NAMED["class_names"]),
        (("tumour", "vessel"), ("tumour", "vessel")),
    ):
        file = outlines(tmp_path / "a.geojson", *classes)
        found = open_annotations([file], [slide()], preferred=preferred)
        assert found[0].class_names == wanted
        assert choose_config(None, start, [slide()], found).names == wanted
    # Classes that the user has named are another matter.
    with pytest.raises(AnnotationError, match="'vessel', which is not among"):
        open_annotations([file], [slide()], classes=("tumour", "stroma"))


def test_preferred_names_number_files_without_names_too(tmp_path: Path) -> None:
    file = outlines(tmp_path / "a.geojson", "tumour")
    numbers = np.ones((64, 64), np.uint8)
    images, labels = [slide(), slide()], [file, numbers]
    found = open_annotations(labels, images, preferred=("stroma", "tumour"))
    assert found[0].class_names == ("stroma", "tumour")
    with pytest.raises(AnnotationError, match="name all classes"):
        open_annotations(labels, images, preferred=("stroma", "vessel"))


# ---- a run


def test_a_run_goes_on_from_an_autoencoder_and_from_other_classes(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (96, 96), dtype=np.uint8)
    labels = rng.integers(1, 3, (96, 96), dtype=np.uint8)
    training = TrainingConfig(
        steps=2, batch_size=2, validation_crops=2, device="cpu", num_threads=1
    )
    mae = MuViTMAE(dataclasses.replace(EARLIER, mae_dim=16, background_value=None))
    events: list[Progress] = []
    finetune([image], [labels], training, start=mae, out=tmp_path / "a",
             on_progress=events.append)  # fmt: skip
    assert any("decoder new" in event.message for event in events)
    assert load_model(tmp_path / "a").config.embed_dim == 32
    labels[:40] = 3
    events.clear()
    finetune([image], [labels], training, start=tmp_path / "a", out=tmp_path / "b",
             on_progress=events.append)  # fmt: skip
    assert any("new for 'class 3'" in event.message for event in events)
    assert load_model(tmp_path / "b").config.num_classes == 3


def test_a_start_that_is_missing_or_fits_nothing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        chosen(tmp_path / "none")
    with pytest.raises(CheckpointError, match="No parameter of"):
        initial_model(dataclasses.replace(EARLIER, decoder="unetr", decoder_dim=16),
                      MuViTMAE(dataclasses.replace(PRETRAINED, embed_dim=48)),
                      ignore_progress)  # fmt: skip
