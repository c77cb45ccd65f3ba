from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_muvit import _sample_data
from napari_muvit._commands.parser import build_parser
from napari_muvit._layer_annotations import label_classes, label_values
from napari_muvit._layers import layer_path, layer_pyramid
from napari_muvit.core.data.synthetic import CLASS_COLORS, CLASS_NAMES
from napari_muvit.widgets import places


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Image, Labels]:
    monkeypatch.setattr(_sample_data, "SIZE", 512)
    monkeypatch.setattr(places, "cache_folder", lambda: tmp_path)
    viewer = ViewerModel()
    for data in _sample_data.synthetic_slide():
        viewer.add_layer(Layer.create(*data))
    image, truth = viewer.layers
    assert isinstance(image, Image)
    assert isinstance(truth, Labels)
    return image, truth


def test_the_sample_is_a_slide_in_micrometres(layers, tmp_path: Path) -> None:
    image, _ = layers
    assert image.multiscale
    assert image.units[0] == "micrometer"
    pyramid = layer_pyramid(image)
    assert pyramid.shape == (512, 512)
    assert pyramid.pixel_size == (0.5, 0.5)
    assert layer_path(image).parent.parent == tmp_path


def test_the_truth_comes_along_hidden(layers) -> None:
    image, truth = layers
    assert not truth.visible
    assert truth.multiscale
    np.testing.assert_allclose(truth.scale, image.scale)
    found = label_classes(truth, label_values(truth))
    expected = zip(CLASS_NAMES, CLASS_COLORS, strict=True)
    assert found == dict(enumerate(expected, start=1))


def test_a_cache_that_cannot_be_written_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(_sample_data, "SIZE", 256)
    monkeypatch.setattr(places, "cache_folder", lambda: blocked)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    image, _ = _sample_data.synthetic_slide()
    assert Path(image[1]["metadata"]["path"]).is_relative_to(tmp_path)


def test_results_of_the_sample_do_not_go_to_the_cache(
    layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cache may be emptied at any time: a trained model would be gone.
    monkeypatch.setattr(places, "user_folder", lambda: tmp_path.parent / "results")
    pyramid = layer_pyramid(layers[0])
    model = places.model_folder(pyramid.name, pyramid.path)
    assert model.parent == tmp_path.parent / "results"
    assert model.name.startswith("synthetic_slide_muvit-model")
    output = next(places.prediction_paths(pyramid.name, pyramid.path))
    assert output == tmp_path.parent / "results" / "synthetic_slide_muvit.zarr"


def test_the_sample_is_not_the_slide_that_the_demo_trains_on() -> None:
    # With the same seed the 2048 px sample was the corner of the demo's training slide.
    demo = build_parser().parse_args(["demo"]).seed
    assert _sample_data.SEED not in (demo, demo + 1000)
