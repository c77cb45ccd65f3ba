from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data.annotations import Annotations, Ellipse, Rectangle
from napari_muvit.core.data.geojson import write_geojson
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.project import Project
from napari_muvit.core.errors import AnnotationError, ConfigError
from napari_muvit.core.training.prepare import (
    model_config_for,
    open_annotations,
    prepare,
    prepare_unlabelled,
)


def slide(pixel_size: float | None, name: str = "slide"):  # type: ignore[no-untyped-def]
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    return open_pyramid(pixels, pixel_size=pixel_size, name=name)


def marks(*labels: int) -> Annotations:
    values = np.resize(np.array(labels, np.uint8), (64, 64))
    return Annotations.from_labels(values)


def test_the_pixel_size_is_one_that_a_slide_has() -> None:
    # The median of two sizes lay between them, and both slides were resampled.
    images = [slide(0.25), slide(0.5)]
    config = model_config_for("tiny", images, [marks(1, 2)] * 2)
    assert config.pixel_size == 0.5


def test_sizes_that_are_not_heeded_are_said() -> None:
    images = [slide(0.25, "known"), slide(None, "unknown")]
    labels = [marks(1, 2)] * 2
    config = model_config_for("tiny", images, labels)
    assert config.pixel_size is None
    notes = prepare(images, labels, config, 0).notes
    assert any("unknown has no pixel size but known has" in note for note in notes)


def test_a_mask_of_255_gets_one_note_instead_of_254() -> None:
    labels = [marks(0, 255)]
    config = model_config_for("tiny", [slide(None)], labels)
    notes = prepare([slide(None)], labels, config, 0).notes
    told = [note for note in notes if "no annotated pixel" in note]
    assert len(told) == 1
    assert "254 of 255 classes" in told[0]
    assert "only 255" in told[0]


def test_a_file_of_0_and_255_is_read_as_a_mask() -> None:
    """It was one class of 255 without another, or too many classes."""
    images = [slide(None, "a"), slide(None, "b")]
    masks = [np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)]
    masks[0][:16] = 255
    labels = open_annotations(masks, images)
    config = model_config_for("tiny", images, labels)
    assert config.names == ("background", "class 2")
    assert config.background == 1
    # So that 0 and 1 are the same two classes for the one who goes on from it.
    assert config.zero_is_background
    data = prepare(images, labels, config, 0)
    counts = [slide.index.counts.tolist() for slide in data.slides]
    assert counts == [[0, 48 * 64, 16 * 64], [0, 64 * 64, 0]]
    assert sum("read as masks" in note for note in data.notes) == 1


def test_masks_have_the_classes_that_are_named() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:16] = 255
    images = [slide(None)]
    labels = open_annotations([mask], images, classes=("background", "gland"))
    config = model_config_for("tiny", images, labels, classes=("background", "gland"))
    assert config.names == ("background", "gland")
    assert prepare(images, labels, config, 0).slides[0].index.counts[2] == 16 * 64
    with pytest.raises(AnnotationError, match="--classes background,gland"):
        open_annotations([mask], images, classes=("gland",))


def test_classes_without_a_pixel_share_a_line() -> None:
    labels = [marks(0, 1, 4)]
    config = model_config_for("tiny", [slide(None)], labels)
    told = [
        n for n in prepare([slide(None)], labels, config, 0).notes if "unknown" in n
    ]
    assert told == [
        "Classes 2 (class 2) and 3 (class 3) have no annotated pixel; they stay "
        "unknown."
    ]


def test_a_label_without_a_class_names_its_slide() -> None:
    config = ModelConfig(num_classes=2, scale_factors=(1,), crop_size=32)
    with pytest.raises(AnnotationError, match="here: The labels hold the class 3"):
        prepare([slide(None, "here")], [marks(1, 3)], config, 0)


