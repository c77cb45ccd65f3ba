from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import napari_muvit
from napari_muvit.widgets import settings as module
from napari_muvit.widgets.job import worker_threads
from napari_muvit.widgets.places import cache_folder
from napari_muvit.widgets.settings import PanelSettings, read_settings


def manifest() -> dict[str, Any]:
    path = Path(napari_muvit.__file__).parent / "napari.yaml"
    return yaml.safe_load(path.read_text())["contributions"]["configurations"]


def test_the_manifest_lists_them_with_the_same_defaults() -> None:
    listed = manifest()["work"]["properties"]
    defaults = PanelSettings()
    assert {k: v["default"] for k, v in listed.items()} == {
        name: getattr(defaults, name) for name in PanelSettings.__slots__
    }
    for values in listed.values():
        assert values["title"]
        assert values["description"]


def test_without_napari_keeping_any_they_are_the_defaults() -> None:
    assert read_settings() == PanelSettings()


@pytest.mark.parametrize(
    ("cores", "asked", "threads"), [(1, 0, 1), (2, 0, 1), (16, 0, 15), (8, 3, 3)]
)
def test_a_core_is_left_for_napari_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, cores: int, asked: int, threads: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert PanelSettings(threads=asked).num_threads == threads
    assert worker_threads() == PanelSettings().num_threads


def test_the_cache_is_told_to_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (module.FOLDER, module.LIMIT, module.TORCH):
        monkeypatch.delenv(name, raising=False)
    settings = PanelSettings(cache_folder=" /data/cache ", cache_gigabytes=5)
    found = dict(settings.environment())
    assert found.pop(module.TORCH) == str(cache_folder() / "torch")
    assert found == {module.FOLDER: "/data/cache", module.LIMIT: "5"}
    # What was set in the terminal is meant for this time.
    monkeypatch.setenv(module.FOLDER, "/elsewhere")
    monkeypatch.setenv(module.TORCH, "/elsewhere")
    assert settings.environment() == {module.LIMIT: "5"}
    assert module.FOLDER not in PanelSettings().environment()


def test_what_napari_keeps_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import napari.settings

    class Kept:
        device, threads, cache_folder = "cuda:1", 4, "/data"
        cache_gigabytes, own_process = 7.0, False

    class Plugin:
        work = Kept

    monkeypatch.setattr(napari.settings, "get_plugin_settings", lambda _name: Plugin)
    assert read_settings() == PanelSettings("cuda:1", 4, "/data", 7.0, False)
