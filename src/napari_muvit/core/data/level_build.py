"""Building an entry of the level cache: one pass, bounded memory, through any kill."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zarr
from filelock import Timeout

from ..errors import OutputError
from ..geometry import Box
from ..progress import Progress, ProgressFn, StopFn, check_stop
from .block_cache import BlockCache
from .cache_folder import CacheFolder, discard, folder_files
from .ledger import open_ledger, read_ledger, start_ledger
from .level_store import LevelPlan, create_level, is_whole, write_record
from .pyramid import Pyramid

STATE = "blocks.jsonl"
SOURCE_BYTES = 256 * 2**20
"""Decoded pixels of the slide that are kept while its levels are averaged."""
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 60.0
"""Another process that does nothing for so long is not waited for."""

Block = tuple[int, tuple[int, ...]]
"""Number of the level, index of the chunk."""


def blocks_in_order(plans: Sequence[LevelPlan]) -> Iterator[Block]:
    """All chunks of all levels, those that cover the same place together."""
    grids = [plan.grid for plan in plans]
    for index in itertools.product(*(range(max(n)) for n in zip(*grids, strict=True))):
        for number, grid in enumerate(grids):
            if all(i < n for i, n in zip(index, grid, strict=True)):
                yield number, index


def build_or_wait(
    pyramid: Pyramid,
    plans: Sequence[LevelPlan],
    facts: dict[str, Any],
    folder: CacheFolder,
    key: str,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> None:
    """Make the entry, or wait for the process that does.

    Raises
    ------
    OutputError
        If there is no room for it, or the other process does nothing.
    OSError
        If it cannot be written.
    PyramidError
        If the slide cannot be read.
    Cancelled
        If ``should_stop`` said so; what is done is kept for the next time.
    """
    count = sum(1 for _ in blocks_in_order(plans))
    waited = _Patience(folder.part(key) / STATE, count)
    while True:
        try:
            with folder.lock(key).acquire(blocking=False):
                if not is_whole(folder.entry(key), facts):
                    _build(pyramid, plans, facts, folder, key, on_progress, should_stop)
                return
        except Timeout:
            check_stop(should_stop)
            on_progress(_event(waited.look(), count))
            time.sleep(POLL_SECONDS)


class _Patience:
    """Watches how another process gets on."""

    def __init__(self, state: Path, total: int) -> None:
        self._state, self._total = state, total
        self._done, self._since = -1, time.monotonic()

    def look(self) -> int:
        """Blocks that are done.

        Raises
        ------
        OutputError
            If nothing was done for long.
        """
        done = max(0, len(read_ledger(self._state)) - 1)
        now = time.monotonic()
        if done != self._done:
            self._done, self._since = done, now
        if now - self._since > PATIENCE_SECONDS:
            raise OutputError(
                "another process has begun to average them and does not get on"
            )
        return min(done, self._total)


def _build(
    pyramid: Pyramid,
    plans: Sequence[LevelPlan],
    facts: dict[str, Any],
    folder: CacheFolder,
    key: str,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> None:
    """Make the entry; the lock is held."""
    discard(folder.entry(key))
    if not folder.make_room(sum(plan.nbytes for plan in plans), keep=key):
        raise OutputError(
            f"they do not fit into the {folder.settings.limit_bytes / 1e9:g} GB that "
            f"the cache in {folder.settings.folder} may have"
        )
    part = folder.part(key)
    try:
        # Killed just before it was moved to its place, it has no ledger any more.
        if not is_whole(part, facts):
            written = _continue(part, plans, facts)
            _fill(pyramid, plans, part, written, on_progress, should_stop)
            _finish(part, plans, facts)
    except OSError:
        # A full disk: what is there only takes room from others.
        shutil.rmtree(part, ignore_errors=True)
        raise
    part.rename(folder.entry(key))


def _continue(
    part: Path, plans: Sequence[LevelPlan], facts: dict[str, Any]
) -> set[Block]:
    """Blocks that are there; makes the empty arrays where nothing is."""
    lines = read_ledger(part / STATE)
    if lines and lines[0] == facts:
        blocks = [(int(level), tuple(index)) for level, index in lines[1:]]
        return {b for b in blocks if _chunk_path(part, plans, b).is_file()}
    discard(part)
    part.mkdir()
    for number, plan in enumerate(plans):
        create_level(part / str(number), plan)
    start_ledger(part / STATE, facts)
    return set()


def _chunk_path(part: Path, plans: Sequence[LevelPlan], block: Block) -> Path:
    number, index = block
    return part / str(number) / plans[number].chunk_file(index)


def _fill(
    pyramid: Pyramid,
    plans: Sequence[LevelPlan],
    part: Path,
    written: set[Block],
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> None:
    """Average the blocks that are missing."""
    source = dataclasses.replace(pyramid, cache=BlockCache(SOURCE_BYTES), averaged=())
    arrays: list[Any] = [
        zarr.open_array(part / str(number), mode="r+") for number in range(len(plans))
    ]
    blocks = list(blocks_in_order(plans))
    done = len(written)
    with open_ledger(part / STATE) as add:
        for block in blocks:
            if block in written:
                continue
            check_stop(should_stop)
            number, index = block
            _average_block(source, plans[number], arrays[number], index)
            add([number, list(index)])
            done += 1
            on_progress(_event(done, len(blocks)))


def _average_block(
    pyramid: Pyramid, plan: LevelPlan, array: Any, index: tuple[int, ...]
) -> None:
    lower = [i * plan.edge for i in index]
    upper = [min(v + plan.edge, n) for v, n in zip(lower, plan.shape[1:], strict=True)]
    offset = pyramid.levels[plan.index].offset
    box = Box(
        tuple(o + v * plan.factor for o, v in zip(offset, lower, strict=True)),
        tuple(o + u * plan.factor for o, u in zip(offset, upper, strict=True)),
    )
    shape = [u - v for v, u in zip(lower, upper, strict=True)]
    key = tuple(slice(v, u) for v, u in zip(lower, upper, strict=True))
    array[(slice(None), *key)] = pyramid.read(box, plan.factor, shape)


def _event(done: int, total: int) -> Progress:
    return Progress(stage="levels", done=done, total=total, unit="block")


def _finish(part: Path, plans: Sequence[LevelPlan], facts: dict[str, Any]) -> None:
    """Leave nothing but the chunks and their record."""
    wanted = {_chunk_path(part, plans, block) for block in blocks_in_order(plans)}
    for path, _ in list(folder_files(part)):
        # A killed process leaves the beginning of a chunk under another name.
        if path not in wanted and path.name not in ("zarr.json", STATE):
            path.unlink()
    # The ledger goes last: without ledger and record all would be done again.
    write_record(part, facts, without=STATE)
    (part / STATE).unlink()
