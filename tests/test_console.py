from __future__ import annotations

import pytest

from napari_muvit._console import Console
from napari_muvit.core.progress import Progress


def test_steps_are_whole_and_seconds_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Console() as console:
        console(Progress(stage="train", done=1.0, total=5.0, unit="step"))
        console(Progress(stage="train", done=5.0, total=5.0, unit="step"))
    assert "5/5 step" in capsys.readouterr().err
    with Console() as console:
        console(Progress(stage="train", done=30.0, total=30.04, unit="s"))
    assert "30.0/30.0 s" in capsys.readouterr().err


def test_what_is_said_at_the_end_gets_no_bar_that_stays_at_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Console() as console:
        console(Progress(stage="write", done=0, total=1, message="Writing the report"))
        assert capsys.readouterr().err == "Writing the report\n"
        console(Progress(stage="write", done=1, total=1, unit="block"))
    assert "1/1 block" in capsys.readouterr().err
