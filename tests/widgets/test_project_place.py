"""Where the annotations of an image are kept."""

from __future__ import annotations

from pathlib import Path

from napari_muvit.core.data.project_log import is_project
from napari_muvit.widgets.places import project_path


def test_beside_the_image(tmp_path: Path, user_folders: Path) -> None:
    slide = tmp_path / "slides" / "case 7.svs"
    slide.parent.mkdir()
    slide.touch()
    path = project_path("a layer", slide, (600, 700))
    assert path == slide.with_name("case_7.muvit.jsonl")
    assert is_project(path)


def test_arrays_of_one_name_do_not_mix(user_folders: Path) -> None:
    first, second = (project_path("Image", None, s) for s in ((60, 70), (60, 71)))
    assert first.parent == second.parent == user_folders
    assert first.name == "Image_60x70.muvit.jsonl"
    assert first != second
