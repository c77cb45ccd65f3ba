from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data.datasets import SegmentationDataset
from napari_muvit.core.errors import Cancelled
from napari_muvit.core.training import plan_finetuning

TINY = ModelConfig(
    scale_factors=(1, 2), crop_size=16, embed_dim=16, depth=1, num_heads=2,
    decoder_dim=16, num_classes=2,
)  # fmt: skip


def test_a_stop_is_heard_while_the_crops_of_a_timed_step_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    labels = np.ones((64, 64), np.uint8)
    labels[:, 32:] = 2
    read: list[int] = []
    plain = SegmentationDataset.__getitem__

    def counted(self: SegmentationDataset, index: int) -> Any:
        read.append(index)
        return plain(self, index)

    monkeypatch.setattr(SegmentationDataset, "__getitem__", counted)
    with pytest.raises(Cancelled):
        plan_finetuning(
            [image], [labels], TrainingConfig(steps=1, batch_size=64), model=TINY,
            out=tmp_path / "m", should_stop=lambda: len(read) >= 3,
        )  # fmt: skip
    assert len(read) == 3
