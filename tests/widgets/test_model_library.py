"""My models: remembered, renamed, deleted, imported."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import CheckpointError, OutputError
from napari_muvit.widgets.model_card import card
from napari_muvit.widgets.model_library import ModelLibrary, read_model

CONFIG = ModelConfig(
    num_classes=2, scale_factors=(1, 4), crop_size=64, pixel_size=0.5,
    class_names=("back<ground", "gland"), class_colors=("#111111", "#ee8800"),
)  # fmt: skip


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    return ModelLibrary(tmp_path / "user")


def make(folder: Path, age: float = 0, kind: str = "MuViTSegmenter") -> Path:
    folder.mkdir(parents=True)
    content = {"format_version": 2, "kind": kind, "config": CONFIG.to_dict()}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"")
    time = 1_700_000_000 - age
    os.utime(folder / "config.json", (time, time))
    return folder


def titles(library: ModelLibrary) -> list[str]:
    return [m.title for m in library.models()]


def test_an_empty_library_writes_nothing(library: ModelLibrary) -> None:
    assert library.models() == []
    assert not library.folder.parent.exists()


def test_models_are_remembered_newest_first(
    library: ModelLibrary, tmp_path: Path
) -> None:
    library.add(make(tmp_path / "old", age=100))
    library.add(make(tmp_path / "new"), "trained 12:00")
    again = ModelLibrary(library.index.parent)
    assert titles(again) == ["trained 12:00", "old"]


def test_a_name_stays_and_a_vanished_model_goes(
    library: ModelLibrary, tmp_path: Path
) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b", age=9)
    library.add(first)
    library.add(second)
    library.rename(first, "  Glands of June ")
    library.add(first, "trained 12:00")  # chosen again
    assert titles(library) == ["Glands of June", "b"]
    shutil.rmtree(first)
    assert titles(library) == ["b"]
    library.add(second)
    library.rename(second, "c")
    assert str(first) not in library.index.read_text()


def test_deleting_removes_the_folder_and_nothing_else(
    library: ModelLibrary, tmp_path: Path
) -> None:
    model = make(tmp_path / "a")
    library.add(model)
    library.delete(model)
    assert not model.exists()
    assert list(tmp_path.glob(".*")) == []
    assert titles(library) == []
    with pytest.raises(OutputError, match="no model folder"):
        library.delete(tmp_path)
    assert tmp_path.exists()


def test_forgetting_leaves_the_folder(library: ModelLibrary, tmp_path: Path) -> None:
    model = make(tmp_path / "a")
    library.add(model)
    library.forget(model)
    assert titles(library) == []
    assert model.exists()


def test_an_import_is_a_copy_of_its_own(library: ModelLibrary, tmp_path: Path) -> None:
    model = make(tmp_path / "a")
    first, second = library.import_copy(model), library.import_copy(model)
    assert first.parent == second.parent == library.folder
    assert first != second
    shutil.rmtree(model)
    assert sorted(titles(library)) == ["a", "a_2"]
    with pytest.raises(CheckpointError):
        library.import_copy(tmp_path)
    assert sorted(p.name for p in library.folder.iterdir()) == ["a", "a_2"]


@pytest.mark.parametrize("text", ["", "[", "[]", '{"models": 3}', '{"models": [3]}'])
def test_a_damaged_list_is_made_anew(
    library: ModelLibrary, tmp_path: Path, text: str
) -> None:
    library.index.parent.mkdir(parents=True)
    library.index.write_text(text)
    assert library.models() == []
    library.add(make(tmp_path / "a"))
    assert titles(library) == ["a"]


def test_a_folder_that_cannot_be_written_is_said(
    library: ModelLibrary, tmp_path: Path
) -> None:
    model = make(tmp_path / "a")
    library.folder.parent.write_text("a file")
    with pytest.raises(OutputError):
        library.add(model)
    with pytest.raises(OutputError):
        library.import_copy(model)


def test_the_card_says_what_is_known(tmp_path: Path) -> None:
    model = make(tmp_path / "a")
    plain = card(read_model(model))
    assert "back&lt;ground" in plain
    assert "#ee8800" in plain
    assert "1× 32 µm, 4× 128 µm" in plain
    assert "2023-11" in plain
    assert "mDSC" not in plain
    (model / "training").mkdir()
    record = {
        "best": {"mDSC": 0.8123}, "seconds": 600, "notes": ["Too few glands."],
        "slides": [{"name": "s1"}, {"name": "s2"}, {"name": "s3"}, {"name": "s4"}],
    }  # fmt: skip
    (model / "training" / "record.json").write_text(json.dumps(record))
    known = read_model(model, "mine")
    assert known.title == "mine"
    text = card(known)
    for words in ("0.81", "10 min", "Too few glands.", "s1, s2, s3 and 1 more"):
        assert words in text


@pytest.mark.parametrize("text", ["", "[]", '{"best": 3, "slides": [1], "notes": 2}'])
def test_a_broken_record_does_no_harm(tmp_path: Path, text: str) -> None:
    model = make(tmp_path / "a")
    (model / "training").mkdir()
    (model / "training" / "record.json").write_text(text)
    assert read_model(model).quality is None


def test_a_pretrained_encoder_has_no_classes(tmp_path: Path) -> None:
    model = read_model(make(tmp_path / "a", kind="MuViTMAE"))
    assert not model.segments
    assert "masked autoencoder" in card(model)
    assert "gland" not in card(model)
