"""Long work in a thread that napari knows, may ask to stop, and waits for."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from napari.qt.threading import FunctionWorker, WorkerBaseSignals, create_worker
from qtpy.QtCore import QObject, Signal

from .._child import CannotBeSent, ChildProcess
from .._tasks.base import Commands, Task
from ..core.errors import Cancelled
from ..core.progress import Progress
from .failures import failure_words, notify
from .settings import read_settings

logger = logging.getLogger(__name__)

REPORT_INTERVAL = 0.05
"""Seconds between two progress signals; events in between travel together."""


class JobSignals(WorkerBaseSignals):  # type: ignore[misc]
    """Signals of a `Job`; all of them arrive on the GUI thread."""

    progress = Signal(object)  # a list of Progress, oldest first, none lost
    told = Signal(object)  # whatever the task passed to ``tell``
    succeeded = Signal(object)  # the result, also of a task stopped half-way
    failed = Signal(object)  # the exception
    cancelled = Signal(str)  # stopped before there was a result; how


class Job(FunctionWorker[object]):  # type: ignore[misc]
    """A worker that reports every error and can be stopped from any state.

    The stock workers lose a RuntimeError (CUDA out of memory is one), and an aborted
    generator does not run its ``finally``. This one catches everything itself and asks
    the task to stop, so that the task cleans up.

    Parameters
    ----------
    task
        The work.
    child
        The process to do it in, so that the GUI thread never waits for the interpreter;
        None: in a thread of this one.
    """

    def __init__(self, task: Task, child: ChildProcess | None = None) -> None:
        super().__init__(task)
        self.signals = JobSignals()
        self.cancel = threading.Event()
        self.commands: Commands = queue.SimpleQueue()
        self._child = child
        self._pending: list[Progress] = []
        self._reported = 0.0

    def quit(self) -> None:
        """Ask the task to stop; napari calls it when its window is closed."""
        # Not super().quit(): that would swallow what a stopped training returns.
        self.cancel.set()

    def work(self) -> None:
        """Run the task and say how it ended. Called in the worker thread."""
        signals = self.signals
        try:
            result = self._do(cast("Task", self._func))
        except Cancelled as stopped:
            self._flush()
            signals.cancelled.emit(str(stopped))
        except BaseException as error:  # noqa: BLE001 - a lost error is a stuck panel
            self._flush()
            signals.failed.emit(error)
        else:
            self._flush()
            signals.succeeded.emit(result)

    def _do(self, task: Task) -> object:
        ways: dict[str, Any] = {
            "on_progress": self._report,
            "should_stop": self.cancel.is_set,
            "tell": self.signals.told.emit,
            "commands": self.commands,
        }
        if self._child is not None:
            try:
                return self._child.run(task, **ways)
            except CannotBeSent as error:
                # Such as a dask graph with an open file in it.
                logger.info("%s; it runs in napari's process.", error)
        try:
            return task(**ways)
        finally:
            self.commands.put(None)

    def _report(self, event: Progress) -> None:
        self._pending.append(event)
        if time.monotonic() - self._reported >= REPORT_INTERVAL:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._reported = time.monotonic()
            self.signals.progress.emit(self._pending)
            self._pending = []


class JobRunner(QObject):
    """Runs one job at a time and speaks for it in the panel.

    Parameters
    ----------
    parent
        Of this object.
    child
        The process in which jobs run; None: threads of this one.
    """

    busy_changed = Signal(bool)
    progressed = Signal(object)  # a list of Progress
    said = Signal(str)  # a line for the status

    def __init__(
        self, parent: QObject | None = None, child: ChildProcess | None = None
    ) -> None:
        super().__init__(parent)
        self.child = child
        self._closing = False
        self._job: Job | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._job is not None

    def start(
        self,
        task: Task,
        *,
        on_success: Callable[[Any], None],
        on_progress: Callable[[list[Progress]], None] | None = None,
        on_told: Callable[[Any], None] | None = None,
        on_failed: Callable[[str], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """Start ``task`` in a thread; the callables run on the GUI thread.

        ``on_failed`` is told in a line why there is no result; so is a notification.
        """
        if self._job is not None:
            raise RuntimeError("A job is under way; stop it first.")
        job = create_worker(
            task, child=self.child, _worker_class=Job, _start_thread=False
        )
        job.progress.connect(self.progressed)
        for signal, slot in (
            (job.progress, on_progress),
            (job.told, on_told),
            (job.succeeded, on_success),
            (job.failed, _in_words(on_failed)),
            (job.failed, self._on_failed),
            (job.cancelled, self._on_cancelled),
            (job.finished, on_end),
            (job.finished, self._on_finished),
        ):
            if slot is not None:
                signal.connect(slot)
        self._job, self._closing = job, False
        self.busy_changed.emit(True)
        job.start()

    def stop(self) -> None:
        """Ask the job to stop; what it has done is kept."""
        if self._job is not None:
            self._job.quit()

    def close(self) -> None:
        """Stop the job and let the process end when it has saved its work."""
        self._closing = True
        if self.child is not None:
            self.child.leave()
        self.stop()
        if self.child is not None and not self.busy:
            self.child.close()

    def send(self, command: object) -> None:
        """Tell the job what the user does meanwhile; nothing without a job."""
        if self._job is not None:
            self._job.commands.put(command)

    def _on_failed(self, error: BaseException) -> None:
        self.said.emit(_first_sentence(failure_words(error)))
        notify(error)

    def _on_cancelled(self, how: str) -> None:
        self.said.emit(how)

    def _on_finished(self) -> None:
        self._job = None
        if self._closing and self.child is not None:
            self.child.close()
        self.busy_changed.emit(False)


def _first_sentence(text: str) -> str:
    return text.split("\n")[0].split(". ")[0]


def _in_words(
    say: Callable[[str], None] | None,
) -> Callable[[BaseException], None] | None:
    if say is None:
        return None

    def told(error: BaseException) -> None:
        say(failure_words(error))

    return told


def worker_threads() -> int:
    """Threads for torch, as the user has set."""
    return read_settings().num_threads
