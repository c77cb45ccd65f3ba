"""The folder of a run: a model, what it can be resumed from, and what it left."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..config import TrainingConfig
from ..data.outputs import check_place
from ..errors import OutputError
from ..model.checkpoint import is_model_folder
from ..settings import SETTINGS_FILE, WRITTEN_BY_A_RUN
from .base_module import Network
from .report.page import CURVES, REPORT

_FULL = (errno.ENOSPC, errno.EDQUOT)
PROBE = ".write-test"
"""File by which it is found out whether a folder can be written."""
ROOM_TO_SPARE = 2**20
"""Bytes on the disk beside the weights: the card, the configuration, the curves."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run keeps its files."""

    path: Path
    """A model folder: the best weights."""

    @property
    def last(self) -> Path:
        """A model folder: the weights after the last step."""
        return self.path / "last"

    @property
    def private(self) -> Path:
        """What only a run needs."""
        return self.path / "training"

    @property
    def state(self) -> Path:
        """What a run goes on from; gone when it has ended."""
        return self.private / "state.safetensors"

    @property
    def log(self) -> Path:
        """Curves: a row a step and a row a validation."""
        return self.private / "metrics.csv"

    @property
    def record(self) -> Path:
        """What the run was and did, for the report."""
        return self.private / "record.json"

    @property
    def lock(self) -> Path:
        """Names the process that is at work here."""
        return self.private / "lock"

    @property
    def unfinished(self) -> bool:
        """Whether there is a run to go on with."""
        return self.state.is_file()

    @property
    def finished(self) -> bool:
        """Whether a run has ended here."""
        return self.record.is_file() and not self.unfinished

    @property
    def begun(self) -> bool:
        """Whether a run was killed here before it left a state to go on from."""
        if self.unfinished or self.finished or not self.private.is_dir():
            return False
        # A folder of that name may be anybody's; ours has one of these, or it was made
        # this moment.
        signs = (self.lock, self.log, self.state, self.record)
        if any(sign.exists() or _part(sign).exists() for sign in signs):
            return True
        if _is_ours(self.path / SETTINGS_FILE) and _holds_only(self.private):
            return True
        return _holds_only(self.private) and (
            is_model_folder(self.path) or _holds_only(self.path, self.private.name)
        )

    def forget_results(self, *, replaced: bool) -> None:
        """Remove what shows an earlier model, once another one is in its place.

        Parameters
        ----------
        replaced
            Whether the models of another run are replaced: then its last one goes too.

        Raises
        ------
        OutputError
            If it cannot be removed.
        """
        try:
            for name in (REPORT, CURVES):
                (self.path / name).unlink(missing_ok=True)
            if replaced and is_model_folder(self.last):
                shutil.rmtree(self.last)
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}."
            ) from error

    def forget(self) -> None:
        """Remove what an earlier run left beside its models.

        Raises
        ------
        OutputError
            If it cannot be removed.
        """
        try:
            self.record.unlink(missing_ok=True)
            self.state.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.private} cannot be written: {error.strerror or error}."
            ) from error


def run_folder(out: str | Path) -> RunFolder:
    """Return the folder of a run, the same one wherever the process goes meanwhile."""
    return RunFolder(Path(out).expanduser().absolute())


def _part(path: Path) -> Path:
    """Where a file is written before it is in its place."""
    return path.with_name(path.name + ".part")


def _is_ours(settings: Path) -> bool:
    """Whether a file has settings that a run has written, not a user."""
    try:
        with settings.open(encoding="utf-8") as file:
            return file.readline().startswith(WRITTEN_BY_A_RUN)
    except (OSError, UnicodeDecodeError):
        return False


def _holds_only(folder: Path, *names: str) -> bool:
    return all(entry.name in (*names, PROBE) for entry in folder.iterdir())


def check_output(folder: RunFolder, *, overwrite: bool, resume: bool) -> None:
    """Refuse what is somebody else's, or cannot be written, before hours of work.

    Leaves nothing behind: a mistake found later must not leave an empty folder.

    Raises
    ------
    OutputError
        With what is there and what to do.
    """
    path = folder.path
    check_place(path, "the model")
    check_content(folder, overwrite=overwrite, resume=resume)
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / PROBE
        probe.write_bytes(b"")
        probe.unlink()
        for parent in made:
            parent.rmdir()
    except OSError as error:
        remedy = "Free the disk or choose" if error.errno in _FULL else "Choose"
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. {remedy} another "
            "folder for the model."
        ) from error


def check_start_stays(folder: RunFolder, start: object) -> None:
    """Refuse to write over the model that is started from.

    Raises
    ------
    OutputError
        With what to do.
    """
    if not isinstance(start, str | Path):
        return
    place = Path(start).expanduser().resolve()
    if folder.path.resolve() in (place, *place.parents):
        raise OutputError(
            f"{start} is started from, and would be replaced by the new model at "
            f"{folder.path}. Choose another folder for the new one."
        )


def check_content(folder: RunFolder, *, overwrite: bool, resume: bool) -> None:
    """Refuse what is somebody else's; see `check_output`."""
    path = folder.path
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; a folder for the model is needed.")
    if not path.is_dir() or _holds_only(path):
        return
    known = folder.unfinished or folder.finished or folder.begun
    if not is_model_folder(path) and not known:
        raise OutputError(
            f"{path} holds other files; choose a new folder for the model."
        )
    if overwrite and resume:
        raise OutputError(
            f"{path}: --resume goes on with what is there and --overwrite starts anew; "
            "give one of them."
        )
    if resume and is_model_folder(path) and not known:
        raise OutputError(
            f"{path} holds a model, but no run to go on with. Start from it with "
            "--start and another folder, or pass --overwrite."
        )
    if resume or overwrite:
        return
    if folder.unfinished:
        raise OutputError(
            f"{path} holds a run that was stopped: go on with --resume, start anew "
            "with --overwrite, or choose another folder."
        )
    if is_model_folder(path):
        raise OutputError(
            f"{path} holds a model already; choose another folder or pass --overwrite."
        )


def check_room(folder: RunFolder, network: Network, config: TrainingConfig) -> None:
    """Refuse a disk that has no room for the run, before hours of work.

    Raises
    ------
    OutputError
        With what is free and what is needed.
    """
    path = folder.path
    place = next(p for p in (path, *path.parents) if p.exists())
    model = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    # A state: weights, two moments of each, perhaps an average; the new one is written
    # beside the old one. Models: the best one beside a new one, and the last one.
    state = model * (4 if config.ema else 3)
    needed = 2 * state + 3 * model + ROOM_TO_SPARE
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"The disk of {path} has {free / 1e6:.0f} MB left, the training needs "
            f"{needed / 1e6:.0f} MB. Free the disk or choose another folder for the "
            "model."
        )
