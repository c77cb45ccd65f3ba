"""*Copy script*: what is copied runs, and does what the page would do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from qtpy.QtGui import QGuiApplication

from napari_muvit._reader import read_slides
from napari_muvit.core import open_pyramid, read_annotations
from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.errors import MuvitError
from napari_muvit.widgets import MuViTPanel
from napari_muvit.widgets.copy_script import ANNOTATE, DATA, PREDICT, TRAIN
from napari_muvit.widgets.scripts import SlideSource, config_code, open_script

SMALL = {
    "embed_dim": 16, "depth": 1, "num_heads": 2, "crop_size": 32,
    "pyramid_channels": (8, 8, 8, 16), "scale_factors": (1, 2),
}  # fmt: skip


@pytest.fixture
def slide_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (3, 2, 160, 200), dtype=np.uint8)
    path = tmp_path / "the slide.ome.tif"
    tifffile.imwrite(
        path, pixels, ome=True, metadata={"axes": "ZCYX", "PhysicalSizeX": 0.5,
        "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": "um", "PhysicalSizeYUnit": "um"},
    )  # fmt: skip
    return path


@pytest.fixture
def ready(
    qtbot: Any, viewer: ViewerModel, panel: MuViTPanel, slide_file: Path
) -> MuViTPanel:
    """Two channels of a stack as one slide, one region of each class."""
    from napari.layers import Layer

    for data in read_slides(str(slide_file)):
        viewer.add_layer(Layer.create(*data))
    viewer.dims.set_current_step(0, 2)
    panel.data.channels.file_button.click()
    panel.show_step(1)
    layer = panel.annotate.new_layer()
    assert layer is not None
    for index, x in enumerate((20, 110)):
        panel.annotate.classes.choose(index)
        layer.add_polygons([np.array([[20, x], [20, x + 60], [90, x + 60], [90, x]])])
    assert panel.annotate.slide is not None
    project = panel.annotate.slide.path
    qtbot.waitUntil(lambda: project.is_file() and len(_items(project)) == 2)
    panel.state.model_changes.update(SMALL)
    panel.state.training_changes.update(steps=2, batch_size=2)
    return panel


def _items(path: Path) -> tuple[Any, ...]:
    return tuple(read_annotations(path).items)


def copied(panel: MuViTPanel, step: int) -> str:
    panel.show_step(step)
    panel.script_button.click()
    assert panel.status.text().startswith("Copied")
    clipboard = QGuiApplication.clipboard()
    assert clipboard is not None
    return clipboard.text()


def run(script: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(script, "<script>", "exec"), names)
    return names


def test_the_slide_is_opened_as_the_panel_sees_it(ready: MuViTPanel) -> None:
    names = run(copied(ready, DATA))
    mine, theirs = ready.data.pyramid(), names["slide"]
    box, shape = mine.extent, mine.shape
    np.testing.assert_array_equal(theirs.read(box, 1, shape), mine.read(box, 1, shape))
    assert theirs.pixel_size == mine.pixel_size
    assert theirs.num_channels == 2


def test_the_annotations_are_those_of_the_panel(ready: MuViTPanel) -> None:
    names = run(copied(ready, ANNOTATE))
    mine, theirs = ready.annotate.annotations(), names["annotations"]
    assert theirs.class_names == mine.class_names
    box, shape = ready.data.pyramid().extent, ready.data.pyramid().shape
    np.testing.assert_array_equal(
        theirs.rasterise(box, shape), mine.rasterise(box, shape)
    )


@pytest.mark.parametrize("way", [0, 1])
def test_training_runs_and_makes_the_same_model(ready: MuViTPanel, way: int) -> None:
    ready.train.way.setCurrentIndex(way)
    script = copied(ready, TRAIN)
    folder = Path(re.findall(r"'([^']*muvit-model[^']*)'", script)[0])
    assert ("InteractiveTrainer" in script) == (way == 0)
    run(script)
    from napari_muvit.core.model.checkpoint import read_config

    found, wanted = read_config(folder), ready.train.task().model
    assert wanted is not None
    assert found.names == wanted.names
    assert (found.embed_dim, found.scale_factors) == (16, (1, 2))
    assert found.in_channels == 2


def test_prediction_runs_and_gives_the_tiles_of_the_panel(
    ready: MuViTPanel, tmp_path: Path
) -> None:
    from napari_muvit.core import build_model, save_model

    config = ModelConfig(**SMALL, in_channels=2, decoder="pyramid", pixel_size=0.5)
    ready.predict.model.use(save_model(build_model(config), tmp_path / "m"))
    names = run(copied(ready, PREDICT))
    out = names["run"].out
    assert open_pyramid(out).shape == (160, 200)
    assert out.with_name(f"{out.stem}_export").is_dir()


def test_what_lies_in_memory_has_no_script(
    panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray
) -> None:
    viewer.add_image(slide, name="painted")
    panel.script_button.click()
    assert "lies in memory" in panel.status.text()
    panel.show_step(TRAIN)
    panel.script_button.click()
    assert "no annotations" in panel.status.text()


def test_odd_names_are_written_as_python_reads_them(tmp_path: Path) -> None:
    path = tmp_path / 'it\'s "a" \\ slide\n.tif'
    script = open_script(SlideSource("s", path, (1,), {"t": 2}, 0.25))
    assert repr(str(path)) in script
    compile(script, "<script>", "exec")


@pytest.mark.parametrize(
    "config",
    [
        PredictionConfig(),
        PredictionConfig(
            overlap=0.0, region=(0, 1, 2, 3), outputs=("confidence",),
            outlines=((((0.0, 0.0), (0.0, 9.0), (9.0, 9.0)),),),
        ),
        ModelConfig(class_names=("it's", 'a "b"'), scale_factors=(1, 2.5)),
    ],
)  # fmt: skip
def test_settings_are_written_whole(config: Any) -> None:
    from napari_muvit import core

    assert eval(config_code(config), {"core": core}) == config


def test_a_slide_without_file_is_refused_in_words() -> None:
    with pytest.raises(MuvitError, match="lies in memory"):
        open_script(SlideSource("s", None))
