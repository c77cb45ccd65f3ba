"""Probabilities and confidence beside the labels: right, everywhere, at any moment."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaozarrs
import zarr
from torch import Tensor, nn

from napari_muvit._reader import read_slides
from napari_muvit.core import open_pyramid
from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.zarr_writer import halve_labels, halve_mean
from napari_muvit.core.errors import ConfigError, OutputError
from napari_muvit.core.export.config import ExportConfig
from napari_muvit.core.export.run import export_prediction
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.prediction import predict, writer
from napari_muvit.core.prediction.shards import ShardWriter

Build = Callable[..., Any]
BOTH = ("probabilities", "confidence")
NAMES = ("labels", *BOTH)
SHAPE = (1091, 645)


class PixelModel(nn.Module):
    """Logits of a pixel follow from its value: a known softmax at every place."""

    def __init__(self, classes: int, **changes: Any) -> None:
        super().__init__()
        values = {"crop_size": 64, "scale_factors": (1,), "patch_size": 8}
        self.config = ModelConfig(
            num_classes=classes, normalisation="none", **(values | changes)
        )
        rng = np.random.default_rng(classes)
        table = rng.normal(size=(256, classes)).astype(np.float32) * 2
        self.table = nn.Parameter(torch.from_numpy(table))

    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        return self.table[x[:, 0, 0].round().long()].movedim(-1, 1)

    def answers(self, values: np.ndarray) -> np.ndarray:
        """255 times the softmax of each pixel, (K, h, w)."""
        logits = self.table.detach().double().numpy()[values]
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.moveaxis(255 * shares / shares.sum(axis=-1, keepdims=True), -1, 0)


def cpu(**changes: Any) -> PredictionConfig:
    values = {
        "tile_size": 256, "batch_size": 16, "device": "cpu", "overlap": 0.0,
        "num_threads": 1, "outputs": BOTH,
    }  # fmt: skip
    return PredictionConfig(**(values | changes))


def values_of(pyramid: Any) -> np.ndarray:
    return np.asarray(pyramid.levels[0].source.read((0, 0), pyramid.shape)[0])


def levels_of(out: Path, name: str) -> list[np.ndarray]:
    folder = out if name == "labels" else out / name
    count = sum(path.name.isdigit() for path in folder.iterdir())
    return [
        np.asarray(zarr.open_array(folder / str(k), mode="r")[:]) for k in range(count)
    ]


def files_of(out: Path) -> dict[str, bytes]:
    """All files of the store but those that name the run."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("run.json", "lock")
    }


@pytest.mark.parametrize(
    ("classes", "overlap", "shape"),
    [(5, 0.0, SHAPE), (5, 0.3, SHAPE), (1, 0.0, (257, 1030))],
)
def test_what_is_written_is_the_softmax_at_all_levels(
    slide: Build, tmp_path: Path, classes: int, overlap: float, shape: tuple[int, int]
) -> None:
    pyramid, model = slide(shape), PixelModel(classes)
    out = tmp_path / "out.zarr"
    tiles = list(predict(pyramid, model, cpu(overlap=overlap), out))
    found = {name: levels_of(out, name) for name in NAMES}
    expected = model.answers(values_of(pyramid))
    assert found["probabilities"][0].shape == (classes, *shape)
    # Half a step, and what float32 and the weights are off by.
    assert np.abs(found["probabilities"][0] - expected).max() < 0.51
    assert (found["confidence"][0] == found["probabilities"][0].max(axis=0)).all()
    assert (found["labels"][0] == expected.argmax(axis=0) + 1).all()
    for name, levels in found.items():
        assert len(levels) > 1
        halve = halve_labels if name == "labels" else halve_mean
        for finer, coarse in itertools.pairwise(levels):
            assert (coarse == halve(finer)).all()
    for tile in tiles:
        y0, x0, y1, x1 = tile.box
        for name in NAMES:
            there = found[name][0][..., y0:y1, x0:x1]
            assert (getattr(tile, name) == there).all()


