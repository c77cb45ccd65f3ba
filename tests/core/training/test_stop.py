"""Stopping: heard in every state, and nothing of the run is lost or half-done."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import nn
from torch.utils.data import Dataset

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data import tissue
from napari_muvit.core.data.annotations import Annotations, label_classes
from napari_muvit.core.data.crops import estimate_normalisation
from napari_muvit.core.data.loading import StoppableDataset, make_loader
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import Cancelled, MuvitError
from napari_muvit.core.model.checkpoint import load_model, weights_hash
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.masking import draw_mask
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import finetune, pretrain, stoppable
from napari_muvit.core.training.engine import Run
from napari_muvit.core.training.opening import open_images
from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.state import read_facts

Slide = tuple[np.ndarray, np.ndarray]


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.from_dict(
        {
            "steps": 6, "steps_per_epoch": 2, "batch_size": 4, "validation_crops": 8,
            "device": "cpu", "precision": "32-true", "num_threads": 1, **changes,
        }
    )  # fmt: skip


class Asked:
    """Says stop from the n-th question on."""

    def __init__(self, stop_at: float = float("inf")) -> None:
        self.stop_at = stop_at
        self.count = 0

    def __call__(self) -> bool:
        self.count += 1
        return self.count >= self.stop_at


def stop_anywhere(
    slide: Slide, model: ModelConfig, folder: Path, kind: str, places: int, seed: int
) -> None:
    """Stop at some of all questions that a run asks, go on, and compare."""
    config = settings(accumulate=2, ema=0.5)

    def train(out: Path, **options: Any) -> Any:
        if kind == "pretrain":
            return pretrain([slide[0]], config, model=model, out=out, **options)
        return finetune([slide[0]], [slide[1]], config, model=model, out=out, **options)

    def hashes(out: Path) -> list[str]:
        cls = MuViTMAE if kind == "pretrain" else None
        folders = (out, out / "last")
        return [weights_hash(load_model(p, cls) if cls else load_model(p))
                for p in folders]  # fmt: skip

    asked = Asked()
    train(folder / "whole", should_stop=asked)
    wanted = hashes(folder / "whole")
    draw = random.Random(seed)
    for stop_at in draw.sample(range(1, asked.count + 1), places):
        out = folder / str(stop_at)
        try:
            train(out, should_stop=Asked(stop_at))
        except Cancelled:
            assert not out.exists()
        train(out, resume=True)
        assert hashes(out) == wanted, stop_at


@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
def test_a_stop_at_any_question_changes_nothing(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path, kind: str
) -> None:
    # A step that had been taken was undone by half when the stop came just behind it.
    stop_anywhere(slide, tiny_config, tmp_path, kind, places=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
def test_a_stop_at_very_many_questions_changes_nothing(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path, kind: str
) -> None:
    stop_anywhere(slide, tiny_config, tmp_path, kind, places=60, seed=1)


def test_a_stop_between_a_step_and_its_end_counts_the_step(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    flag: list[bool] = []
    take = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **named: Any) -> Any:
        found = take(self, *args, **named)
        flag.append(True)
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    out = tmp_path / "m"
    part = finetune(
        [slide[0]], [slide[1]], settings(), model=tiny_config, out=out,
        should_stop=lambda: len(flag) >= 3,
    )  # fmt: skip
    assert part.steps == 3
    log = RunFolder(out).log.read_text().splitlines()
    assert [row.split(",")[0] for row in log if row[0] == "3"] == ["3"]
    flag.clear()
    finetune([slide[0]], [slide[1]], settings(), model=tiny_config, out=out,
             resume=True)  # fmt: skip
    finetune([slide[0]], [slide[1]], settings(), model=tiny_config,
             out=tmp_path / "whole")  # fmt: skip
    assert weights_hash(load_model(out / "last")) == weights_hash(
        load_model(tmp_path / "whole" / "last")
    )


def test_a_replaced_model_stays_and_the_new_run_goes_on(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    # `--resume` took the run that had been replaced for the one to go on with.
    out = tmp_path / "m"

    def train(seed: int, **options: Any) -> Any:
        config = settings(seed=seed, steps_per_epoch=5)
        return finetune([slide[0]], [slide[1]], config, model=tiny_config, out=out,
                        **options)  # fmt: skip

    train(0)
    before = weights_hash(load_model(out))
    seen: list[Progress] = []
    with pytest.raises(Cancelled, match=r"is kept\. Go on with --resume"):
        train(
            1, overwrite=True, on_progress=seen.append,
            should_stop=lambda: sum(e.stage == "train" for e in seen) >= 2,
        )  # fmt: skip
    assert weights_hash(load_model(out)) == before
    assert read_facts(RunFolder(out).state)["step"] == 2
    rest = train(1, resume=True)
    assert rest.steps == 6
    assert weights_hash(load_model(out)) != before


def test_a_run_that_was_to_end_early_ends_when_it_goes_on(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # No step changes anything, so the first validation stays the best one.
    config = settings(steps=40, learning_rate=1e-30, encoder_learning_rate=1e-30,
                      early_stop=2)  # fmt: skip
    model = dataclasses.replace(tiny_config, pyramid_norm="group")

    def train(**options: Any) -> Any:
        return finetune([slide[0]], [slide[1]], config, model=model,
                        out=tmp_path / "m", **options)  # fmt: skip

    class Killed(BaseException):
        pass

    def die(_run: Run) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_keep_last", die)
        with pytest.raises(Killed):
            train()
    assert read_facts(RunFolder(tmp_path / "m").state)["step"] == 6
    # It trained on for another epoch.
    rest = train(resume=True)
    assert (rest.stopped, rest.steps) == ("early", 6)


def test_a_second_ctrl_c_is_no_exit_of_lightnings(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    # Lightning made SystemExit(1) of it.
    def interrupt(event: Progress) -> None:
        if event.stage == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune([slide[0]], [slide[1]], settings(), model=tiny_config,
                 out=tmp_path / "m", on_progress=interrupt)  # fmt: skip
    assert not (tmp_path / "m" / "training" / "lock").exists()


class Slow(Dataset[Any]):
    """Takes half a minute a sample."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(30)
        return torch.zeros(2)


