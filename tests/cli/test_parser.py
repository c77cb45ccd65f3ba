"""What is wrong on the command line is one line that names the right help."""

from __future__ import annotations

import pytest

from napari_muvit._commands.parser import build_parser


@pytest.mark.parametrize(
    ("words", "help_of"),
    [
        (["pretrain", "a", "--labels", "x", "--out", "m"], "napari-muvit pretrain"),
        (["probe", "mae", "a", "--model", "m", "--labelz"], "napari-muvit probe mae"),
        (["teach"], "napari-muvit"),
    ],
)
def test_a_mistake_names_the_help_of_its_subcommand(
    words: list[str], help_of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{help_of}: ")
    assert said.endswith(f"(see {help_of} --help)\n")
    assert said.count("\n") == 1
