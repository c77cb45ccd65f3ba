"""How long the GUI thread is held up, with the work in a thread and in a process.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/gui_stalls.py
    python benchmarks/gui_stalls.py --report

Opens napari and the panel, beats every 5 ms in the GUI thread, and notes the gaps
between beats: idle, while the libraries are imported for the first time, while it
trains with the preset ``small``, while a network that computes nothing streams 30
tiles a second into a layer, each with the camera moving all the time. Also what napari
needs to show an RGB slide by itself. Each case is a process of its own; one JSON line a
case goes to ``results/gui_stalls.jsonl``, and ``--report`` writes the tables of
``docs/benchmarks/gui.md``.

The load of the machine is kept with each figure. Here drawing is done by the CPU too
(Mesa), so that an idle window that pans is the measure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gui_stalls.jsonl"
PAGE = HERE.parent / "docs" / "benchmarks" / "gui.md"
BEAT_MS = 5
FRAME_MS = 30
SECONDS = 15.0
EDGE = 8192
TILES_PER_SECOND = 30.0
WAYS = ("thread", "process")
CASES = (
    "opening", "panning", "importing", "training", "training, panning",
    "streaming, panning",
)  # fmt: skip
ALONE = ("panning an RGB slide",)
"""Without any work of ours."""


class Heart:
    """Beats in the GUI thread while something else is done."""

    def __init__(self) -> None:
        from qtpy.QtCore import QTimer

        self.beats: list[float] = []
        self._timer = QTimer()
        self._timer.timeout.connect(lambda: self.beats.append(time.monotonic()))

    def __enter__(self) -> Heart:
        self._timer.start(BEAT_MS)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.stop()

    def figures(self) -> dict[str, Any]:
        """Gaps in milliseconds."""
        gaps = np.diff(self.beats) * 1000
        return {
            "beats": len(self.beats),
            "p50_ms": round(float(np.percentile(gaps, 50)), 1),
            "p99_ms": round(float(np.percentile(gaps, 99)), 1),
            "max_ms": round(float(gaps.max()), 1),
            "over_100_ms": int((gaps > 100).sum()),
            "over_250_ms": int((gaps > 250).sum()),
        }


class Stage:
    """A window with a slide and the panel."""

    def __init__(self, *, process: bool, rgb: bool = False) -> None:
        import napari

        from napari_muvit.widgets import MuViTPanel
        from napari_muvit.widgets import panel as module

        if not process:
            module.make_child = lambda: None
        module.WARM_UP_MS = 2**30  # when the benchmark says so
        self.viewer = napari.Viewer()
        self.viewer.window._qt_window.resize(1200, 800)
        self.image = self._rgb() if rgb else self._grey()
        began = time.monotonic()
        self.panel = MuViTPanel(self.viewer)
        self.viewer.window.add_dock_widget(self.panel, name="MuViT")
        self.opened_ms = round((time.monotonic() - began) * 1000, 1)
        self.wait(1.5)
        self._phase = 0

    def _grey(self) -> Any:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 255, (EDGE // 16,) * 2, dtype=np.uint8)
        data = np.kron(coarse, np.ones((16, 16), np.uint8))
        levels = [data[:: 2**k, :: 2**k].copy() for k in range(5)]
        return self.viewer.add_image(
            levels, name="slide", scale=(0.5, 0.5), units="um", contrast_limits=(0, 255)
        )

    def _rgb(self) -> Any:
        import zarr

        folder = tempfile.mkdtemp()
        levels = []
        rng = np.random.default_rng(0)
        for k in range(5):
            edge = EDGE >> k
            level = zarr.create_array(
                f"{folder}/{k}", shape=(edge, edge, 3), chunks=(512, 512, 3), dtype="u1"
            )
            level[:] = rng.integers(0, 255, (edge, edge, 3), dtype=np.uint8)
            levels.append(level)
        return self.viewer.add_image(levels, rgb=True, scale=(0.5, 0.5), units="um")

    def wait(self, seconds: float) -> None:
        """Let the event loop run."""
        from qtpy.QtTest import QTest

        QTest.qWait(round(seconds * 1000))

    def until(self, met: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not met():
            if time.monotonic() > end:
                raise TimeoutError(self.panel.status.text())
            self.wait(0.02)

    def measured(self, seconds: float, *, pan: bool) -> dict[str, Any]:
        """Gaps within some seconds, with or without a moving camera."""
        from qtpy.QtCore import QTimer

        mover = QTimer()
        mover.timeout.connect(self._move)
        with Heart() as heart:
            if pan:
                mover.start(FRAME_MS)
            self.wait(seconds)
            mover.stop()
        return heart.figures()

    def _move(self) -> None:
        self._phase += 1
        camera = self.viewer.scene.camera
        middle = EDGE * 0.5 / 2
        angle = self._phase / 40
        reach = EDGE * 0.1
        camera.center = (
            0, middle + reach * np.sin(angle), middle + reach * np.cos(angle)
        )  # fmt: skip

    def draw(self) -> None:
        """Outline a region of each class."""
        layer = self.panel.annotate.new_layer()
        for index in range(2):
            self.panel.annotate.classes.choose(index)
            y, x = 2000 + 1500 * index, 3000
            layer.add_polygons(
                [np.array([[y, x], [y, x + 1200], [y + 1200, x + 1200], [y + 1200, x]])]
            )
        self.wait(0.5)

    def close_up(self) -> None:
        """Look at level 0."""
        camera = self.viewer.scene.camera
        camera.center = (0, EDGE / 4, EDGE / 4)
        camera.zoom = 1.0
        self.wait(0.5)


def opening() -> dict[str, Any]:
    """The first opening of the panel, in a window with an image."""
    import napari
    from qtpy.QtTest import QTest

    viewer = napari.Viewer()
    viewer.add_image(np.zeros((600, 700), np.uint8), name="slide")
    QTest.qWait(1500)
    with Heart() as heart:
        QTest.qWait(100)
        began = time.monotonic()
        _dock, panel = viewer.window.add_plugin_dock_widget("napari-muvit", "MuViT")
        docked = time.monotonic() - began
        while panel.panel is None:
            QTest.qWait(10)
        loaded = time.monotonic() - began
        QTest.qWait(1500)
    return {
        **heart.figures(), "docked_ms": round(docked * 1000, 1),
        "loaded_ms": round(loaded * 1000, 1),
    }  # fmt: skip


def importing(stage: Stage) -> dict[str, Any]:
    """The first use of what trains and predicts."""
    if stage.panel.runner.child is not None:
        with Heart() as heart:
            stage.panel.runner.child.start()
            stage.wait(SECONDS)
        return heart.figures()
    from napari_muvit._child.main import _warm_up

    def task(**_: Any) -> None:
        _warm_up()

    with Heart() as heart:
        stage.panel.runner.start(task, on_success=lambda _r: None)
        stage.until(lambda: not stage.panel.runner.busy)
        stage.wait(1)
    return heart.figures()


def training(stage: Stage, *, pan: bool) -> dict[str, Any]:
    """A live training with the preset small, pictures of the screen included."""
    panel = stage.panel
    stage.draw()
    stage.close_up()
    page = panel.train
    page.preset.setCurrentIndex(page.preset.findData("small"))
    page.minutes.setValue(30)
    page.train()
    stage.until(lambda: len(page.plot.train) > 2, 240)
    figures = stage.measured(SECONDS, pan=pan)
    steps = page.plot.train[-1][0]
    stroke = _stroke_to_picture(stage) if not pan else None
    began = time.monotonic()
    panel.runner.stop()
    stage.until(lambda: not panel.runner.busy)
    stop = round(time.monotonic() - began, 2)
    return {**figures, "steps": steps, "stroke_s": stroke, "stop_s": stop}


def _stroke_to_picture(stage: Stage) -> float:
    """Seconds from a finished outline to a picture by a model that has learned it."""
    panel = stage.panel
    watch = panel.train.watch
    began, after = time.monotonic(), panel.train.plot.train[-1][0]
    seen: list[float] = []
    show = watch.screen.show

    def note(picture: Any) -> None:
        show(picture)
        if picture.trained_steps > after + 1:
            seen.append(time.monotonic() - began)

    watch.screen.show = note
    layer = panel.annotate.new_layer()
    layer.add_polygons([np.array([[900, 900], [900, 1300], [1300, 1300]])])
    stage.until(lambda: bool(seen), 120)
    return round(seen[0], 1)


def streaming(stage: Stage) -> dict[str, Any]:
    """Tiles of a network that computes nothing, 30 a second."""
    from null_task import NullPredictTask

    from napari_muvit.core.config import ModelConfig, PredictionConfig

    panel = stage.panel
    stage.close_up()
    out = Path(tempfile.mkdtemp()) / "null.zarr"
    model = ModelConfig(num_classes=3, scale_factors=(1,), crop_size=256)
    task = NullPredictTask(
        image=panel.data.pyramid(), model=model, out=out,
        config=PredictionConfig(overlap=0.0, num_threads=1), pause=1 / TILES_PER_SECOND,
    )  # fmt: skip
    shown = Shown(stage)
    panel.runner.start(
        task, on_success=lambda _r: None, on_told=shown.take, on_end=shown.end
    )
    stage.until(lambda: shown.tiles > 0, 120)
    before = shown.tiles
    figures = stage.measured(min(SECONDS, 7.0), pan=True)
    rate = (shown.tiles - before) / min(SECONDS, 7.0)
    panel.runner.stop()
    stage.until(lambda: not panel.runner.busy)
    return {**figures, "tiles_per_s": round(rate, 1)}


class Shown:
    """Puts tiles into a layer as the Predict page does."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.live: Any = None
        self.tiles = 0

    def take(self, said: Any) -> None:
        """Take what the task tells."""
        from napari_muvit._tasks.commands import Look
        from napari_muvit._tasks.predicting import Opened
        from napari_muvit.widgets.streaming import LivePrediction

        stage = self.stage
        if isinstance(said, Opened):
            self.live = LivePrediction(
                stage.viewer, stage.image, said, "prediction",
                lambda box: stage.panel.runner.send(Look(box)),
            )  # fmt: skip
        else:
            self.tiles += 1
            self.live.put(said)

    def end(self) -> None:
        """Let go of the viewer."""
        if self.live is not None:
            self.live.finish()


