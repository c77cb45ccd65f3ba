from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest

from napari_muvit._child.wire import Wire


def pair() -> tuple[Wire, Wire]:
    there, back = os.pipe(), os.pipe()
    ends = [os.fdopen(fd, mode, buffering=0) for fd, mode in (
        (back[0], "rb"), (there[1], "wb"), (there[0], "rb"), (back[1], "wb")
    )]  # fmt: skip
    return Wire(ends[0], ends[1]), Wire(ends[2], ends[3])  # type: ignore[arg-type]


def through(content: object) -> Any:
    here, there = pair()
    sender = threading.Thread(target=here.send, args=("told", 7, content))
    sender.start()
    message = there.receive()
    sender.join()
    assert (message.kind, message.number) == ("told", 7)
    for wire in (here, there):
        wire.close()
        wire._sink.close()
    return message


@pytest.mark.parametrize(
    "array",
    [
        np.arange(300_000).reshape(600, 500),
        np.arange(300_000).reshape(600, 500)[::2, ::3],
        np.arange(300_000, dtype=np.float32).reshape(600, 500).T,
        np.zeros((0, 5), np.uint8),
        np.array(5),
        np.array([{"an": "object"}, None], dtype=object),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    ],
)
def test_arrays_of_all_kinds_arrive(array: np.ndarray) -> None:
    found = through({"array": array}).content()["array"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    if found.size and not found.dtype.hasobject:
        found[...] = found  # may be written to


def test_large_arrays_travel_beside_the_pickle() -> None:
    big = np.zeros((1000, 1000), np.uint8)
    for array in (big, big[::2]):
        message = through((array, "and words"))
        assert len(message.parts) == 2
        assert len(message.parts[0]) < 10_000


def test_what_cannot_be_pickled_sends_nothing() -> None:
    here, there = pair()
    with pytest.raises(TypeError):
        here.send("told", 1, threading.Lock())
    here.send("told", 2, "after it")
    assert there.receive().content() == "after it"
    here._sink.close()
    with pytest.raises(EOFError):
        there.receive()
    for wire in (here, there):
        wire.close()
    there._sink.close()
