from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest

from napari_muvit._child import CannotBeSent, ChildDied, ChildProcess, TaskFailed
from napari_muvit._child import client as client_module
from napari_muvit.core.errors import Cancelled, ConfigError
from napari_muvit.core.progress import Progress

# The child knows nothing of this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def double(values: np.ndarray) -> Any:
    def task(*, on_progress: Any, tell: Any, **_: Any) -> np.ndarray:
        print("this must not get between the answers")  # noqa: T201
        on_progress(Progress(stage="train", done=1, total=2, message="half"))
        tell(values[:2])
        return values * 2

    return task


def refuse(**_: Any) -> None:
    raise ConfigError("Two classes are needed. Add one.", "classes")


def fail(**_: Any) -> None:
    class Odd(Exception):
        """Of a class that nobody else knows."""

    raise Odd("division by cucumber")


def die(**_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(**_: Any) -> None:
    sys.exit(3)


def endless(*, should_stop: Any, tell: Any, **_: Any) -> None:
    tell("begun")
    while not should_stop():
        time.sleep(0.005)
    raise Cancelled("Stopped.")


def deaf(*, tell: Any, **_: Any) -> None:
    tell("begun")
    time.sleep(1000)


def echo(*, tell: Any, commands: Any, **_: Any) -> int:
    tell("begun")
    heard = 0
    while (command := commands.get()) != "end":
        tell(command)
        heard += 1
    return heard


def pid(**_: Any) -> int:
    return os.getpid()


@dataclass(frozen=True)
class Note:
    """Leave a note when it is stopped."""

    path: str

    def __call__(self, *, should_stop: Any, tell: Any, **_: Any) -> None:
        tell("begun")
        while not should_stop():
            time.sleep(0.01)
        with open(self.path, "w") as file:
            file.write("saved")


COLD = client_module._PROGRAM.replace(
    "import main; main()",
    "import main as m; sys.modules[m.__module__]._warm_up = lambda: None; m()",
)
"""Does without torch, which takes seconds to import."""


@pytest.fixture(autouse=True)
def cold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "torch" not in request.node.name:
        monkeypatch.setattr(client_module, "_PROGRAM", COLD)


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChildProcess]:
    made = ChildProcess(tmp_path_factory.mktemp("log") / "worker.log")
    yield made
    made.kill()


class Caller:
    """Runs a task in a thread, as a job does."""

    def __init__(self, child: ChildProcess, task: Callable[..., Any]) -> None:
        self.child, self.task = child, task
        self.events: list[Any] = []
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self.child.run(
                self.task, on_progress=self.events.append, tell=self.told.put,
                should_stop=self.stop.is_set, commands=self.commands,
            )  # fmt: skip
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def join(self) -> Any:
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def test_arrays_go_there_and_come_back(child: ChildProcess) -> None:
    values = np.arange(3_000_000, dtype=np.float32).reshape(1000, 3000)
    caller = Caller(child, double(values))
    np.testing.assert_array_equal(caller.join(), values * 2)
    np.testing.assert_array_equal(caller.told.get(timeout=1), values[:2])
    assert [event.message for event in caller.events] == ["half"]
    assert b"this must not" in child.log.read_bytes()  # type: ignore[union-attr]


def test_tasks_share_a_process(child: ChildProcess) -> None:
    first, second = (Caller(child, pid).join() for _ in range(2))
    assert first == second == child.pid


def test_a_process_is_warm_and_has_torch() -> None:
    def loaded(**_: Any) -> bool:
        return "torch" in sys.modules

    child = ChildProcess()
    try:
        assert Caller(child, loaded).join()
    finally:
        child.kill()


def test_what_the_user_can_mend_comes_back_as_it_was_raised(
    child: ChildProcess,
) -> None:
    with pytest.raises(ConfigError, match="Two classes") as caught:
        Caller(child, refuse).join()
    assert caught.value.field == "classes"


def test_a_bug_comes_back_with_its_traceback(child: ChildProcess) -> None:
    with pytest.raises(TaskFailed, match="Odd: division by cucumber") as caught:
        Caller(child, fail).join()
    assert "in fail" in caught.value.trace
    assert Caller(child, pid).join()


@pytest.mark.parametrize("task", [die, leave])
def test_a_process_that_dies_is_said_and_replaced(
    child: ChildProcess, task: Callable[..., Any]
) -> None:
    with pytest.raises(ChildDied, match="ended by itself") as caught:
        Caller(child, task).join()
    assert ("memory" in str(caught.value)) == (task is die)
    assert Caller(child, pid).join()


def test_commands_arrive_in_order(child: ChildProcess) -> None:
    caller = Caller(child, echo)
    assert caller.told.get(timeout=30) == "begun"
    for number in range(50):
        caller.commands.put(number)
    caller.commands.put("end")
    assert caller.join() == 50
    assert [caller.told.get(timeout=1) for _ in range(50)] == list(range(50))
    # What comes too late for one task is not heard by the next.
    caller.commands.put("late")
    later = Caller(child, echo)
    later.commands.put("end")
    assert later.join() == 0


