"""Evaluation mode for as long as something is looked at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Put a torch module into evaluation mode, and each of its parts back afterwards.

    Anything that is no module is left alone.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        yield
        return
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training
