"""What to do about a prediction that is not good enough yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from .._tasks.base import Task
from .._tasks.correcting import ContextTask, OutlineTask, UncertainTask
from ..core.config import ModelConfig, PredictionConfig
from ..core.data.items import Area, relabelled
from ..core.data.pyramid import Pyramid
from ..core.errors import ConfigError, MuvitError
from ..core.prediction.suggestions import Suggestion
from ..core.prediction_config import Outlines
from .context_layer import remove_difference, show_difference
from .foldout import Foldout
from .regions import box_around, go_to, middle_of, seen_box, selected_outlines
from .state import PanelState
from .ui import Combo, Warning_, button, form, row, text

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from ..core.prediction.context_difference import ContextDifference

MOST_EDGE = 1024
"""Slide pixels of a view that is compared; of a larger one the middle is taken."""
LIST_ROWS = 5
SEEN, SELECTED = "what is on screen", "selected regions"

StartFn = Callable[[Task, Callable[[Any], None], str], None]
"""Runs a task: what to do with its result, and what to say meanwhile."""


@dataclass(frozen=True, eq=False, slots=True)
class Predicted:
    """A prediction that is on screen."""

    image: Any
    """Image layer."""
    pyramid: Pyramid
    model: Path
    model_config: ModelConfig
    config: PredictionConfig
    path: Path
    """Of its store."""

    @property
    def place_size(self) -> int:
        """Edge of a place to annotate: a few crops of the model, slide pixels."""
        zoom = self.pyramid.viewed_at(self.model_config.pixel_size).zoom
        return max(16, round(4 * self.model_config.crop_size / max(zoom)))


class CorrectBox(Foldout):
    """Prediction to annotation, places to annotate next, and what context does.

    Parameters
    ----------
    viewer
        Whose camera is moved.
    state
        Gets classes of the model that the user has not.
    start
        Runs a task.
    take
        Adds areas, labelled in the order of the user's classes, to the annotations;
        the words say where they are from.
    """

    classes_added = Signal()
    """Classes of the model are classes of the user now."""

    def __init__(
        self,
        viewer: ViewerModel,
        state: PanelState,
        start: StartFn,
        take: Callable[[Sequence[Area], str], object],
    ) -> None:
        super().__init__("Correct", "Make the next training better, where it matters")
        self.viewer = viewer
        self.state = state
        self._start = start
        self._take = take
        self.shown: Predicted | None = None
        self.where = Combo("Of which part the prediction becomes annotation.")
        self.where.addItems([SEEN, SELECTED])
        self.take_button = button(
            "Take prediction as annotation",
            self.take,
            "Turn the prediction there into regions that you can correct and train on",
        )
        self.uncertain_button = button(
            "Uncertain",
            self.suggest_uncertain,
            "Places where the model is least sure (needs a prediction with confidence)",
        )
        self.context_button = button(
            "By context",
            self.compare_context,
            "Places in the view where the answer changes when the model does not see "
            "what lies around; shows them in a layer of their own",
        )
        self.places = QListWidget()
        self.places.setToolTip("Click a place to go there.")
        self.places.itemClicked.connect(self._go)
        self.places.itemActivated.connect(self._go)
        self.said = text()
        self.problem = Warning_()
        self._lay_out()
        self.setVisible(False)

    def _lay_out(self) -> None:
        add = self.content.addWidget
        part = form()
        part.addRow("of", self.where)
        self.content.addLayout(part)
        add(self.take_button)
        add(text("Where to annotate next:"))
        add(row(self.uncertain_button, self.context_button))
        add(self.places)
        add(self.said)
        add(self.problem)
        self.places.setVisible(False)

    def set_result(self, shown: Predicted) -> None:
        """Work on another prediction from now on."""
        if self.shown is None or self.shown.path != shown.path:
            self.show_places(())
            self._say("")
            remove_difference(self.viewer, shown.image)
        self.shown = shown
        several = len(shown.model_config.scale_factors) > 1
        self.context_button.setVisible(several)
        self.problem.say("")
        self.setVisible(True)

    def set_busy(self, busy: bool) -> None:
        """One thing at a time."""
        for each in (self.take_button, self.uncertain_button, self.context_button):
            each.setEnabled(not busy)

    # ---- prediction to annotation

    def take(self) -> None:
        """Outline the prediction of a part of the slide."""
        self._try(self._take_part)

    def _take_part(self, shown: Predicted) -> None:
        outlines: Outlines = ()
        if self.where.currentText() == SELECTED:
            outlines = selected_outlines(self.viewer, shown.image)
            box = box_around(outlines)
        else:
            box = seen_box(self.viewer, shown.image)
        self._start(
            OutlineTask(shown.path, box, outlines),
            lambda found: self._on_outlined(shown, found),
            "Outlining the prediction …",
        )

    def _on_outlined(self, shown: Predicted, found: Sequence[Area]) -> None:
        items = self._with_own_labels(shown.model_config, found)
        try:
            self._take(items, f"prediction of {shown.path.name}")
        except MuvitError as error:
            self.problem.say(str(error))
            return
        count = len(items)
        what = "1 region is" if count == 1 else f"{count} regions are"
        self._say(f"{what} annotation now; correct what is wrong on the Annotate page.")

    def _with_own_labels(self, model: ModelConfig, items: Sequence[Area]) -> list[Area]:
        """Return items with the labels of the user's classes of the same names."""
        current, before = self.state.current, self.state.names
        for label in sorted({item.label for item in items}):
            name = model.names[label - 1]
            # A project file tells names apart without regard to their case.
            if name.lower() not in map(str.lower, self.state.names):
                self.state.add_class(name, model.colors[label - 1])
        self.state.current = current
        if self.state.names != before:
            self.classes_added.emit()
        names = [name.lower() for name in self.state.names]

        def label_of(label: int) -> int:
            return names.index(model.names[label - 1].lower()) + 1

        return [relabelled(item, label_of) for item in items]

    # ---- places

    def suggest_uncertain(self) -> None:
        """Look for the places about which the model is least sure."""
        self._try(self._look_for_uncertain)

    def _look_for_uncertain(self, shown: Predicted) -> None:
        if "confidence" not in shown.config.outputs:
            raise ConfigError(
                "This prediction was made without confidence. Tick it in More options "
                "and predict again, or look for places by context."
            )
        self._start(
            UncertainTask(shown.path, shown.pyramid, shown.place_size, LIST_ROWS),
            self.show_places,
            "Looking where the model is unsure …",
        )

    def compare_context(self) -> None:
        """Predict the view with and without context, and show the difference."""
        self._try(self._compare)

    def _compare(self, shown: Predicted) -> None:
        seen = seen_box(self.viewer, shown.image)
        region = middle_of(seen, MOST_EDGE)
        # A quick answer: how crops are blended does not matter here.
        config = dataclasses.replace(shown.config, overlap=0.0, average="none")
        self._start(
            ContextTask(
                shown.pyramid, shown.model, config, region, shown.place_size, LIST_ROWS
            ),
            lambda found: self._on_compared(shown, found, region != seen),
            "Predicting the view without context …",
        )

    def _on_compared(
        self, shown: Predicted, found: ContextDifference, cut: bool
    ) -> None:
        if shown.image in self.viewer.layers:
            show_difference(self.viewer, shown.image, found, shown.model_config)
        self.show_places(found.places)
        y0, x0, y1, x1 = found.box
        where = (
            f"the middle {x1 - x0} × {y1 - y0} px of the view" if cut else "the view"
        )
        self._say(
            f"Context decides the class of {100 * found.share:.1f} % of {where}."
            + ("" if found.places else " There is no place to name.")
        )

    def show_places(self, places: Sequence[Suggestion]) -> None:
        """List places, best first."""
        self.places.clear()
        for number, place in enumerate(places, start=1):
            item = QListWidgetItem(f"{number}  {_words(place)}")
            item.setData(Qt.ItemDataRole.UserRole, place.box)
            y0, x0, y1, x1 = place.box
            item.setToolTip(f"Rows {y0} to {y1}, columns {x0} to {x1}; click to go")
            self.places.addItem(item)
        count = min(len(places), LIST_ROWS)
        height = max(self.places.sizeHintForRow(0), 1)
        self.places.setFixedHeight(count * height + 2 * self.places.frameWidth() + 4)
        self.places.setVisible(count > 0)
        self._say("" if count else "No place was found.")

    def _say(self, words: str) -> None:
        self.said.setText(words)
        self.said.setVisible(bool(words))

    def _go(self, item: QListWidgetItem) -> None:
        if self.shown is not None and self.shown.image in self.viewer.layers:
            box = item.data(Qt.ItemDataRole.UserRole)
            go_to(self.viewer, self.shown.image, box)

    def _try(self, action: Callable[[Predicted], None]) -> None:
        self.problem.say("")
        if self.shown is None:
            return
        try:
            if self.shown.image not in self.viewer.layers:
                raise ConfigError(
                    "The slide of this prediction is no longer in the viewer; open it "
                    "and predict again, which goes on where it was."
                )
            action(self.shown)
        except MuvitError as error:
            self.problem.say(str(error))


def _words(place: Suggestion) -> str:
    if place.reason == "context":
        return f"{100 * place.score:.0f} % changed by context"
    return f"{100 * (1 - place.score):.0f} % sure"
