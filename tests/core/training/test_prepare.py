from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.open import open_pyramid
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
