"""Contexts that have been computed, as many as fit into a budget of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ..model.shared_context import SharedContext

BUDGET_BYTES = 256 * 2**20
TOUCHED = 4
"""Contexts that a tile touches, at most."""
LEAST = 2 * TOUCHED
"""Contexts that are kept whatever they hold."""


@dataclass(frozen=True, eq=False, slots=True)
class ViewedContext:
    """A context as each view of a crop sees it, in the order of the views.

    All at once: its pixels are read once, and whoever needs one view needs the others.
    """

    views: tuple[SharedContext, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(context.nbytes for context in self.views)


class ContextCache:
    """The contexts that were used last.

    Parameters
    ----------
    compute
        Makes a context by its place in the slide's grid.
    budget
        Bytes.
    least
        Contexts that are kept whatever they hold.
    """

    def __init__(
        self,
        compute: Callable[[int], ViewedContext],
        budget: int = BUDGET_BYTES,
        least: int = LEAST,
    ) -> None:
        self._compute = compute
        self._least = least
        self._budget = budget
        self._kept: OrderedDict[int, ViewedContext] = OrderedDict()
        self._bytes = 0
        self.computed = 0

    def clear(self) -> None:
        """Forget all contexts."""
        self._kept.clear()
        self._bytes = 0

    def get(self, index: int) -> ViewedContext:
        """Return a context, computed if it is not there."""
        context = self._kept.get(index)
        if context is None:
            context = self._compute(index)
            self.computed += 1
            self._kept[index] = context
            self._bytes += context.nbytes
            while self._bytes > self._budget and len(self._kept) > self._least:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes
        self._kept.move_to_end(index)
        return context
