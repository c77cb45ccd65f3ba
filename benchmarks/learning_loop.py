"""A training loop that can be taken apart: what the learning benchmarks share.

The losses, schedule, sampling and reading are the package's own; so are the defaults.
What is no option of the package (yet) is here: the average of the weights over the
steps, a limit in CPU-seconds, turns by any angle, other kinds of flips. All times are
of the process and of training alone, data included, scoring left out.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_augment import Turning, TurningDataset
from torch import Tensor, nn

from napari_muvit.core import (
    ModelConfig,
    MuViTMAE,
    PredictionConfig,
    evaluate,
    open_pyramid,
    predict,
)
from napari_muvit.core.data.augment import Augmentation
from napari_muvit.core.data.datasets import (
    CropBatch,
    MAEDataset,
    SegmentationDataset,
)
from napari_muvit.core.data.sampling import (
    CropSampler,
    PlainSlide,
    TrainingSlide,
    UniformSampler,
)
from napari_muvit.core.evaluation import dice_from_confusion, mean_dice
from napari_muvit.core.model.losses import segmentation_loss
from napari_muvit.core.model.segmenter import MuViTSegmenter
from napari_muvit.core.training.modules import class_weights
from napari_muvit.core.training.prepare import open_annotations
from napari_muvit.core.training.schedule import one_cycle

Pairs = Sequence[tuple[Path, Path]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults are those of the preset ``tiny``."""

    steps: int | None = None
    cpu_seconds: float | None = None
    batch_size: int = 16
    learning_rate: float = 2e-3
    encoder_learning_rate: float = 6e-4
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    warmup: float = 0.15
    dice_weight: float = 1.0
    foreground_weight: float = 5.0
    level_weight: float = 1.0
    foreground_share: float = 0.5
    intensity_jitter: float = 0.1
    flips: bool = True
    mirror: bool = False
    """Flip left and right only, where ``flips`` is off."""
    angle: float = 0.0
    """Largest turn, degrees."""
    zoom: float = 0.0
    """Largest relative change of the size."""
    bfloat16: bool = False
    ema: float = 0.99
    """Largest decay of the average of the weights; it starts at 0.1."""


def opened(pairs: Pairs) -> tuple[list[Any], list[Any]]:
    """Return slides and their annotations."""
    slides = [open_pyramid(image) for image, _ in pairs]
    names = [str(label) for _, label in pairs]
    return slides, open_annotations(names, slides, zero_is_background=False)


def dataset(
    slides: Sequence[TrainingSlide], config: ModelConfig, recipe: Recipe, seed: int
) -> torch.utils.data.Dataset[CropBatch]:
    """Training samples by index."""
    sampler = CropSampler(
        slides, config, foreground_share=recipe.foreground_share, seed=seed
    )
    augmentation = Augmentation(
        flips=recipe.flips or recipe.mirror,
        upright=recipe.mirror,
        intensity_jitter=recipe.intensity_jitter,
    )
    if recipe.angle or recipe.zoom:
        turning = Turning(recipe.angle, recipe.zoom, recipe.mirror)
        return TurningDataset(sampler, config, augmentation, turning)
    return SegmentationDataset(sampler, config, augmentation=augmentation)


def batch_of(data: torch.utils.data.Dataset[Any], first: int, count: int) -> Any:
    """Samples ``first`` ... as a batch."""
    samples = [data[i] for i in range(first, first + count)]
    return type(samples[0])(*(torch.stack(part) for part in zip(*samples, strict=True)))


