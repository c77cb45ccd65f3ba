"""Speed and memory of the network against the authors' package, in one run.

Ours and theirs run in turn in one process, so that a busy neighbour slows both; a
figure is the least of a few repetitions of the process's CPU time (on a GPU: of the
device's time). Memory is that of one pass in a process of its own. Appends one JSON
line a pair to ``results/model_speed.jsonl`` and skips what is there, unless
``--again``; then writes ``docs/benchmarks/model.md`` and its plot.

    python benchmarks/model_speed.py [--threads 2] [--device cpu|cuda] [--again]
                                     [--report]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "model_speed.jsonl"
LEVELS = (1, 8, 32)
THREADS = 2


@dataclass(frozen=True)
class Case:
    """What is measured."""

    part: str
    """``encoder`` or ``mae``."""
    work: str
    """``forward``, ``step`` (forward and backward), or ``train`` (a training step:
    also the gradients clipped and AdamW, each as its package sets it up)."""
    precision: str
    """``float32``, ``bfloat16`` (autocast), ``tf32`` on a GPU."""
    edge: int = 256
    levels: int = 3
    batch: int = 1


def cases(device: str, growth: bool) -> list[Case]:
    """Return everything to be measured; ``growth``: with other sizes as well."""
    precisions = ["float32", "bfloat16"]
    batches = [1]
    if device == "cuda":
        precisions.insert(1, "tf32")
        batches = [1, 4, 16, 64]
    found = [
        Case(part, work, precision, batch=batch)
        for batch in batches
        for precision in precisions
        for part, work in (
            ("encoder", "forward"), ("encoder", "step"), ("mae", "train"),
        )
    ]  # fmt: skip
    sizes = [
        Case("encoder", "forward", "float32", edge, levels)
        for edge in (64, 128, 256, 384)
        for levels in (1, 2, 3)
        if (edge, levels) != (256, 3)
    ]
    return found + (sizes if growth else [])


def competitors(case: Case) -> list[str]:
    """Ours and theirs; and ours compiled, at the paper's size."""
    alone = case.work == "forward" and (case.edge, case.levels) == (256, 3)
    return ["theirs", "ours", *(["compiled"] if alone else [])]


def build(case: Case, who: str, device: str) -> Callable[[], Any]:
    """Return what runs the case once."""
    import torch

    factors = LEVELS[: case.levels]
    torch.manual_seed(0)
    module, run = (_theirs if who == "theirs" else _ours)(case, factors)
    module = module.to(device)
    if who == "compiled":
        module.compile()
    x = torch.rand(case.batch, case.levels, 1, case.edge, case.edge, device=device)
    boxes = torch.zeros(case.batch, case.levels, 2, 2, device=device)
    for level, factor in enumerate(factors):
        # Off centre, as crops lie.
        boxes[:, level, 0] = -0.3 * case.edge * (factor - 1)
        boxes[:, level, 1] = boxes[:, level, 0] + case.edge * factor
    bfloat16 = torch.autocast(
        device, torch.bfloat16, enabled=case.precision == "bfloat16"
    )
    if case.work == "forward":

        def forward() -> None:
            with torch.inference_mode(), bfloat16:
                run(module, x, boxes)

        return forward

    optimiser = torch.optim.AdamW(module.parameters(), 1e-4, fused=who != "theirs")

    def step() -> None:
        module.zero_grad()
        with bfloat16:
            found = run(module, x, boxes)
        found.float().square().mean().backward()
        if case.work == "train":
            torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            optimiser.step()

    return step


def _ours(case: Case, factors: tuple[int, ...]) -> tuple[Any, Callable[..., Any]]:
    from napari_muvit.core import ModelConfig, MuViTEncoder, MuViTMAE

    config = ModelConfig(scale_factors=factors)
    if case.part == "encoder":
        return MuViTEncoder(config), lambda module, x, boxes: module(x, boxes)
    return MuViTMAE(config), lambda module, x, boxes: module(x, boxes).loss


def _theirs(case: Case, factors: tuple[int, ...]) -> tuple[Any, Callable[..., Any]]:
    sizes = (1, factors, 8, 12, 512)
    if case.part == "encoder":
        from muvit.encoders import MuViTEncoder2d

        return MuViTEncoder2d(*sizes, 8), lambda module, x, boxes: module(x, boxes)[0]
    from muvit.mae import MuViTMAE2d

    return (
        MuViTMAE2d(*sizes, 2, 256, 8),
        lambda module, x, boxes: module(x, boxes)["loss"],
    )


