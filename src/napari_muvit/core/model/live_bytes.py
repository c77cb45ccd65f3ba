"""How much memory tensors take, counted as they come and go."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made under it, for as long as they live.

    Parameters
    ----------
    known
        Tensors that are there already; views of them count nothing.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known = {_key(tensor.untyped_storage()) for tensor in known}
        self._alive: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_iter(out):
            if isinstance(value, Tensor):
                self._count(value)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _key(storage)
        if key in self._known or key in self._alive:
            return
        size = storage.nbytes()

        def gone(_reference: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone), size
        self.now += size
        self.peak = max(self.peak, self.now)


def _key(storage: torch.UntypedStorage) -> int:
    """What names a tensor's memory; on ``meta`` all addresses are 0."""
    return int(storage._cdata)
