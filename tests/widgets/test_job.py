from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from napari.utils.notifications import notification_manager

from napari_muvit.core.errors import Cancelled, ConfigError
from napari_muvit.core.progress import Progress
from napari_muvit.widgets import failures
from napari_muvit.widgets.job import JobRunner
from napari_muvit.widgets.places import log_file

TIMEOUT = 5000


class Heard:
    """Slots that note what they were called with, and in which thread."""

    def __init__(self) -> None:
        self.events: list[Progress] = []
        self.batches = 0
        self.results: list[Any] = []
        self.told: list[Any] = []
        self.threads: set[int] = set()

    def on_progress(self, events: list[Progress]) -> None:
        self.batches += 1
        self.events += events
        self.threads.add(threading.get_ident())

    def on_success(self, result: Any) -> None:
        self.results.append(result)
        self.threads.add(threading.get_ident())

    def on_told(self, said: Any) -> None:
        self.told.append(said)
        self.threads.add(threading.get_ident())


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def runner(qtbot: Any) -> JobRunner:
    return JobRunner()


def run(qtbot: Any, runner: JobRunner, task: Any, heard: Heard) -> None:
    with qtbot.waitSignal(runner.busy_changed, check_params_cb=lambda busy: not busy):
        start(runner, task, heard)


def start(runner: JobRunner, task: Any, heard: Heard) -> None:
    runner.start(
        task,
        on_success=heard.on_success,
        on_progress=heard.on_progress,
        on_told=heard.on_told,
    )


def test_a_result_comes_back_on_the_gui_thread(qtbot, runner, heard) -> None:
    def task(*, on_progress: Any, tell: Any, **_: Any) -> str:
        tell("hello")
        for i in range(500):
            on_progress(Progress(stage="train", done=i, total=500))
        return "result"

    run(qtbot, runner, task, heard)
    assert heard.results == ["result"]
    assert heard.told == ["hello"]
    assert heard.threads == {threading.get_ident()}
    # None is lost, but they do not flood the event loop.
    assert [e.done for e in heard.events] == list(range(500))
    assert heard.batches < 50
    assert not runner.busy


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), KeyError("x")])
def test_an_error_is_reported_and_the_runner_is_free_again(
    qtbot, runner, heard, error, monkeypatch, caplog
) -> None:
    # A stock generator worker loses a RuntimeError and stays busy for ever.
    before = len(notification_manager.records)

    def task(**_callbacks: Any) -> None:
        raise error

    run(qtbot, runner, task, heard)
    (told,) = notification_manager.records[before:]
    assert f"{type(error).__name__}: {error}" in told.message
    assert "\n" not in told.message
    assert "Traceback" not in told.message
    # One line, and a button that opens the log, which has the rest.
    ((words, open_log),) = told.actions
    assert words == "Show the log"
    opened: list[str] = []
    monkeypatch.setattr(
        failures.QDesktopServices, "openUrl", lambda url: opened.append(url.path())
    )
    open_log(None)
    assert opened == [str(log_file())]
    assert "in task" in log_file().read_text()
    assert "A MuViT job failed" in caplog.text
    assert heard.results == []
    run(qtbot, runner, lambda **_callbacks: 1, heard)
    assert heard.results == [1]


def test_an_error_of_ours_is_one_plain_notification(qtbot, runner, heard) -> None:
    def task(**_callbacks: Any) -> None:
        raise ConfigError("Two classes are needed. Add one.")

    said: list[str] = []
    runner.said.connect(said.append)
    before = len(notification_manager.records)
    run(qtbot, runner, task, heard)
    new = notification_manager.records[before:]
    assert [n.message for n in new] == ["Two classes are needed. Add one."]
    assert said == ["Two classes are needed"]


def endless(*, should_stop: Any, **_callbacks: Any) -> None:
    while not should_stop():
        time.sleep(0.005)
    raise Cancelled("Stopped.")


def test_stop_ends_a_task_and_says_so(qtbot, runner, heard) -> None:
    said: list[str] = []
    runner.said.connect(said.append)
    start(runner, endless, heard)
    qtbot.wait(50)
    began = time.monotonic()
    with qtbot.waitSignal(runner.busy_changed, timeout=TIMEOUT):
        runner.stop()
    assert time.monotonic() - began < 1
    assert said == ["Stopped."]
    assert heard.results == []


def test_a_stopped_task_may_return_what_it_has(qtbot, runner, heard) -> None:
    # WorkerBase.quit() would swallow the result of a stopped training.
    def task(*, should_stop: Any, **_callbacks: Any) -> str:
        while not should_stop():
            time.sleep(0.005)
        return "best model so far"

    start(runner, task, heard)
    qtbot.wait(30)
    with qtbot.waitSignal(runner.busy_changed, timeout=TIMEOUT):
        runner.stop()
    assert heard.results == ["best model so far"]


def test_a_second_job_is_refused(qtbot, runner, heard) -> None:
    start(runner, endless, heard)
    with pytest.raises(RuntimeError, match="under way"):
        start(runner, endless, heard)
    with qtbot.waitSignal(runner.busy_changed, timeout=TIMEOUT):
        runner.stop()
