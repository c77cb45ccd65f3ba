from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_muvit._demo import MARKER, finished_summary, run
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.progress import ignore_progress, never_stop


def test_a_wrong_number_is_said_before_slides_are_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="steps"):
        run(tmp_path / "demo", 0, 0, ignore_progress, never_stop)
    assert list(tmp_path.iterdir()) == []


def test_only_a_finished_demo_of_these_numbers_is_shown_again(tmp_path: Path) -> None:
    # `demo --show` trained for another ten minutes before it showed anything.
    assert finished_summary(tmp_path, 320, 0) is None
    (tmp_path / MARKER).write_text(json.dumps({"made_by": "napari-muvit demo"}))
    assert finished_summary(tmp_path, 320, 0) is None
    state = {"steps": 320, "seed": 0, "summary": "Dice 1"}
    (tmp_path / MARKER).write_text(json.dumps(state))
    assert finished_summary(tmp_path, 320, 0) == "Dice 1"
    assert finished_summary(tmp_path, 5, 0) is None
    (tmp_path / MARKER).write_text("[]")
    assert finished_summary(tmp_path, 320, 0) is None
