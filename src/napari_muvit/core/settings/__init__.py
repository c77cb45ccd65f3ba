"""Everything that a training run was asked for, in one file that people can read.

It is written beside the model, so that the run can be repeated from it, and may be
written by hand: any part of it is enough.
"""

from .file import (
    SETTINGS_FILE,
    WRITTEN_BY_A_RUN,
    read_settings,
    settings_text,
    write_settings,
)
from .merge import merge_settings
from .paths import absolute, source_path
from .run import SETTINGS_VERSION, Command, Reading, RunSettings

__all__ = [
    "SETTINGS_FILE",
    "SETTINGS_VERSION",
    "WRITTEN_BY_A_RUN",
    "Command",
    "Reading",
    "RunSettings",
    "absolute",
    "merge_settings",
    "read_settings",
    "settings_text",
    "source_path",
    "write_settings",
]
