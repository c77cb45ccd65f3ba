"""The ``evaluate`` command: its files, several slides, labels in stacks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_muvit.cli import main
from napari_muvit.core.data.annotations import Annotations, Polygon
from napari_muvit.core.data.geojson import write_geojson
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.evaluation import evaluate


def labels(seed: int, shape: tuple[int, ...] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 3, shape).astype(np.uint8)


@pytest.fixture
def prediction(tmp_path: Path) -> Path:
    path = tmp_path / "p.zarr"
    write_pyramid(path, labels(0), labels=True, pixel_size=(0.5, 0.5),
                  class_names=["background", "gland"])  # fmt: skip
    return path


def test_several_slides_and_all_files(
    tmp_path: Path, prediction: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", labels(1))
    tifffile.imwrite(tmp_path / "b.tif", labels(0))
    files = [str(tmp_path / "new" / f"s.{end}") for end in ("json", "md", "png")]
    code = main([
        "evaluate", "--prediction", str(prediction), str(prediction),
        "--labels", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"),
        "--json", files[0], "--markdown", files[1], "--plot", files[2],
    ])  # fmt: skip
    assert code == 0
    said = capsys.readouterr().out
    found = evaluate([prediction] * 2, [tmp_path / "a.tif", tmp_path / "b.tif"])
    assert said.startswith(found.slide_table())
    assert said.rstrip().endswith(found.table())
    assert json.loads(Path(files[0]).read_text()) == found.to_dict()
    assert Path(files[1]).read_text() == found.markdown()
    with Image.open(files[2]) as image:
        assert image.width > 400
    assert [slide.mdice for slide in found.slides][1] == 1.0


def test_a_folder_gets_all_three_files(
    prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", labels(1))
    tifffile.imwrite(tmp_path / "b.tif", labels(0))
    out = tmp_path / "my scores ä"
    files = [
        "evaluate", "--prediction", str(prediction), str(prediction), "--labels",
        str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), "--out", str(out),
    ]  # fmt: skip
    assert main(files) == 0
    names = [f"evaluation.{end}" for end in ("json", "md", "png")]
    assert sorted(p.name for p in out.iterdir()) == names
    page = (out / "evaluation.md").read_text()
    (line,) = [line for line in page.splitlines() if "lowest mDSC" in line]
    assert line.endswith("p (1)")
    (out / "mine.txt").write_text("x")
    assert main(files) == 2
    assert "holds files already" in capsys.readouterr().err
    assert main([*files, "--overwrite"]) == 0
    assert (out / "mine.txt").read_text() == "x"


def test_one_slide_has_no_table_of_slides(
    prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", labels(1))
    files = ["--prediction", str(prediction), "--labels", str(tmp_path / "a.tif")]
    assert main(["evaluate", *files]) == 0
    assert capsys.readouterr().out.split()[:2] == ["label", "class"]


def test_labels_in_a_stack(
    prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = np.stack([labels(1), labels(2), labels(0)])
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "ZYX"})
    files = [
        "evaluate", "--prediction", str(prediction),
        "--labels", str(tmp_path / "a.ome.tif"), "--json", str(tmp_path / "a.json"),
    ]  # fmt: skip
    assert main([*files, "--plane", "z=2"]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["mDSC"] == 1.0
    # Nobody said which one: the first is taken, and that is said.
    assert main(files) == 0
    said = capsys.readouterr()
    assert json.loads((tmp_path / "a.json").read_text())["mDSC"] < 0.7
    assert "z is fixed at the first of 3" in said.err
    assert main([*files, "--plane", "z=3"]) == 2
    assert "z" in capsys.readouterr().err.splitlines()[-1]


def test_labels_inside_another_file(prediction: Path, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(labels(1, (30, 30)), metadata={"Name": "other"})
        file.write(labels(0), metadata={"Name": "mine"})
    files = ["--prediction", str(prediction), "--labels", str(tmp_path / "two.tif")]
    out = tmp_path / "a.json"
    assert main(["evaluate", *files, "--image", "1", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["mDSC"] == 1.0


def test_outlines_of_one_plane(prediction: Path, tmp_path: Path) -> None:
    square = np.array([(0, 0), (0, 20), (20, 20), (20, 0)])
    path = tmp_path / "a.geojson"
    write_geojson(Annotations((Polygon(2, square),), ("background", "gland")), path)
    content = json.loads(path.read_text())
    content["features"][0]["geometry"]["plane"] = {"c": -1, "z": 4, "t": 0}
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=r"in the outlines a\.geojson no pixel"):
        evaluate(prediction, path)
    assert evaluate(prediction, path, planes={"z": 4}).pixels == (0, 400)


@pytest.mark.parametrize("factor", [2, 0.5])
@pytest.mark.parametrize("zero", [False, True])
def test_labels_with_pixels_of_another_size(
    prediction: Path, tmp_path: Path, factor: float, zero: bool
) -> None:
    shape = (round(48 / factor), round(64 / factor))
    coarse = labels(3, shape) - zero
    path = tmp_path / "other.zarr"
    write_pyramid(path, coarse, labels=True, pixel_size=(0.5 * factor,) * 2)
    fine = np.kron(coarse, np.ones((2, 2), np.uint8))
    if factor < 1:
        # The pixel under the centre; of four around it the last one.
        fine = coarse[1::2, 1::2]
    found = evaluate(prediction, path, zero_is_background=zero)
    wanted = evaluate(prediction, fine, zero_is_background=zero,
                      class_names=("background", "gland"))  # fmt: skip
    np.testing.assert_array_equal(found.confusion, wanted.confusion)


def test_a_dry_run_says_what_would_be_compared(
    prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", labels(1))
    out = tmp_path / "a.json"
    files = [
        "evaluate", "--prediction", str(prediction), "--labels",
        str(tmp_path / "a.tif"), "--json", str(out), "--dry-run",
    ]  # fmt: skip
    assert main(files) == 0
    said = capsys.readouterr().out
    for part in ("p: 48 x 64 px", "against the label image a", "2 gland",
                 "leaves out background", "3,072 pixels of 1 slide",
                 "Nothing was compared"):  # fmt: skip
        assert part in said
    assert not out.exists()
    # The checks are those of the real run.
    assert main([*files, "--background", "glnd"]) == 2
    assert "glnd" in capsys.readouterr().err
    assert main([*files, "--background", "gland"]) == 0
    assert "leaves out gland" in capsys.readouterr().out


MISTAKES = {
    "another field": (["--labels", "{tmp}/wide.zarr"], "cover different ones"),
    "unknown size": (["--labels", "{tmp}/wide.tif"], "or a pixel size of both"),
    "not a plot": (["--labels", "{tmp}/a.tif", "--plot", "{tmp}/a.pdf"], "with .png"),
    "one file": (
        ["--labels", "{tmp}/a.tif", "--json", "{tmp}/x", "--markdown", "{tmp}/x"],
        "different files",
    ),
    "a folder": (["--labels", "{tmp}/a.tif", "--json", "{tmp}"], "is a folder"),
    "below a file": (
        ["--labels", "{tmp}/a.tif", "--markdown", "{tmp}/a.tif/b.md"],
        "a.tif is a file",
    ),
    "what is compared": (
        ["--labels", "{tmp}/a.tif", "--json", "{tmp}/./a.tif"],
        "is compared",
    ),
    "inside the prediction": (
        ["--labels", "{tmp}/a.tif", "--json", "{tmp}/p.zarr/x.json"],
        "is an image",
    ),
    "no plane": (["--labels", "{tmp}/a.tif", "--plane", "z=4"], "no axis 'z'"),
    "no image": (["--labels", "{tmp}/a.tif", "--image", "7"], "7"),
    "wrong plane": (["--labels", "{tmp}/a.tif", "--plane", "z"], "--plane is 'z'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(
    name: str, prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", labels(1))
    tifffile.imwrite(tmp_path / "wide.tif", labels(1, (48, 90)))
    wide = labels(1, (48, 90))
    write_pyramid(tmp_path / "wide.zarr", wide, labels=True, pixel_size=(0.5, 0.5))
    words, expected = MISTAKES[name]
    given = [word.format(tmp=tmp_path) for word in words]
    assert main(["evaluate", "--prediction", str(prediction), *given]) == 2
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    (line,) = [line for line in lines if line.startswith("napari-muvit:")]
    assert expected in line