def test_the_mean_of_an_odd_edge_is_of_the_pixels_that_exist(
    slide: Build, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    list(predict(slide((601, 515)), PixelModel(3), cpu(), out))
    fine, coarse = levels_of(out, "probabilities")[:2]
    assert coarse.shape == (3, 301, 258)
    pair = fine[:, 600, 10:12].astype(float).mean(axis=-1)
    assert (coarse[:, 300, 5] == np.rint(pair)).all()
    assert (coarse[:, 300, 257] == fine[:, 600, 514]).all()


def test_all_levels_are_right_at_any_moment(slide: Build, tmp_path: Path) -> None:
    run = predict(slide((1024, 768)), PixelModel(3), cpu(), tmp_path / "out.zarr")
    for tile in run:
        for name, image in run._writer.images.items():
            pixels, (y, x) = getattr(tile, name), tile.box[:2]
            for level in image.levels:
                h, w = pixels.shape[-2:]
                assert (level[..., y : y + h, x : x + w] == pixels).all()
                pixels, y, x = image.halve(pixels), y // 2, x // 2


def test_the_images_lie_over_the_slide_and_open_by_themselves(
    slide: Build, tmp_path: Path
) -> None:
    pyramid = slide((600, 700), pixel_size=(0.5, 0.5), translation=(3.0, 4.0))
    names, colors = ("fat", "gland", "stroma"), ("#ff0000", "#00ff00", "#0000ff")
    model = PixelModel(3, pixel_size=0.5, class_names=names, class_colors=colors)
    out = tmp_path / "a slide.zarr"
    list(predict(pyramid, model, cpu(), out))
    metadata = {
        name: yaozarrs.open_group(out / name).ome_metadata().multiscales[0]
        for name in ("", *BOTH)
    }
    for name in BOTH:
        yaozarrs.validate_zarr_store(out / name)
        for mine, labels in zip(
            metadata[name].datasets, metadata[""].datasets, strict=True
        ):
            assert mine.path == labels.path
            assert mine.scale_transform.scale[-2:] == labels.scale_transform.scale
            place = mine.translation_transform.translation[-2:]
            assert place == labels.translation_transform.translation
        for k in range(len(metadata[name].datasets)):
            chunks = zarr.open_array(out / name / str(k), mode="r").chunks
            labels = zarr.open_array(out / str(k), mode="r").chunks
            assert chunks == (*((1,) if name == "probabilities" else ()), *labels)
    opened = open_pyramid(out / "probabilities")
    assert opened.channel_names == names
    assert not opened.rgb  # three channels in red, green and blue
    assert (opened.pixel_size, opened.translation) == ((0.5, 0.5), (3.0, 4.0))
    assert open_pyramid(out / "confidence").num_channels == 1
    omero = json.loads((out / "probabilities" / "zarr.json").read_text())
    channels = omero["attributes"]["ome"]["omero"]["channels"]
    assert [c["color"] for c in channels] == ["FE0000", "00FF00", "0000FF"]
    assert channels[0]["window"]["end"] == 255

    layers = read_slides(str(out / "probabilities"))
    assert [kind for _, _, kind in layers] == ["image"] * 3
    assert [o["name"].split(": ")[-1] for _, o, _ in layers] == list(names)
    shown = np.asarray(layers[1][0][0][5:9, 600:610])
    assert (shown == levels_of(out, "probabilities")[0][1, 5:9, 600:610]).all()
    assert [kind for _, _, kind in read_slides(str(out / "confidence"))] == ["image"]
    assert [kind for _, _, kind in read_slides(str(out))] == ["labels"]
    assert open_pyramid(out, as_labels=True).num_channels == 1


def test_it_can_be_exported(slide: Build, tmp_path: Path) -> None:
    areas = []
    for outputs in ((), BOTH):
        out = tmp_path / f"{len(outputs)}.zarr"
        list(predict(slide((300, 300)), PixelModel(2), cpu(outputs=outputs), out))
        folder = tmp_path / f"export {len(outputs)}"
        areas.append(export_prediction(out, folder, ExportConfig()).table())
    assert areas[0] == areas[1]


def test_labels_are_the_same_with_and_without(slide: Build, tmp_path: Path) -> None:
    pyramid, model = slide((500, 600)), PixelModel(4)
    bytes_of = []
    for outputs in ((), ("confidence",), ("confidence", "probabilities")):
        out = tmp_path / f"{len(outputs)}.zarr"
        list(predict(pyramid, model, cpu(overlap=0.25, outputs=outputs), out))
        files = files_of(out)
        ours = {k for k in files if k.startswith(("prob", "conf"))}
        assert {k.split("/")[0] for k in ours} == set(outputs)
        bytes_of.append({k: v for k, v in files.items() if k not in ours})
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]