def square_of(path: Path, name: str | None) -> str:
    ring = [[0, 0], [30, 0], [30, 30], [0, 30], [0, 0]]
    properties = {"classification": {"name": name}} if name else {}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "geometry": geometry, "properties": properties}
    path.write_text(json.dumps(feature))
    return str(path)


def test_geojson_beside_label_images_needs_names(tmp_path: Path) -> None:
    # The image's labels silently got the names of the other file.
    images = [slide(None), slide(None)]
    sources = [square_of(tmp_path / "a.geojson", "tumour"), np.ones((64, 64), np.uint8)]
    with pytest.raises(AnnotationError, match="given together"):
        open_annotations(sources, images)
    first, second = open_annotations(sources, images, classes=("other", "tumour"))
    assert first.items[0].label == 2  # type: ignore[union-attr]
    assert second.class_names is None


def test_outlines_without_a_class_are_said(tmp_path: Path) -> None:
    marks = open_annotations([square_of(tmp_path / "a.geojson", None)], [slide(None)])
    config = ModelConfig(num_classes=2, scale_factors=(1,), crop_size=32)
    with pytest.raises(AnnotationError, match="1 features without a class"):
        prepare([slide(None)], marks, config, 0)


def test_outlines_of_the_plane_that_was_chosen_count(tmp_path: Path) -> None:
    stack = np.zeros((5, 40, 40), np.uint8)
    image = open_pyramid(stack, axes="zyx", planes={"z": 3})
    area = Rectangle(1, (5, 5), (9, 9))
    for z in (0, 3):
        only = Annotations((area,), ("a",))
        write_geojson(only, tmp_path / f"{z}.geojson", (z, 0))
    (found,) = open_annotations([tmp_path / "3.geojson"], [image])
    assert len(found.items) == 1
    (found,) = open_annotations([tmp_path / "0.geojson"], [image])
    assert not found.items
    assert "1 features on other planes" in found.note


def test_class_names_that_cannot_be_told_apart() -> None:
    with pytest.raises(ConfigError, match="twice"):
        ModelConfig(num_classes=2, class_names=("Tumour", "tumour"))
    with pytest.raises(ConfigError, match="no valid text"):
        ModelConfig(num_classes=2, class_names=("caf\udce9", "b"))
    assert ModelConfig(num_classes=2, class_names=("a", "Background")).background == 2


def test_pretraining_samples_tissue_and_its_background_is_that_of_the_glass() -> None:
    rng = np.random.default_rng(0)
    image = np.full((300, 400, 3), 240, np.uint8)
    image[100:200, 50:150] = rng.integers(60, 160, (100, 100, 3))
    config = ModelConfig(
        in_channels=3, scale_factors=(1, 4), crop_size=16, embed_dim=32, depth=1,
        num_heads=2,
    )  # fmt: skip
    slides, ready, _ = prepare_unlabelled([open_pyramid(image)], config)
    assert ready.normalisation == "uint8"
    assert ready.background_value == pytest.approx((240 / 255,) * 3, abs=0.01)
    tissue = slides[0].tissue
    assert tissue is not None
    assert tissue.at(np.array([[150.0, 100.0], [20.0, 380.0]])).tolist() == [
        True,
        False,
    ]
    everywhere, _, _ = prepare_unlabelled([open_pyramid(image)], config, tissue=False)
    assert everywhere[0].tissue is None


def project_of(path: Path, names: Sequence[str], label: int) -> Path:
    colors = [f"#0000{len(n):02x}" for n in names] if names else None
    with Project.create(path, class_names=names, class_colors=colors) as project:
        project.add(Ellipse(label, (20, 20), (9, 9)))
    return path


