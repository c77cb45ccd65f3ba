"""Many slides for one crew: when one has no blocks left, the next one's follow.

A thread opens the slides in their order, one or two ahead, so that no worker waits for
it. What comes of a block goes to its slide by the output that it names.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, MuvitError
from ..progress import Progress, ProgressFn
from .crew import SLIDE_ERRORS, Outcome
from .execution import StopCheck
from .run import PredictionRun
from .workers import Blocks

if TYPE_CHECKING:
    from .worker import BlockJob

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class SlideTask:
    """A slide that is to be predicted."""

    number: int
    """Place in the order."""
    name: str
    source: Any
    """What it is opened from."""
    out: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideResult:
    """What became of one of several slides."""

    name: str
    out: Path
    """Folder of the output."""
    tiles: int = 0
    """Finished by this run."""
    finished_before: bool = False
    """Whether all of it was done by an earlier run."""
    stopped: bool = False
    """Whether the user stopped it."""
    error: MuvitError | None = None
    """Why it could not be done, or not as a whole."""
    preview: Path | None = None
    """Picture of the whole slide from the coarse levels."""


OpenFn = Callable[[SlideTask, ProgressFn], PredictionRun]


@dataclass(eq=False, slots=True)
class _Slide:
    """A slide that is open."""

    task: SlideTask
    run: PredictionRun | None = None
    blocks: Blocks | None = None
    """None: there is nothing to do."""
    error: MuvitError | None = None
    tiles: int = 0
    waiting: int = 0
    """Blocks that are with the workers."""

    def result(self, stopped: bool = False) -> SlideResult:
        """Close the slide and say what became of it."""
        if self.blocks is not None:
            self.blocks.close()
        try:
            if self.run is not None:
                self.run.close()
                if not stopped:
                    self.run.check_failed()
        except SLIDE_ERRORS as error:
            self.error = self.error or error
        return SlideResult(
            name=self.task.name, out=self.task.out, tiles=self.tiles,
            finished_before=self.run is not None and self.run.finished_before,
            stopped=stopped and self.error is None, error=self.error,
            preview=None if self.run is None else self.run.preview_file,
        )  # fmt: skip


class Chain:
    """Blocks of one slide after the other, and what comes of them.

    Parameters
    ----------
    tasks
        The slides, in their order.
    open_run
        Opens one; called in a thread.
    on_progress
        Told of the first slide that is not finished, and what the user should know of
        any; called in the thread that calls `check`.
    stop
        Asked often.
    """

    def __init__(
        self,
        tasks: Sequence[SlideTask],
        open_run: OpenFn,
        on_progress: ProgressFn,
        stop: StopCheck,
    ) -> None:
        self.finished = False
        self._tasks = tasks
        self._open_run = open_run
        self._on_progress = on_progress
        self._stop = stop
        self._heard: queue.SimpleQueue[tuple[int, Progress]] = queue.SimpleQueue()
        self._at_work: dict[str, _Slide] = {}
        self._current: _Slide | None = None
        self._results: dict[int, SlideResult] = {}
        self._front = 0
        self._open: list[_Slide] = []
        self._ready: queue.Queue[_Slide | BaseException | None] = queue.Queue(maxsize=1)
        self._ended = threading.Event()
        self._opener = threading.Thread(
            target=self._open_all, name="muvit-prediction-opener", daemon=True
        )
        self._opener.start()

    def next(self) -> BlockJob | None:
        """Return the next block; None while the next slide is being opened."""
        while not self.finished:
            slide = self._current or self._next_slide()
            if slide is None:
                return None
            self._current = slide
            if slide.blocks is not None and slide.error is None:
                job = slide.blocks.next()
                if job is not None:
                    slide.waiting += 1
                    return job
            self._current = None
            self._settle(slide)
        return None

    def leave(self) -> None:
        """Tell the workers to leave all blocks."""
        for slide in self._at_work.values():
            if slide.blocks is not None:
                slide.blocks.leave()

    def check(self) -> None:
        """Pass on what was heard of the slides.

        Raises
        ------
        Cancelled
            If the user asked to stop.
        """
        self._tell()
        self._stop.check()

    def take(self, job: BlockJob, outcome: Outcome) -> None:
        """Give what came of a block to its slide."""
        slide = self._at_work[job.out]
        slide.waiting -= 1
        if slide.error is None and slide.run is not None:
            try:
                if isinstance(outcome, MuvitError):
                    raise outcome
                for _ in slide.run.take(outcome):
                    slide.tiles += 1
            except SLIDE_ERRORS as error:
                slide.error = error
                if slide.blocks is not None:
                    slide.blocks.leave()
        self._settle(slide)

    def results(self) -> Iterator[SlideResult]:
        """Yield what became of slides that are finished, in their order."""
        while self._front in self._results:
            self._tell()
            yield self._results.pop(self._front)
            self._front += 1

    def close(self) -> list[SlideResult]:
        """Close what is open; return what became of the slides that were begun.

        One of them is stopped unless all slides are done.
        """
        self._ended.set()
        self._opener.join()
        begun = [slide.task.number for slide in self._at_work.values()]
        for slide in self._open:
            result = slide.result(stopped=True)
            if slide.task.number in begun:
                self._results[slide.task.number] = result
        self._open.clear()
        if not any(result.stopped for result in self._results.values()):
            # Stopped between two slides, or while one was opened: that one says so.
            tasks = self._tasks[self._front :]
            left = [task for task in tasks if task.number not in self._results]
            for task in left[:1]:
                self._results[task.number] = SlideResult(
                    name=task.name, out=task.out, stopped=True
                )
        return [self._results[number] for number in sorted(self._results)]

    def _tell(self) -> None:
        while not self._heard.empty():
            number, event = self._heard.get()
            name = self._tasks[number].name
            if number == self._front:
                self._on_progress(dataclasses.replace(event, subject=name))
            elif event.message:
                said = Progress(
                    stage="prepare", done=0, total=1, subject=name,
                    message=event.message,
                )  # fmt: skip
                self._on_progress(said)

    def _next_slide(self) -> _Slide | None:
        """Begin with the next slide if it is open."""
        try:
            slide = self._ready.get_nowait()
        except queue.Empty:
            return None
        if isinstance(slide, BaseException):
            raise slide
        if slide is None:
            self.finished = True
            return None
        self._at_work[str(slide.task.out.absolute())] = slide
        return slide

    def _settle(self, slide: _Slide) -> None:
        """End a slide that is neither to be sent from nor with any worker."""
        if slide.waiting or slide is self._current:
            return
        del self._at_work[str(slide.task.out.absolute())]
        self._open.remove(slide)
        self._results[slide.task.number] = slide.result()

    def _open_all(self) -> None:
        """Open the slides; runs in a thread."""
        try:
            for task in self._tasks:
                if not self._put(self._opened(task)):
                    return
            self._put(None)
        except Cancelled:
            # Who asks for the next slide hears of it, too.
            return
        except BaseException as error:  # noqa: BLE001 - raised again by `next`
            self._put(error)

    def _opened(self, task: SlideTask) -> _Slide:
        slide = _Slide(task)
        self._open.append(slide)

        def hear(event: Progress) -> None:
            self._heard.put((task.number, event))

        try:
            slide.run = self._open_run(task, hear)
            if not slide.run.finished_before:
                slide.blocks = slide.run.blocks()
        except SLIDE_ERRORS as error:
            slide.error = error
        return slide

    def _put(self, item: _Slide | BaseException | None) -> bool:
        while not self._ended.is_set():
            try:
                self._ready.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
