"""A device that was asked for and is missing is an error, never another device."""

from __future__ import annotations

import pytest
import torch

from napari_muvit.core.errors import DeviceError
from napari_muvit.core.model import device
from napari_muvit.core.model.device import resolve_device


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found = ["cpu"]
    monkeypatch.setattr(device, "_available", lambda: found)
    return found


def test_auto_takes_the_first_kind(kinds: list[str]) -> None:
    assert resolve_device("auto") == torch.device("cpu")
    kinds.insert(0, "mps")
    assert resolve_device("auto") == torch.device("mps")
    kinds.insert(0, "cuda")
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "xla", "gpu", "", "cuda:x"])
def test_what_is_missing_is_an_error(kinds: list[str], name: str) -> None:
    with pytest.raises(DeviceError, match=r"choose one of auto, cpu\."):
        resolve_device(name)


def test_the_number_of_the_device_counts(
    kinds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds.insert(0, "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0").index == 0
    with pytest.raises(DeviceError, match=r"choose cuda:0\."):
        resolve_device("cuda:1")
