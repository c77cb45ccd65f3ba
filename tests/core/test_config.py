from __future__ import annotations

import json
from typing import Any

import pytest

from napari_muvit.core.checks import finite_json
from napari_muvit.core.config import ModelConfig, PredictionConfig, TrainingConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.presets import PRESETS, preset


def test_defaults_are_the_papers() -> None:
    config = ModelConfig()
    assert (config.scale_factors, config.embed_dim, config.depth) == (
        (1, 8, 32),
        512,
        12,
    )
    assert (config.num_heads, config.patch_size, config.crop_size) == (8, 8, 256)
    assert config.decoder == "unetr"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_and_survive_json(name: str) -> None:
    config = ModelConfig(**preset(name).model, class_names=("background", "cell"))
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    training = TrainingConfig(**preset(name).training)
    assert TrainingConfig.from_dict(training.to_dict()) == training


def test_background_is_found_by_name() -> None:
    config = ModelConfig(num_classes=3, class_names=("a", "background", "b"))
    assert config.background == 2
    assert config.foreground == (1, 3)
    assert ModelConfig(num_classes=2).foreground == (1, 2)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scale_factors": (8, 1)}, "scale_factors"),
        ({"scale_factors": (0, 1)}, "scale_factors"),
        ({"scale_factors": ()}, "scale_factors"),
        ({"crop_size": 100}, "crop_size"),
        ({"num_heads": 7}, "num_heads"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 300}, "num_classes"),
        ({"decoder": "unet"}, "decoder"),
        ({"class_names": ("a",)}, "class_names"),
        ({"class_names": ("a", "a")}, "class_names"),
        ({"background": 3}, "background"),
        ({"pixel_size": -1.0}, "pixel_size"),
        ({"decoder": "pyramid", "pyramid_channels": (8, 8)}, "pyramid_channels"),
        ({"embed_dim": 8, "num_heads": 4}, "embed_dim"),
    ],
)
def test_wrong_models_name_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        ModelConfig(**changes)
    assert error.value.field == field


@pytest.mark.parametrize(
    "values",
    [{}, {"minutes": 0}, {"steps": 0}, {"steps": 5, "batch_size": 0},
     {"steps": 5, "learning_rate": float("nan")}, {"epochs": 1.5}],
)  # fmt: skip
def test_wrong_training_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrainingConfig(**values)


@pytest.mark.parametrize(
    "values",
    [{"overlap": 1.0}, {"tile_size": 500}, {"region": (0, 0, 0, 5)}, {"batch_size": 0}],
)
def test_wrong_prediction_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PredictionConfig(**values)


def test_unknown_keys_are_an_error_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="newer napari-muvit"):
        ModelConfig.from_dict({"magic": 1})
    with pytest.raises(ConfigError, match="tiny, small, paper"):
        preset("huge")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ModelConfig, {"scale_factors": "abc"}),
        (ModelConfig, {"pyramid_channels": 5}),
        (ModelConfig, {"pyramid_channels": [8, 8, 8, "a"]}),
        (ModelConfig, {"pyramid_channels": [8, 8, 8, 0]}),
        (ModelConfig, {"class_names": "ab"}),
        (ModelConfig, {"class_names": ["a", 1]}),
        (ModelConfig, {"class_names": ["a", " "]}),
        (ModelConfig, {"class_colors": ["red", "blue"]}),
        (ModelConfig, {"background_value": ["a"]}),
        (ModelConfig, {"background": "x"}),
        (ModelConfig, {"pixel_size": "x"}),
        (ModelConfig, {"mlp_ratio": -1}),
        (ModelConfig, {"mlp_ratio": 1e-4}),
        (ModelConfig, {"rotary_base": 0}),
        (TrainingConfig, {"learning_rate": "x"}),
        (TrainingConfig, {"flips": "no"}),
        (TrainingConfig, {"precision": 3}),
        (TrainingConfig, {"precision": "8-bit"}),
        (TrainingConfig, {"seed": -1}),
        (TrainingConfig, {"seed": 1.5}),
        (TrainingConfig, {"device": 5}),
        (PredictionConfig, {"region": (0, 0, 5)}),
        (PredictionConfig, {"overlap": "x"}),
    ],
)
def test_wrong_types_of_a_file_are_refused_by_name(
    kind: type[Any], values: dict[str, Any]
) -> None:
    # They came out as TypeError, of torch or numpy, long after the file was read.
    more = {"steps": 1} if kind is TrainingConfig else {}
    with pytest.raises(ConfigError) as error:
        kind.from_dict({**more, **values})
    assert error.value.field == next(iter(values))


def test_lists_pass_for_tuples() -> None:
    assert ModelConfig(scale_factors=[1, 8]).scale_factors == (1, 8)  # type: ignore[arg-type]


def test_finite_json_has_no_nan() -> None:
    content = finite_json({"a": [1.0, float("nan")], "b": ({"c": float("inf")}, "x")})
    assert content == {"a": [1.0, None], "b": [{"c": None}, "x"]}
