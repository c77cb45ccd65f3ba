"""Which device torch computes on."""

from __future__ import annotations

import torch

from ..errors import DeviceError


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device that the user asked for, after checking that it is there.

    Parameters
    ----------
    name
        ``auto`` (CUDA, then MPS, then the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises
    ------
    DeviceError
        If the name is not a device, or the device is missing on this machine.
    """
    if name == "auto":
        return torch.device(_available()[0])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"{name!r} is not a device; choose one of auto, {', '.join(_available())}."
        ) from error
    if device.type not in _available():
        raise DeviceError(
            f"The device {name} was asked for, but torch finds none on this machine; "
            f"choose one of auto, {', '.join(_available())}."
        )
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    # None is the current device, though torch's types do not say so.
    if (device.index or 0) >= count:
        raise DeviceError(
            f"The device {name} was asked for, but torch finds {count} of its kind on "
            f"this machine; choose {device.type}:0"
            + (f" to {device.type}:{count - 1}." if count > 1 else ".")
        )
    return device


def _available() -> list[str]:
    """Return the kinds of devices that are there, best first."""
    kinds = []
    if torch.cuda.is_available():
        kinds.append("cuda")
    if torch.backends.mps.is_available():
        kinds.append("mps")
    return [*kinds, "cpu"]
