"""What is annotated on one slide: outlines and paint, undo, and their file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from .._layer_items import drawn_area, is_region, is_special
from .._layers import layer_path, layer_pixel_size, plane_shape
from ..core.data.items import Area
from .autosave import Autosave, Content, SlideIdentity
from .brush import IMAGE, BrushLayers
from .class_amounts import regions
from .history import History, Step
from .outline_areas import OutlineAreas
from .outline_pieces import PIECE, Filling
from .outline_snapshot import Moment, Snapshot, put_back
from .places import project_path, shared_project
from .restoring import split_items, take_classes
from .shapes import (
    OUTLINES,
    ShapesWatcher,
    apply_classes,
    find_outlines,
    fit_outlines,
    lie_upon,
    make_shapes,
    new_shapes,
)
from .state import PanelState

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Shapes


MOVED = ("scale", "translate", "units")


def slide_path(image: Image) -> Path:
    """Return the project file of an image layer."""
    return project_path(image.name, layer_path(image), plane_shape(image))


class SlideAnnotations(QObject):
    """The annotations of one slide.

    Parameters
    ----------
    viewer, state
        The panel's.
    image
        The slide.
    """

    changed = Signal()
    """Something was finished: an outline, a stroke, a class."""
    classes_changed = Signal()
    """The list of classes was changed by undoing, or by what a file holds."""
    restored = Signal(object)
    """A Shapes layer to go on in."""
    said = Signal(str)
    """What happened to the file, in a line."""
    failed = Signal(str)
    """Why nothing is saved; empty when it is again."""

    def __init__(self, viewer: ViewerModel, state: PanelState, image: Image) -> None:
        super().__init__()
        self.viewer = viewer
        self.state = state
        self.image = image
        self.path = slide_path(image)
        self.key = str(self.path)
        self.layer: Shapes | None = None
        self.history = History()
        self.brush = BrushLayers(viewer, image, self.key, self._on_stroke)
        self.brush.take_over()
        size = layer_pixel_size(image)
        shape = plane_shape(image)
        self.autosave = Autosave(
            self.path,
            SlideIdentity(image.name, shape, size),
            shared_project(image.name, layer_path(image), shape),
        )
        self.autosave.opened.connect(self._on_opened)
        self.autosave.failed.connect(self.failed)
        self.autosave.saved.connect(self._on_saved)
        self._watcher: ShapesWatcher | None = None
        self._own = self._outlines = OutlineAreas(image)
        self._others: list[Area] = []
        self._now = self._moment()
        self._ready = self._held = False
        self._filling: Filling | None = None
        for event in MOVED:
            getattr(image.events, event).connect(self._follow_image)

    def open(self) -> None:
        """Bring back what the file holds, if there is one."""
        self.autosave.open()

    def close(self) -> None:
        """Let go of the layers and the file; what is drawn stays on screen."""
        for event in MOVED:
            getattr(self.image.events, event).disconnect(self._follow_image)
        if self._filling is not None:
            self._filling.stop()
        self.unbind()
        self.brush.release()
        self.autosave.close()

    # ---- the layer that is drawn in

    @property
    def drawing(self) -> bool:
        """Whether an outline is half-drawn."""
        return self._watcher is not None and self._watcher.drawing

    @property
    def kept(self) -> bool:
        """Whether what is drawn in the chosen layer goes to the file."""
        return self.layer is None or self.layer.metadata.get(IMAGE) == self.key

    def own_layer(self) -> Shapes:
        """Return the layer for this slide, with what it held; paint comes back, too."""
        self.brush.bring_back()
        if found := find_outlines(self.viewer, self.key):
            return found
        held = self._own.now
        with self._hold():
            # Added to the viewer it is chosen at once, while it is empty.
            layer = new_shapes(self.viewer, self.image, self.state, self.key)
            if held.drawn:
                fit_outlines(self.viewer, layer)
                put_back(layer, held, self._own.read(layer))
                apply_classes(layer, self.state)
            self._own.read(layer)
        if self.layer is layer:
            self._reset()
        return layer

    def bind(self, layer: Shapes) -> None:
        """Take what is in a layer as the outlines, and follow it."""
        self.unbind()
        self.layer = layer
        if layer.ndim == 2 and not self._areas_held() and not layer.metadata.get(IMAGE):
            layer.metadata[IMAGE] = self.key  # the user's own layer is kept, too
        if not self.kept:
            self._outlines = OutlineAreas(self.image)
            if self._ready:
                self.said.emit(
                    f"The regions of {layer.name!r} are used, but not saved by "
                    f"themselves: {self.path.name} holds others."
                )
        self._watcher = ShapesWatcher(layer, self.look)
        self._reset()
        if self.kept:
            self.save()

    def unbind(self) -> None:
        """Stop following the layer."""
        if self._watcher is not None:
            self._watcher.release()
        self._watcher = self.layer = None
        self._outlines = self._own

    def _areas_held(self) -> bool:
        return not self._ready or bool(self._own.now) or bool(self.brush.layers)

    def _reset(self) -> None:
        """Begin anew with what is on screen: nothing to undo."""
        self.history.clear()
        self._read()
        self._now = self._moment()
        self.changed.emit()

    def _follow_image(self, _event: Any = None) -> None:
        """Lie upon the slide again after its pixel size was changed."""
        if self.layer is not None and self.layer.metadata.get("muvit") == OUTLINES:
            lie_upon(self.layer, self.image)
        self.brush.follow_image()

    # ---- what is annotated

    def look(self) -> None:
        """Take notice of a change of the outlines or the classes."""
        if self._held or self.history.busy:
            return
        self._read()
        before, now = self._now, self._moment()
        if now.same(before):
            return
        self._now = now
        with self.history.together():
            self.history.add(Step(partial(self._go, before), partial(self._go, now)))
            self._clear_under_new(before.outlines, now.outlines)
        self._tell()

    def _read(self) -> None:
        if self.layer is not None:
            self._outlines.read(self.layer)

    def _moment(self) -> Moment:
        values = tuple(sorted(self.brush.values.items()))
        return Moment(tuple(self.state.classes), self._outlines.now, values)

    def _tell(self) -> None:
        self.save()
        self.changed.emit()

    def areas(self) -> list[Area]:
        """Return everything that is marked: outlines, above them what is painted."""
        return self._with_paint(self._outlines, self.layer)

    def _with_paint(self, outlines: OutlineAreas, layer: Shapes | None) -> list[Area]:
        names, point = self.state.names, self.viewer.dims.point
        outlined = outlines.areas(layer, names, point)
        return [*outlined, *self.brush.masks(names), *self._others]

    # ---- paint

    def paint(self) -> Labels:
        """Return the layer to paint what is on screen; see `BrushLayers.ready`."""
        return self.brush.ready(self.state)

    def _on_stroke(self, layer: Labels) -> None:
        if self._held or self.history.busy:
            return
        self.history.add(self._stroke(layer))
        self._tell()

    def _stroke(self, layer: Labels) -> Step:
        def step(action: str) -> None:
            getattr(layer, action)()
            self.brush.forget(layer)

        return Step(partial(step, "undo"), partial(step, "redo"))

    def _clear_under_new(self, before: Snapshot, now: Snapshot) -> None:
        """Take paint away under what was erased: it lies above all outlines."""
        if self.layer is None:
            return
        frame, new = self._outlines.place(self.layer), now.without(before)
        if frame is None:
            return
        for drawn, name in zip(new.drawn, new.names, strict=True):
            if not is_special(name) or is_region(name):
                continue
            area = drawn_area(drawn, 0, frame)
            for layer in () if area is None else self.brush.clear_under(area):
                self.history.add(self._stroke(layer))

    # ---- undo

    def undo(self) -> bool:
        """Take the last change back; whether there was one."""
        return self._after(self.history.undo())

    def redo(self) -> bool:
        """Do the change again that was undone last; whether there was one."""
        return self._after(self.history.redo())

    def _after(self, done: bool) -> bool:
        if done:
            self._read()
            self._now = self._moment()
            self._tell()
        return done

    def _go(self, moment: Moment) -> None:
        self._read()
        self.brush.name_again(dict(moment.values))
        if tuple(self.state.classes) != moment.classes:
            self.state.classes[:] = moment.classes
            last = len(self.state.classes) - 1
            self.state.current = max(0, min(self.state.current, last))
            self.classes_changed.emit()
        if self.layer is None:
            self._outlines.now = moment.outlines
        elif not self._outlines.now.same(moment.outlines):
            put_back(self.layer, moment.outlines, self._outlines.now)
            apply_classes(self.layer, self.state)

    @contextlib.contextmanager
    def as_one(self) -> Iterator[None]:
        """All changes of outlines and classes meanwhile are one step to undo."""
        try:
            with self._hold():
                yield
        finally:
            if self._watcher is not None:
                self._watcher.drawing = False  # also when napari could not draw it
            self.look()

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    def add(self, items: Sequence[Area]) -> None:
        """Add areas, whose labels are those of the class list, as one step to undo."""
        names = self.state.names
        colors = tuple(c.color for c in self.state.classes)
        parts = split_items(Content(tuple(items), names, colors), names)
        masks, rest = parts.masks, parts.outlines
        self._others += parts.others
        if self.layer is None and rest:
            return
        with self.history.together():
            if rest and self.layer is not None:
                with self.as_one():
                    now = self._outlines.read(self.layer)
                    new = self._outlines.expect(self.layer, rest, names)
                    put_back(self.layer, now + new, now)
                    apply_classes(self.layer, self.state)
            for layer in self.brush.place_masks(masks, names, self.state):
                self.history.add(self._stroke(layer))
        if masks:
            self._now = self._moment()
            self._tell()

    # ---- the file

    def save(self) -> None:
        """Write what differs from the file, in the background."""
        if not self._ready or self._held:
            return
        colors = tuple(c.color for c in self.state.classes)
        items = self._with_paint(self._own, self.layer if self.kept else None)
        self.autosave.save(Content(tuple(items), self.state.names, colors))

    def reopen(self) -> None:
        """Try again to open the file; what was drawn meanwhile is added to it."""
        self._ready = False
        self.autosave.open()

    def _on_opened(self, content: Content) -> None:
        if len(content.items) <= PIECE or find_outlines(self.viewer, self.key):
            self._take(content)
            return
        self.state.touched = take_classes(self.state, content)
        outlines = split_items(content, self.state.names).outlines
        layer = make_shapes(self.image, self.state, self.key)
        fit_outlines(self.viewer, layer)
        held = self._own.expect(layer, outlines, self.state.names)
        end = partial(self._on_filled, content, layer)
        self._filling = Filling(layer, held, self.state, end, self)

    def _on_filled(self, content: Content, layer: Shapes) -> None:
        # The user may have begun to draw in another one meanwhile.
        if layer.nshapes and not find_outlines(self.viewer, self.key):
            with self._hold():
                self.viewer.add_layer(layer)
        self._take(content)

    def _take(self, content: Content) -> None:
        if content.items or content.names:
            self._restore(content)
        # Not before it is on screen: else it would be taken for removed.
        self._ready = True
        if self.layer is not None and not self.kept:
            self.bind(self.layer)
        self.failed.emit("")
        note = f" {content.note}" if content.note else ""
        if content.items:
            count = regions(len(content.items))
            self.said.emit(f"{count} restored from {self.path.name}.{note}")
        elif note:
            self.said.emit(f"{self.path.name}:{note}")
        self.save()

    def _on_saved(self, count: int) -> None:
        self.said.emit(f"{regions(count)} saved in {self.path.name}.")

    def _restore(self, content: Content) -> None:
        """Bring back what the file holds, below what was drawn meanwhile."""
        self.state.touched = take_classes(self.state, content)
        self.classes_changed.emit()
        parts = split_items(content, self.state.names)
        self._others = parts.others
        layer = self.own_layer() if parts.outlines or parts.masks else None
        with self._hold():
            if layer is not None:
                now = self._own.read(layer)
                held = self._own.expect(layer, parts.outlines, self.state.names)
                if new := held.without(now):
                    fit_outlines(self.viewer, layer)
                    put_back(layer, new + now, now)
                    apply_classes(layer, self.state)
                # Before others ask for the areas: what nobody reads is forgotten.
                self._own.read(layer)
            self.brush.restore(parts.masks, self.state.names, self.state)
        if layer is not None:
            self.restored.emit(layer)
        self._reset()
