"""All ticked slides: offered where there are several, predicted one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel

from napari_muvit.core.data.pyramid import Pyramid
from napari_muvit.core.errors import ConfigError
from napari_muvit.widgets import MuViTPanel, predict_page
from napari_muvit.widgets.many_slides import as_slides, said_of
from napari_muvit.widgets.predict_page import ALL

if TYPE_CHECKING:
    from conftest import FakeCore

TIMEOUT = 10_000


@dataclass(frozen=True)
class Entry:
    """What the list of slides holds."""

    name: str
    path: Path | None
    ticked: bool = True
    channels: tuple[int, ...] | None = None
    pixel_size: float | None = None
    image: Pyramid | None = field(default=None, compare=False)

    @property
    def project(self) -> Path:
        return Path(self.name)

    def pyramid(self) -> Pyramid:
        assert self.image is not None
        return self.image


@pytest.fixture
def files(tmp_path: Path, slide: np.ndarray) -> list[Entry]:
    entries = []
    for name in ("one", "two"):
        tifffile.imwrite(tmp_path / f"{name}.tif", slide)
        entries.append(Entry(name, tmp_path / f"{name}.tif"))
    (tmp_path / "bad.tif").write_bytes(b"no image")
    return [*entries, Entry("bad", tmp_path / "bad.tif")]


def test_all_slides_are_predicted_and_the_shown_one_is_shown(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, core: FakeCore,
    saved_model: Path, files: list[Entry], slide: np.ndarray, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    viewer.add_image(slide, name="one")
    shown = files[0]
    ordered = [shown, files[2], files[1]]
    monkeypatch.setattr(predict_page, "prediction_slides", lambda *_: ordered)
    panel.state.shown = shown  # type: ignore[assignment]
    page = panel.predict
    page.model.use(saved_model)
    assert page.region.findText(ALL) < 0
    page.offer_all()
    page.region.setCurrentText(ALL)
    assert page.predict_button.text() == "Predict all slides"
    page.predict_button.click()
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=TIMEOUT)
    (layer,) = [x for x in viewer.layers if "muvit" in x.metadata]
    np.testing.assert_array_equal(layer.data[0], 1 + (slide > 127))
    assert (tmp_path / "two_muvit.zarr").is_dir()
    assert "2 slides are predicted" in page.result.text()
    assert page.problem.text().startswith("bad: ")
    assert len(core.runs) == 2


def test_layers_without_a_file_are_sent_as_they_are(files: list[Entry]) -> None:
    from napari_muvit.core.data.open import open_pyramid

    image = open_pyramid(np.zeros((90, 80), np.uint8), name="in memory")
    memory = Entry("m", None, image=image)
    shown = open_pyramid(np.zeros((90, 80), np.uint8), name="shown")
    slides = as_slides([files[0], memory, files[1]], files[0], shown)
    assert [s.source for s in slides] == [shown, image, files[1].path]
    assert slides[2].open().shape == (600, 700)
    with pytest.raises(ConfigError, match="No slide is ticked"):
        as_slides([], None, shown)


def test_what_became_of_them_in_words(tmp_path: Path) -> None:
    from napari_muvit._tasks.predicting_many import SlideEnd

    done = SlideEnd("a", tmp_path / "a.zarr")
    kept, failed = said_of([done])
    assert kept.startswith("1 slide is predicted.")
    assert str(tmp_path) in kept
    assert failed == ""
    kept, failed = said_of([SlideEnd("b", None, error="It is broken.")])
    assert kept == "0 slides are predicted."
    assert failed == "b: It is broken."
