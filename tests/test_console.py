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
