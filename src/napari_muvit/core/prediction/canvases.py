"""Tiles whose crops have not all been through the model yet.

Without overlap each pixel belongs to one crop, and its label is put in place. With it,
a crop's logits are weighed (`grid`) and added up until the last crop of the tile has
come. Sums are kept in fixed point, as whole numbers: they are the same in whatever
order the crops come, on one worker or on many, before a restart or after it.
Probabilities and confidence, where they are asked for, are made when the labels are.

What is open beyond a budget of memory is put on disk and fetched again when it is
needed. Open tiles are those along the edge of what is done, so few of them are touched
again soon.

Shapes: B batch, K classes, H and W pixels of a crop, h and w pixels of a tile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .filled import LABELS, FilledTile
from .softmax import softmax_bytes
from .spill import Spill, Stored

if TYPE_CHECKING:
    from .plan import PredictionPlan
    from .tiles import Crop, Part, Tile

UNIT = 2.0**20
"""Sums are counted in parts of a logit of this size."""
LIMIT = 1000.0
"""Largest logit: with a weight of 1 in all, a sum stays within 31 bits."""
BUDGET_BYTES = 128 * 2**20
"""Open tiles in memory."""
LEAST = 8
"""Open tiles in memory whatever they hold: those around the one in work."""


@dataclass(slots=True)
class _Open:
    """A tile that is being filled."""

    arrays: dict[str, Tensor]
    """With overlap ``sums`` (K, h, w) int32, and ``missing`` (h, w) bool once an answer
    was not a number; without it the outputs of the tile."""
    waiting: set[int]
    """Crops that have not come yet."""
    nbytes: int = field(init=False)
    """Bytes of the arrays that it began with: asked for at each crop, so kept."""

    def __post_init__(self) -> None:
        self.nbytes = sum(array.nbytes for array in self.arrays.values())


@dataclass(frozen=True, slots=True)
class _Away:
    """The same on disk."""

    arrays: dict[str, Stored]
    waiting: set[int]


class Canvases:
    """Collects what the model says about each tile.

    Parameters
    ----------
    plan
        Tiles and crops.
    wanted
        One flag a tile of the slide's grid: whether it is to be filled.
    num_classes
        K.
    device
        Where logits are, and sums are kept.
    budget
        Bytes of open tiles before some are put on disk.
    least
        Tiles that stay in memory all the same.
    outputs
        What is made beside labels.
    """

    def __init__(
        self,
        plan: PredictionPlan,
        wanted: NDArray[np.bool_],
        num_classes: int,
        device: torch.device,
        budget: int = BUDGET_BYTES,
        least: int = LEAST,
        outputs: Collection[str] = (),
    ) -> None:
        self._plan = plan
        self._wanted = wanted
        self._classes = num_classes
        self._device = device
        self._budget = budget
        self._least = least
        self._outputs = outputs
        self._blends = any(axis.margin for axis in plan.axes)
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._on_disk: dict[int, _Away] = {}
        self._spill = Spill()

    def close(self) -> None:
        """Forget all open tiles."""
        self._open.clear()
        self._on_disk.clear()
        self._spill.close()

    def add(self, crops: Sequence[Crop], logits: Tensor) -> Iterator[FilledTile]:
        """Take in the answers of a batch; hand out the tiles that are complete.

        Parameters
        ----------
        crops
            As many as there are answers, or fewer: the rest repeats the first one.
        logits
            (B, K, H, W), float, on the device.
        """
        if not self._blends:
            yield from self._add_alone(crops, logits)
            return
        logits = logits.float()
        # One look at all of them, so that usual answers cost no more.
        least, most = torch.aminmax(logits)
        usual = bool((least >= -LIMIT) & (most <= LIMIT))
        bad = None
        if not usual:
            bad = ~torch.isfinite(logits.max(dim=1).values)
            logits = logits.nan_to_num(0.0, LIMIT, -LIMIT).clamp(-LIMIT, LIMIT)
        for number, crop in enumerate(crops):
            wrong = None if bad is None else bad[number]
            yield from self._blend(crop, logits[number], wrong)

    def _add_alone(self, crops: Sequence[Crop], logits: Tensor) -> Iterator[FilledTile]:
        """Without overlap: what a crop says is the answer."""
        # On a CPU argmax over channels takes ten times as long as max, which also
        # hands NaN on.
        best, place = logits.max(dim=1)
        labels = (place + 1).to(torch.uint8) * torch.isfinite(best)
        for number, crop in enumerate(crops):
            answer = {LABELS: labels[number]}
            if self._outputs:
                seen = logits[number].float(), best[number].float()
                answer |= softmax_bytes(*seen, 1.0, self._outputs)
            yield from self._put(crop, answer)

    def skip(self, crop: Crop) -> list[Tile]:
        """Forget the tiles of a crop that cannot be read; return them."""
        lost = []
        for tile, _ in self._parts(crop):
            self._open.pop(tile.index, None)
            away = self._on_disk.pop(tile.index, None)
            for stored in () if away is None else away.arrays.values():
                self._spill.forget(stored)
            self._wanted[tile.index] = False
            lost.append(tile)
        return lost

    def _put(self, crop: Crop, answer: Mapping[str, Tensor]) -> Iterator[FilledTile]:
        """Without overlap: (..., H, W) outputs into their tiles."""
        for tile, part in self._parts(crop):
            canvas = self._canvas(tile)
            for name, pixels in answer.items():
                canvas.arrays[name][..., *part.tile] = pixels[..., *part.crop]
            yield from self._counted(tile, canvas, crop)

    def _blend(
        self, crop: Crop, logits: Tensor, bad: Tensor | None
    ) -> Iterator[FilledTile]:
        """With overlap: (K, H, W) logits, weighed, into the sums of their tiles."""
        fixed = self._weighed(crop, logits)
        for tile, part in self._parts(crop):
            canvas = self._canvas(tile)
            if crop.index not in canvas.waiting:
                continue
            if bad is not None:
                if "missing" not in canvas.arrays:
                    canvas.arrays["missing"] = torch.zeros(
                        tile.world_shape, dtype=torch.bool, device=self._device
                    )
                canvas.arrays["missing"][part.tile] |= bad[part.crop]
            # Last: nothing before it may have been done twice in vain.
            canvas.arrays["sums"][:, *part.tile] += fixed[:, *part.window]
            yield from self._counted(tile, canvas, crop)

    def _weighed(self, crop: Crop, logits: Tensor) -> Tensor:
        """Return logits of the window times the crop's share, in units; int32."""
        rows, columns = (
            torch.from_numpy(axis.weights(place)).to(self._device)
            for axis, place in zip(
                self._plan.axes,
                divmod(crop.index, self._plan.axes[1].count),
                strict=True,
            )
        )
        shares = rows.mul(UNIT)[:, None] * columns
        # A part of a unit is cut off: a millionth of a logit.
        return logits[:, *crop.inside].mul(shares).to(torch.int32)

    def _parts(self, crop: Crop) -> Iterator[tuple[Tile, Part]]:
        for index in self._plan.tiles_of(crop):
            if not self._wanted[index]:
                continue
            tile = self._plan.tile(index)
            part = crop.part(tile.world)
            if part is not None:
                yield tile, part

    def _canvas(self, tile: Tile) -> _Open:
        """Return a tile's canvas, new, from memory or from disk."""
        canvas = self._open.pop(tile.index, None)
        if canvas is None and tile.index in self._on_disk:
            canvas = self._fetched(tile.index)
        if canvas is None:
            crops = self._plan.crops_of(tile)
            canvas = _Open(self._empty(tile), {int(index) for index in crops})
        # The last one is the one that was touched last.
        self._open[tile.index] = canvas
        self._make_room(tile.index)
        return canvas

    def _empty(self, tile: Tile) -> dict[str, Tensor]:
        """What a tile begins with."""
        plane = tile.world_shape
        planes = (self._classes, *plane)
        if self._blends:
            return {"sums": torch.zeros(planes, dtype=torch.int32, device=self._device)}
        return {
            name: torch.zeros(
                planes if name == "probabilities" else plane,
                dtype=torch.uint8,
                device=self._device,
            )
            for name in (LABELS, *self._outputs)
        }

    def _counted(self, tile: Tile, canvas: _Open, crop: Crop) -> Iterator[FilledTile]:
        canvas.waiting.discard(crop.index)
        if canvas.waiting:
            return
        answer = canvas.arrays
        if self._blends:
            try:
                answer = self._blended(canvas.arrays)
            except torch.OutOfMemoryError:
                here = {name: array.cpu() for name, array in canvas.arrays.items()}
                answer = self._blended(here)
        del self._open[tile.index]
        self._wanted[tile.index] = False
        yield FilledTile(tile, **{k: v.cpu().numpy() for k, v in answer.items()})

    def _blended(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs of a tile whose sums are complete."""
        sums = arrays["sums"]
        best, place = sums.max(dim=0)
        answer = {LABELS: (place + 1).to(torch.uint8)}
        if self._outputs:
            # The difference of two sums stays within 31 bits, too.
            answer |= softmax_bytes(sums, best, 1 / UNIT, self._outputs)
        missing = arrays.get("missing")
        if missing is not None:
            answer = {name: pixels * ~missing for name, pixels in answer.items()}
        return answer

    def _make_room(self, current: int) -> None:
        """Put on disk what was not touched for longest."""
        # Not by their number: tiles at the slide's border are smaller.
        held = sum(canvas.nbytes for canvas in self._open.values())
        while len(self._open) > self._least and held > self._budget:
            index = next(iter(self._open))
            if index == current:
                break
            held -= self._open[index].nbytes
            self._store(index)

    def release(self) -> None:
        """Put all open tiles on disk: the device's memory has run out."""
        for index in list(self._open):
            self._store(index)

    def _store(self, index: int) -> None:
        canvas = self._open[index]
        stored = {
            k: self._spill.store(v.cpu().numpy()) for k, v in canvas.arrays.items()
        }
        self._on_disk[index] = _Away(stored, canvas.waiting)
        del self._open[index]

    def _fetched(self, index: int) -> _Open:
        away = self._on_disk[index]
        # Room first: if there is none, the tile is still on disk.
        found = {
            name: torch.empty(
                stored.shape, dtype=_torch_type(stored.dtype), device=self._device
            )
            for name, stored in away.arrays.items()
        }
        for name, stored in away.arrays.items():
            found[name].copy_(torch.from_numpy(self._spill.fetch(stored)))
        del self._on_disk[index]
        return _Open(found, away.waiting)


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
