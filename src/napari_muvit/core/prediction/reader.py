"""Reading the crops of the next batches in threads while the model computes."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.crops import SlideNormalisation, read_boxes
from ..errors import Cancelled, ConfigError, PyramidError
from ..geometry import naive_boxes
from .contexts import ContextGrid
from .schedule import Schedule
from .tiles import Crop

if TYPE_CHECKING:
    from ..config import ModelConfig
    from ..data.arrays import ArrayLike
    from ..data.pyramid import Pyramid

POLL_SECONDS = 0.05
"""How often a waiting thread looks whether it should stop."""
READERS = 2
"""Threads: one decodes while the other one copies."""
READ_AHEAD = 16
"""Contexts whose pixels wait."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops for one pass of the model, always of the same shape."""

    crops: tuple[Crop, ...]
    """What the first entries are; the rest repeats the first one."""
    pixels: NDArray[np.float32]
    """(B, S, C, H, W), normalised. The S slots are the fine level, then the coarser
    levels of one place after the other; with shared contexts, the fine level alone."""
    boxes: NDArray[np.float32]
    """(B, S, 2, 2) world boxes from the lower corner of each finest box; with shared
    contexts from that of the coarsest one."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A crop that could not be read."""

    crop: Crop
    error: PyramidError


class ContextError(PyramidError):
    """A shared context that cannot be read.

    Parameters
    ----------
    message
        What a user should know.
    index
        Its place in the slide's grid of contexts.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


class BatchReader:
    """Threads that keep batches ready.

    Parameters
    ----------
    pyramid
        The slide, viewed at the model's pixel size.
    config
        What the model reads.
    normalisation
        The slide's numbers.
    schedule
        Which crops.
    batch_size
        Crops in a batch.
    contexts
        Coarser crops that fine ones share; None: each has its own.
    places
        Places of the coarser crops of each.
    readers
        Number of threads.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        config: ModelConfig,
        normalisation: SlideNormalisation,
        schedule: Schedule,
        batch_size: int,
        contexts: ContextGrid | None = None,
        places: int = 1,
        readers: int = READERS,
    ) -> None:
        self._stop = threading.Event()
        self._pyramid = _stoppable(pyramid, self._stop)
        self._config = config
        self._normalisation = normalisation
        self._schedule = schedule
        self._batch_size = batch_size
        self._naive = config.boxes == "naive"
        self._contexts = contexts
        first, *coarser = config.scale_factors
        self._factors = (first, *coarser * (0 if contexts else places))
        self._ahead = ReadAhead()
        self._queue: queue.Queue[Batch | Unreadable | Exception | None]
        self._queue = queue.Queue(maxsize=1)
        self._at_work = readers
        self._taking = threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._run, name=f"muvit-prediction-reader-{i}", daemon=True
            )
            for i in range(readers)
        ]
        for thread in self._threads:
            thread.start()

    def get(self) -> Batch | Unreadable | None:
        """Return the next batch, or what could not be read; None after the last one.

        Raises
        ------
        queue.Empty
            If none is ready within a moment: look whether to stop, and call again.
        """
        while True:
            item = self._queue.get(timeout=POLL_SECONDS)
            if isinstance(item, Exception):
                raise item
            if item is not None:
                return item
            self._at_work -= 1
            if not self._at_work:
                return None

    def close(self) -> None:
        """End the threads and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            while crops := self._next_crops():
                batch = self._batch(crops)
                if batch is not None:
                    self._put(batch)
            self._put(None)
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - raised again by `get`
            self._put(error)

    def _next_crops(self) -> list[Crop]:
        # Together, so that a batch is of neighbours.
        with self._taking:
            found: list[Crop] = []
            while len(found) < self._batch_size:
                crop = self._schedule.next()
                if crop is None:
                    break
                found.append(crop)
            return found

    def _put(self, item: Batch | Unreadable | Exception | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def _batch(self, crops: list[Crop]) -> Batch | None:
        """Read crops; None where none of them can be read."""
        edge = self._config.crop_size
        slots = len(self._factors)
        shape = (self._batch_size, slots, self._config.in_channels, edge, edge)
        pixels = np.empty(shape, dtype=np.float32)
        boxes = np.empty((self._batch_size, slots, 2, 2), dtype=np.float32)
        read: list[Crop] = []
        for crop in crops:
            if self._stop.is_set():
                raise Cancelled("The reader was stopped.")
            try:
                pixels[len(read)] = self._read(crop)
            except PyramidError as error:
                self._put(Unreadable(crop, error))
                continue
            boxes[len(read)] = self._boxes(crop)
            read.append(crop)
        if not read:
            return None
        pixels[len(read) :] = pixels[:1]
        boxes[len(read) :] = boxes[:1]
        return Batch(tuple(read), pixels, boxes)

    def _read(self, crop: Crop) -> NDArray[np.float32]:
        with readable(self._pyramid, crop):
            if crop.context is not None and self._ahead.wants(crop.context):
                self._ahead.put(crop.context, self.read_context(crop.context))
            boxes = crop.slots[: len(self._factors)]
            return read_boxes(
                self._pyramid, boxes, self._factors, self._config, self._normalisation
            )

    def read_context(self, index: int) -> NDArray[np.float32]:
        """Return the coarser levels of a context, (L - 1, C, H, W), normalised.

        Raises
        ------
        ContextError
            If the slide cannot be read there.
        """
        found = self._ahead.take(index)
        if found is not None:
            return found
        if self._contexts is None:
            raise ConfigError("There are no shared contexts here.", "context")
        try:
            with readable(self._pyramid):
                return read_boxes(
                    self._pyramid, self._contexts.boxes(index),
                    self._config.scale_factors[1:], self._config, self._normalisation,
                )  # fmt: skip
        except PyramidError as error:
            raise ContextError(str(error), index) from error

    def _boxes(self, crop: Crop) -> NDArray[np.float64]:
        """Boxes as the model gets them, in float64 from a corner."""
        if crop.context is not None:
            boxes = crop.padded.as_array()
            return np.asarray(boxes[:1] - boxes[-1, 0])
        slots = crop.slots
        if self._naive:
            shape = (self._config.crop_size,) * self._config.ndim
            first, *coarser = naive_boxes(shape, self._config.scale_factors).boxes
            slots = (first, *coarser * (1 + len(crop.elsewhere)))
        boxes = np.stack([box.as_array() for box in slots])
        return np.asarray(boxes - boxes[0, 0])


class ReadAhead:
    """Pixels of contexts that were read before they are asked for; for any thread."""

    def __init__(self, most: int = READ_AHEAD) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._pixels: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()

    def wants(self, index: int) -> bool:
        """Whether nobody has begun to read a context; who asks, reads it."""
        with self._lock:
            if index in self._seen:
                return False
            self._seen[index] = None
            # Whoever needs an older one again reads it then.
            while len(self._seen) > 64 * self._most:
                self._seen.popitem(last=False)
            return True

    def put(self, index: int, pixels: NDArray[np.float32]) -> None:
        """Keep pixels until they are taken, or too many others have come."""
        with self._lock:
            self._pixels[index] = pixels
            while len(self._pixels) > self._most:
                self._pixels.popitem(last=False)

    def take(self, index: int) -> NDArray[np.float32] | None:
        """Hand out pixels once."""
        with self._lock:
            return self._pixels.pop(index, None)


@contextlib.contextmanager
def readable(pyramid: Pyramid, crop: Crop | None = None) -> Iterator[None]:
    """Turn whatever a damaged file makes a library raise into a `PyramidError`."""
    try:
        yield
    except (Cancelled, ConfigError, MemoryError):
        raise
    except Exception as error:
        where = ""
        if crop is not None:
            (y0, y1), (x0, x1) = crop.window
            where = f" around rows {y0} to {y1} and columns {x0} to {x1}"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PyramidError(
            f"{pyramid.name} cannot be read{where}: {reason.rstrip('.')}."
        ) from error


class _StoppableArray:
    """An array that refuses to be read on once the run is stopped.

    A coarse crop of a slide without coarse levels reads many chunks; between two of
    them is the place to stop.
    """

    def __init__(
        self, reader: ArrayLike, array: ArrayLike, stop: threading.Event
    ) -> None:
        self._reader = reader
        self._array = array
        self._stop = stop
        self.shape = array.shape
        self.dtype = array.dtype
        self.chunks = getattr(array, "chunks", None)

    def __repr__(self) -> str:
        return repr(self._array)

    def __getitem__(self, key: Any) -> Any:
        if self._stop.is_set():
            raise Cancelled("The reader was stopped.")
        return self._reader[key]


def _stoppable(pyramid: Pyramid, stop: threading.Event) -> Pyramid:
    """Return the same pyramid, with the same cache, that stops between chunks."""
    levels = []
    for level in pyramid.levels:
        # Not the array itself: of a zarr that is gone it would read zeros.
        reader = level.source.reader
        if not isinstance(reader, np.ndarray):
            guarded = _StoppableArray(reader, level.source.array, stop)
            source = dataclasses.replace(level.source, array=guarded)
            level = dataclasses.replace(level, source=source)
        levels.append(level)
    return dataclasses.replace(pyramid, levels=tuple(levels))
