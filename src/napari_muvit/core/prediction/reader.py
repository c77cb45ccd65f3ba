"""Reading the crops of the next batch in a thread while the model computes."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.crops import SlideNormalisation, read_crop
from ..errors import Cancelled, ConfigError, PyramidError
from ..geometry import NestedCrop, naive_boxes
from .plan import Crop, PredictionPlan, Tile

if TYPE_CHECKING:
    from ..config import ModelConfig
    from ..data.arrays import ArrayLike
    from ..data.pyramid import Pyramid

POLL_SECONDS = 0.05
"""How often a waiting thread looks whether it should stop."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops for one pass of the model, always of the same shape."""

    crops: tuple[tuple[Tile, Crop], ...]
    """What the first entries are; the rest repeats the first one."""
    pixels: NDArray[np.float32]
    """(B, L, C, H, W), normalised."""
    boxes: NDArray[np.float32]
    """(B, L, 2, 2) world boxes, from the lower corner of each finest box."""


class Schedule:
    """Which tile comes next; may be re-ordered from another thread."""

    def __init__(self, plan: PredictionPlan, done: NDArray[np.bool_]) -> None:
        self._plan = plan
        self._taken = done.copy()
        self._lock = threading.Lock()
        self._left = iter(plan.order(self._taken))

    def next(self) -> Tile | None:
        """Take the next tile, None when all are taken."""
        with self._lock:
            index = next(self._left, None)
            if index is None:
                return None
            self._taken[index] = True
            return self._plan.tile(int(index))

    def focus(self, box: Sequence[float] | None) -> None:
        """Put the tiles near ``box`` (output pixels) first."""
        with self._lock:
            self._left = iter(self._plan.order(self._taken, box))


class BatchReader:
    """A thread that keeps one batch ready.

    Parameters
    ----------
    pyramid
        The slide, viewed at the model's pixel size.
    config
        What the model reads.
    normalisation
        The slide's numbers.
    schedule
        Which tiles.
    batch_size
        Crops in a batch.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        config: ModelConfig,
        normalisation: SlideNormalisation,
        schedule: Schedule,
        batch_size: int,
    ) -> None:
        self._stop = threading.Event()
        self._pyramid = _stoppable(pyramid, self._stop)
        self._config = config
        self._normalisation = normalisation
        self._schedule = schedule
        self._batch_size = batch_size
        self._naive = config.boxes == "naive"
        self._queue: queue.Queue[Batch | Exception | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(
            target=self._run, name="muvit-prediction-reader", daemon=True
        )
        self._thread.start()

    def get(self) -> Batch | None:
        """Return the next batch, None after the last one.

        Raises
        ------
        queue.Empty
            If none is ready within a moment: look whether to stop, and call again.
        MuvitError
            If the slide cannot be read.
        """
        item = self._queue.get(timeout=POLL_SECONDS)
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """End the thread and wait for it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._read_all()
            self._put(None)
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - raised again by `get`
            self._put(error)

    def _put(self, item: Batch | Exception | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def _read_all(self) -> None:
        batch = _Building(self._batch_size, self._config)
        while (tile := self._schedule.next()) is not None:
            for crop in tile.crops:
                if self._stop.is_set():
                    raise Cancelled("The reader was stopped.")
                batch.add(tile, crop, self._read(tile, crop), self._boxes(crop.padded))
                if len(batch.crops) == self._batch_size:
                    self._put(batch.finish())
                    batch = _Building(self._batch_size, self._config)
        if batch.crops:
            self._put(batch.finish())

    def _read(self, tile: Tile, crop: Crop) -> NDArray[np.float32]:
        with readable(self._pyramid, tile):
            return read_crop(
                self._pyramid, crop.padded, self._config, self._normalisation
            )

    def _boxes(self, crop: NestedCrop) -> NDArray[np.float64]:
        """Boxes as the model gets them, in float64 from the finest lower corner."""
        if self._naive:
            shape = (self._config.crop_size,) * self._config.ndim
            crop = naive_boxes(shape, self._config.scale_factors)
        boxes = crop.as_array()
        return np.asarray(boxes - boxes[0, 0])


@contextlib.contextmanager
def readable(pyramid: Pyramid, tile: Tile | None = None) -> Iterator[None]:
    """Turn whatever a damaged file makes a library raise into a `PyramidError`."""
    try:
        yield
    except (Cancelled, ConfigError, MemoryError):
        raise
    except Exception as error:
        where = ""
        if tile is not None:
            y0, x0, y1, x1 = tile.box
            where = f" for rows {y0} to {y1} and columns {x0} to {x1}"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PyramidError(
            f"{pyramid.name} cannot be read{where}: {reason.rstrip('.')}. What is "
            "finished is kept; repair the file and run again, or choose a region "
            "without it."
        ) from error


class _Building:
    """A batch that is being filled."""

    def __init__(self, size: int, config: ModelConfig) -> None:
        levels, edge = len(config.scale_factors), config.crop_size
        shape = (size, levels, config.in_channels, edge, edge)
        self.crops: list[tuple[Tile, Crop]] = []
        self._pixels = np.empty(shape, dtype=np.float32)
        self._boxes = np.empty((size, levels, 2, 2), dtype=np.float32)

    def add(
        self,
        tile: Tile,
        crop: Crop,
        pixels: NDArray[np.float32],
        boxes: NDArray[np.float64],
    ) -> None:
        place = len(self.crops)
        self._pixels[place] = pixels
        self._boxes[place] = boxes
        self.crops.append((tile, crop))

    def finish(self) -> Batch:
        filled = len(self.crops)
        self._pixels[filled:] = self._pixels[:1]
        self._boxes[filled:] = self._boxes[:1]
        return Batch(tuple(self.crops), self._pixels, self._boxes)


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