def test_project_files_of_several_slides_mean_the_same_classes(tmp_path: Path) -> None:
    one = project_of(tmp_path / "1.muvit.jsonl", ("tumour", "Background"), 1)
    two = project_of(tmp_path / "2.muvit.jsonl", ("stroma", "Tumour"), 2)
    three = square_of(tmp_path / "3.geojson", "stroma")
    images = [slide(None)] * 3
    opened = open_annotations([one, two, three], images)
    names = ("Background", "tumour", "stroma")
    assert all(marks.class_names == names for marks in opened)
    labels = [marks.items[0].label for marks in opened]  # type: ignore[union-attr]
    assert labels == [2, 2, 3]
    assert opened[0].class_colors == ("#00000a", "#000006", "#000006")
    # Where they agree, the order is theirs.
    again = project_of(tmp_path / "4.muvit.jsonl", ("tumour", "Background"), 2)
    (first, _) = open_annotations([one, again], images[:2])
    assert first.class_names == ("tumour", "Background")
    with pytest.raises(AnnotationError, match="'tumour', which is not among"):
        open_annotations([one], images[:1], classes=("a", "b"))
    config = model_config_for("tiny", images[:1], [first], scale_factors=(1,))
    assert config.class_names == ("tumour", "Background")
    prepared = prepare(images[:1], [first], config, 0)
    assert prepared.slides[0].index.counts[1] == pytest.approx(81 * np.pi, rel=0.05)


def test_a_project_without_names_counts_its_labels(tmp_path: Path) -> None:
    one = project_of(tmp_path / "1.muvit.jsonl", (), 2)
    two = project_of(tmp_path / "2.muvit.jsonl", ("a", "b"), 2)
    (marks,) = open_annotations([one], [slide(None)])
    assert marks.items[0].label == 2  # type: ignore[union-attr]
    assert marks.class_names is None
    with pytest.raises(AnnotationError, match="given together"):
        open_annotations([one, two], [slide(None)] * 2)
    opened = open_annotations([one, two], [slide(None)] * 2, classes=("b", "a"))
    assert [m.items[0].label for m in opened] == [2, 1]  # type: ignore[union-attr]


def boxes_at(*corners: float) -> Annotations:
    areas = [Rectangle(1 + n % 2, (c, c), (8, 8)) for n, c in enumerate(corners)]
    return Annotations(tuple(areas), ("a", "b"))


def test_annotations_beside_the_slide_are_told() -> None:
    config = ModelConfig(num_classes=2, scale_factors=(1,), crop_size=32)
    there = slide(None, "here")
    notes = prepare([there], [boxes_at(10, 30, 500)], config, 0).notes
    (told,) = [n for n in notes if "outside" in n]
    assert told == (
        "here: 1 of 3 annotations lie (at 500 to 508, 500 to 508) outside of its "
        "64 x 64 px and count for nothing."
    )
    with pytest.raises(AnnotationError, match=r"No annotation lies on a slide\. here"):
        prepare([there], [boxes_at(-90, 400)], config, 0)
    # One that reaches into the slide is on it.
    notes = prepare([there], [boxes_at(-4, 60)], config, 0).notes
    assert not any("outside" in n for n in notes)


def test_places_outside_are_told_in_pixels_of_the_slide() -> None:
    config = ModelConfig(
        num_classes=2, scale_factors=(1,), crop_size=32, pixel_size=1.0
    )
    notes = prepare([slide(0.5, "fine")], [boxes_at(10, 30, 500)], config, 0).notes
    (told,) = [n for n in notes if "outside" in n]
    assert "500 to 508" in told
    assert "64 x 64 px" in told


def test_no_labels_at_all() -> None:
    config = ModelConfig(num_classes=2, scale_factors=(1,), crop_size=32)
    for empty in (Annotations(()), marks(0)):
        with pytest.raises(AnnotationError, match="Nothing is annotated"):
            prepare([slide(None)], [empty], config, 0)


def test_a_slide_without_a_number_is_refused() -> None:
    image = open_pyramid(np.full((64, 64), np.nan, np.float32), name="lost")
    config = ModelConfig(
        num_classes=2, scale_factors=(1,), crop_size=32, normalisation="percentile"
    )
    with pytest.raises(ConfigError, match="lost holds no finite pixel"):
        prepare([image], [marks(1, 2)], config, 0)
