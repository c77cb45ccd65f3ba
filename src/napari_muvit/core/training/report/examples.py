"""Examples for the report of a run: what the model sees, the truth, what it says.

Shapes: L levels, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...config import ModelConfig
from ...data.augment import Augmentation
from ...data.datasets import SegmentationDataset, read_sample
from ...data.sampling import DrawnCrop, PlainSlide, TrainingSlide
from ...evaluation import dice_from_confusion
from ...evaluation.mode import evaluating
from ...geometry import Box
from ...model.segmenter import MuViTSegmenter
from ...progress import StopFn, never_stop
from .allowance import Allowance, OutOfTime, watched
from .example_choice import choose_samples
from .pictures import (
    Look,
    Panel,
    channels_text,
    enlarged,
    label_picture,
    level_color,
    plane_of,
    with_boxes,
)

Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False, slots=True)
class Example:
    """One place of one slide."""

    title: str
    """Name of the slide."""
    place: str
    """Where in the slide, in words."""
    rows: tuple[tuple[Panel, ...], ...]
    """Pictures side by side, in rows."""


@dataclass(frozen=True, eq=False, slots=True)
class ExampleSet:
    """A few places, and how to read them."""

    items: tuple[Example, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    """Name and colour, ``#rrggbb``, of each class."""
    caption: str = ""
    """What the pictures show."""
    note: str = ""
    """Why there are fewer than wanted; empty where there are not."""


def segmentation_examples(
    segmenter: MuViTSegmenter,
    dataset: SegmentationDataset,
    *,
    count: int = 6,
    seconds: float = 20.0,
    should_stop: StopFn = never_stop,
) -> ExampleSet:
    """Show what a segmenter says of some validation crops, with context and without.

    The crops are chosen by their labels alone, so that every class is shown: the same
    ones for every model. *Without context* every coarser level is blank: its pixels
    are replaced by the value that stands for the outside of a slide.

    Parameters
    ----------
    segmenter
        With the weights to be shown, on any device. It is used in evaluation mode and
        left as it was; no other thread may train it meanwhile.
    dataset
        Validation samples; what it changes at random is left out.
    count
        Examples, at most.
    seconds
        Time allowed. A pass of the model that would take longer is broken off.
    should_stop
        Asked between the parts of the model; what is ready is returned.

    Returns
    -------
    ExampleSet
    --------
    """
    config = segmenter.config
    stop = Allowance(seconds, should_stop)
    items: list[Example] = []
    try:
        with watched(segmenter, stop), evaluating(segmenter), torch.inference_mode():
            for sample in choose_samples(dataset, count, stop):
                example = _segmentation_example(segmenter, dataset, sample)
                items.append(example)
    except OutOfTime:
        pass
    caption = (
        "Validation crops, chosen by their labels alone so that every class is shown. "
        "The coloured boxes are the nested crops that the model reads at once. "
        "Where the truth shows the faded image, there is no label to validate with. "
        "Mean Dice is that of the classes in the crop, without the background. "
    ) + channels_text(dataset.sampler.slides[0])
    if len(config.scale_factors) > 1:
        caption += (
            "Without context: the same model and the same fine crop, all coarser "
            "levels blank (every pixel is the value that stands for the outside of a "
            "slide). The model was not trained for that; it shows how much it relies "
            "on the surroundings, not what a model of one level would reach."
        )
    return ExampleSet(
        items=tuple(items),
        legend=tuple(zip(config.names, config.colors, strict=True)),
        caption=caption,
        note=stop.note(len(items)),
    )


def _segmentation_example(
    segmenter: MuViTSegmenter, dataset: SegmentationDataset, sample: int
) -> Example:
    config, drawn = segmenter.config, dataset.sampler.draw(sample)
    slide = dataset.sampler.slides[drawn.slide]
    pixels, boxes, _ = read_sample(
        dataset.sampler, sample, drawn, config, Augmentation()
    )
    fine = drawn.crop.boxes[0]
    labels = dataset.labels(drawn.slide, fine)
    centre = _busiest_plane(labels, fine)
    truth = plane_of(labels, fine, centre)
    panels = level_panels(pixels, drawn, slide, config, centre)
    look = Look(flat_levels(pixels.numpy(), drawn, centre), slide)
    beneath = look(plane_of(pixels[0].numpy(), fine, centre).astype(np.float32))
    panels.append(
        Panel("truth", enlarged(label_picture(truth, config.colors, beneath), True))
    )
    several = len(config.scale_factors) > 1
    inputs = {"with context" if several else "prediction": pixels}
    if several:
        inputs["without context"] = _blank_context(pixels, config)
    for title, given in inputs.items():
        predicted = _predict(segmenter, given, boxes)
        note = _agreement(predicted, labels, config)
        flat = plane_of(predicted, fine, centre)
        panels.append(
            Panel(title, enlarged(label_picture(flat, config.colors), True), note)
        )
    return Example(slide.pyramid.name, place_text(fine, slide), (tuple(panels),))


