from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_muvit.core import write_result
from napari_muvit.core.errors import OutputError
from napari_muvit.core.evaluation import Evaluation
from napari_muvit.core.evaluation.output import check_folder

RESULT = Evaluation(confusion=np.ones((3, 3), int), class_names=("a", "b"))


def test_three_files(tmp_path: Path) -> None:
    table, page, plot = write_result(RESULT, tmp_path / "new" / "deep", name="score")
    assert json.loads(table.read_text()) == RESULT.to_dict()
    assert page.read_text() == RESULT.markdown()
    with Image.open(plot) as image:
        assert image.format == "PNG"
    names = sorted(path.name for path in (tmp_path / "new" / "deep").iterdir())
    assert names == ["score.json", "score.md", "score.png"]


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds files already.*--overwrite"):
        write_result(RESULT, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    write_result(RESULT, tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="is a file"):
        write_result(RESULT, tmp_path / "mine.txt", overwrite=True)
    with pytest.raises(OutputError, match=r"mine\.txt is a file"):
        write_result(RESULT, tmp_path / "mine.txt" / "below")


def test_a_check_makes_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty")
