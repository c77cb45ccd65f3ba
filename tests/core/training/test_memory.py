from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import AnnotationError, ConfigError
from napari_muvit.core.model.live_bytes import LiveBytes
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.segmenter import MuViTSegmenter
from napari_muvit.core.presets import preset
from napari_muvit.core.training import free_memory as free_memory_module
from napari_muvit.core.training import memory
from napari_muvit.core.training.free_memory import free_memory
from napari_muvit.core.training.memory import (
    MemoryEstimate,
    estimate_memory,
    fit_batch,
    memory_advice,
    plan_memory,
    smallest_pass,
)
from napari_muvit.core.training.memory_meter import (
    meta_model,
    step_bytes,
    step_loss,
)

SMALL = ModelConfig(
    scale_factors=(1, 4), crop_size=64, embed_dim=64, depth=2, num_heads=2,
    decoder_dim=16, mae_dim=32, num_classes=3,
)  # fmt: skip
KINDS = [
    (MuViTSegmenter, {"decoder": "unetr"}),
    (MuViTSegmenter, {"decoder": "mask2former"}),
    (MuViTSegmenter, {"decoder": "pyramid", "attention": "coarse_to_fine"}),
    (MuViTMAE, {}),
]


def real_bytes(model: Any, batch: int, mixed: bool) -> int:
    """Peak of what a real step on the CPU makes beside weights and gradients."""
    config = model.config
    levels, edge = len(config.scale_factors), config.crop_size
    boxes = torch.zeros(batch, levels, 2, 2)
    boxes[:, :, 1] = edge * torch.tensor(config.scale_factors)[:, None]
    meter = LiveBytes([*model.parameters(), *model.buffers()])
    with meter:
        for parameter in model.parameters():
            trained = parameter.requires_grad
            parameter.grad = torch.zeros_like(parameter) if trained else None
        gradients = meter.now
        pixels = torch.rand(batch, levels, 1, edge, edge)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = step_loss(model, pixels, boxes)
        loss.backward()
    return meter.peak - gradients


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("kind", "changes"), KINDS)
def test_a_pass_without_numbers_takes_what_a_real_one_takes(
    kind: Any, changes: dict[str, Any], mixed: bool
) -> None:
    config = dataclasses.replace(
        SMALL, **{"context_skip": None, "level_heads": None, **changes}
    )
    real = real_bytes(kind(config), 2, mixed)
    precision = "bf16-mixed" if mixed else "32-true"
    counted = step_bytes(meta_model(kind, config, frozen=False), 2, precision)
    assert counted == pytest.approx(real, rel=0.1)


def test_a_frozen_encoder_keeps_less() -> None:
    whole = step_bytes(meta_model(MuViTSegmenter, SMALL, frozen=False), 2)
    frozen = step_bytes(meta_model(MuViTSegmenter, SMALL, frozen=True), 2)
    model = MuViTSegmenter(SMALL)
    model.encoder.requires_grad_(requires_grad=False)
    assert frozen < 0.8 * whole
    assert frozen == pytest.approx(real_bytes(model, 2, mixed=False), rel=0.1)


def test_the_meter_forgets_what_is_gone_and_knows_views() -> None:
    known = torch.zeros(1000)
    with LiveBytes([known]) as meter:
        first = torch.ones(1000)
        view = first[10:]
        again = known[5:]
        assert meter.now == 4000
        del first
        assert meter.now == 4000  # the view keeps it
        del view
        assert meter.now == 0
        second = torch.ones(500, dtype=torch.float64)
    assert (meter.now, meter.peak) == (4000, 4000)
    assert len(again) + len(second) == 1495


def test_the_parts_are_those_of_the_network() -> None:
    model = MuViTSegmenter(SMALL)
    count = sum(p.numel() for p in model.parameters())
    buffers = sum(b.nbytes for b in model.buffers())
    found = estimate_memory(model, ema=True)
    assert found.weights == found.average == 4 * count + buffers
    assert (found.gradients, found.optimiser) == (4 * count, 8 * count)
    frozen = estimate_memory(model, freeze_encoder=True)
    decoder = sum(p.numel() for p in model.decoder.parameters())
    assert (frozen.gradients, frozen.optimiser) == (4 * decoder, 8 * decoder)
    assert frozen.average == 0
    assert estimate_memory(model, distributed=True).gradients == 8 * count
    assert found.total(3) - found.total(2) == found.activations