def test_a_stop_ends_the_task_and_keeps_the_process(child: ChildProcess) -> None:
    caller = Caller(child, endless)
    assert caller.told.get(timeout=30) == "begun"
    before, began = child.pid, time.monotonic()
    caller.stop.set()
    with pytest.raises(Cancelled):
        caller.join()
    assert time.monotonic() - began < 2
    assert child.pid == before


def test_a_task_that_does_not_stop_is_ended(
    child: ChildProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "GRACE_SECONDS", 0.3)
    caller = Caller(child, deaf)
    assert caller.told.get(timeout=30) == "begun"
    caller.stop.set()
    with pytest.raises(Cancelled):
        caller.join()
    assert child.pid is None


def test_a_task_is_stopped_while_the_process_still_starts() -> None:
    child = ChildProcess()
    try:
        child.start()  # it imports torch now, for seconds
        caller, began = Caller(child, pid), time.monotonic()
        caller.stop.set()
        with pytest.raises(Cancelled, match="before it began"):
            caller.join()
        assert time.monotonic() - began < 2
        number = child.pid
        assert Caller(child, pid).join() == number
    finally:
        child.kill()


def test_a_process_that_is_not_at_work_ends_at_once() -> None:
    child = ChildProcess()
    child.start()
    process = child._process
    time.sleep(1)  # in the midst of its imports
    child.close()
    assert process is not None
    process.wait(timeout=2)


def test_a_command_that_cannot_be_sent_is_dropped(
    child: ChildProcess, tmp_path: Path
) -> None:
    caller = Caller(child, echo)
    assert caller.told.get(timeout=30) == "begun"
    with open(tmp_path / "open", "w") as file:
        caller.commands.put(file)
        caller.commands.put("end")
        assert caller.join() == 0


def test_a_task_of_which_nobody_listens_is_ended(child: ChildProcess) -> None:
    def tell(_said: Any) -> None:
        raise ZeroDivisionError("a mistake in the panel")

    with pytest.raises(ZeroDivisionError):
        child.run(
            deaf, on_progress=print, tell=tell, should_stop=lambda: False,
            commands=queue.SimpleQueue(),
        )  # fmt: skip
    assert Caller(child, pid).join()


def test_what_a_process_said_that_died_outlives_its_successor(tmp_path: Path) -> None:
    child = ChildProcess(tmp_path / "worker.log")
    with pytest.raises(TaskFailed):
        Caller(child, fail).join()
    child.kill()
    assert Caller(child, pid).join()
    child.kill()
    assert b"cucumber" in child.log.read_bytes()  # type: ignore[union-attr]


def test_what_cannot_be_pickled_is_refused_before_it_is_sent(
    child: ChildProcess, tmp_path: Path
) -> None:
    with open(tmp_path / "open", "w") as file:

        def task(**_: Any) -> str:
            return file.name

        with pytest.raises(CannotBeSent):
            Caller(child, task).join()
    assert Caller(child, pid).join()


def test_closing_lets_a_task_save_its_work(tmp_path: Path) -> None:
    child, note = ChildProcess(), tmp_path / "note"
    caller = Caller(child, Note(str(note)))
    assert caller.told.get(timeout=30) == "begun"
    number = child.pid
    child.close()
    caller.join()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(number) and time.monotonic() < deadline:  # type: ignore[arg-type]
        time.sleep(0.05)
    assert not psutil.pid_exists(number)  # type: ignore[arg-type]
    assert note.read_text() == "saved"


def test_leaving_does_not_wait_for_a_task_that_does_not_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "LEAVE_SECONDS", 0.3)
    child = ChildProcess()
    caller = Caller(child, deaf)
    assert caller.told.get(timeout=30) == "begun"
    process = child._process
    child.leave()
    caller.stop.set()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        caller.join()
    assert time.monotonic() - began < 2
    # It may still save its work, and ends by itself then.
    assert process is not None
    assert process.poll() is None
    process.kill()


def test_a_killed_parent_ends_the_child_and_its_task_is_saved(tmp_path: Path) -> None:
    note = tmp_path / "note"
    code = textwrap.dedent(
        f"""
        import os, queue, signal, sys, time
        from napari_muvit._child import ChildProcess

        def note(*, should_stop, tell, **_):
            tell("begun")
            while not should_stop():
                time.sleep(0.01)
            with open({str(note)!r}, "w") as file:
                file.write("saved")

        child = ChildProcess()

        def tell(said):
            print(child.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        child.run(
            note, on_progress=print, tell=tell, should_stop=lambda: False,
            commands=queue.SimpleQueue(),
        )
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    number = int(done.stdout)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(number)
    assert note.read_text() == "saved"