def _predict(segmenter: MuViTSegmenter, pixels: Tensor, boxes: Tensor) -> Labels:
    """Labels from 1 of one sample's finest level."""
    device = next(segmenter.parameters()).device
    logits = segmenter(pixels[None].to(device), boxes[None].to(device))
    predicted = logits[0].max(dim=0).indices + 1
    return np.asarray(predicted.cpu().numpy(), dtype=np.uint8)


def _blank_context(pixels: Tensor, config: ModelConfig) -> Tensor:
    """(L, C, *spatial) with nothing to be seen at the coarser levels."""
    values = config.background_value or (0.0,) * config.in_channels
    out = pixels.clone()
    out[1:] = torch.tensor(values).view(-1, *[1] * config.ndim)
    return out


def _agreement(predicted: Labels, truth: Labels, config: ModelConfig) -> str:
    """How well a crop came out: mean Dice where it is defined, and pixels."""
    known = truth > 0
    if not known.any():
        return ""
    size = config.num_classes + 1
    pairs = np.bincount(truth.ravel().astype(int) * size + predicted.ravel(),
                        minlength=size**2)  # fmt: skip
    dice = dice_from_confusion(pairs.reshape(size, size))
    # Of the classes that are there: a stray pixel of another one is no class at 0.
    there = [d for k, d in enumerate(dice, 1) if (truth == k).any()
             and k != config.background]  # fmt: skip
    share = f"{100 * float((predicted == truth)[known].mean()):.0f} % right"
    return f"mean Dice {np.mean(there):.2f}, {share}" if there else share


def _busiest_plane(labels: Labels, box: Box) -> list[float]:
    """World position, along the axes before the last two, where most is annotated."""
    if box.ndim == 2:
        return []
    counts = (labels > 0).sum(axis=(-2, -1))
    index = np.unravel_index(int(counts.argmax()), counts.shape)
    return [
        low + (i + 0.5) * extent / n
        for low, i, extent, n in zip(
            box.lower, index, box.shape, labels.shape, strict=False
        )
    ]


def flat_levels(
    pixels: NDArray[np.float32], drawn: DrawnCrop, centre: Sequence[float]
) -> NDArray[np.float32]:
    """Return the plane of each level through a place, (L, C, H, W)."""
    return np.stack(
        [
            plane_of(level, box, centre).astype(np.float32)
            for level, box in zip(pixels, drawn.crop.boxes, strict=True)
        ]
    )


def level_panels(
    pixels: Tensor,
    drawn: DrawnCrop,
    slide: PlainSlide | TrainingSlide,
    config: ModelConfig,
    centre: Sequence[float],
) -> list[Panel]:
    """Return a picture of each level, with the boxes of the finer ones."""
    flat = flat_levels(pixels.numpy(), drawn, centre)
    look = Look(flat, slide)
    boxes = drawn.crop.boxes
    return [
        Panel(
            title=f"level {factor:g}",
            picture=with_boxes(enlarged(look(level, n)), boxes[n], boxes[:n]),
            note=f"{boxes[n].shape[-2]:g} × {boxes[n].shape[-1]:g} px",
            color=level_color(n),
        )
        for n, (factor, level) in enumerate(
            zip(config.scale_factors, flat, strict=True)
        )
    ]


def place_text(box: Box, slide: PlainSlide | TrainingSlide) -> str:
    """Return where a crop lies, in pixels of the slide's finest level."""
    zoom = slide.pyramid.zoom
    names = "tzyx"[-box.ndim :]
    return ", ".join(
        f"{name} {low / z:.0f} to {high / z:.0f}"
        for name, low, high, z in zip(names, box.lower, box.upper, zoom, strict=True)
    )
