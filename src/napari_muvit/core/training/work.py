"""Holding the folder of a run while it is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from ..config import TrainingConfig
from ..errors import OutputError
from ..lock import OutputLock
from ..model.checkpoint import is_model_folder
from .distributed import is_first_process
from .run_folder import RunFolder, check_content


@contextmanager
def at_work(
    folder: RunFolder,
    config: TrainingConfig,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[OutputLock | None]:
    """Hold the folder, in the process that writes; None in the others.

    Slides are opened and checked before, which takes minutes. So what is there is
    looked at again, now that nobody else can change it.

    Parameters
    ----------
    folder
        Of the run.
    config
        Says which process writes.
    overwrite, resume
        See `finetune`.

    Raises
    ------
    OutputError
        If another process is at work there, or was since the folder was checked.
    """
    if not is_first_process(config):
        yield None
        return
    made = not folder.path.exists()
    begun = folder.begun
    folder.private.mkdir(parents=True, exist_ok=True)
    lock = OutputLock(folder.lock, folder.path)
    try:
        check_content(folder, overwrite=overwrite, resume=resume)
        if resume and not folder.unfinished:
            _check_nothing_new(folder, begun)
        yield lock
    finally:
        lock.release()
        # A run that left nothing leaves no folder.
        with contextlib.suppress(OSError):
            if made and list(folder.path.iterdir()) == [folder.private]:
                folder.private.rmdir()
                folder.path.rmdir()


def _check_nothing_new(folder: RunFolder, begun: bool) -> None:
    """Refuse to begin where meanwhile another process has come to an end."""
    if folder.finished or (is_model_folder(folder.path) and not begun):
        raise OutputError(
            f"{folder.path} was written by another process meanwhile, whose run has "
            "ended. Look at it with --resume, choose another folder, or start anew "
            "with --overwrite."
        )
