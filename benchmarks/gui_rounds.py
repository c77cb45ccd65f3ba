"""Whether napari and its child grow with each round of training and prediction.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/gui_rounds.py [--rounds 10]

Opens napari and the panel, and trains a minute model live and predicts a slide of 600
pixels, again and again. After each round: memory, threads and open files of napari's
process and of its child, and temporary files. One JSON line a round goes to
``results/gui_rounds.jsonl``. The first two rounds load libraries and fill caches; the
criterion is that the last round has no more than 100 MB more than the second one.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

RESULTS = Path(__file__).parent / "results" / "gui_rounds.jsonl"
EDGE = 600
STEPS = 10
LIMIT_MB = 100.0
MINUTE = {
    "crop_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "decoder_dim": 16,
    "mae_dim": 16,
}  # fmt: skip


class Stage:
    """A window with a slide, the panel and two regions."""

    def __init__(self, folder: Path) -> None:
        import napari
        from qtpy.QtCore import QStandardPaths

        QStandardPaths.writableLocation = staticmethod(lambda _where: str(folder))
        from napari_muvit.widgets import MuViTPanel

        self.viewer = napari.Viewer()
        rng = np.random.default_rng(0)
        slide = rng.integers(0, 60, (EDGE, EDGE), dtype=np.uint8)
        slide[:, EDGE // 2 :] += 150
        self.viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
        self.panel = MuViTPanel(self.viewer)
        self.viewer.window.add_dock_widget(self.panel, name="MuViT")
        self.panel.state.model_changes.update(MINUTE)
        self.panel.state.training_changes.update(batch_size=2)
        self.wait(1)
        layer = self.panel.annotate.new_layer()
        for index, x in enumerate((20, EDGE // 2 + 20)):
            self.panel.annotate.classes.choose(index)
            square = [[20, x], [20, x + 150], [170, x + 150], [170, x]]
            layer.add_polygons([np.array(square, dtype=float)])
        self.wait(1)

    @staticmethod
    def wait(seconds: float) -> None:
        """Let the event loop run."""
        from qtpy.QtTest import QTest

        QTest.qWait(round(seconds * 1000))

    def until(self, met: Callable[[], bool], seconds: float = 180) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not met():
            if time.monotonic() > end:
                raise TimeoutError(self.panel.status.text())
            self.wait(0.02)

    def round(self) -> None:
        """Train a few steps, stop, predict the slide."""
        panel = self.panel
        panel.train.train()
        self.until(lambda: len(panel.train.plot.train) >= STEPS)
        panel.runner.stop()
        self.until(lambda: not panel.runner.busy)
        panel.predict.predict()
        self.until(lambda: not panel.runner.busy)
        if "Done" not in panel.status.text():
            raise RuntimeError(panel.status.text())
        self.wait(0.5)
        gc.collect()


def figures(stage: Stage, number: int) -> dict[str, Any]:
    """What there is of the two processes now."""
    row: dict[str, Any] = {"round": number, "load": round(os.getloadavg()[0], 1)}
    child = stage.panel.runner.child
    pids = {"napari": os.getpid(), "child": None if child is None else child.pid}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        row[name] = {
            "rss_mb": round(process.memory_info().rss / 1e6, 1),
            "threads": process.num_threads(),
            "files": process.num_fds(),
            "children": len(process.children()),
        }
    row["temporary"] = sorted(p.name for p in Path(tempfile.gettempdir()).iterdir())
    row["layers"] = len(stage.viewer.layers)
    return row


def main() -> None:
    """Run the benchmark; the exit code says whether it met the criterion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as user, tempfile.TemporaryDirectory() as temp:
        os.environ["TMPDIR"] = tempfile.tempdir = temp
        stage = Stage(Path(user))
        rows = []
        for number in range(1, rounds + 1):
            stage.round()
            rows.append(figures(stage, number))
            print(json.dumps(rows[-1]), flush=True)
        stage.viewer.close()
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    grown = {
        name: round(
            rows[-1][name]["rss_mb"] - rows[min(1, len(rows) - 1)][name]["rss_mb"], 1
        )
        for name in ("napari", "child")
    }
    print("grown by MB since the second round:", grown)
    sys.stdout.flush()
    os._exit(int(max(grown.values()) > LIMIT_MB))


if __name__ == "__main__":
    main()
