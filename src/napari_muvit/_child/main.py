"""What runs in the child process: one task after the other, until the pipe ends."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import traceback
from typing import Any, cast

from ..core.errors import Cancelled, MuvitError
from ..core.progress import Progress
from .wire import Message, Wire

LAST_SECONDS = 30.0
"""Time in which a task has to end when napari is gone; it saves what it has."""

NICE = 5
"""Niceness of the process: drawing is worth more than a step of training."""

logger = logging.getLogger(__name__)


class Bench:
    """Takes messages from the wire in a thread, and runs the tasks in its own."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._tasks: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._at_work = False
        self._stops: dict[int, threading.Event] = {}
        self._commands: dict[int, queue.SimpleQueue[object]] = {}

    def listen(self) -> None:
        """Take messages until the other side is gone; runs in a thread."""
        try:
            while True:
                self._take(self.wire.receive())
        except (EOFError, OSError):
            self._tasks.put(None)
            with self._guard:
                stops = list(self._stops.values())
                if not self._at_work:
                    os._exit(0)  # also in the midst of the imports
            for stop in stops:
                stop.set()
            last = threading.Timer(LAST_SECONDS, os._exit, (1,))
            last.daemon = True
            last.start()

    def _take(self, message: Message) -> None:
        with self._guard:
            if message.kind == "task":
                self._stops[message.number] = threading.Event()
                self._commands[message.number] = queue.SimpleQueue()
                self._tasks.put(message)
            elif message.number not in self._stops:
                return  # about a task that has ended meanwhile
            elif message.kind == "stop":
                self._stops[message.number].set()
            else:
                self._commands[message.number].put(message.content())

    def work(self) -> None:
        """Run tasks until the other side is gone."""
        while (message := self._tasks.get()) is not None:
            try:
                self._run(message)
            except OSError:
                return  # nobody listens any more

    def _run(self, message: Message) -> None:
        number, send = message.number, self.wire.send
        stop, commands = self._stops[number], self._commands[number]

        def on_progress(event: Progress) -> None:
            send("progress", number, event)

        def tell(content: object) -> None:
            send("told", number, content)

        try:
            with self._guard:
                if stop.is_set():
                    return  # before it began: nobody waits for it any more
                self._at_work = True
            send("begun", number)
            task = cast("Any", message.content())
            result = task(
                on_progress=on_progress,
                should_stop=stop.is_set,
                tell=tell,
                commands=commands,
            )
            send("result", number, result)
        except MuvitError as error:
            send("failed", number, (error, ""))
        except BaseException as error:
            if not isinstance(error, Exception | KeyboardInterrupt):
                raise
            told = traceback.format_exc()
            logger.error("A task failed.\n%s", told)
            send("failed", number, (_plain(error), told))
        finally:
            commands.put(None)
            with self._guard:
                self._at_work = False
                del self._stops[number], self._commands[number]


def _plain(error: BaseException) -> MuvitError | str:
    """Return an error in words, for a process that may not know its class."""
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("Interrupted.")
    return f"{type(error).__name__}: {error}"


def main() -> None:
    """Run tasks that come by the standard input; the answers go to the output."""
    # Run behind all others: taking torch apart, piece by piece, takes seconds.
    atexit.register(os._exit, 0)
    # Whatever prints must not get between the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    wire = Wire(
        open(0, "rb", buffering=0, closefd=False),  # noqa: SIM115 - until the end
        open(answers, "wb", buffering=0),  # noqa: SIM115
    )
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    bench = Bench(wire)
    threading.Thread(target=bench.listen, name="listen", daemon=True).start()
    _step_back()
    _warm_up()
    try:
        bench.work()
    except BaseException:
        atexit.unregister(os._exit)  # it has its own exit status
        raise


def _step_back() -> None:
    """Let the window go first where there are few cores."""
    import psutil

    below = psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else NICE
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().nice(below)


def _warm_up() -> None:
    """Import what every task needs, before there is one."""
    try:
        from ..core import InteractiveTrainer, finetune, predict  # noqa: F401
    except Exception:
        # The task that needs it will say so to the user.
        logger.exception("Not everything can be imported.")
