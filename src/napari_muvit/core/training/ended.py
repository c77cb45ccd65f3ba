"""What is answered where a run is to go on that has ended."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..config import ModelConfig, TrainingConfig
from ..errors import OutputError
from ..progress import Progress, ProgressFn
from ..settings import Command
from .keeper import Asked, check_same
from .report.record import RunRecord
from .result import TrainingResult, result_of
from .run_folder import RunFolder, check_content

LIMITS = ("steps", "epochs", "minutes")


@dataclass(frozen=True, eq=False, slots=True)
class EndedRun:
    """A run that has ended."""

    folder: RunFolder
    record: RunRecord
    """What it left."""

    def answer(self, asked: Asked, on_progress: ProgressFn) -> TrainingResult:
        """Return its result where the same was asked for, and say that it has ended.

        Parameters
        ----------
        asked
            What is asked for now.
        on_progress
            Told it.

        Raises
        ------
        ConfigError
            If other settings or other data are asked for.
        """
        record = self.record
        # Records of earlier versions do not know their data.
        before = Asked(
            kind=record.kind, model=record.model, training=record.training,
            data=record.data or asked.data,
        )  # fmt: skip
        check_same(asked, before.to_dict(), self.folder)
        wanted = TrainingConfig.from_dict(dict(asked.training))
        text = self._text(wanted)
        on_progress(Progress(stage="prepare", done=1, total=1, message=text))
        return self._result()

    def _text(self, wanted: TrainingConfig) -> str:
        path, record = self.folder.path, self.record
        ended = f"The run at {path} has ended after {record.steps} steps"
        further = f"begin a run elsewhere with --start {path}"
        more = [
            f"{now:g} {name}"
            for name in LIMITS
            if (now := getattr(wanted, name)) is not None
            and now > (record.training.get(name) or 0)
        ]
        if more:
            return (
                f"{ended} and does not go on to {' or '.join(more)}: its learning rate "
                f"has run out. To train its model further, {further}; for one longer "
                "run, start anew with --overwrite."
            )
        return f"{ended}; nothing is left to do. To train its model further, {further}."

    def _result(self) -> TrainingResult:
        report = self.folder.path / "report.html"
        config = ModelConfig.from_dict(self.record.model)
        return result_of(
            self.folder.path, self.record, config, report if report.is_file() else None
        )


def find_ended(
    folder: RunFolder, kind: Command, *, overwrite: bool, resume: bool
) -> EndedRun | None:
    """Return the run that has ended and is to go on; None where there is none.

    Parameters
    ----------
    folder
        Of the run.
    kind
        What is asked for.
    overwrite, resume
        See `finetune`.

    Raises
    ------
    OutputError
        If another kind of run ended there, or its record is damaged.
    """
    if not (resume and folder.finished):
        return None
    check_content(folder, overwrite=overwrite, resume=resume)
    try:
        content = json.loads(folder.record.read_text(encoding="utf-8"))
        record = RunRecord.from_dict(content)
        ModelConfig.from_dict(record.model)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{folder.record} cannot be read: {error}. Start anew with --overwrite."
        ) from error
    if record.kind != kind:
        raise OutputError(f"{folder.path} holds a {record.kind} run, not {kind}.")
    return EndedRun(folder, record)
