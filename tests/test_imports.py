"""What an import may bring along: checked in fresh interpreters."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import napari_muvit

GUI = ("PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui", "napari", "qtpy", "superqt")
HEAVY = ("lightning", "pytorch_lightning", "torch")

PACKAGE = Path(napari_muvit.__file__).parent


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(module: str, candidates: tuple[str, ...]) -> set[str]:
    """Return those of the candidates that ``import module`` loads."""
    return set(
        run_python(f"""
            import sys
            import {module}
            print(*(name for name in {candidates!r} if name in sys.modules))
        """).split()
    )


def core_modules() -> list[str]:
    paths = (path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))
    names = (".".join(path.with_suffix("").parts) for path in paths)
    names = (name.removesuffix(".__init__") for name in names)
    return sorted(n for n in names if n.startswith("napari_muvit.core"))


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def test_package_imports_nothing_heavy():
    assert not imported_by("napari_muvit", (*GUI, *HEAVY, "dask", "numpy", "zarr"))


def test_core_imports_torch_only_on_demand():
    assert not imported_by("napari_muvit.core", (*GUI, *HEAVY))


@pytest.mark.parametrize("name", ["errors", "config", "progress", "geometry"])
def test_foundations_are_torch_free(name: str):
    assert not imported_by(f"napari_muvit.core.{name}", (*GUI, *HEAVY))


@pytest.mark.parametrize("name", ["cli", "widgets", "_sample_data"])
def test_user_interfaces_start_without_torch(name: str):
    module = f"napari_muvit.{name}"
    if not has(module):
        pytest.skip(f"there is no {module}")
    assert not imported_by(module, HEAVY)


def test_core_modules_are_found():
    assert "napari_muvit.core" in core_modules()
    assert "napari_muvit.core.geometry" in core_modules()


def test_core_works_without_napari_and_qt():
    """Import every module of core where napari and Qt cannot be imported at all."""
    run_python(f"""
        import importlib
        import sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {GUI!r}:
                    raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

        sys.meta_path.insert(0, Blocker())
        for name in {core_modules()!r}:
            importlib.import_module(name)
    """)