def test_what_is_asked_for_changes_the_estimate() -> None:
    plain = estimate_memory(MuViTSegmenter, SMALL)
    mixed = estimate_memory(MuViTSegmenter, SMALL, precision="bf16-mixed")
    assert mixed.activations < 0.9 * plain.activations
    assert "mixed precision" not in " ".join(mixed.remedies)
    gpu = estimate_memory(MuViTSegmenter, SMALL, device="cuda", precision="16-mixed")
    assert gpu.fixed > mixed.fixed
    one = estimate_memory(
        MuViTMAE, dataclasses.replace(SMALL, scale_factors=(1,), crop_size=16)
    )
    assert one.remedies == ("a smaller --preset", plain.remedies[-1])
    with pytest.raises(ConfigError, match="without a configuration"):
        estimate_memory(MuViTSegmenter)


def test_the_paper_is_estimated_without_its_memory() -> None:
    config = ModelConfig(**preset("paper").model)
    before = psutil.Process().memory_info().rss
    found = estimate_memory(MuViTSegmenter, config, device="mps")
    grown = psutil.Process().memory_info().rss - before
    assert found.total(1) > 2 * 2**30
    assert grown < 0.1 * found.total(1)


ESTIMATE = MemoryEstimate(
    weights=100, gradients=100, optimiser=200, average=0, fixed=100, activations=50,
    remedies=("a smaller --crop", "fewer --levels"),
)  # fmt: skip


@given(st.integers(1, 200), st.integers(0, 20_000), st.integers(1, 3))
def test_the_largest_part_of_a_batch_that_fits(
    batch: int, free: int, smallest: int
) -> None:
    sizes = [n for n in range(1, batch + 1) if batch % n == 0]
    sizes = [n for n in sizes if n >= min(smallest, batch)]
    fitting = [n for n in sizes if 500 + 50 * n <= 0.8 * free]
    if not fitting:
        with pytest.raises(ConfigError):
            fit_batch(ESTIMATE, batch, free, smallest=smallest)
        return
    found = fit_batch(ESTIMATE, batch, free, smallest=smallest)
    assert found.micro_batch == max(fitting)
    assert found.micro_batch * found.accumulate == batch
    assert bool(found.note) == (found.accumulate > 1)


def test_a_crop_that_does_not_fit_ends_in_advice() -> None:
    with pytest.raises(ConfigError) as caught:
        fit_batch(ESTIMATE, 4, 600)
    assert str(caught.value) == (
        "Training on one nested crop at a time needs about 0 MiB of memory, more than "
        "four fifths of the 0 MiB that are free. Take a smaller --crop or fewer "
        "--levels."
    )
    assert caught.value.field == "crop_size"


def test_passes_that_the_user_chose_are_taken() -> None:
    found = fit_batch(ESTIMATE, 16, 500, accumulate=4)
    assert (found.micro_batch, found.accumulate) == (4, 4)
    assert "4 crops a pass need about" in found.note
    assert fit_batch(ESTIMATE, 16, 10_000, accumulate=4).note == ""


def test_passes_that_are_far_too_large_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 nested crops .* Take more passes") as one:
        fit_batch(ESTIMATE, 16, 10, accumulate=4)
    assert one.value.field == "accumulate"
    with pytest.raises(ConfigError, match=r"one nested crop .* Take a smaller --crop"):
        fit_batch(ESTIMATE, 4, 10, accumulate=4)


def test_batch_norm_needs_two_values() -> None:
    one = dataclasses.replace(SMALL, crop_size=8)
    assert smallest_pass(one) == 2
    assert smallest_pass(SMALL) == 1
    changes: dict[str, Any] = {"context_skip": None, "level_heads": None}
    group = {"decoder": "pyramid", "pyramid_norm": "group", **changes}
    assert smallest_pass(dataclasses.replace(one, **group)) == 1


def test_a_run_is_split_by_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    network, device = MuViTSegmenter(SMALL), torch.device("cpu")
    needed = estimate_memory(network).total
    free = 0

    def answer(_device: object) -> int:
        return free

    monkeypatch.setattr(memory, "free_memory", answer)
    training = TrainingConfig(steps=1, batch_size=16)
    free = int(needed(16) / 0.79)
    plan = plan_memory(network, training, device)
    assert (plan.batch.micro_batch, plan.needed) == (16, needed(16))
    free = int(needed(8) / 0.79)
    plan = plan_memory(network, training, device)
    assert (plan.batch.accumulate, plan.needed) == (2, needed(8))
    assert "2 passes of 8 crops" in plan.batch.note
    # Two processes share the memory and the crops.
    two = dataclasses.replace(training, devices=2)
    assert plan_memory(network, two, device).batch.accumulate > 2
    forced = dataclasses.replace(training, accumulate=1)
    assert plan_memory(network, forced, device).batch.accumulate == 1
    free = int(needed(1) / 0.9)
    with pytest.raises(ConfigError, match="one nested crop"):
        plan_memory(network, training, device)


