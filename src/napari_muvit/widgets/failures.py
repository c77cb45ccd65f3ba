"""What is said when a job fails: the user's mistake, or one of this program."""

from __future__ import annotations

import logging
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

from napari.utils.notifications import (
    Notification,
    NotificationSeverity,
    notification_manager,
    show_error,
)
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices

from .._child import TaskFailed
from ..core.errors import MuvitError
from .places import log_file

logger = logging.getLogger(__name__)
SHOW_LOG = "Show the log"
LONGEST = 160
"""Characters of an error's own words; the log has all of them."""


def failure_words(error: BaseException) -> str:
    """Return in one line what went wrong and what to do."""
    if isinstance(error, MuvitError):
        return str(error)
    name = "" if isinstance(error, TaskFailed) else f"{type(error).__name__}: "
    words = " ".join(f"{name}{error}".split()).rstrip(".")
    if len(words) > LONGEST:
        words = f"{words[:LONGEST]} …"
    return (
        f"A mistake in MuViT ended the work ({words}). What was saved is kept; start "
        f"again, and if it comes back, report it with the log: {log_file()}"
    )


def notify(error: BaseException) -> None:
    """Show a notification; that of a bug has a button which opens the log."""
    if isinstance(error, MuvitError):
        show_error(str(error))
        return
    _log(error)
    notification_manager.dispatch(
        Notification(
            failure_words(error),
            NotificationSeverity.ERROR,
            actions=((SHOW_LOG, _show_log),),
        )
    )


def _log(error: BaseException) -> None:
    """Put the traceback where the user is sent to; the child has put its own there."""
    if isinstance(error, TaskFailed):
        logger.error("A MuViT job failed.\n%s", error.trace)
        return
    logger.error("A MuViT job failed.", exc_info=error)
    trace = "".join(traceback.format_exception(error))
    _append(log_file(), f"{datetime.now().astimezone():%F %T} ERROR\n{trace}")


def _append(path: Path, words: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(words)
    except OSError as error:
        logger.warning("%s cannot be written: %s", path, error)


def _show_log(_notification: Any = None) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(log_file())))
