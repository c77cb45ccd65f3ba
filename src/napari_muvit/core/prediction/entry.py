"""The way in: a slide and a model, as objects or as paths, to a `PredictionRun`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..config import PredictionConfig
from ..data.cache_settings import CacheSettings
from ..data.pyramid import Pyramid
from ..progress import ProgressFn, StopFn, ignore_progress, never_stop
from .run import PredictionRun

Model = nn.Module | str | Path
DEFAULTS = PredictionConfig()


def predict(
    source: Pyramid | str | Path,
    model: Model | Sequence[Model],
    config: PredictionConfig = DEFAULTS,
    out: str | Path | None = None,
    *,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
    cache: CacheSettings | None = None,
) -> PredictionRun:
    """Predict a slide tile by tile.

    Everything that can be wrong is checked here, before the first tile.

    Parameters
    ----------
    source
        The slide, opened or as a path.
    model
        A segmenter with a `ModelConfig` as ``config``, called as ``model(x, bboxes)``,
        or the folder of one. Of several that read the same, logits are averaged.
    config
        What to do.
    out
        Folder of the output, an OME-Zarr label image. An unfinished prediction of the
        same slide by the same model and settings is continued. None: nothing is
        written, the tiles are only handed out.
    on_progress
        Called with a `Progress` after each tile, in the iterating thread.
    should_stop
        Asked often; when true, the iteration ends and ``stopped`` is set.
    cache
        Where coarse levels are kept that the slide lacks. None: as the environment
        says.

    Returns
    -------
    PredictionRun
        Iterate over it to do the work.

    Raises
    ------
    ConfigError
        If the model cannot read this slide, or several ones do not read the same.
    PyramidError
        If the slide cannot be read.
    CheckpointError
        If the model folder cannot be read.
    DeviceError
        If the device is missing.
    OutputError
        If something else is at ``out``, it is in use, or it cannot be written.
    """
    if not isinstance(source, Pyramid):
        from ..data.open import open_pyramid

        source = open_pyramid(source)
    loaded = load_models(model)
    return PredictionRun(
        source,
        loaded.models,
        config,
        None if out is None else Path(out),
        loaded.name,
        on_progress,
        should_stop,
        cache,
        loaded.folders,
    )


@dataclass(frozen=True, eq=False, slots=True)
class LoadedModels:
    """The models of a prediction."""

    models: tuple[nn.Module, ...]
    folders: tuple[Path | None, ...]
    """Where each of them was loaded from."""

    @property
    def name(self) -> str:
        """For people."""
        return " + ".join(
            type(model).__name__ if folder is None else folder.name
            for model, folder in zip(self.models, self.folders, strict=True)
        )


def load_models(model: Model | Sequence[Model]) -> LoadedModels:
    """Load what is given as a folder.

    Raises
    ------
    CheckpointError
        If a folder cannot be read.
    """
    from ..model.checkpoint import load_model

    given = [model] if isinstance(model, nn.Module | str | Path) else list(model)
    return LoadedModels(
        tuple(m if isinstance(m, nn.Module) else load_model(m) for m in given),
        tuple(None if isinstance(m, nn.Module) else Path(m) for m in given),
    )
