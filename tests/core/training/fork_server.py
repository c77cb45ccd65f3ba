"""Runs trainings in processes of their own, without loading torch for each of them.

Reads a JSON line a job, forks, and answers with a JSON line: first the number of the
process, then how it ended. Nothing here knows of pytest.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import sys
import traceback
from typing import Any

import numpy as np

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import Cancelled, MuvitError
from napari_muvit.core.training import finetune, pretrain


def count_file_operations(crash_at: int, log: str) -> None:
    """Note every change of the disk; die in the midst of, or before, one of them."""
    done = 0

    def count(name: str, path: Any) -> None:
        nonlocal done
        done += 1
        with open(log, "a") as file:
            file.write(f"{done} {name} {path}\n")
        if done == crash_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def outer(*arguments: Any, **named: Any) -> Any:
            count(name, arguments[0])
            return inner(*arguments, **named)

        setattr(owner, name, outer)

    for name in ("replace", "unlink", "mkdir", "rmdir", "rename"):
        wrap(pathlib.Path, name)
    wrap(os, "fsync")
    wrap(shutil, "rmtree")


def run(job: dict[str, Any]) -> int:
    image, labels = (np.load(job["data"])[name] for name in ("image", "labels"))
    model = ModelConfig.from_dict(job["model"])
    config = TrainingConfig.from_dict(job["config"])
    options = {"model": model, "out": job["out"], **job.get("options", {})}
    if job.get("operations"):
        count_file_operations(job.get("crash_at", 0), job["operations"])
    try:
        if job["kind"] == "pretrain":
            pretrain([image], config, **options)
        else:
            finetune([image], [labels], config, **options)
    except Cancelled as stop:
        sys.stderr.write(f"{stop}\n")
        return 130
    except MuvitError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return 0


def child(job: dict[str, Any]) -> None:
    code = 1
    try:
        file = os.open(job["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = run(job)
    except BaseException:  # noqa: BLE001 - a forked process must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(job)
        sys.stdout.write(json.dumps({"pid": pid}) + "\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        sys.stdout.write(json.dumps({"code": code}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
