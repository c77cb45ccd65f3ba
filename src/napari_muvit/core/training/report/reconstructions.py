"""Examples of a masked autoencoder: what was there, what it saw, what it made of it.

Shapes: L levels, C channels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data.augment import Augmentation
from ...data.datasets import MAEDataset, read_sample
from ...evaluation.mode import evaluating
from ...model.mae import MuViTMAE
from ...progress import StopFn, never_stop
from .allowance import Allowance, OutOfTime, watched
from .examples import Example, ExampleSet, flat_levels, level_panels, place_text
from .pictures import HIDDEN, Look, Panel, Picture, channels_text, enlarged

POOL = 64
"""Samples that the examples are chosen from."""


def reconstruction_examples(
    mae: MuViTMAE,
    dataset: MAEDataset,
    *,
    count: int = 4,
    seconds: float = 20.0,
    should_stop: StopFn = never_stop,
    seed: int = 0,
) -> ExampleSet:
    """Show what a masked autoencoder makes of some crops, level by level.

    Parameters
    ----------
    mae
        With the weights to be shown, on any device. It is used in evaluation mode and
        left as it was; no other thread may train it meanwhile.
    dataset
        Samples, best of places that were not trained on; what it changes at random is
        left out.
    count
        Examples, at most; of as many slides as there are.
    seconds
        Time allowed. A pass of the model that would take longer is broken off.
    should_stop
        Asked between the parts of the model; what is ready is returned.
    seed
        Of the masks.

    Returns
    -------
    ExampleSet
        As many as there was time for.
    """
    stop = Allowance(seconds, should_stop)
    items: list[Example] = []
    device = next(mae.parameters()).device
    try:
        with watched(mae, stop), evaluating(mae), torch.inference_mode():
            for sample in _spread_samples(dataset, count):
                # A seed for each: broken off or not, an example has the same mask.
                generator = torch.Generator(device).manual_seed(seed + sample)
                example = _example(mae, dataset, sample, generator)
                items.append(example)
    except OutOfTime:
        pass
    config = mae.config
    caption = (
        f"A row a level. Hidden patches ({100 * config.mask_ratio:.0f} % of all) are "
        "grey in the second picture and as predicted in the third. "
        + channels_text(dataset.sampler.slides[0])
    )
    if config.normalise_target:
        caption += (
            "The model predicts patches of zero mean and unit variance; mean and "
            "variance of the true patch are put back. "
        )
    return ExampleSet(items=tuple(items), caption=caption, note=stop.note(len(items)))


def _spread_samples(dataset: MAEDataset, count: int) -> list[int]:
    """Take the first samples of each slide in turn."""
    turns: dict[int, int] = {}
    ranked = []
    for sample in range(max(POOL, count)):
        slide = dataset.sampler.draw(sample).slide
        turns[slide] = turns.get(slide, 0) + 1
        ranked.append((turns[slide], sample))
    return [sample for _, sample in sorted(ranked)[:count]]


def _example(
    mae: MuViTMAE, dataset: MAEDataset, sample: int, generator: torch.Generator
) -> Example:
    config, drawn = mae.config, dataset.sampler.draw(sample)
    slide = dataset.sampler.slides[drawn.slide]
    pixels, boxes, _ = read_sample(
        dataset.sampler, sample, drawn, config, Augmentation()
    )
    device = generator.device
    found = mae.reconstruct(
        pixels[None].to(device), boxes[None].to(device), generator=generator
    )
    made, hidden = found.reconstruction[0].cpu(), found.hidden[0].cpu()
    fine = drawn.crop.boxes[0]
    centre = list(fine.centre[:-2])
    flat = flat_levels(pixels.numpy(), drawn, centre)
    look = Look(flat, slide)
    originals = level_panels(pixels, drawn, slide, config, centre)
    predicted = flat_levels(made.float().numpy(), drawn, centre)
    unseen = flat_levels(hidden.float().numpy(), drawn, centre)[:, 0] > 0.5
    rows = []
    for n, original in enumerate(originals):
        seen = _greyed(look(flat[n], n), unseen[n])
        rows.append(
            (
                original,
                Panel("seen", enlarged(seen)),
                Panel(
                    "reconstruction",
                    enlarged(look(predicted[n], n)),
                    _error(pixels[n], made[n], hidden[n]),
                ),
            )
        )
    return Example(slide.pyramid.name, place_text(fine, slide), tuple(rows))


def _greyed(picture: Picture, hidden: NDArray[np.bool_]) -> Picture:
    return np.where(hidden[..., None], np.uint8(HIDDEN), picture)


def _error(pixels: Tensor, made: Tensor, hidden: Tensor) -> str:
    """Mean squared error of the hidden pixels of a level."""
    if not bool(hidden.any()):
        return "nothing hidden"
    error = float(((pixels - made) ** 2)[hidden].mean())
    return f"squared error {error:.4f}" if math.isfinite(error) else "no number"
