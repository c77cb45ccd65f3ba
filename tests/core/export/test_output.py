"""All of the folder appears, or nothing."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from napari_muvit.core.errors import OutputError
from napari_muvit.core.export.output import OutputFolder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_files_appear_together(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "new" / "out") as folder:
        (folder.part / "a").write_text("1")
        assert not folder.path.exists()
        folder.commit()
    assert names(tmp_path / "new") == ["out"]
    assert names(tmp_path / "new" / "out") == ["a"]


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        with OutputFolder(tmp_path / "out") as folder:
            (folder.part / "a").write_text("1")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == []


def test_a_killed_export_is_in_the_way_of_nothing(tmp_path: Path) -> None:
    left = tmp_path / ".out.part"
    left.mkdir()
    (left / "corners.bin").write_text("half")
    owner = {"pid": 999999999, "host": socket.gethostname()}
    (tmp_path / ".out.lock").write_text(json.dumps(owner))
    with OutputFolder(tmp_path / "out") as folder:
        assert names(folder.part) == []
        folder.commit()
    assert names(tmp_path) == ["out"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as first:
        (first.part / "a").write_text("1")
        with pytest.raises(OutputError, match="is being written"):
            OutputFolder(tmp_path / "out").__enter__()
        first.commit()
    assert names(tmp_path / "out") == ["a"]


def test_files_are_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a", "mine", "report.json"):
        (out / name).write_text("old")
    with pytest.raises(OutputError, match="--overwrite"):
        OutputFolder(out)
    with OutputFolder(out, overwrite=True) as folder:
        for name in ("a", "report.json"):
            (folder.part / name).write_text("new")
        folder.commit()
    assert {n: (out / n).read_text() for n in names(out)} == {
        "a": "new", "mine": "old", "report.json": "new",
    }  # fmt: skip


def test_places_that_cannot_be_meant(tmp_path: Path) -> None:
    store = tmp_path / "p.zarr"
    store.mkdir()
    (store / "zarr.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for path, why in [
        (store, "itself a .zarr"),
        (store / "out", "itself a .zarr"),
        (tmp_path / "file" / "out", "is a file"),
    ]:
        with pytest.raises(OutputError, match=why):
            OutputFolder(path)
    (tmp_path / "empty").mkdir()
    with OutputFolder(tmp_path / "empty") as folder:
        (folder.part / "a").write_text("1")
        folder.commit()
    assert names(tmp_path / "empty") == ["a"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_is_locked(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            OutputFolder(tmp_path / "out").__enter__()
    finally:
        tmp_path.chmod(0o700)
