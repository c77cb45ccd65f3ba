"""What the processes of a run on several devices decide together.

Lightning starts one process a device, and each runs the same program. They have to
take the same decisions, or they wait for one another for ever.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import TrainingConfig
from ..errors import ConfigError, DeviceError

if TYPE_CHECKING:
    import lightning as L

_RANKS = ("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables by which launchers number all processes."""
_LOCAL_RANKS = ("NODE_RANK", "LOCAL_RANK")
"""Variables that number machines, and the processes of one."""
_DEVICE_RANKS = ("LOCAL_RANK", "SLURM_LOCALID", "JSM_NAMESPACE_LOCAL_RANK")
"""Variables that number the processes of a machine, and so their GPUs."""


def is_first_process(config: TrainingConfig) -> bool:
    """Whether this process is the one that writes and speaks.

    A single training is always the first, whatever a job scheduler calls it.
    """
    if config.world_size == 1:
        return True
    for name in _RANKS:
        if name in os.environ:
            return int(os.environ[name]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in _LOCAL_RANKS)


def check_devices(config: TrainingConfig, device: torch.device) -> None:
    """Refuse devices that are not there.

    Raises
    ------
    DeviceError
        If this machine has fewer devices of the kind.
    ConfigError
        If one device is named and several are asked for.
    """
    if config.devices == 1:
        return
    if ":" in str(device):
        raise ConfigError(
            f"The device {device} and {config.devices} devices were asked for; name "
            f"the kind alone ({device.type}), or ask for one.",
            "devices",
        )
    there = 1
    if device.type == "cuda":
        there = torch.cuda.device_count()
    elif device.type == "cpu":
        there = os.cpu_count() or 1
    if config.devices > there:
        raise DeviceError(
            f"{config.devices} devices of the kind {device.type} were asked for, this "
            f"machine has {there}; choose --devices {there}, or more --nodes."
        )


def own_device(config: TrainingConfig, device: torch.device) -> torch.device:
    """Return the GPU that this process will train on, of those of its machine.

    Parameters
    ----------
    config
        Says how many there are.
    device
        That was asked for; returned as it is where there is no choice.
    """
    if str(device) != "cuda" or config.devices == 1:
        return device
    number = next((int(os.environ[n]) for n in _DEVICE_RANKS if n in os.environ), 0)
    # A scheduler may show each process its own GPU alone.
    seen = number if number < torch.cuda.device_count() else 0
    return torch.device("cuda", seen)


class Together:
    """Decisions of all processes of a run; alone, each is as it is.

    To be attached to a trainer before it starts.
    """

    def __init__(self) -> None:
        self._trainer: L.Trainer | None = None

    def attach(self, trainer: L.Trainer) -> None:
        """Speak through this trainer's processes."""
        self._trainer = trainer

    @property
    def world(self) -> int:
        """Processes."""
        return 1 if self._trainer is None else self._trainer.world_size

    @property
    def rank(self) -> int:
        """Number of this process."""
        return 0 if self._trainer is None else self._trainer.global_rank

    @property
    def _strategy(self) -> Any:
        return None if self._trainer is None else self._trainer.strategy

    def any(self, flag: bool) -> bool:
        """Whether one of them says yes; all have to ask."""
        if self.world == 1:
            return flag
        return bool(self._strategy.reduce_boolean_decision(flag, all=False))

    def first(self, value: float) -> float:
        """Return the number of the first process; all have to ask."""
        return value if self.world == 1 else float(self._strategy.broadcast(value))

    def check_equal(self, value: int, problem: str) -> None:
        """Refuse to go on with different numbers; all have to ask.

        Raises
        ------
        DeviceError
            In all processes, if they have not the same.
        """
        if self.any(value != self.first(value)):
            raise DeviceError(problem)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all; the result is on the CPU. All have to ask."""
        if self.world == 1:
            return values.cpu()
        device = self._strategy.root_device
        total = self._strategy.reduce(values.to(device), reduce_op="sum")
        return total.cpu()  # type: ignore[no-any-return]
