"""What to open of a file with several images or planes, and what the file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import PyramidError
from .file_grid import FileGrid
from .place import Place


@dataclass(frozen=True, slots=True)
class Choice:
    """What is wanted of a file."""

    image: str | None = None
    """Path, name or index of an image in the file; None: the first."""
    planes: Mapping[str, int] = field(default_factory=dict)
    """Index along axes that are neither spatial nor channels; missing: 0."""
    ndim: int = 2
    """Spatial axes: 2 (y, x) or 3 (z, y, x)."""
    as_labels: bool = False
    """Pixel values count, not the colours that a palette gives them."""

    def __post_init__(self) -> None:
        if self.ndim not in (2, 3):
            raise PyramidError(
                f"Images have 2 or 3 spatial axes; ndim={self.ndim} was given."
            )
        for axis, index in self.planes.items():
            if not _is_index(index):
                raise PyramidError(
                    f"The plane {axis}={index!r} cannot be chosen; a whole number from "
                    "0 is needed."
                )

    @property
    def spatial(self) -> str:
        """The spatial axes, ``yx`` or ``zyx``."""
        return "zyx"[-self.ndim :]


def _is_index(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return int(value) >= 0


FIRST = Choice()
"""The first image and planes."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What the file holds of which a pyramid was opened."""

    store: str = "memory"
    """``zarr folder``, ``zarr zip``, ``zarr https``, ``TIFF``, ``OpenSlide`` ..."""
    axes: tuple[tuple[str, int], ...] = ()
    """Name and length of each axis of the stored finest level."""
    planes: Mapping[str, int] = field(default_factory=dict)
    """Index at which each axis that is neither spatial nor c is held, by name."""
    image: str = ""
    """Which image was opened, as ``Choice.image`` takes it; empty: the only one."""
    images: tuple[str, ...] = ()
    """The images to choose from, where there are several."""
    place: Place | None = None
    """The zarr group or array, for its metadata."""
    grid: FileGrid | None = None
    """Place of the finest level in the file's own numbers; None: not said."""


@dataclass(frozen=True, slots=True)
class AxisNames:
    """The axes of an array: our letters, and the names that the file has for them."""

    letters: str
    """One different letter an axis; y, x, z, c and t have their usual meaning."""
    shape: tuple[int, ...]
    """Length of each axis."""
    names: tuple[str, ...] = ()
    """By the file; empty: the letters."""

    @property
    def titled(self) -> tuple[tuple[str, int], ...]:
        """Name and length of each axis: the letter where it has a usual meaning."""
        names = map(self.title, self.letters)
        return tuple(zip(names, self.shape, strict=True))

    def pick(self, choice: Choice, what: Any) -> dict[str, int]:
        """Index of each axis that is neither spatial nor c.

        Parameters
        ----------
        choice
            The planes that are wanted.
        what
            The image, for messages.

        Raises
        ------
        PyramidError
            If an axis is missing, or has no such plane.
        """
        if missing := [a for a in choice.spatial if a not in self.letters]:
            have = ", ".join(name for name, _ in self.titled)
            raise PyramidError(
                f"{what} has the axes {have}, but {', '.join(missing)} is needed."
            )
        held = [a for a in self.letters if a not in choice.spatial + "c"]
        planes = dict.fromkeys(held, 0)
        for key, index in choice.planes.items():
            letter = self._letter(key)
            if letter not in held:
                if key in ("t", "z") and index == 0 and letter is None:
                    continue  # the only plane there is
                raise PyramidError(
                    f"{what} has no axis {key!r} along which to choose a plane; it "
                    f"has {', '.join(map(self.title, held)) or 'none'}."
                )
            count = self.shape[self.letters.index(letter)]
            if index >= count:
                raise PyramidError(
                    f"{what} has no plane {key}={index}; {key} runs from 0 to "
                    f"{count - 1}."
                )
            planes[letter] = index
        return planes

    def note(self, planes: Mapping[str, int], choice: Choice) -> list[str]:
        """What to say of planes that were taken, chosen or not."""
        chosen = {self._letter(key) for key in choice.planes}
        said = []
        for letter, index in planes.items():
            count = self.shape[self.letters.index(letter)]
            if letter in chosen:
                said.append(f"{self.title(letter)} is {index} of 0 to {count - 1}")
            elif count > 1:
                said.append(f"{self.title(letter)} is fixed at the first of {count}")
        return said

    def contents(
        self, store: str, planes: Mapping[str, int] | None = None, **more: Any
    ) -> Contents:
        """Return what to say of a file with these axes."""
        named = {self.title(k): index for k, index in (planes or {}).items()}
        return Contents(store, self.titled, named, **more)

    def at_level(
        self, planes: Mapping[str, int], shape: Sequence[int]
    ) -> dict[str, int]:
        """Return the planes of a level whose z may be coarser."""
        scaled: dict[str, int] = {}
        if len(shape) != len(self.shape):
            return scaled  # refused where the level is made
        for letter, index in planes.items():
            axis = self.letters.index(letter)
            ratio = shape[axis] / max(1, self.shape[axis])
            scaled[letter] = min(shape[axis] - 1, int((index + 0.5) * ratio))
        return scaled

    def title(self, letter: str) -> str:
        """Return what an axis is called: t, c, z, y, x, or as in the file."""
        if letter in "tczyx" or not self.names:
            return letter
        return self.names[self.letters.index(letter)]

    def _letter(self, key: str) -> str | None:
        """Our letter of an axis by its letter or name."""
        key = str(key).lower()
        names = [name.lower() for name in self.names]
        if key in names:
            return self.letters[names.index(key)]
        return key if key in self.letters else None


def choose_image(
    wanted: str, offered: Sequence[str], what: Any, names: Sequence[str] = ()
) -> tuple[int, str]:
    """Index of the image that is wanted, and the rest of its path.

    Parameters
    ----------
    wanted
        Path, name or index; a path may go on behind that of the image.
    offered
        Paths of the images.
    what
        The file, for messages.
    names
        Other names of the images, in the same order.

    Raises
    ------
    PyramidError
        That lists the images, if there is no such one.
    """
    text = wanted.strip("/")
    for number, path in enumerate(offered):
        if text == path or text.startswith(f"{path}/"):
            return number, text[len(path) + 1 :]
    if text in names:
        return list(names).index(text), ""
    if text.isdecimal() and int(text) < len(offered):
        return int(text), ""
    titles = [
        f"{path} ({name})" if name and name != path else path
        for path, name in zip(offered, names or [""] * len(offered), strict=True)
    ]
    more = f" and {len(titles) - 20} more" if len(titles) > 20 else ""
    raise PyramidError(
        f"{what} has no image {wanted!r}; choose from {', '.join(titles[:20])}{more}."
    )
