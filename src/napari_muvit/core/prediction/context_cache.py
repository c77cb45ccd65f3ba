"""Contexts that have been computed, as many as fit into a budget of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model.shared_context import SharedContext

BUDGET_BYTES = 256 * 2**20
LEAST = 8
"""Contexts that are kept whatever they hold: a tile touches up to four."""


class ContextCache:
    """The contexts that were used last.

    Parameters
    ----------
    compute
        Makes a context by its place in the slide's grid.
    budget
        Bytes.
    """

    def __init__(
        self, compute: Callable[[int], SharedContext], budget: int = BUDGET_BYTES
    ) -> None:
        self._compute = compute
        self._budget = budget
        self._kept: OrderedDict[int, SharedContext] = OrderedDict()
        self._bytes = 0
        self.computed = 0

    def clear(self) -> None:
        """Forget all contexts."""
        self._kept.clear()
        self._bytes = 0

    def get(self, index: int) -> SharedContext:
        """Return a context, computed if it is not there."""
        context = self._kept.get(index)
        if context is None:
            context = self._compute(index)
            self.computed += 1
            self._kept[index] = context
            self._bytes += context.nbytes
            while self._bytes > self._budget and len(self._kept) > LEAST:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes
        self._kept.move_to_end(index)
        return context