def test_a_worker_that_takes_long_is_not_waited_for() -> None:
    # Neither its start, for which it loads torch, nor its first batch.
    asked = threading.Event()
    loader = make_loader(
        Slow(), batch_sampler=[[0, 1]], num_workers=1, should_stop=asked.is_set
    )
    threading.Timer(0.5, asked.set).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        next(iter(loader))
    assert time.monotonic() - begun < 10


def test_a_stop_is_heard_between_samples() -> None:
    data: Dataset[Any] = StoppableDataset(Slow(), lambda: True)
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        data[0]
    assert time.monotonic() - begun < 10


@pytest.fixture
def flat_slide(tmp_path: Path) -> Path:
    """Large, and without coarse levels."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (2048, 2048)).astype(np.uint8)
    zarr.create_array(tmp_path / "flat.zarr", data=pixels, chunks=(512, 512))
    return tmp_path / "flat.zarr"


def test_opening_slides_can_be_stopped(
    flat_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(3)
    with pytest.raises(Cancelled):
        open_images([flat_slide] * 9, asked)
    pyramid = open_pyramid(flat_slide)
    with pytest.raises(Cancelled):
        estimate_normalisation(pyramid, "percentile", should_stop=Asked(10))
    labels = Annotations.from_labels(np.ones((4096, 4096), np.uint8))
    with pytest.raises(Cancelled):
        label_classes(labels, Asked(3))
    asked = Asked()
    assert label_classes(labels, asked).largest == 1
    count = asked.count
    assert label_classes(labels, asked).largest == 1
    assert asked.count == count > 3

    whole = tissue.find_tissue(pyramid)
    monkeypatch.setattr(tissue, "CHEAP_PIXELS", 0)
    asked = Asked()
    in_strips = tissue.find_tissue(pyramid, should_stop=asked)
    assert asked.count > 3
    assert np.array_equal(whole.mask, in_strips.mask)
    with pytest.raises(Cancelled):
        tissue.find_tissue(pyramid, should_stop=Asked(3))


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stoppable, "CONV_PRODUCTS", 1)
    monkeypatch.setattr(stoppable, "BLOCK_PRODUCTS", 1)
    monkeypatch.setattr(stoppable, "LARGE", 1)


@pytest.mark.parametrize("decoder", ["pyramid", "unetr", "mask2former", "mae"])
@pytest.mark.usefixtures("in_pieces")
def test_work_in_pieces_is_the_same_work(
    tiny_config: ModelConfig, decoder: str
) -> None:
    torch.manual_seed(0)
    mae = decoder == "mae"
    name = tiny_config.decoder if mae else decoder
    config = dataclasses.replace(
        tiny_config, decoder=name, decoder_dim=16, context_skip=False, level_heads=False
    )
    model = MuViTMAE(config) if mae else build_model(config)
    pixels = torch.rand(3, 2, 1, 16, 16)
    boxes = torch.tensor([[[0.0, 0.0], [16.0, 16.0]], [[-20.0, -24.0], [44.0, 40.0]]])
    boxes = boxes.expand(3, -1, -1, -1)
    seeded = torch.Generator().manual_seed(0)
    mask = draw_mask(3, 2, 4, ratio=0.5, shares=None, generator=seeded, device="cpu")

    def loss() -> torch.Tensor:
        if isinstance(model, MuViTMAE):
            return model(pixels, boxes, mask).loss
        out: torch.Tensor = model(pixels, boxes)
        return out.square().mean()

    buffers = {k: v.clone() for k, v in model.named_buffers()}
    whole = gradients(model, loss())
    model.load_state_dict({**model.state_dict(), **buffers}, strict=False)
    before = set(vars(model.encoder)), [set(vars(m)) for m in model.modules()]
    asked = Asked()
    with stoppable.stoppable(model, asked):
        found = gradients(model, loss())
    assert asked.count > 100
    assert whole.keys() == found.keys()
    for key, value in whole.items():
        assert torch.allclose(value, found[key], rtol=1e-4, atol=1e-6), key
    # Nothing of it stays.
    after = set(vars(model.encoder)), [set(vars(m)) for m in model.modules()]
    assert before == after
    count = asked.count
    loss().backward()
    assert asked.count == count
    with stoppable.stoppable(model, Asked(asked.count - 5)), pytest.raises(Cancelled):
        loss().backward()


def test_a_worker_that_dies_is_one_line(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    import multiprocessing
    import os
    import signal

    def kill(event: Progress) -> None:
        if event.stage == "train" and int(event.metrics["step"]) == 2:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(MuvitError, match="A process that reads crops has ended") as e:
        finetune([slide[0]], [slide[1]], settings(steps=500, num_workers=1),
                 model=tiny_config, out=tmp_path / "m", on_progress=kill)  # fmt: skip
    assert "\n" not in str(e.value)
    load_model(tmp_path / "m")
