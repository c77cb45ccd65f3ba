"""Writing finished tiles in a thread while the model goes on."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .filled import FilledTile
    from .writer import TileWriter

WAITING = 8
"""Tiles that wait for the disk before the model has to."""
POLL_SECONDS = 0.05


class Output:
    """A thread that brings tiles to the output's grid and writes them.

    Parameters
    ----------
    writer
        Where to; None hands them back only.
    check
        Called while waiting; raises to stop.
    """

    def __init__(self, writer: TileWriter | None, check: Callable[[], None]) -> None:
        self._writer = writer
        self._check = check
        self._waiting: queue.Queue[FilledTile | None] = queue.Queue(maxsize=WAITING)
        self._written: queue.SimpleQueue[FilledTile | Exception | None]
        self._written = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, name="muvit-prediction-writer", daemon=True
        )
        self._thread.start()

    def put(self, filled: FilledTile) -> None:
        """Hand over a tile; waits while the disk is behind.

        Raises
        ------
        OutputError
            If the disk refused an earlier one.
        """
        self._wait_to_put(filled)

    def written(self) -> Iterator[FilledTile]:
        """Yield what has been written meanwhile, in output pixels.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        while not self._written.empty():
            item = self._written.get()
            if isinstance(item, Exception):
                raise item
            if item is not None:
                yield item

    def finish(self) -> Iterator[FilledTile]:
        """Wait for the last tile and yield what is left; see `written`."""
        self._wait_to_put(None)
        while True:
            with contextlib.suppress(queue.Empty):
                item = self._written.get(timeout=POLL_SECONDS)
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
            self._check()

    def close(self) -> None:
        """Write what was handed over, and end the thread."""
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=POLL_SECONDS)
            self._thread.join(POLL_SECONDS)

    def _wait_to_put(self, item: FilledTile | None) -> None:
        while True:
            with contextlib.suppress(queue.Full):
                return self._waiting.put(item, timeout=POLL_SECONDS)
            self._check()
            if not self._thread.is_alive():
                return

    def _run(self) -> None:
        try:
            while (filled := self._waiting.get()) is not None:
                filled = filled.to_output()
                if self._writer is not None:
                    self._writer.write(filled)
                self._written.put(filled)
            self._written.put(None)
        except Exception as error:  # noqa: BLE001 - raised again in the other thread
            self._written.put(error)
