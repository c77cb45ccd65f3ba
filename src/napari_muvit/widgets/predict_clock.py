"""How fast a prediction goes, and when it will be done. No Qt."""

from __future__ import annotations

import time

from ..core.progress import Progress
from . import describe

STAGES = {
    "levels": "Making coarse levels",
    "preview": "First look",
}


class PredictClock:
    """Turns progress into a line of words."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._since = 0.0
        self._before: float | None = None
        self._subject = ""

    @property
    def spent(self) -> float:
        """Seconds since the prediction was asked for."""
        return time.monotonic() - self._started

    def words(self, event: Progress) -> str:
        """Return what is done, how fast it goes, and how long it will take."""
        if event.subject != self._subject:
            self._subject, self._before = event.subject, None
        words = self._words(event)
        return f"{event.subject}: {words}" if event.subject else words

    def _words(self, event: Progress) -> str:
        if event.stage != "predict":
            if event.stage == "preview" and event.done == event.total:
                return "Predicting …"
            what = STAGES.get(event.stage)
            return (
                f"{what} · {100 * event.fraction:.0f} %" if what else describe.PREPARING
            )
        if self._before is None:
            # The clock for what is left starts when the model is loaded.
            self._before, self._since = event.done, time.monotonic()
        spent, new = time.monotonic() - self._since, event.done - self._before
        words = f"{event.done:.0f} of {event.total:.0f} tiles"
        if new <= 0 or spent <= 0:
            return words
        rate = new / spent
        left = (event.total - event.done) / rate
        return f"{words} · {rate:.2g} tiles/s · {describe.duration(left)} left"
