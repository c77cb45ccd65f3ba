"""Examples of a run: which crops, what is shown of them, and in which time."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.augment import Augmentation
from napari_muvit.core.data.datasets import MAEDataset, SegmentationDataset
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.sampling import UniformSampler
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.segmenter import MuViTSegmenter
from napari_muvit.core.training.prepare import prepare, prepare_unlabelled
from napari_muvit.core.training.report.example_choice import POOL, choose_samples
from napari_muvit.core.training.report.examples import segmentation_examples
from napari_muvit.core.training.report.pictures import HIDDEN, rgb
from napari_muvit.core.training.report.reconstructions import reconstruction_examples
from napari_muvit.core.training.split import build_datasets

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=16, patch_size=8, embed_dim=32,
    depth=1, num_heads=2, num_classes=4, class_names=("background", "a", "b", "rare"),
    pyramid_channels=(8, 8, 8, 8), mae_dim=16, mae_depth=1,
)  # fmt: skip


def changed(**changes) -> ModelConfig:
    content = CONFIG.to_dict()
    del content["context_skip"], content["level_heads"], content["normalisation"]
    return ModelConfig.from_dict({**content, **changes})


def image_and_labels(seed: int, rare: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.ones((200, 200), np.uint8)
    for _ in range(60):
        y, x = rng.integers(0, 190, 2)
        labels[y : y + 8, x : x + 8] = rng.integers(2, 4)
    labels[:, :10] = 0
    if rare:
        labels[100:112, 100:112] = 4
    return (rng.normal(40, 5, labels.shape) + 40 * labels).astype(np.uint8), labels


def dataset_of(config: ModelConfig = CONFIG, slides: int = 3) -> SegmentationDataset:
    pairs = [image_and_labels(n, rare=n == 0) for n in range(slides)]
    images = [open_pyramid(image) for image, _ in pairs]
    marks = [Annotations.from_labels(labels) for _, labels in pairs]
    data = prepare(images, marks, config, seed=0)
    training = TrainingConfig(steps=1, validation_share=0)
    return build_datasets(data, data.slides, training)[1]


@pytest.fixture(scope="module")
def dataset() -> SegmentationDataset:
    return dataset_of()


@pytest.fixture(scope="module")
def segmenter(dataset: SegmentationDataset) -> MuViTSegmenter:
    torch.manual_seed(0)
    return MuViTSegmenter(dataset.config)


def labels_of(dataset: SegmentationDataset, sample: int) -> np.ndarray:
    drawn = dataset.sampler.draw(sample)
    return dataset.labels(drawn.slide, drawn.crop.boxes[0])


def test_every_class_and_every_slide_is_shown(dataset: SegmentationDataset) -> None:
    chosen = choose_samples(dataset, 6)
    assert len(chosen) == len(set(chosen)) == 6
    found = set().union(*(np.unique(labels_of(dataset, s)) for s in chosen))
    there = set().union(*(np.unique(labels_of(dataset, s)) for s in range(POOL)))
    assert found - {0} == there - {0} == {1, 2, 3, 4}
    assert {dataset.sampler.draw(s).slide for s in chosen} == {0, 1, 2}
    assert choose_samples(dataset, 6) == chosen
    assert choose_samples(dataset, 3) == chosen[:3]


def test_the_same_place_is_not_shown_twice(dataset: SegmentationDataset) -> None:
    chosen = choose_samples(dataset, POOL)
    drawn = [dataset.sampler.draw(s) for s in chosen]
    for n, one in enumerate(drawn):
        for other in drawn[:n]:
            common = one.crop.boxes[0].intersection(other.crop.boxes[0])
            if one.slide == other.slide and common is not None:
                assert np.prod(common.shape) <= 0.25 * 16**2


def test_pictures_show_levels_truth_and_two_predictions(
    segmenter: MuViTSegmenter, dataset: SegmentationDataset
) -> None:
    found = segmentation_examples(segmenter, dataset, count=3, seconds=60)
    assert found.note == ""
    assert [name for name, _ in found.legend] == list(CONFIG.names)
    assert "all coarser levels blank" in found.caption
    for example, sample in zip(found.items, choose_samples(dataset, 3), strict=True):
        (panels,) = example.rows
        assert [p.title for p in panels] == [
            "level 1", "level 4", "truth", "with context", "without context",
        ]  # fmt: skip
        colors = np.array([rgb(c) for c in CONFIG.colors])
        labels = labels_of(dataset, sample)
        truth = panels[2].picture[::16, ::16]
        known = labels > 0
        assert (truth[known] == colors[labels[known] - 1]).all()
        # The prediction is that of the model, and so is the figure below it.
        batch = dataset[sample]
        with torch.inference_mode():
            segmenter.eval()
            logits = segmenter(batch.pixels[None], batch.bboxes[None])[0]
        guess = logits.argmax(dim=0).numpy()
        assert (panels[3].picture[::16, ::16] == colors[guess]).all()
        right = (guess + 1 == labels)[known].mean()
        assert f"{100 * right:.0f} % right" in panels[3].note


def test_without_context_all_that_is_coarser_is_blank(
    segmenter: MuViTSegmenter, dataset: SegmentationDataset
) -> None:
    seen: list[torch.Tensor] = []
    handle = segmenter.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    segmentation_examples(segmenter, dataset, count=1, seconds=60)
    handle.remove()
    given, blank = seen
    assert torch.equal(given[:, 0], blank[:, 0])
    assert len(given[:, 1].unique()) > 10
    assert blank[:, 1].unique().tolist() == pytest.approx(
        dataset.config.background_value
    )


def test_one_level_has_no_context_to_leave_out() -> None:
    dataset = dataset_of(changed(scale_factors=(1,)), slides=1)
    found = segmentation_examples(MuViTSegmenter(dataset.config), dataset, count=2)
    assert [p.title for p in found.items[0].rows[0]] == [
        "level 1", "truth", "prediction",
    ]  # fmt: skip
    assert "context" not in found.caption


def test_what_training_changes_at_random_is_left_out(
    segmenter: MuViTSegmenter, dataset: SegmentationDataset
) -> None:
    wild = SegmentationDataset(
        dataset.sampler, dataset.config,
        augmentation=Augmentation(flips=True, intensity_jitter=0.5, box_shift=0.5),
    )  # fmt: skip
    pictures = [
        segmentation_examples(segmenter, d, count=2).items for d in (dataset, wild)
    ]
    for plain, other in zip(*pictures, strict=True):
        for a, b in zip(plain.rows[0], other.rows[0], strict=True):
            assert (a.picture == b.picture).all()


def test_volumes_are_shown_by_the_plane_that_is_annotated() -> None:
    config = changed(
        ndim=3, decoder="unetr", num_classes=2, class_names=("background", "cell"),
        class_colors=None, background=1, decoder_dim=16, num_queries=None,
    )  # fmt: skip
    labels = np.zeros((24, 40, 40), np.uint8)
    labels[9, :, :20], labels[9, :, 20:] = 1, 2
    image = np.random.default_rng(0).integers(0, 255, labels.shape).astype(np.uint8)
    data = prepare(
        [open_pyramid(image, ndim=3)],
        [Annotations.from_labels(labels, ndim=3)],
        config,
        seed=0,
    )
    dataset = build_datasets(data, data.slides, TrainingConfig(steps=1))[1]
    found = segmentation_examples(MuViTSegmenter(data.config), dataset, count=1)
    (panels,) = found.items[0].rows
    truth = panels[2].picture
    assert truth.shape == (256, 256, 3)
    colors = {rgb(c) for c in data.config.colors}
    assert {tuple(c) for c in truth.reshape(-1, 3)} <= colors
    assert found.items[0].place.startswith("z ")


class Sleeper(nn.Module):
    """Takes its time."""

    def __init__(self, inner: nn.Module, seconds: float) -> None:
        super().__init__()
        self.inner, self.seconds, self.calls = inner, seconds, 0

    def forward(self, *args):
        self.calls += 1
        time.sleep(self.seconds)
        return self.inner(*args)


def state(model: nn.Module) -> list[tuple[bool, int]]:
    return [(m.training, len(m._forward_pre_hooks)) for m in model.modules()]


def test_a_pass_that_takes_too_long_is_broken_off(
    dataset: SegmentationDataset,
) -> None:
    slow = MuViTSegmenter(dataset.config)
    slow.encoder.blocks[0] = Sleeper(slow.encoder.blocks[0], 1.5)
    slow.decoder.eval()
    before = state(slow)
    started = time.monotonic()
    found = segmentation_examples(slow, dataset, count=6, seconds=1.0)
    assert time.monotonic() - started < 4
    assert slow.encoder.blocks[0].calls == 1
    assert found.items == ()
    assert found.note == "After the 1 s allowed, no example was ready."
    assert state(slow) == before


def test_a_stop_keeps_what_is_ready(
    segmenter: MuViTSegmenter, dataset: SegmentationDataset
) -> None:
    segmenter.train()
    before = state(segmenter)
    passes = 0

    def count(_module, _args) -> None:
        nonlocal passes
        passes += 1

    handle = segmenter.register_forward_pre_hook(count)
    found = segmentation_examples(
        segmenter, dataset, count=6, seconds=60, should_stop=lambda: passes >= 5
    )
    handle.remove()
    assert len(found.items) == 2
    assert found.note == "It was stopped when 2 examples were ready."
    assert state(segmenter) == before


def test_no_time_at_all(
    segmenter: MuViTSegmenter, dataset: SegmentationDataset
) -> None:
    found = segmentation_examples(segmenter, dataset, seconds=0)
    assert found.items == ()
    assert found.note


def mae_dataset() -> MAEDataset:
    images = [open_pyramid(image_and_labels(n, rare=False)[0]) for n in range(3)]
    slides, config, _ = prepare_unlabelled(images, CONFIG)
    return MAEDataset(UniformSampler(slides, config, seed=0), config)


def test_a_reconstruction_is_shown_level_by_level() -> None:
    dataset = mae_dataset()
    torch.manual_seed(0)
    mae = MuViTMAE(dataset.config)
    before = state(mae)
    found = reconstruction_examples(mae, dataset, count=3, seconds=60, seed=4)
    assert state(mae) == before
    assert len({e.place + e.title for e in found.items}) == 3
    samples = [dataset.sampler.draw(s).slide for s in range(POOL)]
    assert len(set(samples)) == 3
    hidden = []
    for example in found.items:
        assert len(example.rows) == 2
        for row in example.rows:
            assert [p.title for p in row[1:]] == ["seen", "reconstruction"]
            grey = (row[1].picture == HIDDEN).all(axis=-1)
            # What was seen is left as it was.
            assert (row[1].picture[~grey] == row[2].picture[~grey]).all()
            hidden.append(grey.mean())
    # Over both levels, three quarters of all patches.
    assert np.reshape(hidden, (3, 2)).mean(axis=1) == pytest.approx(0.75, abs=0.02)
    again = reconstruction_examples(mae, dataset, count=3, seconds=60, seed=4)
    other = reconstruction_examples(mae, dataset, count=3, seconds=60, seed=5)
    same = [(a.rows[0][1].picture == b.rows[0][1].picture).all()
            for a, b in zip(found.items, again.items, strict=True)]  # fmt: skip
    assert all(same)
    assert any(
        (a.rows[0][1].picture != b.rows[0][1].picture).any()
        for a, b in zip(found.items, other.items, strict=True)
    )


def test_the_error_of_a_reconstruction_is_that_of_its_hidden_pixels() -> None:
    dataset = mae_dataset()
    mae = MuViTMAE(dataset.config).eval()
    found = reconstruction_examples(mae, dataset, count=1, seconds=60)
    sample = next(
        s for s in range(POOL)
        if dataset.sampler.slides[dataset.sampler.draw(s).slide].pyramid.name
        == found.items[0].title
    )  # fmt: skip
    batch = dataset[sample]
    with torch.no_grad():
        output = mae(
            batch.pixels[None],
            batch.bboxes[None],
            generator=torch.Generator().manual_seed(sample),
        )
    said = [row[2].note for row in found.items[0].rows]
    assert said == [
        f"squared error {float(e):.4f}" if e.isfinite() else "nothing hidden"
        for e in output.level_losses
    ]


def test_a_reconstruction_that_takes_too_long_is_broken_off() -> None:
    dataset = mae_dataset()
    mae = MuViTMAE(dataset.config)
    mae.encoder.blocks[0] = Sleeper(mae.encoder.blocks[0], 0.6)
    found = reconstruction_examples(mae, dataset, count=4, seconds=0.5)
    assert found.items == ()
    assert "no example" in found.note
    assert mae.training