@pytest.mark.parametrize(
    ("variables", "there", "devices", "asked", "measured"),
    [
        ({}, 2, 2, "cuda", "cuda:0"),
        ({"LOCAL_RANK": "1"}, 2, 2, "cuda", "cuda:1"),
        ({"SLURM_LOCALID": "3", "SLURM_PROCID": "7"}, 4, 4, "cuda", "cuda:3"),
        # A scheduler that shows each process one GPU.
        ({"SLURM_LOCALID": "3"}, 1, 4, "cuda", "cuda:0"),
        ({"LOCAL_RANK": "1"}, 2, 1, "cuda:1", "cuda:1"),
        ({"LOCAL_RANK": "1"}, 2, 1, "cuda", "cuda"),
        ({"LOCAL_RANK": "1"}, 0, 2, "cpu", "cpu"),
    ],
)
def test_a_process_measures_the_memory_of_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], there: int,
    devices: int, asked: str, measured: str,
) -> None:  # fmt: skip
    # All of them asked for that of the first one.
    for name in ("LOCAL_RANK", "SLURM_LOCALID", "JSM_NAMESPACE_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seen: list[str] = []

    def answer(device: torch.device) -> int:
        seen.append(str(device))
        return 10**12

    monkeypatch.setattr(memory, "free_memory", answer)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    training = TrainingConfig(steps=1, batch_size=16, devices=devices)
    plan_memory(MuViTSegmenter(SMALL), training, torch.device(asked))
    assert seen == [measured]


def allocation_error() -> RuntimeError:
    """What torch raises on a CPU without that much memory."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    return caught.value


def test_errors_of_want_of_memory_become_advice() -> None:
    with pytest.raises(MemoryError) as caught:
        np.zeros(2**50)
    errors = [
        allocation_error(), caught.value, MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
    ]  # fmt: skip
    for error in errors:
        found = memory_advice(error, estimate=ESTIMATE, micro_batch=4)
        assert isinstance(found, ConfigError), error
        assert "\n" not in str(found)
        assert "at 4 crops a pass" in str(found)
        assert "a smaller --batch" in str(found)
        assert "fewer --levels" in str(found)
    alone = memory_advice(errors[0], estimate=ESTIMATE, micro_batch=1)
    assert "--batch" not in str(alone)
    assert "smaller --crop" in str(memory_advice(errors[0]))


def test_a_reader_that_was_killed_is_advice_too() -> None:
    text = "DataLoader worker (pid 71) is killed by signal: Killed. "
    found = memory_advice(RuntimeError(text))
    assert isinstance(found, ConfigError)
    assert found.field == "num_workers"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        AnnotationError("not enough memory"),
        KeyboardInterrupt(),
        RuntimeError("DataLoader worker (pid 71) exited unexpectedly with exit code 1"),
    ],
)
def test_other_errors_are_left_alone(error: BaseException) -> None:
    assert memory_advice(error, estimate=ESTIMATE, micro_batch=4) is None


def test_free_memory_of_this_machine() -> None:
    assert 0 < free_memory() <= psutil.virtual_memory().total
    assert free_memory("cpu") == pytest.approx(free_memory(torch.device("cpu")), 0.5)


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        dotted = name.replace("__", ".")
        (folder / dotted).write_text(f"{text}\n")


def left(tmp_path: Path, listing: str) -> list[int]:
    (tmp_path / "listing").write_text(listing)
    return free_memory_module._left_in_groups(tmp_path, tmp_path / "listing")


def test_limits_of_control_groups_version_2(tmp_path: Path) -> None:
    write(tmp_path / "slurm", memory__max=1000, memory__current=700,
          memory__stat="anon 5\ninactive_file 100\nactive_file 7")  # fmt: skip
    write(tmp_path / "slurm" / "job", memory__max="max", memory__current=600)
    assert left(tmp_path, "0::/slurm/job\n") == [400]
    write(tmp_path / "slurm" / "job", memory__max=650)
    assert left(tmp_path, "0::/slurm/job\n") == [50, 400]
    # Over its limit, as it may be for a moment.
    write(tmp_path / "slurm" / "job", memory__max=500)
    assert min(left(tmp_path, "0::/slurm/job\n")) == 0


def test_limits_of_control_groups_version_1(tmp_path: Path) -> None:
    write(tmp_path / "memory", memory__limit_in_bytes=2000, memory__usage_in_bytes=1500,
          memory__stat="cache 9\ntotal_inactive_file 300")  # fmt: skip
    # In a container the path is that outside of it.
    listing = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"
    assert left(tmp_path, listing) == [800]


def test_no_control_groups(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert free_memory_module._left_in_groups(tmp_path, missing) == []
    assert left(tmp_path, "0::/a\nwrong line\n7:cpu:/\n") == []
