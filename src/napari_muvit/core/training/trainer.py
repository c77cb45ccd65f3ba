"""Lightning's trainer, set up as a configuration says."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch

from ..config import TrainingConfig
from ..errors import ConfigError
from ..model.device import resolve_device

TALKATIVE = ("lightning.pytorch", "lightning.fabric", "torch._dynamo")
"""Loggers that speak to developers."""


def make_trainer(
    config: TrainingConfig,
    device: torch.device,
    callbacks: list[L.Callback],
    passes: int,
    folder: Path,
) -> L.Trainer:
    """Return a trainer that ends when its callbacks say so.

    Parameters
    ----------
    config
        Precision, devices, strategy, loggers.
    device
        Where to run; with an index: that one.
    callbacks
        Of the run.
    passes
        Of a step.
    folder
        Where loggers write.
    """
    devices: Any = config.devices
    if device.type == "cuda" and config.devices == 1:
        devices = [device.index or 0]
    # Lightning takes one process for several CPUs unless it is told otherwise.
    strategy = config.strategy
    if strategy == "auto" and config.world_size > 1:
        strategy = "ddp"
    return L.Trainer(
        default_root_dir=folder,
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=devices,
        num_nodes=config.num_nodes,
        strategy=strategy,
        precision=cast("Any", settled(config).precision),
        max_epochs=-1,
        accumulate_grad_batches=passes,
        gradient_clip_val=None,
        callbacks=callbacks,
        num_sanity_val_steps=0,
        logger=_loggers(config, folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def settled(config: TrainingConfig) -> TrainingConfig:
    """Choose what was left to the device: the precision.

    Raises
    ------
    DeviceError
        If the device is not there.
    """
    if config.precision != "auto":
        return config
    short = computes_in_bfloat16(resolve_device(config.device))
    return dataclasses.replace(config, precision="bf16-mixed" if short else "32-true")


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 itself, which is faster there."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def check_trainer(config: TrainingConfig, device: torch.device) -> None:
    """Refuse what Lightning, or what is installed, cannot do.

    Raises
    ------
    ConfigError
        If the strategy shards weights, a logger is not installed, or the precision is
        none of the device's.
    """
    if config.precision == "16-mixed" and device.type == "cpu":
        # Lightning would take bf16-mixed without a word.
        raise ConfigError(
            "The precision 16-mixed was asked for, which a CPU has not; choose "
            "bf16-mixed, 32-true or auto.",
            "precision",
        )
    if config.strategy != "auto" and not config.strategy.startswith("ddp"):
        raise ConfigError(
            f"The strategy {config.strategy!r} was asked for; choose auto or one of "
            "Lightning's that begin with ddp. Models of this size need no sharding.",
            "strategy",
        )
    needed = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}
    packages = needed.get(config.logger, ())
    if packages and not any(importlib.util.find_spec(p) for p in packages):
        raise ConfigError(
            f"The logger {config.logger} is not installed: pip install {packages[0]}.",
            "logger",
        )


def _loggers(config: TrainingConfig, folder: Path) -> Any:
    """Loggers beside the CSV file, which each run has."""
    if config.logger == "tensorboard":
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="tensorboard", version="")
    if config.logger == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(
            name=folder.parent.name, project="napari-muvit", save_dir=folder
        )
    return False


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Limit torch's CPU threads for the time of the run."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep advice on loaders and graphs, and Lightning's banners, from the user."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # More of them than cores: as it was asked for.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            warnings.filterwarnings("ignore", message="Dynamo detected a call to a")
            # Convolutions of one channel, in channels-last order: a matter of speed.
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
