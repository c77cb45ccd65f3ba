"""Where a run may write, and that nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_muvit.core.config import TrainingConfig
from napari_muvit.core.data.annotations import Annotations, Rectangle
from napari_muvit.core.errors import OutputError
from napari_muvit.core.model.checkpoint import load_model
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import finetune
from napari_muvit.core.training.run_folder import check_start_stays, run_folder

SMALL = TrainingConfig(steps=2, batch_size=2, num_threads=1, device="cpu")
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
MARKS = Annotations(
    (Rectangle(1, (0, 0), (64, 32)), Rectangle(2, (0, 32), (64, 32))), ("a", "b")
)


def test_a_run_stays_in_its_folder_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State and model lay in two folders."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def leave(event: Progress) -> None:
        if event.stage == "train":
            os.chdir(tmp_path / "elsewhere")

    result = finetune([IMAGE], [MARKS], SMALL, out="a model ä", on_progress=leave)
    assert result.model_path == tmp_path / "a model ä"
    load_model(tmp_path / "a model ä")
    assert not list((tmp_path / "elsewhere").iterdir())
    # The start would be gone, even if the new model were worse.
    before = (tmp_path / "a model ä" / "model.safetensors").read_bytes()
    for start in ("a model ä", "a model ä/last", tmp_path / "link"):
        if start == tmp_path / "link":
            start.symlink_to(tmp_path / "a model ä")
        os.chdir(tmp_path)
        with pytest.raises(OutputError, match="is started from, and would be replaced"):
            finetune([IMAGE], [MARKS], SMALL, out="a model ä/", start=start,
                     overwrite=True)  # fmt: skip
    assert (tmp_path / "a model ä" / "model.safetensors").read_bytes() == before


def test_another_folder_than_the_start_is_fine(tmp_path: Path) -> None:
    for start in (None, tmp_path / "other", tmp_path / "m2"):
        check_start_stays(run_folder(tmp_path / "m"), start)
    # A folder inside of the start's is no model of it.
    check_start_stays(run_folder(tmp_path / "m" / "new"), tmp_path / "m")