class Average:
    """Exponential average of weights and batch statistics."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.decay, self.count = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take a step's weights in."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        ours, theirs = self.model.state_dict(), model.state_dict()
        for name, value in ours.items():
            if value.is_floating_point():
                value.lerp_(theirs[name], 1 - decay)
            else:
                value.copy_(theirs[name])


def losses(
    model: MuViTSegmenter, batch: CropBatch, weights: Tensor, recipe: Recipe
) -> tuple[Tensor, Tensor, Tensor]:
    """Total loss, that of the finest level, and its logits."""
    mixed = torch.autocast("cpu", torch.bfloat16) if recipe.bfloat16 else nullcontext()
    with mixed:
        logits = model.level_logits(batch.pixels, batch.bboxes)
    targets = [batch.labels, *batch.coarse_shares.unbind(dim=1)]
    # Further answers of the finest level come last.
    targets += [batch.labels] * (len(logits) - len(targets))
    each = [
        segmentation_loss(
            scores, target, class_weights=weights, dice_weight=recipe.dice_weight,
            dice_labels=model.config.foreground,
        )
        for scores, target in zip(logits, targets[: len(logits)], strict=True)
    ]  # fmt: skip
    share = recipe.level_weight
    total = each[0] + share * sum(each[1:], start=torch.zeros(()))
    return total / (1 + share * (len(each) - 1)), each[0], logits[0]


def optimiser_of(model: MuViTSegmenter, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with a rate for the encoder and one for the decoder, as the package has."""
    groups = []
    for module, rate in (
        (model.encoder, recipe.encoder_learning_rate),
        (model.decoder, recipe.learning_rate),
    ):
        for matrices, decay in ((True, recipe.weight_decay), (False, 0.0)):
            chosen = [p for p in module.parameters() if (p.ndim > 1) == matrices]
            chosen = [p for p in chosen if p.requires_grad]
            if chosen:
                groups.append(
                    {"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay}
                )
    return torch.optim.AdamW(groups, fused=True)


@torch.no_grad()
def crop_scores(
    model: MuViTSegmenter, batches: Sequence[CropBatch], weights: Tensor, recipe: Recipe
) -> dict[str, Any]:
    """Dice and loss on fixed crops."""
    was = model.training
    model.eval()
    classes = model.config.num_classes + 1
    counts = np.zeros((classes, classes), dtype=np.int64)
    total = 0.0
    for batch in batches:
        _, fine, logits = losses(model, batch, weights, recipe)
        total += float(fine) / len(batches)
        pairs = batch.labels.long() * classes + logits.max(dim=1).indices + 1
        found = torch.bincount(pairs.flatten(), minlength=classes**2)
        counts += found.view(classes, classes).numpy()
    model.train(was)
    dice = dice_from_confusion(counts)
    known = [
        float(dice[k - 1])
        for k in model.config.foreground
        if math.isfinite(dice[k - 1])
    ]
    return {"loss": round(total, 4), "mDSC": round(sum(known) / len(known), 4)}


@dataclass
class Trained:
    """What a run left."""

    model: MuViTSegmenter
    average: MuViTSegmenter
    curve: list[dict[str, Any]]
    steps: int
    cpu_seconds: float


def _ignore(_curve: list[dict[str, Any]], _model: MuViTSegmenter) -> None:
    pass


def train(
    model: MuViTSegmenter,
    slides: Sequence[TrainingSlide],
    test: Sequence[TrainingSlide],
    config: ModelConfig,
    recipe: Recipe,
    *,
    seed: int,
    points: int = 6,
    crops: int = 96,
    coarse_labels: bool = False,
    on_score: Callable[[list[dict[str, Any]], MuViTSegmenter], None] = _ignore,
) -> Trained:
    """Train; score fixed crops of other images ``points`` times on the way.

    Parameters
    ----------
    model
        Trained in place.
    slides, test
        Prepared ones.
    config
        The completed configuration.
    recipe
        How.
    seed
        Of the places.
    points, crops
        Scores on the way, and crops of each.
    coarse_labels
        Show the coarse levels' labels whatever the configuration says.
    on_score
        Called with the curve and the averaged model after each score.
    """
    counts = np.sum([slide.index.counts for slide in slides], axis=0)
    weights = class_weights(config, counts.tolist(), recipe.foreground_weight)
    if coarse_labels:
        # The samples of a decoder with level heads.
        config = replace(config, decoder="pyramid", level_heads=True)
    data = dataset(slides, config, recipe, seed)
    held = SegmentationDataset(
        CropSampler(test, config, foreground_share=0.5, seed=104729), config
    )
    fixed = [batch_of(held, first, 16) for first in range(0, crops, 16)]
    optimiser = optimiser_of(model, recipe)
    average = Average(model, recipe.ema)
    curve: list[dict[str, Any]] = []
    spent, step, fraction, recent = 0.0, 0, 0.0, []
    model.train()
    while fraction < 1.0:
        began = time.process_time()
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * one_cycle(fraction, recipe.warmup)
        batch = batch_of(data, step * recipe.batch_size, recipe.batch_size)
        total, fine, _ = losses(model, batch, weights, recipe)
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()
        average.update(model)
        step += 1
        recent.append(float(fine.detach()))
        spent += time.process_time() - began
        by_steps = step / recipe.steps if recipe.steps else 0.0
        by_time = spent / recipe.cpu_seconds if recipe.cpu_seconds else 0.0
        fraction = max(by_steps, by_time)
        if fraction >= (len(curve) + 1) / points or fraction >= 1.0:
            row = {"step": step, "cpu": round(spent, 1)}
            row["train_loss"] = round(float(np.mean(recent[-40:])), 4)
            row.update(crop_scores(model, fixed, weights, recipe))
            mean = crop_scores(average.model, fixed, weights, recipe)
            row["ema_loss"], row["ema_mDSC"] = mean["loss"], mean["mDSC"]
            curve.append(row)
            on_score(curve, average.model)
    return Trained(model.eval(), average.model, curve, step, round(spent, 1))


def pretrain_mae(
    slides: Sequence[PlainSlide],
    config: ModelConfig,
    *,
    steps: int,
    seed: int,
    rate: float = 1e-3,
    batch_size: int = 16,
) -> tuple[MuViTMAE, float]:
    """Train a masked autoencoder on crops from anywhere; it and its CPU-seconds."""
    data = MAEDataset(
        UniformSampler(slides, config, seed=seed + 1000),
        config,
        Augmentation(flips=True, intensity_jitter=0.1),
    )
    torch.manual_seed(seed)
    mae = MuViTMAE(config)
    optimiser = torch.optim.AdamW(mae.parameters(), rate, weight_decay=0.05)
    began = time.process_time()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * one_cycle(step / steps, 0.1)
        batch = batch_of(data, step * batch_size, batch_size)
        loss = mae(batch.pixels, batch.bboxes).loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(mae.parameters(), 0.5)
        optimiser.step()
    return mae, time.process_time() - began


def whole_images(
    model: MuViTSegmenter,
    pairs: Pairs,
    *,
    overlap: float = 0.0,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Predict whole images and score them; ``keep``: where the predictions stay."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        outs = []
        for image, _ in pairs:
            out = folder / f"{image.stem}.zarr"
            settings = PredictionConfig(overlap=overlap, overwrite=True, num_threads=1)
            for _tile in predict(image, model, settings, out=out):
                pass
            outs.append(out)
        found = evaluate(outs, [label for _, label in pairs])
    dice = dict(zip(found.class_names, (round(d, 4) for d in found.dice), strict=True))
    # Without the first class: background or glass.
    skip = {found.background, 1}
    rest = mean_dice([d for k, d in enumerate(found.dice, 1) if k not in skip])
    return {
        "mDSC": round(found.mdice, 4),
        "mDSC_without_first": round(rest, 4),
        "dice": dice,
        "predict_cpu": round(time.process_time() - began, 1),
    }


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a line to the results."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Lines of the results."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain(recipe: Recipe) -> dict[str, Any]:
    """What differs from the defaults."""
    standard = asdict(Recipe())
    return {k: v for k, v in asdict(recipe).items() if v != standard[k]}
