"""Which layers and channels are the slide, for each layer that was ever chosen."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .._layer_groups import (
    channel_candidates,
    channel_title,
    layers_pyramid,
    same_file,
)
from .._layers import layer_path
from .._level_view import LevelView
from ..core.data.pyramid import Pyramid
from ..core.errors import MuvitError
from .places import project_path
from .slides import SlideEntry

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image


@dataclass(frozen=True, slots=True)
class _Choice:
    """What the user said of a layer."""

    rows: tuple[Any, ...] | None = None
    """Ticked rows: weak references to layers, or numbers of channels; None: not said.
    """
    pixel_size: float | None = None


class SlideChoice:
    """The chosen layer of the viewer, and what the user said of it.

    Parameters
    ----------
    viewer
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.image: Image | None = None
        self._said: weakref.WeakKeyDictionary[Any, _Choice] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def _now(self) -> _Choice:
        if self.image is None:
            return _Choice()
        return self._said.get(self.image, _Choice())

    @property
    def pixel_size(self) -> float | None:
        """Micrometres that the user typed; None: what the layer says."""
        return self._now.pixel_size

    def set_pixel_size(self, pixel_size: float | None) -> None:
        """Say the pixel size of the chosen slide."""
        if self.image is not None:
            self._said[self.image] = replace(self._now, pixel_size=pixel_size)

    # ---- channels

    def _own_channels(self) -> int:
        """Channels of the chosen layer; more than one stand alone."""
        if self.image is None:
            return 1
        try:
            return layers_pyramid([self.image]).num_channels
        except MuvitError:
            return 1  # `pyramid` says what is wrong

    def _candidates(self) -> list[Image]:
        if self.image is None:
            return []
        return channel_candidates(self.image, list(self.viewer.layers))

    def rows(self) -> tuple[list[str], list[int], bool]:
        """Return names of the rows, which are ticked, whether a file has several."""
        if self.image is None:
            return [], [], False
        said = self._now.rows
        if self.image.rgb:
            return [], [], False
        if (count := self._own_channels()) > 1:
            names = [f"channel {k}" for k in range(count)]
            ticked = list(range(count)) if said is None else [*said]
            return names, ticked, False
        layers = self._candidates()
        chosen = self.layers()
        ticked = [k for k, layer in enumerate(layers) if layer in chosen]
        of_file = len(same_file(self.image, layers)) > 1
        return [channel_title(layer) for layer in layers], ticked, of_file

    def tick(self, rows: Sequence[int]) -> None:
        """Choose rows of the list."""
        if self.image is None:
            return
        if self._own_channels() > 1:
            self._keep(tuple(rows))
            return
        layers = self._candidates()
        self._keep(tuple(weakref.ref(layers[k]) for k in rows))

    def tick_file(self) -> None:
        """Choose the layers of the same file."""
        if self.image is not None:
            layers = same_file(self.image, self._candidates())
            self._keep(tuple(weakref.ref(layer) for layer in layers))

    def _keep(self, rows: tuple[Any, ...]) -> None:
        self._said[self.image] = replace(self._now, rows=rows)

    def layers(self) -> list[Image]:
        """Return the layers that are the slide, those of the viewer only."""
        if self.image is None:
            return []
        said = self._now.rows
        if said is None or any(isinstance(row, int) for row in said):
            return [self.image]
        chosen = [row() for row in said]
        return [layer for layer in self._candidates() if layer in chosen]

    def _channels(self) -> list[int] | None:
        said = self._now.rows
        if said is None or not all(isinstance(row, int) for row in said):
            return None
        return [int(row) for row in said]

    # ---- the slide

    def pyramid(self) -> Pyramid:
        """Return the slide as the core sees it.

        Raises
        ------
        MuvitError
            If there is none, or it cannot be used.
        """
        if self.image is None:
            raise MuvitError(
                "There is no image. Open a slide, or try File > Open Sample > MuViT."
            )
        if self._now.rows == () or not self.layers():
            raise MuvitError("No channel is ticked. Tick at least one of the list.")
        return layers_pyramid(
            self.layers(), self.viewer.dims.point, self._channels(), self.pixel_size
        )

    def entry(self, pyramid: Pyramid) -> SlideEntry | None:
        """Return the slide as one of the project; None without any."""
        if self.image is None:
            return None
        return SlideEntry(
            name=pyramid.name,
            project=project_path(
                self.image.name, layer_path(self.image), pyramid.shape
            ),
            path=pyramid.path,
            channels=_file_channels(self.layers(), pyramid),
            pixel_size=self.pixel_size,
            opened=_opener(
                self.viewer, self.layers(), self._channels(), self.pixel_size
            ),
        )


def _file_channels(layers: Sequence[Any], pyramid: Pyramid) -> tuple[int, ...] | None:
    """Return which channels of its file a slide is made of, where our reader did it."""
    data = [x.data[0] if x.multiscale else x.data for x in layers]
    if not all(isinstance(array, LevelView) for array in data):
        return None
    return pyramid.levels[0].source.channels


def _opener(
    viewer: ViewerModel,
    layers: Sequence[Any],
    channels: Sequence[int] | None,
    pixel_size: float | None,
) -> Callable[[], Pyramid | None]:
    """Return what opens a slide from its layers, without keeping them alive."""
    kept = [weakref.ref(layer) for layer in layers]

    def opened() -> Pyramid | None:
        found = [ref() for ref in kept]
        if not all(layer in viewer.layers for layer in found):
            return None
        return layers_pyramid(
            [layer for layer in found if layer is not None],
            viewer.dims.point, channels, pixel_size,
        )  # fmt: skip

    return opened
