"""The child process as napari's side sees it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ..core.errors import Cancelled, MuvitError
from ..core.progress import Progress
from .wire import Kind, Message, Wire

POLL_SECONDS = 0.02
"""Between two looks whether a task is to stop."""
GRACE_SECONDS = 10.0
"""Time that a stopped task has to save its work before its process is ended."""
LEAVE_SECONDS = 2.5
"""The same when napari is closed; the task may save its work when napari is gone."""
IDLE_SECONDS = 0.5
"""Time in which a stopped task may say that it has begun."""
LOG_BYTES = 2**20
"""A longer log is begun anew."""
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from napari_muvit._child.main import main; main()"
)


logger = logging.getLogger(__name__)


class ChildDied(MuvitError):
    """The process of a task ended in the midst of it."""


class CannotBeSent(TypeError):
    """A task that holds what no other process can have."""


class TaskFailed(RuntimeError):
    """A task failed by a bug: an error that is not a `MuvitError`."""

    def __init__(self, words: str, trace: str) -> None:
        super().__init__(words)
        self.trace = trace
        """The traceback in the child."""


class ChildProcess:
    """A warm process that runs one task at a time; started when it is first needed.

    Parameters
    ----------
    log
        File for what the process prints and logs, behind what others have written
        there. None: it goes where that of this process goes.
    environment
        Gives variables that the process has besides those of this one, when it starts.
    """

    def __init__(
        self,
        log: Path | None = None,
        environment: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: Wire | None = None
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._starting = threading.Lock()
        self._leaving = False

    @property
    def pid(self) -> int | None:
        """Number of the process; None where there is none."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if alive and self._process is not None else None

    def start(self) -> None:
        """Start the process unless it runs; it imports torch by itself meanwhile.

        Raises
        ------
        ChildDied
            If no process can be started.
        """
        with self._starting:
            if self.pid is not None:
                return
            self._close()
            try:
                process = self._launch()
            except OSError as error:
                raise ChildDied(
                    f"No process for the work can be started: {error}."
                ) from error
            source, sink = cast("Any", process.stdout), cast("Any", process.stdin)
            self._process, self._wire = process, Wire(source, sink)
            self._inbox = queue.SimpleQueue()
            threading.Thread(
                target=_collect, args=(self._wire, self._inbox), daemon=True
            ).start()

    def _launch(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[2])
        with contextlib.ExitStack() as stack:
            log = None
            if self.log is not None:
                log = stack.enter_context(_open_log(self.log))
            return subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, root],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env={**os.environ, **self._environment()},
                # Ctrl-C in the terminal is napari's, which stops the task itself.
                start_new_session=os.name == "posix",
            )

    def run(
        self,
        task: Callable[..., object],
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[Any], None],
        commands: queue.SimpleQueue[object],
    ) -> Any:
        """Run a task there, from a thread that may wait.

        Parameters
        ----------
        task
            Can be pickled; called there with the same four keywords.
        on_progress, tell
            Called in this thread with what the task hands out.
        should_stop
            Asked about fifty times a second.
        commands
            What comes out of it goes to the task's own.

        Raises
        ------
        MuvitError
            What the task raises; `ChildDied` if its process ends.
        TaskFailed
            If it raises anything else.
        CannotBeSent
            If the task cannot be pickled.
        """
        self._leaving = False
        self.start()
        number, wire = next(self._numbers), cast("Wire", self._wire)
        try:
            _send(wire, "task", number, task)
            return self._attend(number, wire, on_progress, should_stop, tell, commands)
        except (MuvitError, TaskFailed, CannotBeSent):
            raise
        except OSError as error:
            raise self._death() from error
        except BaseException:
            # The task goes on there, and the next one would wait for it for ever.
            self.kill()
            raise

    def _attend(
        self,
        number: int,
        wire: Wire,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[Any], None],
        commands: queue.SimpleQueue[object],
    ) -> Any:
        wait = _Wait()
        while True:
            self._forward(number, wire, commands)
            if not wait.stopped and should_stop():
                wait.stopped = time.monotonic()
                wire.send("stop", number)
            if wait.over(self._leaving):
                raise self._given_up(wait)
            try:
                message = self._inbox.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if message is None:
                raise Cancelled("Stopped.") if wait.stopped else self._death()
            if message.number != number:
                continue
            wait.begun = True
            if message.kind == "progress":
                on_progress(message.content())
            elif message.kind == "told":
                tell(message.content())
            elif message.kind != "begun":
                return _result(message)

    def _given_up(self, wait: _Wait) -> Cancelled:
        if not wait.begun:
            # The process still imports its libraries; it will pass the task over.
            return Cancelled("Stopped before it began.")
        if self._leaving:
            self.close()
            return Cancelled("Stopped.")
        self.kill()
        return Cancelled("Stopped; it had to be ended.")

    @staticmethod
    def _forward(number: int, wire: Wire, commands: queue.SimpleQueue[object]) -> None:
        while True:
            try:
                _send(wire, "command", number, commands.get_nowait())
            except queue.Empty:
                return
            except CannotBeSent as error:
                # Such as annotations by a layer that no other process can have.
                logger.warning("%s", error)

    def _death(self) -> ChildDied:
        process = self._process
        with contextlib.suppress(subprocess.TimeoutExpired, AttributeError):
            cast("Any", process).wait(timeout=5)
        code = None if process is None else process.poll()
        why = f"exit status {code}"
        if code is not None and code < 0:
            why = f"signal {-code}" + (
                ", as when memory runs out" if code == -9 else ""
            )
        where = f" What it said last is in {self.log}." if self.log else ""
        return ChildDied(
            f"The process that did the work ended by itself ({why}). What was saved "
            f"is kept; start again.{where}"
        )

    def leave(self) -> None:
        """Let who waits for a task that is stopped do so for a short time only."""
        self._leaving = True

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._close()

    def close(self) -> None:
        """Let the process end; what it is at is stopped and saved. Does not wait."""
        process = self._process
        self._close()
        if process is not None and process.poll() is None:
            # Somebody has to wait for it, or it stays a zombie.
            threading.Thread(target=process.wait, daemon=True).start()

    def _close(self) -> None:
        process, self._process, self._wire = self._process, None, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()


def _open_log(path: Path) -> IO[bytes]:
    """Open a log that several processes may write; a long one is begun anew.

    What a process said that died is still there when the next one starts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES:
            os.truncate(path, 0)
    return path.open("ab")


def _send(wire: Wire, kind: Kind, number: int, content: object) -> None:
    try:
        wire.send(kind, number, content)
    except OSError:
        raise
    except Exception as error:
        raise CannotBeSent(f"{content} cannot be sent: {error}") from error


@dataclass
class _Wait:
    """How long a task that was stopped is waited for."""

    stopped: float = 0.0
    """When; 0: it was not."""
    begun: bool = False

    def over(self, leaving: bool) -> bool:
        """Whether that is long enough."""
        patience = LEAVE_SECONDS if leaving else GRACE_SECONDS
        if not self.begun:
            patience = IDLE_SECONDS
        return bool(self.stopped) and time.monotonic() - self.stopped > patience


def _collect(wire: Wire, inbox: queue.SimpleQueue[Message | None]) -> None:
    """Take what the process sends, so that it never waits for this one."""
    with contextlib.suppress(EOFError, OSError, ValueError):
        while True:
            inbox.put(wire.receive())
    wire.close()
    inbox.put(None)


def _result(message: Message) -> Any:
    content = message.content()
    if message.kind == "result":
        return content
    error, trace = content
    if isinstance(error, MuvitError):
        raise error
    raise TaskFailed(error, trace)
