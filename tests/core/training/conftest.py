from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.model.checkpoint import (
    is_model_folder,
    load_model,
    read_header,
    weights_hash,
)
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.state import read_state

Slide = tuple[np.ndarray, np.ndarray]

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=16, patch_size=8, embed_dim=32,
    depth=1, num_heads=2, num_classes=2, class_names=("background", "cell"),
    pyramid_channels=(8, 8, 8, 8), mae_dim=16, mae_depth=1,
)  # fmt: skip


@pytest.fixture
def tiny_config() -> ModelConfig:
    """A model that trains in milliseconds a step."""
    return CONFIG


def make_slide() -> Slide:
    rng = np.random.default_rng(0)
    image = rng.normal(50, 5, (160, 160))
    labels = np.ones((160, 160), np.uint8)
    for _ in range(40):
        y, x = rng.integers(0, 150, 2)
        image[y : y + 8, x : x + 8] += 100
        labels[y : y + 8, x : x + 8] = 2
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture
def slide() -> Slide:
    """Bright squares, and their labels."""
    return make_slide()


class Trainings:
    """Runs trainings in processes of their own, one at a time; see fork_server.py."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "slide.npz"
        self.log = folder / "log.txt"
        image, labels = make_slide()
        np.savez(self.data, image=image, labels=labels)
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def start(self, kind: str, out: Path, config: dict[str, Any], **job: Any) -> int:
        """Begin one; returns the number of its process."""
        self.log.unlink(missing_ok=True)
        content = {
            "kind": kind, "out": str(out), "config": config, "model": CONFIG.to_dict(),
            "data": str(self.data), "log": str(self.log), **job,
        }  # fmt: skip
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(content) + "\n")
        self.server.stdin.flush()
        return int(self._answer()["pid"])

    def end(self) -> int:
        """Wait for its end; returns the exit code, or minus the signal."""
        return int(self._answer()["code"])

    def run(self, kind: str, out: Path, config: dict[str, Any], **job: Any) -> int:
        """Begin one and wait for its end."""
        self.start(kind, out, config, **job)
        return self.end()

    def said(self) -> str:
        """What the last one wrote."""
        return self.log.read_text() if self.log.exists() else ""

    def _answer(self) -> dict[str, Any]:
        assert self.server.stdout is not None
        return dict(json.loads(self.server.stdout.readline()))

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait(timeout=60)
        self.server.stdout.close()


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    found = Trainings(tmp_path_factory.mktemp("trainings"))
    yield found
    found.close()


def load_any(folder: Path) -> Any:
    kind = MuViTMAE if read_header(folder).kind == "MuViTMAE" else None
    return load_model(folder, kind) if kind else load_model(folder)


@pytest.fixture
def hashes() -> Callable[[Path], list[str]]:
    """Of the best and the last weights of a run."""
    return lambda folder: [weights_hash(load_any(p)) for p in (folder, folder / "last")]


@pytest.fixture
def check_whole() -> Callable[[Path], None]:
    """Loads whatever a run has left; raises where something is damaged."""

    def check(folder: Path) -> None:
        for path in (folder, folder / "last"):
            if is_model_folder(path):
                load_any(path)
        if RunFolder(folder).state.exists():
            read_state(RunFolder(folder).state)

    return check
