from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import ConfigError, OutputError
from napari_muvit.core.presets import PRESETS
from napari_muvit.core.settings import (
    SETTINGS_FILE,
    Reading,
    RunSettings,
    absolute,
    merge_settings,
    read_settings,
    settings_text,
    source_path,
    write_settings,
)

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NUMBERS = st.floats(allow_nan=False) | st.integers()
LISTS = st.lists(NUMBERS, max_size=4).map(tuple)
PATHS = st.lists(
    st.none() | TEXTS.map(os.path.abspath) | TEXTS.map("s3://".__add__), max_size=4
)
MODEL = st.fixed_dictionaries(
    {},
    optional={
        "class_names": st.lists(TEXTS, max_size=4).map(tuple) | st.none(),
        "scale_factors": LISTS,
        "embed_dim": st.integers(),
        "patch_size": st.integers() | st.lists(st.integers(), max_size=3).map(tuple),
        "rotary_base": NUMBERS,
        "pixel_size": NUMBERS | st.none(),
        "decoder": st.sampled_from(("unetr", "pyramid", "mask2former")),
        "context_skip": st.booleans() | st.none(),
    },
)
TRAINING = st.fixed_dictionaries(
    {},
    optional={
        "learning_rate": NUMBERS,
        "minutes": NUMBERS | st.none(),
        "device": st.text(st.characters(codec="utf-8"), max_size=8),
        "flips": st.booleans(),
        "seed": st.integers(),
    },
)
READING = st.builds(
    Reading,
    image=st.none() | TEXTS | st.integers(),
    planes=st.dictionaries(TEXTS, st.integers(0), max_size=3),
    channels=st.none() | st.lists(TEXTS | st.integers(), min_size=1).map(tuple),
    pixel_size=st.none()
    | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
)
SETTINGS = st.builds(
    RunSettings,
    command=st.sampled_from((None, "finetune", "pretrain")),
    images=PATHS,
    labels=PATHS,
    val_images=PATHS,
    val_labels=PATHS,
    start=st.none() | TEXTS.map(os.path.abspath),
    missing=st.sampled_from(((), ("start",))),
    preset=st.sampled_from((None, *PRESETS)),
    reading=READING,
    tissue=st.none() | st.booleans(),
    model=MODEL,
    training=TRAINING,
)


@given(SETTINGS)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, settings: RunSettings
) -> None:
    path = tmp_path_factory.mktemp("settings") / SETTINGS_FILE
    found = read_settings(write_settings(path, settings))
    assert found == settings
    # 1, 1.0 and True are equal, and so are lists of them.
    assert repr(dataclasses.asdict(found)) == repr(dataclasses.asdict(settings))


def complete() -> RunSettings:
    """As a run writes it."""
    model = ModelConfig(num_classes=3, class_names=("background", "on", "1e-4"))
    return RunSettings(
        command="finetune",
        images=("/data/a.zarr", "https://x.org/b.zarr"),
        labels=("/data/a.geojson", "/data/b.tif"),
        start="/models/first",
        reading=Reading(planes={"z": 3}, channels=("DAPI", 2), pixel_size=0.5),
        model=model.to_dict(),
        training=TrainingConfig(steps=5, learning_rate=1e-4).to_dict(),
    )


def test_the_written_file_builds_the_same_configurations(tmp_path: Path) -> None:
    settings = complete()
    found = read_settings(write_settings(tmp_path / "new" / "c.yaml", settings))
    assert found == settings
    model = ModelConfig.from_dict(found.model)
    assert model.names == ("background", "on", "1e-4")
    assert model == ModelConfig.from_dict(settings.model)
    assert TrainingConfig.from_dict(found.training).learning_rate == 1e-4
    found.check_complete()


def test_the_written_file_is_for_people(tmp_path: Path) -> None:
    text = settings_text(complete())
    assert "napari-muvit finetune --config THIS_FILE --out NEW_FOLDER" in text
    assert "images:\n- /data/a.zarr\n- https://x.org/b.zarr\n" in text
    assert "scale_factors: [1, 8, 32]\n" in text
    assert "!!" not in text
    assert "null" in text  # a limit that was not set is no limit
    assert "val_images" not in text
    # Other readers of YAML see the same.
    found = yaml.safe_load(text)
    assert found["training"]["learning_rate"] == 1e-4
    assert found["model"]["class_names"] == ["background", "on", "1e-4"]


