"""Messages through two pipes: a kind, the number of a task, and any object.

Large arrays travel as they lie in memory, beside the pickled rest: they are not copied
on their way, and other threads of the process go on meanwhile.
"""

from __future__ import annotations

import io
import pickle
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cloudpickle
import numpy as np

Kind = Literal[
    "task", "stop", "command", "begun", "progress", "told", "result", "failed"
]
KINDS: tuple[Kind, ...] = (
    "task", "stop", "command", "begun", "progress", "told", "result", "failed",
)  # fmt: skip
_HEAD = struct.Struct("<BQI")
_SIZE = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Message:
    """One message, unpickled only when `content` is asked for."""

    kind: Kind
    number: int
    """Of the task that it is about."""
    parts: Sequence[bytes | bytearray]
    """The pickled object, then its arrays."""

    def content(self) -> Any:
        """Unpickle what was sent; arrays may be written to."""
        body, *buffers = self.parts
        return pickle.loads(body, buffers=buffers)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles strided arrays as whole ones, which then travel beside the rest."""

    def reducer_override(self, obj: Any) -> Any:
        if (
            type(obj) is np.ndarray
            and not obj.dtype.hasobject
            and not (obj.flags.c_contiguous or obj.flags.f_contiguous)
        ):
            # As a copy inside the pickle it would hold up all other threads.
            return np.ascontiguousarray(obj).__reduce_ex__(5)
        return super().reducer_override(obj)


class Wire:
    """Sends and receives messages; any thread may send, one receives.

    Parameters
    ----------
    source, sink
        Pipes without a buffer of their own.
    """

    def __init__(self, source: io.RawIOBase, sink: io.RawIOBase) -> None:
        self._source, self._sink = source, sink
        self._sending = threading.Lock()

    def send(self, kind: Kind, number: int, content: object = None) -> None:
        """Send a message.

        Raises
        ------
        OSError, ValueError
            If the other side is gone.
        Exception
            Whatever pickling ``content`` raises; nothing was sent then.
        """
        buffers: list[pickle.PickleBuffer] = []
        body = io.BytesIO()
        _Pickler(body, protocol=5, buffer_callback=buffers.append).dump(content)
        parts = [body.getbuffer(), *(b.raw() for b in buffers)]
        head = _HEAD.pack(KINDS.index(kind), number, len(parts))
        sizes = b"".join(_SIZE.pack(part.nbytes) for part in parts)
        with self._sending:
            for part in (memoryview(head + sizes), *parts):
                self._write(part)

    def receive(self) -> Message:
        """Wait for the next message.

        Raises
        ------
        EOFError
            If the other side is gone.
        """
        kind, number, count = _HEAD.unpack(self._read(_HEAD.size))
        sizes = [_SIZE.unpack(self._read(_SIZE.size))[0] for _ in range(count)]
        return Message(KINDS[kind], number, [self._read(size) for size in sizes])

    def close(self) -> None:
        """Receive nothing more; called where nothing more comes."""
        self._source.close()

    def _write(self, part: memoryview) -> None:
        done = 0
        while done < part.nbytes:
            done += self._sink.write(part[done:]) or 0

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            got = self._source.readinto(view[done:])
            if not got:
                raise EOFError("The other side is gone.")
            done += got
        return data
