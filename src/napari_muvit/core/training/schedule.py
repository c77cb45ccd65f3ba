"""Learning rate over a run, as a share of its peak.

Reference: MuViT (arXiv 2602.24222), supplement A.2 and A.3: cosine, without warm-up.
"""

from __future__ import annotations

import math

from ..config import Schedule

FIRST_SHARE = 0.04
"""With which a warm-up begins."""
LAST_SHARE = 0.01
"""With which a one-cycle schedule ends."""


def rate_share(fraction: float, schedule: Schedule, warmup: float) -> float:
    """Share of the peak rate at a finished share of the run.

    Parameters
    ----------
    fraction
        Finished share of the run, 0 to 1.
    schedule
        Shape; see `TrainingConfig`.
    warmup
        Share of the run in which the rate rises.
    """
    if warmup > 0 and fraction < warmup:
        return FIRST_SHARE + (1 - FIRST_SHARE) * fraction / warmup
    if schedule == "constant":
        return 1.0
    along = (fraction - warmup) / max(1e-9, 1 - warmup)
    last = LAST_SHARE if schedule == "one_cycle" else 0.0
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))


def one_cycle(fraction: float, warmup: float) -> float:
    """A linear rise, then half a cosine down to 1 %; see `rate_share`."""
    return rate_share(fraction, "one_cycle", warmup)
