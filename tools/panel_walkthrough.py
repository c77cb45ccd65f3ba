"""A session with the panel by real mouse and key events, with a picture of each step.

Run it under a screen of its own::

    xvfb-run -a -s "-screen 0 1400x900x24" python tools/panel_walkthrough.py OUT

From an empty napari: a slide is dropped upon the window, three classes are typed,
regions are outlined and painted, a model is trained while more is drawn, the slide is
predicted (with a stop in between), corrected, trained on and predicted again, exported.
It prints as JSON what it measured and fails where something does not hold. ``--close``
closes the window in the middle of a training instead and ends with the process.

What it writes lies in OUT and in the user folders of the environment; give it others by
``XDG_DATA_HOME``, ``XDG_CACHE_HOME`` and ``XDG_CONFIG_HOME``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from panel_dialogs import choose_file, choose_reader
from panel_hands import CONTROL, LEFT, Hands, must
from panel_slide import CLASSES, RingSlide, dice
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

SIZE = (1360, 860)
FLOOR = 0.4
"""Mean Dice of the whole slide after the first training, of 90 steps or more; one class
everywhere has 0.2."""
ENOUGH_STEPS = 90
PAGES = ("data", "annotate", "train", "predict")


class Session(Hands):
    """The steps."""

    def __init__(self, out: Path, size: tuple[int, int]) -> None:
        super().__init__(out, size)
        self.slide = RingSlide(out / "slides")

    def open(self) -> None:
        """Drop the slide upon the empty viewer, then Plugins > MuViT."""
        began = time.monotonic()
        choose_reader("MuViT")
        self.drop(self.slide.path)
        self.until(lambda: len(self.viewer.layers) > 0, 30, "the dropped file")
        self.measured["dropped file opened in s"] = round(time.monotonic() - began, 2)
        self.open_panel()
        self.shot("data")

    def what_it_sees(self) -> None:
        """The views around the cursor."""
        page = self.panel.data
        self.click(page.boxes_button)
        self.hover((900, 950))
        self.shot("sees")

    # ---- annotate

    def name_classes(self) -> None:
        """Type the names of three classes."""
        self.step(1)
        page = self.panel.annotate
        self.click(self.named(page, "New"))
        self.rename(0, "outside")
        self.rename(1, "inside")
        self.click(self.named(page, "Add"))
        self.type_into_editor("ring")
        must(self.panel.state.names == CLASSES, self.panel.state.names)
        # Not before there is another Shapes layer: with some drivers (Mesa 22.3) napari
        # crashes after its only one was removed, whoever made it.
        self.step(0)
        self.click(self.panel.data.boxes_button)
        self.step(1)

    def draw(self) -> None:
        """Outline and paint some of each class with four tools; undo once."""
        page, slide = self.panel.annotate, self.slide
        tools = page.tool_buttons
        self.look(slide.gap(4, 4), 900)
        self.click(tools["Lasso"])
        self.key("2")
        self.stroke(slide.ring(3, 3, 0.85), closed=True)
        self.stroke(slide.ring(4, 5, 0.85), closed=True)
        self.click(tools["Polygon"])
        self.polygon(slide.ring(5, 3, 0.85, n=9))
        self.key("1")
        for place in ((4, 4), (5, 5), (3, 5), (5, 3)):
            self.polygon(slide.diamond(*place))
        self.shot("drawing")
        self.key("Z", CONTROL)
        self.key("Z", CONTROL)
        self.key("Y", CONTROL)
        self.paint_ring(3, 3)
        self.paint_ring(4, 5)
        self.look(slide.gap(4, 4), 900)
        self.wait(800)
        self.shot("annotate")
        kinds = [(type(a).__name__, a.label) for a in page.slide.areas()]
        self.measured["annotated"] = sorted(kinds)
        must(sum(k == 1 for _, k in kinds) == 3, kinds)
        must(sum(k == 2 for _, k in kinds) == 3, kinds)
        must(("BrushMask", 3) in kinds, kinds)
        project = next(self.slide.path.parent.glob("*.muvit.jsonl"))
        self.measured["project file"] = project.name

    def paint_ring(self, row: int, column: int) -> None:
        """Paint along a ring with the brush, close to it."""
        self.look(self.slide.centre(row, column), 260)
        self.click(self.panel.annotate.tool_buttons["Brush"])
        self.key("3")
        layer = self.viewer.layers.selection.active
        before = layer.brush_size
        while layer.brush_size * layer.scale[0] > 3.0:
            self.key("[")
            must(layer.brush_size < before, "the key [ makes the brush smaller")
            before = layer.brush_size
        self.stroke(self.slide.ring(row, column, n=60), closed=True)
        y, x = self.slide.centre(row, column)
        self.hover((y - 300, x - 300))  # else the brush stays in the pictures
        self.shot("painted")

    # ---- train

    def train(self, minutes: float, seconds: float) -> None:
        """Train with the preview, draw more meanwhile, pause, go on, stop."""
        page, slide = self.panel.train, self.slide
        self.step(2)
        self.type_number(page.minutes, minutes)
        self.shot("train")
        self.pan("pan idle", 2)
        self.look(slide.gap(4, 4), 900)
        self.click(page.train_button)
        self.measured["first step after s"] = self.until(
            lambda: len(page.plot.train) > 0, 180, "the first step"
        )
        began = time.monotonic()
        self.pan("pan while training", 4)
        self.look(slide.gap(4, 4), 900)
        self.draw_meanwhile()
        self.step(2)
        self.wait(round(1000 * max(0, seconds / 2 - (time.monotonic() - began))))
        self.shot("training")
        self.click(page.pause_button)
        self.wait(6000)  # the step under way, and the preview, are finished first
        steps = len(page.plot.train)
        self.wait(2500)
        must(len(page.plot.train) == steps, "it holds while it is paused")
        self.shot("paused")
        self.click(page.pause_button)
        self.wait(round(1000 * max(0, seconds - (time.monotonic() - began))))
        self.shot("trained-longer")
        must(self.panel.runner.busy, self.panel.status.text())
        self.click(self.panel.stop_button)
        self.measured["stop took s"] = self.idle(30)
        self.shot("trained")
        self.measured["steps"] = len(page.plot.train)
        self.measured["after training"] = self.panel.status.text()
        must("kept as" in page.result.text(), page.problem.text())

    def draw_meanwhile(self) -> None:
        """Outline more while it trains."""
        self.step(1)
        tools, slide = self.panel.annotate.tool_buttons, self.slide
        before = len(self.panel.annotate.slide.areas())
        self.click(tools["Lasso"])
        self.key("2")
        for place in ((4, 4), (5, 5), (3, 5)):
            self.stroke(slide.ring(*place, 0.85), closed=True)
        self.key("1")
        for place in ((5, 4), (4, 5), (3, 4), (4, 3)):
            self.stroke(slide.diamond(*place), closed=True)
        self.shot("draws-while-training")
        self.measured["drawn meanwhile"] = (
            len(self.panel.annotate.slide.areas()) - before
        )
        must(self.measured["drawn meanwhile"] == 7, self.measured)

    # ---- predict

    def predict(self, name: str, *, stop: bool) -> None:
        """Predict what is on screen, then the whole slide with a stop in between."""
        page, panel = self.panel.predict, self.panel
        self.step(3)
        self.shot("predict")
        self.choose(page.region, "visible part only")
        self.click(page.predict_button)
        self.measured[f"{name}: view s"] = self.idle(300)
        self.shot("predicted-view")
        self.choose(page.region, "all, visible")
        began = time.monotonic()
        self.click(page.predict_button)
        self.until(lambda: panel.bar.maximum() > 0 and panel.bar.value() > 50, 120)
        self.measured[f"{name}: first part after s"] = round(
            time.monotonic() - began, 2
        )
        if stop:
            self.pan("pan while predicting", 2)
            self.viewer.reset_view()
            self.shot("predicting")
            if panel.runner.busy:
                self.click(panel.stop_button)
                self.measured["stop of the prediction took s"] = self.idle(30)
            self.shot("stopped")
            must("Continue" in page.predict_button.text(), page.predict_button.text())
            self.click(page.predict_button)
        self.measured[f"{name}: rest s"] = self.idle()
        self.viewer.reset_view()
        self.shot("predicted")
        self.measured[f"{name}: said"] = panel.status.text()
        must("Done" in panel.status.text(), page.problem.text())
        self.measured[f"{name}: Dice"] = self.judge()

    def judge(self) -> dict[str, float]:
        """Dice of the prediction that is shown."""
        layer = self.prediction()
        return dice(np.asarray(layer.data[0]), self.slide.truth())

    def prediction(self) -> Any:
        """The layer of the last prediction."""
        return [x for x in self.viewer.layers if x.name.endswith("prediction")][-1]

    # ---- correct

    def correct(self) -> None:
        """Prediction to annotation, uncertain places, places by context."""
        box, slide = self.panel.predict.correct, self.slide
        self.look(slide.centre(8, 8), 500)
        self.bring_into_sight(box.head)
        self.click(box.head)
        self.click(box.uncertain_button)
        self.measured["uncertain places s"] = self.idle(60)
        self.measured["uncertain places"] = box.places.count()
        self.shot("uncertain")
        if box.places.count():
            self.bring_into_sight(box.places)
            item = box.places.visualItemRect(box.places.item(0)).center()
            QTest.mouseClick(box.places.viewport(), LEFT, pos=item)
            self.shot("went-there")
        self.look(slide.centre(8, 8), 500)
        self.click(box.context_button)
        self.measured["by context s"] = self.idle(120)
        self.measured["by context"] = box.said.text()
        self.bring_into_sight(box.said)
        self.shot("by-context")
        for layer in self.viewer.layers:
            if layer.name.startswith("changed by context"):
                layer.visible = False
        before = len(self.panel.annotate.slide.areas())
        self.click(box.take_button)
        self.idle(60)
        self.wait(500)
        self.shot("taken")
        taken = len(self.panel.annotate.slide.areas()) - before
        self.measured["regions taken from the prediction"] = taken
        must(taken > 0, box.problem.text())
        self.step(1)
        self.shot("taken-annotate")

    def train_again(self, seconds: float) -> None:
        """Go on from the model with what was corrected."""
        page = self.panel.train
        self.step(2)
        self.choose(page.start_from.combo, self.last_model())
        self.type_number(page.minutes, 5)
        self.shot("train-again")
        self.click(page.train_button)
        self.until(lambda: len(page.plot.train) > 0, 120, "the first step")
        self.wait(round(1000 * seconds))
        self.shot("training-again")
        self.click(self.panel.stop_button)
        self.measured["second stop took s"] = self.idle(30)
        must("kept as" in page.result.text(), page.problem.text())

    def last_model(self) -> str:
        """Title of the model that was trained last."""
        return str(self.panel.state.models[0].title)

    # ---- files

    def export(self) -> None:
        """Regions and objects as GeoJSON, through the file dialogs."""
        self.step(1)
        path = self.out / "regions.geojson"
        path.unlink(missing_ok=True)
        choose_file(path)
        self.click(self.named(self.panel.annotate, "Export…"))
        self.until(path.exists, 20, "the export")
        features = json.loads(path.read_text())["features"]
        areas = len(self.panel.annotate.slide.areas())
        self.measured["regions, exported"] = [areas, len(features)]
        must(len(features) >= areas, "every region is in the GeoJSON")
        self.step(3)
        choose_file(self.out)
        self.click(self.panel.predict.shown.export_button)
        self.idle(120)
        self.shot("exported")
        self.measured["exported"] = self.panel.predict.result.text()
        (folder,) = self.out.glob("*_export")
        self.measured["files"] = sorted(p.name for p in folder.iterdir())

    # ---- looks

    def looks(self) -> None:
        """Every page in the light theme, in a small window, in a narrow dock."""
        from napari.settings import get_settings

        self.window.resize(1280, 720)
        dock = self.panel.parentWidget()
        while dock is not None and not dock.inherits("QDockWidget"):
            dock = dock.parentWidget()
        for theme in ("dark", "light"):
            get_settings().appearance.theme = theme
            self.window.resizeDocks([dock], [288], Qt.Orientation.Horizontal)
            self.wait(500)
            for index, name in enumerate(PAGES):
                self.step(index)
                area = self.panel.pages.currentWidget()
                bar = area.verticalScrollBar()
                bar.setValue(0)
                self.shot(f"{theme}-{name}")
                if bar.maximum() > 0:
                    bar.setValue(bar.maximum())
                    self.shot(f"{theme}-{name}-end", self.panel)
        self.measured["width of the panel"] = self.panel.width()

    def close_while_training(self) -> None:
        """Close the window in the middle of a training."""
        page = self.panel.train
        self.step(2)
        self.click(page.train_button)
        self.until(lambda: len(page.plot.train) > 5, 120)
        self.close()


def walk(session: Session, arguments: argparse.Namespace) -> None:
    """The whole session."""
    session.open()
    session.what_it_sees()
    session.name_classes()
    session.draw()
    if arguments.close:
        session.close_while_training()
        return
    session.train(arguments.minutes, arguments.seconds)
    session.predict("first", stop=True)
    session.correct()
    session.train_again(arguments.seconds / 2)
    session.look(session.slide.centre(8, 8), 500)
    session.predict("second", stop=False)
    session.export()
    session.looks()
    session.close()
    found = session.measured["first: Dice"].values()
    if session.measured["steps"] >= ENOUGH_STEPS:
        must(sum(found) / len(found) > FLOOR, session.measured["first: Dice"])


def main() -> None:
    """Run the session."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=100.0, help="until Stop")
    parser.add_argument("--close", action="store_true")
    arguments = parser.parse_args()
    session = Session(arguments.out.absolute(), SIZE)
    try:
        walk(session, arguments)
    finally:
        sys.stdout.write(json.dumps(session.measured, indent=1) + "\n")
    must(not session.errors, session.errors)


if __name__ == "__main__":
    main()
