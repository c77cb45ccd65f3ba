"""A reader in a process of its own, with limits, for input that may do anything."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("reading_child.py")
MEMORY = 8 * 2**30
"""Address space, which threads and libraries take much of without using it."""
SECONDS = 30.0
"""A hang: the child ends, and says where it was."""
QUICK = 10.0
"""Any file here takes a tenth of it on a quiet machine."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file."""

    kind: str
    """read, refused, failed (another exception) or died (the process)."""
    message: str
    seconds: float = 0.0
    nbytes: int = 0
    """Memory taken while reading."""

    @property
    def is_clear(self) -> bool:
        """Read, or refused in one line."""
        return self.kind in ("read", "refused") and "\n" not in self.message

    @property
    def is_fine(self) -> bool:
        """The same, and soon, as it must be for a small file."""
        return self.is_clear and self.seconds < QUICK


class Reader:
    """Asks the child to read files; starts another one when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._errors: Any = None

    def read(self, path: Path) -> Outcome:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if line:
            return Outcome(**json.loads(line))
        process.wait()
        self._errors.seek(0)
        last = self._errors.read()[-3000:].decode(errors="replace")
        self.close()
        return Outcome("died", f"exit code {process.returncode}: {last}")

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
            self._process = subprocess.Popen(
                [sys.executable, CHILD, str(MEMORY), str(SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout, self._errors):
                pipe.close()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def reader():
    pytest.importorskip("resource", reason="limits of a process need Unix")
    reader = Reader()
    yield reader
    reader.close()
