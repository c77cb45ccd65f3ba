"""A short session with any slide: open, annotate, train a minute, predict the view.

    xvfb-run -a -s "-screen 0 1400x900x24" python tools/panel_slides.py OUT --slide PATH

Without ``--labels`` boxes are drawn upon the darkest, the brightest and medium places.
With it, that label image is opened beside the slide and used as annotation. Results lie
beside the slide, or in the user's folder where that cannot be written.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from panel_dialogs import choose_reader
from panel_hands import Hands, Point, must

SIZE = (1360, 860)
CLASSES = ("dark", "medium", "bright")
EACH = 5
"""Boxes of a class."""


class SlideSession(Hands):
    """The steps for one slide."""

    def open(self, path: Path) -> None:
        """Drop a file upon the viewer."""
        before = len(self.viewer.layers)
        choose_reader("MuViT")
        self.drop(path)
        self.until(lambda: len(self.viewer.layers) > before, 60, "the file")
        self.measured[f"layers of {path.name}"] = [
            [x.name, type(x).__name__] for x in list(self.viewer.layers)[before:]
        ]

    def places(self) -> dict[str, list[Point]]:
        """Places of each class, by brightness, and half the edge of a box."""
        pyramid = self.panel.data.pyramid()
        level = pyramid.levels[-1]
        pixels = level.source.read((0, 0), level.shape).astype(float).mean(axis=0)
        edge = max(8, min(pixels.shape) // 14)
        rows, columns = (n // edge for n in pixels.shape)
        blocks = pixels[: rows * edge, : columns * edge]
        means = blocks.reshape(rows, edge, columns, edge).mean(axis=(1, 3))[1:-1, 1:-1]
        order = np.argsort(means, axis=None)
        middle = len(order) // 2
        chosen = (order[:EACH], order[middle : middle + EACH], order[-EACH:])
        scale = np.array(pyramid.shape) / np.array(pixels.shape)
        self.half = edge * float(scale[0]) * 0.42
        return {
            name: [
                tuple((np.array(np.unravel_index(k, means.shape)) + 1.5) * edge * scale)
                for k in found
            ]
            for name, found in zip(CLASSES, chosen, strict=True)
        }

    def draw(self) -> None:
        """Boxes of three classes."""
        self.step(1)
        page = self.panel.annotate
        self.click(self.named(page, "New"))
        self.rename(0, CLASSES[0])
        self.rename(1, CLASSES[1])
        self.click(self.named(page, "Add"))
        self.type_into_editor(CLASSES[2])
        self.click(page.tool_buttons["Box"])
        for key, name in enumerate(CLASSES, start=1):
            self.key(str(key))
            for y, x in self.places()[name]:
                self.stroke(
                    [(y - self.half, x - self.half), (y + self.half, x + self.half)]
                )
        self.wait(800)
        self.shot("annotated")
        drawn = len(page.slide.areas())
        must(drawn == EACH * len(CLASSES), f"{drawn} boxes are there")

    def take_labels(self, path: Path) -> None:
        """Open a label image, make it a Labels layer, and choose it."""
        from napari._app_model import get_app_model

        self.open(path)
        layer = self.viewer.layers[-1]
        name = layer.name
        if type(layer).__name__ != "Labels":
            self.viewer.layers.selection.active = layer
            command = "napari.layer.convert_to_labels"
            get_app_model().commands.execute_command(command).result()
            self.wait(500)
        self.measured["converted"] = [
            [x.name, type(x).__name__] for x in self.viewer.layers
        ]
        self.step(1)
        self.choose(self.panel.annotate.layers, name)
        self.wait(1500)
        self.shot("labels")
        self.measured["values"] = self.panel.annotate.values.values()

    def train(self, seconds: float) -> None:
        """Train for a while."""
        page = self.panel.train
        self.step(2)
        self.shot("train")
        self.click(page.train_button)
        first = self.until(
            lambda: len(page.plot.train) > 0 or not self.panel.runner.busy, 180
        )
        must(self.panel.runner.busy, f"{page.problem.text()}, {page.result.text()}")
        self.measured["first step after s"] = first
        self.wait(round(1000 * seconds))
        self.shot("training")
        self.click(self.panel.stop_button)
        self.measured["stop took s"] = self.idle(30)
        must("kept as" in page.result.text(), page.problem.text())
        self.measured["trained"] = [page.result.text(), page.problem.text()]

    def predict(self) -> None:
        """What is on screen."""
        page = self.panel.predict
        self.step(3)
        self.choose(page.region, "visible part only")
        self.click(page.predict_button)
        self.measured["view s"] = self.idle(400)
        self.shot("predicted")
        self.measured["predicted"] = [self.panel.status.text(), page.result.text()]
        must("Done" in self.panel.status.text(), page.problem.text())
        layer = [x for x in self.viewer.layers if x.name.endswith("prediction")][-1]
        finest: Any = layer.data[0] if layer.multiscale else layer.data
        values, counts = np.unique(np.asarray(finest), return_counts=True)
        self.measured["pixels"] = dict(
            zip(map(str, values), counts.tolist(), strict=True)
        )
        must(values.max() > 0, "something was predicted")


def main() -> None:
    """Run the session."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="of training")
    arguments = parser.parse_args()
    session = SlideSession(arguments.out.absolute(), SIZE)
    try:
        session.open(arguments.slide)
        session.open_panel()
        session.shot("data")
        session.measured["data"] = {
            "size": session.panel.data._facts["size"].text(),
            "channels": session.panel.data._facts["channels"].text(),
            "problem": session.panel.data.problem.text(),
        }
        if arguments.labels is not None:
            session.take_labels(arguments.labels)
        else:
            session.draw()
        session.train(arguments.seconds)
        session.predict()
        session.close()
    finally:
        sys.stdout.write(json.dumps(session.measured, indent=1) + "\n")
    must(not session.errors, session.errors)


if __name__ == "__main__":
    main()
