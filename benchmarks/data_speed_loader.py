"""The datasets of ``data_speed.py``, in a module that workers can import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_speed_slides import FACTORS, ZARR_SIZE
from torch.utils.data import Dataset


class BareDataset(Dataset[torch.Tensor]):
    """tensorstore for the finest level, the others in memory, and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: Any = None

    def __getitem__(self, sample: int) -> torch.Tensor:
        """Read the sample with this index."""
        if self._read is None:
            from data_speed import bare_tensorstore

            self._read = bare_tensorstore(self.path)
        rng = np.random.default_rng([0, sample])
        crops = self._read(rng.integers(0, ZARR_SIZE, 2))
        return torch.from_numpy(np.stack(crops)[:, None].astype(np.float32))


def bare_dataset(path: Path) -> BareDataset:
    """Return the peer."""
    return BareDataset(path)


def our_dataset(path: Path) -> Dataset[Any]:
    """Return ours: places drawn, read, normalised, with their boxes."""
    from napari_muvit.core.config import ModelConfig
    from napari_muvit.core.data.crops import estimate_normalisation
    from napari_muvit.core.data.datasets import MAEDataset
    from napari_muvit.core.data.open import open_pyramid
    from napari_muvit.core.data.sampling import PlainSlide, UniformSampler

    pyramid = open_pyramid(path)
    config = ModelConfig(scale_factors=FACTORS, background_value=(0.0,))
    slide = PlainSlide(pyramid, estimate_normalisation(pyramid, "percentile"))
    return MAEDataset(UniformSampler([slide], config, seed=0), config)
