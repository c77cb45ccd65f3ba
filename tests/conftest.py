"""What every test shares. Imports neither torch nor Qt: most tests need neither."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# A red run means that the change is at fault, so the examples are the same each time;
# `make test-slow` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=500, deadline=None)
settings.load_profile("repeatable")

HAS_SCREEN = sys.platform != "linux" or bool(
    os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
)
if not HAS_SCREEN:
    # Without a screen Qt would abort Python; offscreen it can draw widgets, no OpenGL.
    os.environ["QT_QPA_PLATFORM"] = "offscreen"

# Tests share the cores: two tests that each take all of them wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# pytest-qt and napari choose a Qt binding by different rules: make them agree.
for binding, module in (("pyqt6", "PyQt6"), ("pyside6", "PySide6")):
    if "QT_API" not in os.environ and importlib.util.find_spec(module):
        os.environ["QT_API"] = binding
if "QT_API" in os.environ:
    os.environ["PYTEST_QT_API"] = os.environ["QT_API"]

# The user's own napari settings neither change a test nor are changed by one.
_settings_folder = Path(tempfile.mkdtemp(prefix="napari-muvit-tests-"))
os.environ["NAPARI_CONFIG"] = str(_settings_folder / "settings.yaml")
# Nor are they touched.
os.environ["NAPARI_MUVIT_CACHE"] = str(_settings_folder / "cache")
os.environ.pop("NAPARI_MUVIT_CACHE_LIMIT_GB", None)


def pytest_unconfigure() -> None:
    shutil.rmtree(_settings_folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    conditions = {
        "gui": (_has_screen, "no screen: set DISPLAY, or run under xvfb-run"),
        "gpu": (_has_gpu, "no CUDA device"),
        "reference": (_has_reference, "the authors' package, muvit, is not installed"),
    }
    for name, (is_met, reason) in conditions.items():
        marked = [item for item in items if item.get_closest_marker(name)]
        if marked and not is_met():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_screen() -> bool:
    return HAS_SCREEN


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_reference() -> bool:
    return importlib.util.find_spec("muvit") is not None
