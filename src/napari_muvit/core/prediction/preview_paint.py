"""Filling previews: the coarsest level first, then what shared contexts say."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillReading
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.crops import read_boxes
from ..errors import ConfigError, PyramidError
from ..geometry import Box, surround
from ..model.shared_context import SharedContext, compute_context
from ..progress import Progress, ProgressFn, StopFn, ignore_progress, never_stop
from .checks import whole_span
from .contexts import preview_notes
from .execution import StopCheck, prepared, single_crop
from .grid import Axis
from .preview import Preview
from .reader import POLL_SECONDS, READERS, readable
from .standalone import prepare_work

if TYPE_CHECKING:
    from torch import nn

    from ..config import PredictionConfig
    from ..data.cache_settings import CacheSettings
    from ..data.pyramid import Pyramid
    from ..model.segmenter import MuViTSegmenter
    from .engine import Work

CORE = 3 / 4
"""Of a coarse crop's edge: what its margins say of their pixels is not shown."""

LookFn = Callable[[int, SharedContext], None]


@dataclass(frozen=True, slots=True)
class _Cell:
    """A part of the slide and the coarse crop that speaks for it, world boxes."""

    box: Box
    crop: Box


def preview_slide(
    pyramid: Pyramid,
    model: nn.Module,
    config: PredictionConfig,
    *,
    cache: CacheSettings | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Preview:
    """See the whole slide, or the region, as the model's coarsest level does.

    Parameters
    ----------
    pyramid
        The slide.
    model
        A segmenter whose coarse levels see no finer one, with level heads.
    config
        How it will be predicted.
    cache, on_progress, should_stop
        As `predict` takes them; the stage is ``preview``.

    Raises
    ------
    ConfigError
        If the model's coarsest level has no head, or depends on finer ones.
    Cancelled
        If ``should_stop`` said so.
    MuvitError
        As `predict` does.
    """
    work = prepare_work(
        pyramid, (model,), config,
        cache=cache, on_progress=on_progress, should_stop=should_stop,
    )  # fmt: skip
    for reason in preview_notes(work.model_config):
        raise ConfigError(reason, "preview")
    preview = new_preview(work, refined=False)
    paint(work, preview, StopCheck(should_stop), on_progress)
    return preview


def new_preview(work: Work, refined: bool) -> Preview:
    """Return an empty preview, with a finer one where a run can fill it."""
    plan, factors = work.plan, work.plan.scale_factors
    preview = Preview(plan.extent, factors[-1], plan.zoom, plan.offset)
    if refined and plan.contexts is not None and len(factors) > 2:
        preview.finer = Preview(plan.extent, factors[1], plan.zoom, plan.offset)
    return preview


def refiner(work: Work, preview: Preview | None) -> LookFn | None:
    """Return what puts shared contexts into the finer preview, if there is one."""
    grid = work.plan.contexts
    if preview is None or preview.finer is None or grid is None:
        return None
    finer = preview.finer

    def look(index: int, context: SharedContext) -> None:
        labels = _labels(context.logits[0])[0]
        finer.paste(grid.cell(index), grid.boxes(index)[0], labels)

    return look


def paint(
    work: Work, preview: Preview, stop: StopCheck, on_progress: ProgressFn
) -> None:
    """Fill a preview from the coarsest level; what cannot be read stays unknown.

    Raises
    ------
    Cancelled
        If it was stopped; what is there stays.
    """
    cells = _cells(work)
    done = 0

    def tell() -> None:
        on_progress(Progress(stage="preview", done=done, total=len(cells), unit="crop"))

    tell()
    with prepared(work.models[0], work.device, work.config, stop):
        for batch, pixels in _batches(work, cells, stop):
            if pixels is not None:
                seen = _within_memory(work, batch, pixels)
                for cell, labels in zip(batch, seen, strict=True):
                    preview.paste(cell.box, cell.crop, labels)
            done += len(batch)
            tell()


def _cells(work: Work) -> list[_Cell]:
    """Cut the slide, or what is asked for of it, into parts of one coarse crop."""
    extent, factor = work.plan.extent, work.plan.scale_factors[-1]
    edge = work.plan.crop_size * factor
    axes = [
        Axis(*whole_span(extent, axis), int(edge), max(1, int(CORE * edge)))
        for axis in range(2)
    ]
    wanted = _wanted(work, axes)
    cells = []
    for place in product(*(range(axis.count) for axis in axes)):
        if not wanted[place]:
            continue
        # Parts of pixels at the borders of the slide belong to the outer cells.
        lower = [
            e if i == 0 else a.edge(i)
            for i, a, e in zip(place, axes, extent.lower, strict=True)
        ]
        upper = [
            e if i + 1 == a.count else a.edge(i + 1)
            for i, a, e in zip(place, axes, extent.upper, strict=True)
        ]
        box = Box(tuple(lower), tuple(upper))
        cells.append(_Cell(box, surround(box, (edge, edge), factor, extent)))
    return cells


def _wanted(work: Work, axes: Sequence[Axis]) -> NDArray[np.bool_]:
    """Return which parts have a pixel of a tile that is asked for."""
    plan = work.plan
    if len(plan) == plan.num_tiles:
        return np.ones([axis.count for axis in axes], dtype=bool)
    wanted = np.zeros([axis.count for axis in axes], dtype=bool)
    for tile in plan.tiles():
        rows, columns = (
            axis.touching(*span) for axis, span in zip(axes, tile.world, strict=True)
        )
        wanted[rows.start : rows.stop, columns.start : columns.stop] = True
    return wanted


def _batches(
    work: Work, cells: Sequence[_Cell], stop: StopCheck
) -> Iterator[tuple[list[_Cell], NDArray[np.float32] | None]]:
    """Yield cells and the (B, 1, C, H, W) pixels of their crops, read ahead.

    Crops that cannot be read come without pixels.
    """
    size = work.config.batch_size
    ahead: deque[tuple[_Cell, Future[NDArray[np.float32] | None]]] = deque()
    left = iter(cells)
    with ThreadPoolExecutor(READERS, "muvit-preview-reader") as readers:
        try:
            batch: list[tuple[_Cell, NDArray[np.float32]]] = []
            while True:
                while len(ahead) < 2 * size and (cell := next(left, None)) is not None:
                    ahead.append((cell, readers.submit(_read, work, cell)))
                if len(batch) == size or (batch and not ahead):
                    yield [c for c, _ in batch], np.stack([p for _, p in batch])
                    batch = []
                if not ahead:
                    return
                cell, future = ahead.popleft()
                pixels = _result(future, stop)
                if pixels is None:
                    yield [cell], None
                else:
                    batch.append((cell, pixels))
        finally:
            for _, future in ahead:
                future.cancel()


def _read(work: Work, cell: _Cell) -> NDArray[np.float32] | None:
    """(1, C, H, W) of a crop, normalised; None where it cannot be read."""
    try:
        with readable(work.pyramid):
            return read_boxes(
                work.pyramid, [cell.crop], work.plan.scale_factors[-1:],
                work.model_config, work.normalisation,
            )  # fmt: skip
    except PyramidError:
        # The run itself will say so where it needs this place.
        return None


def _result(
    future: Future[NDArray[np.float32] | None], stop: StopCheck
) -> NDArray[np.float32] | None:
    while True:
        stop.check()
        try:
            return future.result(timeout=POLL_SECONDS)
        except StillReading:
            continue


def _within_memory(
    work: Work, cells: Sequence[_Cell], pixels: NDArray[np.float32]
) -> list[NDArray[np.uint8]]:
    """Labels of coarse crops, in as many passes as the memory asks for."""
    try:
        return list(_seen(work, cells, pixels))
    except torch.OutOfMemoryError:
        half = len(cells) // 2
        if half == 0:
            raise ConfigError(single_crop(work.device), "device") from None
        first = _within_memory(work, cells[:half], pixels[:half])
        return first + _within_memory(work, cells[half:], pixels[half:])


def _seen(
    work: Work, cells: Sequence[_Cell], pixels: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """(B, H, W) labels of coarse crops by the coarsest head."""
    boxes = np.stack([cell.crop.as_array() for cell in cells])[:, None]
    local = (boxes - boxes[:, :, :1]).astype(np.float32)
    half = work.precision == "bf16-mixed"
    x, where = (torch.from_numpy(a).to(work.device) for a in (pixels, local))
    with (
        torch.inference_mode(),
        torch.autocast(work.device.type, torch.bfloat16, enabled=half),
    ):
        context = compute_context(cast("MuViTSegmenter", work.models[0]), x, where)
        return _labels(context.logits[-1])


def _labels(logits: Tensor) -> NDArray[np.uint8]:
    """(B, K, H, W) logits to labels from 1; 0 where they are no numbers."""
    best, place = logits.float().max(dim=1)
    labels = (place + 1).to(torch.uint8) * torch.isfinite(best)
    return labels.cpu().numpy()