def test_pixels_of_another_size(slide: Build, tmp_path: Path) -> None:
    pyramid = slide((301, 402), pixel_size=(0.7, 0.7), translation=(0.0, 0.0))
    model = PixelModel(5, pixel_size=0.5)
    out = tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(tile_size=128), out))
    labels, probabilities, confidence = (levels_of(out, name)[0] for name in NAMES)
    assert probabilities.shape == (5, 301, 402)
    # Nearest: all of a pixel's outputs are those of one place.
    assert (confidence == probabilities.max(axis=0)).all()
    best = np.take_along_axis(probabilities, labels[None].astype(int) - 1, axis=0)
    assert (best[0] == confidence).all()
    known = np.unique(np.rint(model.answers(np.arange(4)[None])), axis=1)
    assert set(np.unique(probabilities)) <= set(known.astype(int).ravel())


def test_not_a_number_is_zero_in_all_of_them(slide: Build, tmp_path: Path) -> None:
    pyramid, model = slide((300, 280)), PixelModel(3)
    with torch.no_grad():
        model.table[2, 1] = torch.nan
    for overlap in (0.0, 0.3):
        out = tmp_path / f"{overlap}.zarr"
        list(predict(pyramid, model, cpu(overlap=overlap), out))
        wrong = values_of(pyramid) == 2
        for name in NAMES:
            planes = levels_of(out, name)[0].reshape(-1, *pyramid.shape)
            zero = (planes == 0).all(axis=0)
            assert (zero == wrong).all()


def test_other_outputs_than_the_stored_ones_are_refused(
    slide: Build, tmp_path: Path
) -> None:
    pyramid, model, out = slide((300, 300)), PixelModel(2), tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(outputs=("confidence",)), out))
    with pytest.raises(OutputError, match="holds labels and confidence, but labels al"):
        predict(pyramid, model, cpu(outputs=()), out)
    with pytest.raises(OutputError, match="but labels and confidence and probabilitie"):
        predict(pyramid, model, cpu(), out)
    again = cpu(outputs=("confidence",))
    assert predict(pyramid, model, again, out).finished_before
    # A prediction of an earlier version says nothing of outputs: labels alone.
    list(predict(pyramid, model, cpu(overwrite=True, outputs=()), out))
    assert not (out / "confidence").exists()
    record = json.loads((out / ".muvit" / "run.json").read_text())
    del record["outputs"]
    (out / ".muvit" / "run.json").write_text(json.dumps(record))
    assert predict(pyramid, model, cpu(outputs=()), out).finished_before


def test_a_lost_image_is_said(slide: Build, tmp_path: Path) -> None:
    pyramid, model, out = slide((600, 300)), PixelModel(2), tmp_path / "out.zarr"
    list(predict(pyramid, model, cpu(), out))
    shutil.rmtree(out / "confidence" / "1")
    with pytest.raises(OutputError, match="is damaged; overwrite it"):
        predict(pyramid, model, cpu(), out)
    for level in (out / "confidence").glob("[0-9]"):
        shutil.rmtree(level)
    with pytest.raises(OutputError, match="is damaged; overwrite it"):
        predict(pyramid, model, cpu(), out)
    shutil.rmtree(out / "confidence")
    with pytest.raises(OutputError, match="is damaged; overwrite it"):
        predict(pyramid, model, cpu(), out)


