"""Coarse levels that a slide lacks, averaged once and kept on disk.

A flat slide of 50,000 x 50,000 pixels has no level at 1/32: every crop there would read
and average 8,192 x 8,192 pixels. `with_coarse_levels` does that once for the whole
slide.

What is kept is what `Pyramid.read` itself averages, in float32, to the last bit. So a
result does not depend on whether there is a cache; without one (a full disk, a damaged
entry) reading just goes on as before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import zarr

from ..errors import MuvitError, OutputError, PyramidError
from ..progress import Progress, ProgressFn, StopFn, ignore_progress, never_stop
from .averaged import MissingLevel
from .cache_folder import CacheFolder, discard
from .cache_settings import CacheSettings
from .level_build import build_or_wait
from .level_identity import describe_source, entry_key
from .level_reading import AVERAGED_BLOCK
from .level_store import LevelPlan, is_whole, open_levels, read_record
from .openslide_levels import OpenSlideLevel
from .pyramid import Pyramid
from .tiff_levels import TiffLevel

DEAR_AVERAGE = 50
"""Stored pixels per pixel of the level, a factor of 7 in 2D, from which on it is dear:
a crop of 256 x 256 then averages 3 million or more, 30 ms and up, against 5 ms for
reading it from a kept level."""
DEAR_PIXELS = 2**27
"""Stored pixels (all channels) of the level to average: less than that is averaged in
1 to 2 s, as a whole, and stays in memory."""
BLOCK_PIXELS = 2**24
"""Stored pixels that a chunk covers, about: 4096 x 4096."""
FILE_ARRAYS = (zarr.Array, TiffLevel, OpenSlideLevel)
"""Arrays whose pixels are those of a file. A dask array may be anything."""


def dear_levels(
    pyramid: Pyramid, scale_factors: Sequence[float]
) -> tuple[LevelPlan, ...]:
    """Levels that the slide lacks, and that are dear to average for every crop.

    Parameters
    ----------
    pyramid
        The slide, as it will be read.
    scale_factors
        World pixels per pixel of the levels that will be read.
    """
    plans = []
    for factor in sorted(set(scale_factors)):
        missing = pyramid.missing_level(factor)
        if missing is not None and _is_dear(pyramid, missing):
            shape = (pyramid.num_channels, *missing.shape)
            edge = _edge(missing)
            plans.append(
                LevelPlan(missing.index, missing.step, float(factor), shape, edge)
            )
    return tuple(plans)


def _is_dear(pyramid: Pyramid, missing: MissingLevel) -> bool:
    source = pyramid.levels[missing.index].source
    if not isinstance(source.array, FILE_ARRAYS):
        return False
    if math.prod(missing.step) < DEAR_AVERAGE or math.prod(source.shape) < DEAR_PIXELS:
        return False
    return all(n > 0 for n in missing.shape)


def _edge(missing: MissingLevel) -> int:
    """Edge of a chunk: the blocks in which `read` averages, as many as are cheap."""
    ndim = len(missing.step)
    block = round(AVERAGED_BLOCK ** (1 / ndim))
    source = round(BLOCK_PIXELS ** (1 / ndim))
    edge: int = block * max(1, round(source / max(missing.step) / block))
    return edge


def with_coarse_levels(
    pyramid: Pyramid,
    scale_factors: Sequence[float],
    *,
    cache: CacheSettings | None = None,
    build: bool = True,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Pyramid:
    """Return the slide with the coarse levels that it lacks, from the cache on disk.

    Parameters
    ----------
    pyramid
        The slide, viewed at the model's pixel size.
    scale_factors
        Of the levels that will be read.
    cache
        None: as the environment says, see `CacheSettings.from_environment`.
    build
        Make levels that are not there; False: use what is there.
    on_progress, should_stop
        See `napari_muvit.core.progress`; the stage is ``levels``, the unit blocks.
        Where there can be no cache the reason is said in a message.

    Returns
    -------
    Pyramid
        The same pyramid where no level is dear, the cache is off or cannot be had.

    Raises
    ------
    Cancelled
        If ``should_stop`` said so; what is done is kept for the next time.
    """
    cache = CacheSettings.from_environment() if cache is None else cache
    plans = dear_levels(pyramid, scale_factors)
    if not plans or not cache.enabled or pyramid.path is None:
        return pyramid
    try:
        found = _entry(pyramid, plans, cache, build, on_progress, should_stop)
    except (OSError, PyramidError, NotImplementedError) as error:
        # NotImplementedError: a disk that knows no locks.
        on_progress(_said(f"Coarse levels are not kept: {_reason(error)}."))
        return pyramid
    return pyramid if found is None else dataclasses.replace(pyramid, averaged=found)


def _entry(
    pyramid: Pyramid,
    plans: tuple[LevelPlan, ...],
    cache: CacheSettings,
    build: bool,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> Any:
    """Levels of the entry, made if need be; None where it is not to be made."""
    folder = CacheFolder(cache)
    facts = describe_source(pyramid, plans)
    key = entry_key(facts)
    if not build and not folder.entry(key).exists():
        return None
    folder.prepare()
    # Before it is opened, so that no other process removes it in between.
    folder.use(key)
    if not is_whole(folder.entry(key), facts):
        if not build:
            return None
        factors = ", ".join(f"1/{plan.factor:g}" for plan in plans)
        on_progress(_said(
            f"{pyramid.name} has no level near {factors}; it is averaged once and kept "
            f"in {cache.folder}."
        ))  # fmt: skip
        build_or_wait(pyramid, plans, facts, folder, key, on_progress, should_stop)
        if entry_key(describe_source(pyramid, plans)) != key:
            # What was averaged may be half of the one and half of the other.
            discard(folder.entry(key))
            raise OutputError(f"{pyramid.path} has changed meanwhile")
    folder.touch(key)
    spatial = pyramid.levels[0].source.spatial
    return open_levels(folder.entry(key), plans, spatial)


@dataclass(frozen=True, slots=True)
class KeptLevels:
    """What the cache holds of a slide."""

    scale_factors: tuple[float, ...]
    """Stored finest pixels per pixel of each level."""
    nbytes: int
    """On disk."""


def kept_levels(pyramid: Pyramid, cache: CacheSettings | None = None) -> KeptLevels:
    """Find out what the cache holds of a slide as its file is now; reads no chunk."""
    cache = CacheSettings.from_environment() if cache is None else cache
    factors: set[float] = set()
    nbytes = 0
    if cache.enabled and pyramid.path is not None:
        file = describe_source(pyramid, ())
        for entry in CacheFolder(cache).entries():
            record = read_record(entry.path)
            facts = record["facts"] if record else {}
            if any(facts.get(name) != file[name] for name in ("path", "file")):
                continue
            nbytes += entry.nbytes
            for level in facts["levels"]:
                scale = pyramid.levels[level["index"]].scale
                steps = (s * t for s, t in zip(scale, level["step"], strict=True))
                factors.add(round(sum(steps) / len(scale), 3))
    return KeptLevels(tuple(sorted(factors)), nbytes)


def _said(message: str) -> Progress:
    return Progress(stage="levels", done=0, total=1, message=message)


def _reason(error: Exception) -> str:
    strerror = None if isinstance(error, MuvitError) else getattr(error, "strerror", "")
    where = getattr(error, "filename", None)
    text = f"{where}: {strerror}" if strerror and where else strerror or str(error)
    return text.rstrip(".")
