"""How slides are read, by the command: --image, --plane, --channels, --pixel-size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_muvit.cli import main
from napari_muvit.core.data.open import open_labels, open_pyramid


def test_info_says_what_a_file_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = np.zeros((3, 2, 64, 80), np.uint16)
    stack[2, 1] = 9
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(
        path, stack,
        metadata={"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}},
    )  # fmt: skip
    reading = ["--plane", "z=2", "--channels", "GFP,0", "--pixel-size", "0.5"]
    assert main(["info", str(path), *reading]) == 0
    said = capsys.readouterr().out
    for line in (
        "store: TIFF", "axes: z 3, c 2, y 64, x 80", "planes: z 2",
        "channel names: GFP, DAPI", "pixel size: 0.5, 0.5", "note: z is 2 of 0 to 2",
    ):  # fmt: skip
        assert line in said
    assert main(["info", str(path), *reading, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["axes"] == {"z": 3, "c": 2, "y": 64, "x": 80}
    assert facts["planes"] == {"z": 2}
    out = tmp_path / "plane.zarr"
    assert main(["convert", str(path), str(out), *reading]) == 0
    capsys.readouterr()
    plane = open_pyramid(out)
    assert plane.channel_names == ("GFP", "DAPI")
    assert plane.levels[0].source.read([0, 0], [1, 1]).ravel().tolist() == [9, 0]


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (["--plane", "z"], "--plane is 'z'"),
        (["--plane", "z=-1"], "--plane is 'z=-1'"),
        (["--plane", "z=0,z=1"], "--plane is 'z=0,z=1'"),
        (["--plane", "z=4"], "no axis 'z'"),
        (["--image", "B/03"], "B/03"),
        (["--channels", "DAPI"], "no channel 'DAPI'"),
    ],
)
def test_a_wrong_choice_is_one_line(
    tmp_path: Path,
    reading: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image, out = tmp_path / "rgb.tif", tmp_path / "out.zarr"
    tifffile.imwrite(image, np.zeros((40, 50, 3), np.uint8))
    for command in (["info", str(image)], ["convert", str(image), str(out)]):
        assert main([*command, *reading]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_labels_of_a_stack_are_read_at_the_plane_of_its_image(tmp_path: Path) -> None:
    stack = np.arange(3, dtype=np.uint8).repeat(64 * 80).reshape(3, 64, 80)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "flat.tif", stack[1])
    image = open_pyramid(tmp_path / "a.ome.tif", planes={"z": 2})
    for name, value in (("a.ome.tif", 2), ("flat.tif", 1)):
        labels = open_labels(tmp_path / name, image)
        assert labels.levels[0].source.read([0, 0], [1, 1]).item() == value
