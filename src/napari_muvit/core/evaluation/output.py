"""A result as files: JSON for programs, Markdown and a plot for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..data.outputs import check_place
from ..errors import OutputError
from ..figures import save_png
from ..files import write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Result(Protocol):
    """An `Evaluation`, or what a probe found."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        ...

    def markdown(self) -> str:
        """Return a Markdown page."""
        ...

    def figure(self) -> Figure:
        """Return a plot."""
        ...


def check_folder(folder: str | Path, overwrite: bool = False) -> None:
    """Refuse a folder that holds something; nothing is made.

    Raises
    ------
    OutputError
        If there is a file in its place, or it holds files and ``overwrite`` is False.
    """
    folder = Path(folder)
    check_place(folder, "the results")
    if folder.is_dir() and not overwrite and any(folder.iterdir()):
        raise OutputError(
            f"{folder} holds files already; choose another folder, or pass --overwrite."
        )


def write_result(
    result: Result,
    folder: str | Path,
    *,
    name: str = "probe",
    overwrite: bool = False,
) -> tuple[Path, Path, Path]:
    """Write ``NAME.json``, ``NAME.md`` and ``NAME.png``.

    Parameters
    ----------
    result
        An `Evaluation`, or what a probe found.
    folder
        Made if needed.
    name
        Of the files.
    overwrite
        Write into a folder that holds files, and replace those of the name; others are
        left alone.

    Returns
    -------
    tuple of Path
        The three files.

    Raises
    ------
    OutputError
        If the folder holds files, or cannot be written.
    """
    check_folder(folder, overwrite)
    folder = Path(folder)
    return (
        write_json(folder / f"{name}.json", result.to_dict()),
        write_text(folder / f"{name}.md", result.markdown()),
        save_png(result.figure(), folder / f"{name}.png"),
    )
