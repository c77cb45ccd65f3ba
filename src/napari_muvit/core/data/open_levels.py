"""Which levels of files are open in this process, and when to let one go.

A process may have some hundred files open (often 1024), and a list of slides may be
longer; what was opened first is closed again, and opened anew when it is read.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Protocol


class Closable(Protocol):
    """A level that opens itself again when it is read."""

    def close(self) -> None:
        """Let the file go."""
        ...


class OpenLevels:
    """The levels used last, bounded in number and in bytes; safe between threads.

    Parameters
    ----------
    most
        Levels that are open at the same time.
    max_bytes
        Bytes of decoded pixels that they hold together.
    """

    def __init__(self, most: int, max_bytes: int) -> None:
        self.most = most
        self.max_bytes = max_bytes
        self._held: OrderedDict[int, tuple[weakref.ref[Closable], int]] = OrderedDict()
        self._lock = threading.Lock()

    def used(self, level: Closable, nbytes: int) -> None:
        """Note that a level is open and in use; the oldest ones are closed."""
        with self._lock:
            self._held[id(level)] = (weakref.ref(level), nbytes)
            self._held.move_to_end(id(level))
            old = []
            while len(self._held) > 1 and self._is_full():
                old.append(self._held.popitem(last=False)[1][0]())
        # Outside the lock: closing waits for a level that is being opened.
        for other in old:
            if other is not None:
                other.close()

    def _is_full(self) -> bool:
        too_large = sum(n for _, n in self._held.values()) > self.max_bytes
        return len(self._held) > self.most or too_large
