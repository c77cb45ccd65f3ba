from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data import level_cache
from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.cache_settings import CacheSettings
from napari_muvit.core.errors import (
    AnnotationError,
    Cancelled,
    ConfigError,
    DeviceError,
    OutputError,
)
from napari_muvit.core.model.checkpoint import load_model, weights_hash
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import finetune

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=16, patch_size=8, embed_dim=32,
    depth=1, num_heads=2, num_classes=2, class_names=("background", "cell"),
    pyramid_channels=(8, 8, 8, 8),
)  # fmt: skip


@pytest.fixture
def slide() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.normal(50, 5, (160, 160))
    labels = np.ones((160, 160), np.uint8)
    for _ in range(40):
        y, x = rng.integers(0, 150, 2)
        image[y : y + 8, x : x + 8] += 100
        labels[y : y + 8, x : x + 8] = 2
    return image.clip(0, 255).astype(np.uint8), labels


def training(**changes: object) -> TrainingConfig:
    return TrainingConfig.from_dict(
        {
            "steps": 24,
            "batch_size": 4,
            "validation_crops": 8,
            "device": "cpu",
            "num_threads": 1,
            **changes,
        }
    )


def test_it_learns_and_leaves_the_best_model(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    events: list[Progress] = []
    result = finetune(
        [slide[0]], [slide[1]], training(steps=160), model=CONFIG, out=tmp_path / "m",
        on_progress=events.append,
    )  # fmt: skip
    assert result.stopped == "steps"
    assert result.steps == 160
    assert len(result.history) == 8
    assert result.best["mDSC"] > 0.95
    assert result.best["mDSC"] == max(row["mDSC"] for row in result.history)
    model = load_model(result.model_path)
    assert model.config.normalisation == "percentile"
    assert model.config.background_value is not None
    stages = {event.stage for event in events}
    assert {"prepare", "train", "validate"} <= stages
    assert sum(e.stage == "train" for e in events) == 160
    stored = json.loads((result.model_path / "config.json").read_text())
    assert stored["metrics"]["mDSC"] == result.best["mDSC"]


def test_a_full_disk_is_said_before_the_first_step(
    slide: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    events: list[Progress] = []
    with pytest.raises(OutputError, match="has 0 MB left, the training needs 2 MB"):
        finetune([slide[0]], [slide[1]], training(), model=CONFIG,
                 out=tmp_path / "a" / "m", on_progress=events.append)  # fmt: skip
    assert not any(event.stage == "train" for event in events)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_gives_the_same_weights(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    runs = [
        finetune([slide[0]], [slide[1]], training(seed=seed), model=CONFIG,
                 out=tmp_path / name)
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    ]  # fmt: skip
    hashes = [weights_hash(load_model(r.model_path)) for r in runs]
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_workers_change_nothing(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    runs = [
        finetune([slide[0]], [slide[1]], training(num_workers=workers, steps=8),
                 model=CONFIG, out=tmp_path / str(workers))
        for workers in (0, 2)
    ]  # fmt: skip
    hashes = {weights_hash(load_model(r.model_path)) for r in runs}
    assert len(hashes) == 1


def test_stopping_keeps_the_model(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    steps = 0

    def count(event: Progress) -> None:
        nonlocal steps
        steps = int(event.metrics.get("step", 0))

    result = finetune(
        [slide[0]], [slide[1]], training(steps=10_000, steps_per_epoch=5), model=CONFIG,
        out=tmp_path / "m", on_progress=count, should_stop=lambda: steps >= 12,
    )  # fmt: skip
    assert result.stopped == "stopped"
    assert result.steps < 20
    load_model(result.model_path)


def test_stopping_before_a_validation_keeps_what_there_is(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    seen: list[Progress] = []
    result = finetune(
        [slide[0]], [slide[1]], training(steps=10_000, steps_per_epoch=500),
        model=CONFIG, out=tmp_path / "m", on_progress=seen.append,
        should_stop=lambda: sum(e.stage == "train" for e in seen) >= 3,
    )  # fmt: skip
    assert result.best == {}
    few = weights_hash(load_model(result.model_path))
    seen.clear()
    result = finetune(
        [slide[0]], [slide[1]], training(steps=10_000, steps_per_epoch=500),
        model=CONFIG, out=tmp_path / "m", on_progress=seen.append, resume=True,
        should_stop=lambda: sum(e.stage == "train" for e in seen) >= 3,
    )  # fmt: skip
    assert result.steps > 3
    # Those of the later stop.
    assert weights_hash(load_model(result.model_path)) != few
    with pytest.raises(Cancelled):
        finetune([slide[0]], [slide[1]], training(), model=CONFIG, out=tmp_path / "n",
                 should_stop=lambda: True)  # fmt: skip


def test_a_stop_inside_a_long_step_is_heard(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    # Asked once a module: the first forward pass must notice, not only its end.
    asked = 0

    def later() -> bool:
        nonlocal asked
        asked += 1
        return asked > 30

    with pytest.raises(Cancelled):
        finetune([slide[0]], [slide[1]], training(), model=CONFIG, out=tmp_path / "m",
                 should_stop=later)  # fmt: skip


def test_minutes_are_kept(slide: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    result = finetune(
        [slide[0]], [slide[1]], training(steps=None, minutes=0.1), model=CONFIG,
        out=tmp_path / "m",
    )  # fmt: skip
    assert result.stopped == "minutes"
    assert result.history


def test_unannotated_slides_train_from_a_few_polygons(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    marks = Annotations.from_polygons(
        [(1, square * 60), (2, square * 12 + 90)], class_names=("background", "cell")
    )
    result = finetune([slide[0]], [marks], training(), model=CONFIG, out=tmp_path / "m")
    assert result.steps == 24


def test_start_takes_over_what_fits(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    first = finetune([slide[0]], [slide[1]], training(steps=2), model=CONFIG,
                     out=tmp_path / "a")  # fmt: skip
    more = dataclasses.replace(
        CONFIG, num_classes=3, class_names=("background", "cell", "other"),
        class_colors=None,
    )  # fmt: skip
    messages: list[str] = []
    finetune(
        [slide[0]], [slide[1]], training(steps=1, learning_rate=1e-12), model=more,
        start=first.model_path, out=tmp_path / "b",
        on_progress=lambda e: messages.append(e.message),
    )  # fmt: skip
    assert any("heads kept for 'background', 'cell', new for" in m for m in messages)
    assert any("(other) has no annotated pixel" in m for m in messages)
    again = finetune([slide[0]], [slide[1]], training(steps=1), start=first.model_path,
                     out=tmp_path / "c")  # fmt: skip
    assert again.config.names == ("background", "cell")


def test_zero_as_background(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, zero_is_background=True)
    result = finetune([slide[0]], [slide[1] - 1], training(steps=40), model=config,
                      out=tmp_path / "m")  # fmt: skip
    assert result.best["Dice cell"] > 0.5


def test_frozen_encoder_stays(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    first = finetune([slide[0]], [slide[1]], training(steps=2), model=CONFIG,
                     out=tmp_path / "a")  # fmt: skip
    second = finetune(
        [slide[0]], [slide[1]], training(steps=3, freeze_encoder=True),
        start=first.model_path, out=tmp_path / "b",
    )  # fmt: skip
    before, after = (load_model(r.model_path) for r in (first, second))
    for a, b in zip(
        before.encoder.parameters(), after.encoder.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_bad_input_is_refused_before_any_work(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image, labels = slide

    def run(images: list, marks: list, out: str = "m", **changes: object) -> None:
        finetune(images, marks, training(**changes), model=CONFIG, out=tmp_path / out)

    with pytest.raises(AnnotationError, match="same shape"):
        run([image], [labels[:-1]])
    with pytest.raises(AnnotationError, match="Nothing is annotated"):
        run([image], [np.zeros_like(labels)])
    with pytest.raises(AnnotationError, match="class 3"):
        run([image], [labels + 1])
    with pytest.raises(AnnotationError, match="one label file"):
        run([image, image], [labels])
    with pytest.raises(ConfigError, match="3 channels"):
        run([np.stack([image] * 3)], [labels])
    with pytest.raises(ConfigError, match="smaller than one patch"):
        run([image[:4, :]], [labels[:4, :]])
    with pytest.raises(DeviceError):
        run([image], [labels], device="cuda:7")
    with pytest.raises(ConfigError, match="bf16-mixed"):
        run([image], [labels], precision="16-mixed")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        run([image], [labels], out="other")
    run([image], [labels], out="done", steps=1)
    with pytest.raises(OutputError, match="--overwrite"):
        run([image], [labels], out="done", steps=1)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_project_with_a_folder_of_the_same_name_is_left_alone(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path, overwrite: bool
) -> None:
    # It was taken for a run that was killed early, and its README was written over.
    mine = {"README.md": "my project", "training/slide.txt": "mine"}
    (tmp_path / "training").mkdir()
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(OutputError, match="other files"):
        finetune([slide[0]], [slide[1]], training(steps=1), model=CONFIG, out=tmp_path,
                 overwrite=overwrite)  # fmt: skip
    assert {n: (tmp_path / n).read_text() for n in mine} == mine
    assert len(list(tmp_path.iterdir())) == 2


def test_a_mistake_leaves_no_empty_folder(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(AnnotationError, match="validation"):
        finetune([slide[0]], [slide[1]], training(), model=CONFIG,
                 out=tmp_path / "deep" / "m", val_images=[slide[0]])  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_overwriting_keeps_the_old_model_until_there_is_a_better_one(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    # A run stopped after a few steps replaced a good model with a hardly trained one.
    first = finetune(
        [slide[0]], [slide[1]], training(), model=CONFIG, out=tmp_path / "m"
    )
    before = weights_hash(load_model(first.model_path))
    seen: list[Progress] = []
    with pytest.raises(Cancelled, match="is kept"):
        finetune(
            [slide[0]], [slide[1]], training(steps_per_epoch=20), model=CONFIG,
            out=tmp_path / "m", overwrite=True, on_progress=seen.append,
            should_stop=lambda: sum(e.stage == "train" for e in seen) >= 3,
        )  # fmt: skip
    assert weights_hash(load_model(first.model_path)) == before
    # Once more: it was then taken for the model of the run that goes on.
    seen.clear()
    with pytest.raises(Cancelled, match="is kept"):
        finetune(
            [slide[0]], [slide[1]], training(steps_per_epoch=20), model=CONFIG,
            out=tmp_path / "m", resume=True, on_progress=seen.append,
            should_stop=lambda: sum(e.stage == "train" for e in seen) >= 3,
        )  # fmt: skip
    assert weights_hash(load_model(first.model_path)) == before
    last = finetune([slide[0]], [slide[1]], training(steps_per_epoch=20), model=CONFIG,
                    out=tmp_path / "m", resume=True)  # fmt: skip
    assert last.best
    assert weights_hash(load_model(first.model_path)) != before


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_precision_of_a_cpu_trains(
    precision: str, slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    # bfloat16 ended with Lightning's "does not allow for gradient clipping".
    result = finetune(
        [slide[0]], [slide[1]], training(steps=2, precision=precision), model=CONFIG,
        out=tmp_path / "m",
    )  # fmt: skip
    assert result.steps == 2
    weights = load_model(result.model_path).state_dict().values()
    assert all(w.isfinite().all() for w in weights)


def test_one_patch_at_a_time_is_refused(
    slide: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    # Batch norm raised "Expected more than 1 value per channel when training".
    config = dataclasses.replace(CONFIG, crop_size=8)
    with pytest.raises(ConfigError, match="one patch"):
        finetune([slide[0]], [slide[1]], training(steps=2, batch_size=1), model=config,
                 out=tmp_path / "m")  # fmt: skip
    finetune([slide[0]], [slide[1]], training(steps=1, batch_size=2), model=config,
             out=tmp_path / "m")  # fmt: skip


def test_coarse_levels_are_kept_and_change_nothing(
    slide: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(level_cache, "DEAR_PIXELS", 1)
    zarr.create_array(tmp_path / "a.zarr", data=slide[0], chunks=(32, 32))
    config = dataclasses.replace(CONFIG, scale_factors=(1, 8))
    hashes, stages = [], set()
    for enabled in (False, True):
        cache = CacheSettings(folder=tmp_path / "cache", enabled=enabled)
        assert not cache.folder.exists()
        result = finetune(
            [tmp_path / "a.zarr"], [slide[1]], training(), model=config,
            out=tmp_path / f"{enabled}", cache=cache,
            on_progress=lambda event: stages.add(event.stage),
        )  # fmt: skip
        hashes.append(weights_hash(load_model(result.model_path)))
    assert hashes[0] == hashes[1]
    assert "levels" in stages
    assert list((tmp_path / "cache").glob("*/*/0/zarr.json"))
