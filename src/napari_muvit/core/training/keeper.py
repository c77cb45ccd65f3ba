"""Writes the state of a run from time to time, and puts a run back into it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .base_module import TrainingModule
from .budget import Budget
from .course import Course
from .ema import WeightAverage
from .run_folder import RunFolder
from .run_log import RunLog
from .state import RunState, write_state

if TYPE_CHECKING:
    import lightning as L
    from torch import Tensor
    from torch.optim import Optimizer

FREE_TO_CHANGE = frozenset(
    {
        "epochs", "steps", "minutes", "early_stop", "accumulate", "device", "devices",
        "num_nodes", "strategy", "num_threads", "num_workers", "compile", "logger",
        "checkpoint_minutes", "precision",
    }
)  # fmt: skip
"""Settings that a resumed run may have anew: limits, and where it runs."""


OF_THE_PIXELS = frozenset({"background_value"})
"""Of a model: found on the slides, so that it changes with them."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Asked:
    """What a run was asked for; a resumed run must have been asked for the same."""

    kind: str
    """``finetune`` or ``pretrain``."""
    model: Mapping[str, Any]
    """Resolved configuration of the model."""
    training: Mapping[str, Any]
    """Configuration of the training."""
    data: str
    """Fingerprint of slides and annotations."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "kind": self.kind,
            "model": dict(self.model),
            "training": dict(self.training),
            "data": self.data,
        }


def check_same(asked: Asked, before: Mapping[str, Any], folder: RunFolder) -> None:
    """Refuse to go on with something else.

    Raises
    ------
    ConfigError
        Naming the first setting that differs, or the data.
    """
    where = f"The run in {folder.path}"
    advice = "Give it as it was, or start anew in another folder or with --overwrite."
    if before["kind"] != asked.kind:
        raise ConfigError(f"{where} is a {before['kind']} run, not {asked.kind}.")
    changed = [
        (name, old.get(name), new.get(name))
        for old, new in (
            (before["model"], asked.model), (before["training"], asked.training)
        )
        for name in sorted({*old, *new} - FREE_TO_CHANGE)
        if _plain(old.get(name)) != _plain(new.get(name))
    ]  # fmt: skip
    asked_for = [change for change in changed if change[0] not in OF_THE_PIXELS]
    if before["data"] != asked.data and not asked_for:
        raise ConfigError(
            f"{where} was started with other data: slides or annotations have changed "
            f"since. {advice}"
        )
    for name, old, new in asked_for or changed:
        raise ConfigError(
            f"{where} was started with {name} {old}, now it is {new}. {advice}", name
        )


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


class StateKeeper:
    """Saves and restores all that the rest of a run depends on.

    Random numbers need no keeping: samples and masks follow from the seed and the
    number of the step.
    """

    def __init__(
        self,
        folder: RunFolder,
        asked: Asked,
        module: TrainingModule,
        budget: Budget,
        course: Course,
        average: WeightAverage | None,
        passes: int,
    ) -> None:
        self.passes = passes
        self.folder = folder
        self.asked = asked
        self.module = module
        self.budget = budget
        self.course = course
        self.average = average
        self.log: RunLog | None = None
        """Curves, which a run that goes on from a state has up to it."""
        self.validation_crops = 0
        self.cpu_before = 0.0
        """CPU-seconds of earlier parts of the run."""
        self._cpu_start = time.process_time()
        self.has_model = False
        """Whether the model in the folder is this run's, not one that it replaces."""
        self.saved_at = time.monotonic()
        self.saved_step = -1

    @property
    def cpu_seconds(self) -> float:
        """CPU-seconds of this process, and of earlier parts of the run."""
        return self.cpu_before + time.process_time() - self._cpu_start

    def save(self, trainer: L.Trainer) -> None:
        """Write the state after a whole step.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self.log is not None:
            self.log.flush()
        tensors: dict[str, Tensor] = {}
        for name, value in self.module.network.state_dict().items():
            tensors[f"network.{name}"] = value
        optimiser = trainer.optimizers[0]
        for parameter, name in self._named(optimiser):
            for entry, value in optimiser.state[parameter].items():
                tensors[f"optimizer.{name}.{entry}"] = value
        if self.average is not None:
            for name, value in self.average.shadow.items():
                tensors[f"average.{name}"] = value
        facts = {
            "step": self.module.steps_done,
            "seconds": self.budget.elapsed,
            "cpu_seconds": self.cpu_seconds,
            "last_loss": self.module.last_loss,
            "passes": self.passes,
            "steps_per_epoch": self.budget.steps_per_epoch,
            "validation_crops": self.validation_crops,
            "has_model": self.has_model,
            "reserved": self.budget.reserved,
            "average_steps": 0 if self.average is None else self.average.steps,
            "loss_scale": trainer.precision_plugin.state_dict(),
            "course": self.course.to_dict(),
            "asked": self.asked.to_dict(),
        }
        write_state(self.folder.state, RunState(tensors=tensors, facts=facts))
        self.saved_at = time.monotonic()
        self.saved_step = self.module.steps_done

    def restore_network(self, state: RunState) -> None:
        """Put weights, the place in the run and the average back, before it starts."""
        self.module.network.load_state_dict(state.part("network"))
        self.module.first_step = int(state.facts["step"])
        self.module.last_loss = float(state.facts["last_loss"])
        self.cpu_before = float(state.facts["cpu_seconds"])
        self.validation_crops = int(state.facts["validation_crops"])
        # These are not in states of earlier versions.
        self.has_model = bool(state.facts.get("has_model", True))
        self.budget.reserve(float(state.facts.get("reserved", 0.0)))
        self.saved_step = self.module.first_step
        if self.average is not None:
            steps = int(state.facts["average_steps"])
            self.average.restore(state.part("average"), steps)

    def restore_optimiser(self, state: RunState, trainer: L.Trainer) -> None:
        """Put the optimiser and the loss scale back, once they are there."""
        entries: dict[str, dict[str, Tensor]] = {}
        for key, value in state.part("optimizer").items():
            name, entry = key.rsplit(".", 1)
            entries.setdefault(name, {})[entry] = value
        if state.facts["format_version"] == 1:
            names = self._names_by_number()
            entries = {names[int(number)]: found for number, found in entries.items()}
        optimiser = trainer.optimizers[0]
        numbered = {
            number: entries[name]
            for number, (_, name) in enumerate(self._named(optimiser))
            if name in entries
        }
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": numbered, "param_groups": groups})
        if state.facts["loss_scale"]:
            trainer.precision_plugin.load_state_dict(state.facts["loss_scale"])

    def _named(self, optimiser: Optimizer) -> list[tuple[Tensor, str]]:
        """Parameters as the optimiser numbers them, with their names."""
        names = {p: name for name, p in self.module.network.named_parameters()}
        groups = optimiser.param_groups
        return [(p, names[p]) for group in groups for p in group["params"]]

    def _names_by_number(self) -> list[str]:
        """Names in the order by which the first format numbered the parameters."""
        names = {p: name for name, p in self.module.network.named_parameters()}
        found = []
        for modules, _ in self.module.parts():
            trained = [p for m in modules for p in m.parameters() if p.requires_grad]
            found += [names[p] for p in trained if p.ndim > 1]
            found += [names[p] for p in trained if p.ndim <= 1]
        return found
