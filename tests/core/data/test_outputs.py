"""Where results may not be written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_muvit.core.data.outputs import check_place
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import OutputError


def test_a_new_folder_may_lie_anywhere_else(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("new", "new/below", "real/", "link", "link/new", "with space, ä 日"):
        check_place(tmp_path / name, "the model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    write_pyramid(tmp_path / "a.zarr", np.ones((32, 32), np.uint8))
    for name, said in {
        "file": "file is a file; a folder for the model",
        "file/below": "file is a file; a folder for the model",
        "lost": "lost is a link that leads nowhere",
        "lost/below": "lost is a link that leads nowhere",
        "a.zarr": "zarr is an image",
        "a.zarr/model/x": "zarr is an image",
    }.items():
        with pytest.raises(OutputError, match=said):
            check_place(tmp_path / name, "the model")
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who runs the tests may be allowed everything.
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match="may not be written; choose another"):
        check_place(tmp_path / "a" / "b", "the model")
