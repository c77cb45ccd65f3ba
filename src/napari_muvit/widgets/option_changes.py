"""What is typed in "More options", taken over only where it can be used."""

from __future__ import annotations

from ..core.config import ModelConfig
from ..core.errors import ConfigError, MuvitError
from .job import worker_threads
from .state import PanelState
from .train_options import TrainOptions


class OptionChanges:
    """Keeps the last settings that can be used, and what is wrong with newer ones.

    Parameters
    ----------
    state
        Takes them over.
    options
        The forms.
    """

    def __init__(self, state: PanelState, options: TrainOptions) -> None:
        self._state = state
        self._options = options
        self._wrong = ""

    def forget(self) -> None:
        """The forms show what can be used again."""
        self._state.model_changes.clear()
        self._state.training_changes.clear()
        self._wrong = ""

    def take(self, minutes: float) -> str:
        """Take over what is typed; return what is wrong with it, or nothing."""
        state = self._state
        kept = dict(state.training_changes), dict(state.model_changes)
        self._put(self._options.training.changes(), self._options.model.changes())
        try:
            state.training(minutes, worker_threads())
            ModelConfig(**state.network_values)
        except MuvitError as error:
            self._wrong = str(error)
            # Other pages show what these make of the slide.
            self._put(*kept)
        else:
            self._wrong = ""
        return self._wrong

    def _put(self, training: dict[str, object], model: dict[str, object]) -> None:
        for held, new in (
            (self._state.training_changes, training),
            (self._state.model_changes, model),
        ):
            held.clear()
            held.update(new)

    def check(self) -> None:
        """Raise `ConfigError` while something wrong is typed."""
        if self._wrong:
            raise ConfigError(self._wrong)