def test_objects_without_a_path(tmp_path: Path) -> None:
    array = np.zeros(3)
    settings = RunSettings(
        images=(source_path("/a.tif"), source_path(array), source_path(array)),
        missing=("start",),
    )
    text = settings_text(settings)
    assert "# null: given as an object" in text
    found = read_settings(write_settings(tmp_path / "c.yaml", settings))
    assert found == settings
    with pytest.raises(ConfigError, match="images 2, 3 of 3 had no path") as caught:
        found.check_complete()
    assert "--images" in str(caught.value)
    merged = merge_settings(found, {"images": ("/b.tif",)})
    with pytest.raises(ConfigError, match="give one with --start"):
        merged.check_complete()
    merge_settings(merged, {"start": "/m"}).check_complete()


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub/run.yaml"
    file.write_text(
        "images: [a.zarr, ../b.tif, /c.tif, 's3://d/e', ~/f]\nlabels: one.geojson\n"
        "start: m\n"
    )
    found = read_settings(file)
    assert found.images == (
        str(tmp_path / "sub/a.zarr"), str(tmp_path / "b.tif"), "/c.tif", "s3://d/e",
        os.path.expanduser("~/f"),
    )  # fmt: skip
    assert found.labels == (str(tmp_path / "sub/one.geojson"),)
    assert found.start == str(tmp_path / "sub/m")


def test_written_paths_are_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = RunSettings(images=("a.zarr",), start="m")
    (tmp_path / "deep").mkdir()
    found = read_settings(write_settings(tmp_path / "deep/c.yaml", settings))
    assert found.images == (str(tmp_path / "a.zarr"),)
    assert found.start == str(tmp_path / "m")
    assert source_path(Path("x")) == absolute("x") == str(tmp_path / "x")


CONTENT: dict[str, Any] = {
    "model": {"crop_size": 32, "scale_factors": [1, 8]},
    "training": {"learning_rate": 1e-05, "steps": 3},
}


@pytest.mark.parametrize("form", ["json", "JSON", "yaml", "yml", "toml"])
def test_every_form_says_the_same(form: str, tmp_path: Path) -> None:
    texts = {
        "json": json.dumps(CONTENT),
        "toml": "[model]\ncrop_size = 32\nscale_factors = [1, 8]\n"
        "[training]\nlearning_rate = 1e-05\nsteps = 3\n",
    }
    by_hand = "model: {crop_size: 32, scale_factors: [1, 8]}\n" \
        "training:\n  learning_rate: 1e-05\n  steps: 3\n"  # fmt: skip
    file = tmp_path / f"c.{form}"
    file.write_text(texts.get(form.lower(), by_hand), encoding="utf-8-sig")
    if form == "toml":
        file.write_text(texts["toml"])
    found = read_settings(file)
    assert found == RunSettings(model=CONTENT["model"], training=CONTENT["training"])
    assert found.model["scale_factors"] == (1, 8)