def run_case(case: str, way: str) -> dict[str, Any]:
    """Measure one case in this process."""
    if case == "opening":
        return {
            "case": case, "way": way, **opening(), "load": round(os.getloadavg()[0], 1),
            "cpus": os.cpu_count(), "torch_in_napari": "torch" in sys.modules,
        }  # fmt: skip
    stage = Stage(process=way == "process", rgb=case in ALONE)
    if case == "importing":
        figures = importing(stage)
    elif case.startswith("training"):
        figures = training(stage, pan="panning" in case)
    elif case.startswith("streaming"):
        figures = streaming(stage)
    else:
        stage.close_up()
        figures = stage.measured(SECONDS, pan=True)
    row = {
        "case": case, "way": way, **figures, "opened_ms": stage.opened_ms,
        "load": round(os.getloadavg()[0], 1), "cpus": os.cpu_count(),
        "torch_in_napari": "torch" in sys.modules,
    }  # fmt: skip
    stage.viewer.close()
    return row


def report() -> None:
    """Write the tables of the page from the last run of each case."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    last = {(row["case"], row["way"]): row for row in rows}
    head = "| | work in | p50 ms | p99 ms | longest ms | > 100 ms | > 250 ms | |"
    lines = [head, "|" + "---|" * 8]
    for (case, way), row in sorted(last.items(), key=lambda item: _order(*item[0])):
        more = []
        more += [f"{row['tiles_per_s']} tiles/s"] if "tiles_per_s" in row else []
        more += [f"docked in {row['docked_ms']:.0f} ms"] if "docked_ms" in row else []
        more += (
            [f"loaded after {row['loaded_ms']:.0f} ms"] if "docked_ms" in row else []
        )
        stroke = row.get("stroke_s")
        more += [f"stroke to picture {stroke} s"] if stroke else []
        more += [f"stop {row['stop_s']} s"] if "stop_s" in row else []
        numbers = ("p50_ms", "p99_ms", "max_ms", "over_100_ms", "over_250_ms")
        cells = [
            case,
            "–" if case in ("opening", *ALONE) else way,
            *(f"{row[name]:.0f}" for name in numbers),
            ", ".join([*more, f"load {row['load']}"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    text = PAGE.read_text()
    begin, end = "<!-- stalls: begin -->\n", "<!-- stalls: end -->\n"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + end + after)


def _order(case: str, way: str) -> tuple[int, int]:
    known = (*CASES, *ALONE)
    return known.index(case), WAYS.index(way)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=(*CASES, *ALONE))
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    if given.report:
        report()
        return
    if given.case and given.way:
        row = run_case(given.case, given.way)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
        os._exit(0)  # what napari has left open is not of interest here
    once = ("opening", *ALONE)
    cases = [
        (c, w) for c in (*CASES, *ALONE) for w in WAYS if c not in once or w == WAYS[1]
    ]
    for case, way in cases:
        if (given.case or case) == case and (given.way or way) == way:
            subprocess.run(
                [sys.executable, __file__, "--case", case, "--way", way],
                check=False, timeout=600,
            )  # fmt: skip
    report()


if __name__ == "__main__":
    main()
