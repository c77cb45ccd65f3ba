"""Objects, tables and outlines of a prediction, as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.export import Export, ExportConfig, export_prediction
from ..core.progress import Progress
from .base import Commands, make_folder


@dataclass(frozen=True, slots=True)
class ExportTask:
    """Write an export; files of an earlier one are replaced."""

    prediction: Path
    out: Path
    """Folder for the files."""
    config: ExportConfig

    def __str__(self) -> str:
        return "MuViT export"

    __repr__ = __str__

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> Export:
        """Call `export_prediction`."""
        make_folder(self.out.parent)
        return export_prediction(
            self.prediction, self.out, self.config, overwrite=True,
            on_progress=on_progress, should_stop=should_stop,
        )  # fmt: skip