def test_what_can_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="list of probabilities or confidence"):
        cpu(outputs=("entropy",))
    with pytest.raises(ConfigError, match="name it once"):
        cpu(outputs=("confidence", "confidence"))
    assert PredictionConfig.from_dict(cpu().to_dict()) == cpu()


@pytest.fixture
def whole(slide: Build, tmp_path: Path) -> dict[str, bytes]:
    """The files of a run without a break."""
    out = tmp_path / "whole.zarr"
    list(predict(slide(SHAPE), PixelModel(3), cpu(overlap=0.25), out))
    return files_of(out)


def test_a_region_then_the_whole(
    slide: Build, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out, model = tmp_path / "out.zarr", PixelModel(3)
    regions = ((300, 300, 600, 600), (900, 0, 901, 1), None)
    for region in regions:
        config = cpu(overlap=0.25, region=region)
        list(predict(slide(SHAPE), model, config, out))
    assert files_of(out) == whole


@pytest.mark.parametrize("after", [1, 3])
def test_a_kill_between_chunk_and_mark(
    slide: Build,
    tmp_path: Path,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    """As if the process had died: after some of a tile's images, or all of them."""
    out, model, written = tmp_path / "out.zarr", PixelModel(3), []
    write = writer.write_levels

    def die(*args: Any) -> None:
        write(*args)
        written.append(1)
        if len(written) == 3 * 4 + after:
            raise OSError("killed")

    monkeypatch.setattr(writer, "write_levels", die)
    # A killed process flushes nothing.
    monkeypatch.setattr(writer.LabelWriter, "flush", lambda self: None)
    with pytest.raises(OutputError, match="killed"):
        list(predict(slide(SHAPE), model, cpu(overlap=0.25), out))
    monkeypatch.undo()
    assert (out / ".muvit" / "done").read_bytes().count(b"\x01") == 4
    run = predict(slide(SHAPE), model, cpu(overlap=0.25), out)
    assert len(list(run)) == 15 - 4
    assert files_of(out) == whole


def test_shards_write_the_bytes_of_one(
    slide: Build,
    tmp_path: Path,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = PixelModel(3)
    out = tmp_path / "out.zarr"
    for shard in (1, 0, 2):
        config = cpu(overlap=0.25, shard=(shard, 3))
        list(predict(slide(SHAPE), model, config, out))
    assert files_of(out) == whole
    # The last one is killed before the coarse levels: a plain run makes them.
    out = tmp_path / "again.zarr"
    monkeypatch.setattr(ShardWriter, "close", lambda self: None)
    runs = [
        predict(slide(SHAPE), model, cpu(overlap=0.25, shard=(k, 2)), out)
        for k in range(2)
    ]
    for run in runs:
        list(run)
        run._target._lock.release()
    monkeypatch.undo()
    assert files_of(out) != whole
    assert predict(slide(SHAPE), model, cpu(overlap=0.25), out).finished_before
    assert files_of(out) == whole


def test_workers_write_the_bytes_of_one(zarr_slide: Build, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        decoder="pyramid", scale_factors=(1, 4), num_classes=3, crop_size=32,
        embed_dim=16, depth=1, num_heads=2, normalisation="percentile",
    )  # fmt: skip
    save_model(build_model(config), tmp_path / "model")
    pyramid = zarr_slide((260, 330))
    found, tiles = [], []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.zarr"
        settings = cpu(overlap=0.25, tile_size=64, workers=workers)
        tiles.append(list(predict(pyramid, tmp_path / "model", settings, out)))
        found.append(files_of(out))
    assert found[0] == found[1]
    one, two = ({t.index: t for t in each} for each in tiles)
    assert one.keys() == two.keys()
    for index, tile in one.items():
        for name in NAMES:
            assert (getattr(tile, name) == getattr(two[index], name)).all()
