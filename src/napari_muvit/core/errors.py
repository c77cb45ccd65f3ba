"""Errors that a user can act on.

Every message says what was given, what is needed and what to do. The command shows
it as one line with exit code 2, the panel as one notification. Each class also derives
from the builtin that a caller would expect.
"""

from __future__ import annotations


class MuvitError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(MuvitError, ValueError):
    """A setting, or a combination of settings, that cannot work.

    Parameters
    ----------
    message
        What was given, what is needed, what to do.
    field
        Name of the configuration field, so that a form can mark it.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class PyramidError(MuvitError, ValueError):
    """An image that cannot be read as a (multiscale) image."""


class ImageNotFoundError(PyramidError, FileNotFoundError):
    """A path at which there is nothing."""

    # FileNotFoundError's own __str__ expects errno arguments.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingExtraError(PyramidError, ImportError):
    """A format or feature whose optional dependency is not installed."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AnnotationError(MuvitError, ValueError):
    """Annotations that do not fit the image, the model or the task."""


class NothingAnnotatedError(AnnotationError):
    """Annotations of which no pixel counts."""


class CheckpointError(MuvitError, ValueError):
    """A model folder that cannot be read, written or used here."""


class OutputError(MuvitError, OSError):
    """An output that exists and is somebody else's, or that cannot be written."""


class OutputBusyError(OutputError):
    """An output that another process is writing."""


class DeviceError(MuvitError, RuntimeError):
    """A device that was asked for and is not there."""


class Cancelled(MuvitError):
    """The work was stopped by ``should_stop``. What was done is kept."""