def test_true_boxes_need_no_quotes(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: {boxes: true}")
    assert ModelConfig(**read_settings(file).model).boxes == "true"


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs/howto/settings.md"
    text = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    (tmp_path / "c.yaml").write_text(text)
    found = read_settings(tmp_path / "c.yaml")
    assert found.images == tuple(str(tmp_path / n) for n in ("a.ome.zarr", "b.svs"))
    assert found.training == {"minutes": 20, "learning_rate": 1e-3}
    assert found.model["class_names"] == ("background", "tumour")


def test_nothing_at_all_in_json_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text("{}")
    assert read_settings(file) == RunSettings()


MISTAKES: dict[str, tuple[str, str]] = {
    "unknown key": ("imags: [a]", "imags is no setting; there are command, images"),
    "unknown field": ("model: {crop: 3}", "ModelConfig does not know crop"),
    "unknown training": ("training: {rate: 3}", "TrainingConfig does not know rate"),
    "typo in a key": ("modle: {}", "Is model meant"),
    "typo in a field": ("model: {embed_dims: 3}", "Is embed_dim meant"),
    "typo in training": ("training: {learningrate: 3}", "Is learning_rate meant"),
    "field in the wrong table": (
        "training: {crop_size: 3}", "no field of training. It belongs into the table m"
    ),
    "field in no table": ("steps: 3", "It belongs into the table training"),
    "unknown reading": ("reading: {plane: 3}", "Reading does not know plane"),
    "wrong type": ("model: {depth: many}", "depth is 'many'; a whole number"),
    "yes": ("training: {flips: yes}", "flips is 'yes'; true or false"),
    "null": ("model: {depth: }", "depth is None; a whole number"),
    "choice": ("model: {decoder: unet}", "choose one of unetr"),
    "table": ("model: [1]", r"model is \[1\]; a table"),
    "null table": ("training:", "training is None; a table"),
    "nested": ("model: {depth: {a: 1}}", "depth is {'a': 1}"),
    "number as path": ("images: [12]", "images holds 12; a path is needed, in quotes"),
    "table as paths": ("images: {a: b}", "a list of paths"),
    "empty path": ("images: ['']", "images holds ''"),
    "start": ("start: 3", "start is 3; a text"),
    "empty start": ("start: ''", "start is ''; a text"),
    "command": ("command: train", "choose one of finetune, pretrain"),
    "command list": ("command: [1]", "choose one of finetune, pretrain"),
    "preset": ("preset: huge", "There is no preset 'huge'"),
    "planes": ("reading: {planes: {z: -1}}", "planes is {'z': -1}"),
    "plane": ("reading: {planes: 3}", "planes is 3"),
    "channels": ("reading: {channels: [1.5]}", "channels is "),
    "pixel size": ("reading: {pixel_size: 0}", "pixel_size is 0; a positive"),
    "image": ("reading: {image: [a]}", "image is "),
    "tissue": ("tissue: 1", "tissue is 1; true or false"),
    "missing": ("missing: [[a]]", "it may hold start"),
    "newer": ("version: 2\nnew_key: 1", "Update napari-muvit"),
    "version": ("version: one", "version is 'one'"),
    "twice": ("preset: tiny\npreset: small", "line 2: the key 'preset' is there twice"),
    "list": ("- a", "holds no table of settings"),
    "text": ("hello", "holds no table of settings"),
    "empty": ("", "is empty"),
    "comment": ("# nothing\n", "is empty"),
    "broken": ("a: [", "cannot be read as YAML: line"),
    "authors": ("levels: !!python/tuple [1]", "tuple is not read"),
    "model file": ('{"format_version": 2, "kind": "x"}', "describes a model"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case: str, tmp_path: Path) -> None:
    text, message = MISTAKES[case]
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_settings(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


FILES: dict[str, tuple[str, bytes, str]] = {
    "binary": ("c.yaml", bytes(range(256)), "no UTF-8 text"),
    "control": ("c.yaml", b"a\0b", "cannot be read as YAML"),
    "huge": ("c.yaml", b"#" * (2**21 + 1), "larger than 2 MiB"),
    "json": ("c.json", b'{"model": ', "cannot be read as JSON"),
    "json twice": ("c.json", b'{"model": {}, "model": {}}', "is there twice"),
    "json deep": ("c.json", b"[" * 100_000, "cannot be read as JSON"),
    "json nested": ("c.json", b'{"model": ' + b'{"a":' * 400 + b"1" + b"}" * 401, "a"),
    "json list": ("c.json", b"[]", "holds no table"),
    "json digits": ("c.json", b'{"version": ' + b"9" * 5000 + b"}", "cannot be read"),
    "json empty": ("c.json", b" ", "is empty"),
    "toml": ("c.toml", b"a = [", "cannot be read as TOML"),
    "toml twice": ("c.toml", b"a = 1\na = 2", "cannot be read as TOML"),
    "toml date": ("c.toml", b"model.depth = 2024-01-01", "model.depth holds"),
    "toml empty": ("c.toml", b"# x", "is empty"),
    "suffix": ("c.txt", b"{}", "no suffix of a file with settings"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_one_line(case: str, tmp_path: Path) -> None:
    name, content, message = FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_settings(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_no_file_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings("\0.yaml")
    write_settings(tmp_path / SETTINGS_FILE, RunSettings(preset="tiny"))
    with pytest.raises(ConfigError, match=r"is a folder, .*; give .*config.yaml"):
        read_settings(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_settings(tmp_path / "file" / "c.yaml", RunSettings())


# ---- the command upon the file


def test_flags_win_over_the_file() -> None:
    flags = {
        "images": ("/x.tif",), "labels": ["/y.tif"], "start": None, "val_images": [],
        "reading": {"pixel_size": 0.25, "channels": None, "planes": {}},
        "model": {"crop_size": 64, "decoder": None},
        "training": {"seed": 3, "batch_size": None},
    }  # fmt: skip
    merged = merge_settings(complete(), flags, "finetune")
    assert merged.images == ("/x.tif",)
    assert merged.labels == ("/y.tif",)
    assert merged.start == "/models/first"
    assert merged.reading == Reading(
        planes={"z": 3}, channels=("DAPI", 2), pixel_size=0.25
    )
    assert merged.model == {**complete().model, "crop_size": 64}
    assert merged.training == {**complete().training, "seed": 3}
    assert merge_settings(complete(), {}) == complete()


def test_without_a_file_there_are_only_flags() -> None:
    merged = merge_settings(RunSettings(), {"images": ("/a",)}, "pretrain")
    assert merged == RunSettings(command="pretrain", images=("/a",))


def test_a_limit_replaces_all_limits() -> None:
    merged = merge_settings(complete(), {"training": {"minutes": 2.0}})
    assert merged.training["minutes"] == 2.0
    assert merged.training.get("steps") is None
    fields = RunSettings(training={"steps": 7}).training_fields("tiny")
    assert fields["steps"] == 7
    assert "minutes" not in fields
    assert RunSettings().training_fields("tiny") == PRESETS["tiny"].training
    unlimited = RunSettings(training={"minutes": None, "steps": 3, "seed": 1})
    assert TrainingConfig.from_dict(unlimited.training_fields("tiny")).minutes is None


def test_what_follows_from_a_changed_field_is_chosen_anew() -> None:
    model = ModelConfig(
        decoder="pyramid", num_classes=3, class_names=("background", "a", "b")
    ).to_dict()
    file = RunSettings(model=model)

    def merged(**asked: Any) -> ModelConfig:
        found = merge_settings(file, {"model": asked}).model
        return ModelConfig.from_dict({k: v for k, v in found.items() if v is not None})

    assert merged(scale_factors=(1,)).context_skip is False
    assert merged(decoder="mask2former").level_heads is False
    assert merged(scale_factors=[1, 8, 32]).context_skip is True
    names = merge_settings(file, {"model": {"class_names": ["x", "y"]}}).model
    assert not {"num_classes", "class_colors", "background"} & set(names)
    # What was said by hand stays.
    hand = RunSettings(model={"context_skip": False})
    asked = {"model": {"scale_factors": (1, 8)}}
    assert merge_settings(hand, asked).model["context_skip"] is False


def test_what_cannot_go_together() -> None:
    with pytest.raises(ConfigError, match="give --labels as well"):
        merge_settings(complete(), {"images": ("/x",)})
    with pytest.raises(ConfigError, match="give --val-labels as well"):
        merge_settings(
            RunSettings(val_images=("/a",), val_labels=("/b",)),
            {"val_images": ("/x",)},
        )
    with pytest.raises(ConfigError, match="of finetune; pretrain was asked"):
        merge_settings(complete(), {}, "pretrain")
    with pytest.raises(ConfigError, match=r"The preset small .* Leave out the preset"):
        merge_settings(complete(), {"preset": "small"})
    assert merge_settings(RunSettings(), {"preset": "small"}).preset == "small"
    with pytest.raises(ConfigError, match="ModelConfig does not know nonsense"):
        merge_settings(RunSettings(), {"model": {"nonsense": 1}})


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    model = {"pixel_size": np.float64(0.5), "embed_dim": np.int64(32)}
    settings = RunSettings(model=model, images=(Path("/a"),))  # type: ignore[arg-type]
    found = read_settings(write_settings(tmp_path / "c.yaml", settings))
    assert found == settings
    assert type(found.model["embed_dim"]) is int


def test_thousands_of_slides(tmp_path: Path) -> None:
    images = tuple(f"/data/slides/{k:05d}.zarr" for k in range(2000))
    file = write_settings(tmp_path / "c.yaml", RunSettings(images=images))
    assert read_settings(file).images == images


def test_null_is_a_value_where_it_is_assigned() -> None:
    """It was dropped, as if it had not been asked for."""
    file = RunSettings(training={"early_stop": 3, "minutes": 2.0})
    flags = {"training": {"minutes": None}}
    asked = {"training": {"early_stop": None}}
    merged = merge_settings(file, flags, assigned=asked)
    assert merged.training == {"early_stop": None, "minutes": 2.0}
    with pytest.raises(ConfigError, match="seed is None; a whole number"):
        merge_settings(file, {}, assigned={"training": {"seed": None}})
    # No limit, so the one of the file stays.
    merged = merge_settings(file, {}, assigned={"training": {"steps": None}})
    assert merged.training["minutes"] == 2.0