def measure(case: Case, device: str, repeats: int) -> dict[str, Any]:
    """Time ours and theirs in turn, in this process."""
    import torch

    if case.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    row: dict[str, Any] = {
        **asdict(case),
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    runs = {who: build(case, who, device) for who in competitors(case)}
    for who, run in runs.items():
        began = time.perf_counter()
        run()
        row[f"{who}_first_seconds"] = round(time.perf_counter() - began, 2)
        row[f"{who}_attention"] = attention_kernels(run)
    best: dict[str, float] = {}
    for _ in range(repeats):
        for who, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            spent = {
                f"{who}_cpu_seconds": time.process_time() - cpu,
                f"{who}_seconds": time.perf_counter() - wall,
            }
            for name, value in spent.items():
                best[name] = min(best.get(name, value), value)
    return {**row, **{name: round(value, 4) for name, value in best.items()}}


def attention_kernels(run: Callable[[], Any]) -> list[str]:
    """Operators of one pass that compute attention: which kernel was chosen."""
    import torch

    with torch.profiler.profile() as profile:
        run()
    names = {event.key for event in profile.key_averages()}
    return sorted(n for n in names if "attention" in n.lower() or n == "_Blocked")


def cpu_name() -> str:
    """Name, family and widest instructions of this CPU, as far as they are known."""
    import torch

    found = getattr(torch.cpu, "get_capabilities", dict)()
    wide = [
        title
        for key, title in (
            ("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 BF16"),
            ("avx512_f", "AVX-512"), ("avx2", "AVX2"),
        )
        if found.get(key)
    ]  # fmt: skip
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    family = [line.split(":")[1].strip() for line in lines if "cpu family" in line]
    parts = [str(found.get("cpu_name", "CPU"))]
    parts += [f"family {family[0]}"] if family else []
    return ", ".join(parts + wide[:1])


def measure_memory(case: Case, who: str, device: str) -> dict[str, Any]:
    """Peak of one pass above what the process had before, MiB."""
    run = build(case, who, device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    if device == "cuda":
        import torch

        return {f"{who}_mib": round(torch.cuda.max_memory_allocated() / 2**20)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {f"{who}_mib": round((peak - before) / 1024)}


def in_own_process(case: Case, who: str, device: str, threads: int) -> dict[str, Any]:
    """Measure in a fresh process: the time of all, or the memory of one."""
    words = ["--case", json.dumps(asdict(case)), "--who", who, "--device", device]
    done = subprocess.run(
        [sys.executable, __file__, *words, "--threads", str(threads)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if done.returncode:
        sys.stderr.write(f"{case}: {done.stderr.strip().splitlines()[-1]}\n")
        return {}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def main() -> None:
    """Measure what is not there yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--case")
    parser.add_argument("--who", default="")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--report", action="store_true", help="write the page only")
    arguments = parser.parse_args()
    if arguments.case:
        case = Case(**json.loads(arguments.case))
        repeats = 6 if arguments.device == "cpu" else 20
        row = (
            measure_memory(case, arguments.who, arguments.device)
            if arguments.who
            else measure(case, arguments.device, repeats)
        )
        print(json.dumps(row))
        return
    RESULTS.parent.mkdir(exist_ok=True)
    if arguments.again:
        RESULTS.unlink(missing_ok=True)
    names = list(Case.__dataclass_fields__)
    known = [
        {k: row[k] for k in names}
        for row in read()
        if (row["device"] == "cpu") == (arguments.device == "cpu")
        and row["threads"] == arguments.threads
    ]
    # How it grows is measured with one number of threads.
    wanted = cases(arguments.device, growth=arguments.threads == THREADS)
    for case in [] if arguments.report else wanted:
        if asdict(case) in known:
            continue
        where = (arguments.device, arguments.threads)
        row = in_own_process(case, "", *where)
        for who in competitors(case):
            row |= in_own_process(case, who, *where)
        if f"{who}_mib" in row and "ours_seconds" in row:
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
    from model_speed_report import write_report

    write_report(read())


def read() -> list[dict[str, Any]]:
    """Return the rows of the results."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


if __name__ == "__main__":
    main()
