"""Slides as napari layers, and from the layers back to the core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Image, Labels, Layer
from npe2 import PluginManifest

from napari_muvit import _reader
from napari_muvit._layers import layer_pyramid
from napari_muvit._level_view import LevelView
from napari_muvit._reader import get_reader, read_slides
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.zarr_writer import (
    create_label_pyramid,
    create_score_pyramid,
    write_pyramid,
)
from napari_muvit.core.errors import PyramidError
from napari_muvit.core.files import write_json
from napari_muvit.core.geometry import Box

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def layers(path: Path) -> list[Layer]:
    return [Layer.create(*data) for data in read_slides(str(path))]


def test_the_manifest_names_the_reader(tmp_path: Path) -> None:
    manifest = PluginManifest.from_distribution("napari-muvit")
    readers = manifest.contributions.readers or []
    (reader,) = [r for r in readers if r.command == "napari-muvit.read"]
    assert {"*.svs", "*.zarr", "*.tif"} <= set(reader.filename_patterns)
    assert reader.accepts_directories
    assert get_reader(str(tmp_path / "no.svs")) is None


def test_a_pyramid_of_rgb(tmp_path: Path) -> None:
    pixels = noise(300, 400, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
        file.write(pixels, subifds=1, resolution=(20000, 20000),
                   resolutionunit="CENTIMETER", **options)  # fmt: skip
        file.write(pixels[::2, ::2], subfiletype=1, **options)
    (layer,) = layers(tmp_path / "a.tif")
    assert isinstance(layer, Image)
    assert layer.rgb
    assert layer.multiscale
    np.testing.assert_allclose(layer.scale, 0.5)
    np.testing.assert_array_equal(layer.data[0][10:20, 5:9], pixels[10:20, 5:9])
    back = layer_pyramid(layer)
    assert back.rgb
    assert back.path == tmp_path / "a.tif"
    box = Box((20, 30), (84, 94))
    np.testing.assert_array_equal(
        back.read(box, 2, (32, 32)),
        open_pyramid(tmp_path / "a.tif").read(box, 2, (32, 32)),
    )


def test_channels_are_layers_of_their_own(tmp_path: Path) -> None:
    pixels = noise(2, 120, 150)
    write_pyramid(tmp_path / "a.zarr", pixels, channel_names=["DAPI", "actin"],
                  pixel_size=0.4, translation=(3.0, 5.0))  # fmt: skip
    found = layers(tmp_path / "a.zarr")
    assert [layer.name for layer in found] == ["a: DAPI", "a: actin"]
    for number, layer in enumerate(found):
        np.testing.assert_allclose(layer.translate, (3, 5))
        back = layer_pyramid(layer)
        assert back.num_channels == 1
        assert back.pixel_size == pytest.approx((0.4, 0.4))
        got = back.read(Box((0, 0), (40, 40)), 1, (40, 40))
        np.testing.assert_array_equal(got[0], pixels[number, :40, :40])


def test_a_stack_keeps_its_sliders(tmp_path: Path) -> None:
    pixels = noise(3, 4, 50, 60)
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    array = group.create_array(
        "0", shape=pixels.shape, chunks=(1, 1, 32, 32), dtype="u1",
        dimension_names=("t", "z", "y", "x"),
    )  # fmt: skip
    array[:] = pixels
    (layer,) = layers(tmp_path / "s.zarr")
    assert layer.ndim == 4
    np.testing.assert_array_equal(layer.data[2, 1], pixels[2, 1])
    np.testing.assert_array_equal(np.asarray(layer.data), pixels)
    back = layer_pyramid(layer, point=(1, 3, 0, 0))
    got = back.read(Box((0, 0), (50, 60)), 1, (50, 60))
    np.testing.assert_array_equal(got[0], pixels[1, 3])


def test_a_label_image_is_a_labels_layer(tmp_path: Path) -> None:
    labels = noise(90, 90) % 3
    classes = {"class_names": ["a", "b"], "class_colors": ["#ff0000", "#00ff00"]}
    write_pyramid(tmp_path / "l.zarr", labels, labels=True, **classes)
    (layer,) = layers(tmp_path / "l.zarr")
    assert isinstance(layer, Labels)
    assert list(layer.features["class"]) == ["not annotated", "a", "b"]
    np.testing.assert_allclose(layer.get_color(2)[:3], (0, 1, 0))


def test_levels_with_fewer_planes_and_the_step_between_planes(tmp_path: Path) -> None:
    pixels = noise(4, 64, 64)
    group = zarr.open_group(tmp_path / "z.zarr", mode="w")
    datasets = []
    for level in range(3):
        part = pixels[:: 2**level, :: 2**level, :: 2**level]
        group.create_array(str(level), data=part)
        scale = [2.0 * 2**level, 0.5 * 2**level, 0.5 * 2**level]
        transform = {"type": "scale", "scale": scale}
        datasets.append({"path": str(level), "coordinateTransformations": [transform]})
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    multiscale = {"axes": axes, "datasets": datasets, "name": "z"}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    (layer,) = layers(tmp_path / "z.zarr")
    assert [v.shape for v in layer.data] == [(4, 64, 64), (2, 32, 32), (1, 16, 16)]
    np.testing.assert_allclose(layer.scale, (2, 0.5, 0.5))
    back = layer_pyramid(layer, point=(6, 0, 0))
    assert back.note == "The plane on screen is used (z = 3)."
    got = back.read(Box((0, 0), (64, 64)), 2, (32, 32))
    np.testing.assert_array_equal(got[0], pixels[2, ::2, ::2])


def test_a_large_flat_slide_is_never_shown_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reader, "SHOWN_WHOLE", 100**2)
    monkeypatch.setattr(_reader, "OVERVIEW", 32**2)
    pixels = noise(240, 320, 3)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(64, 64))
    (layer,) = layers(tmp_path / "a.tif")
    shapes = [(240, 320, 3), (60, 80, 3), (15, 20, 3)]
    assert [view.shape for view in layer.data] == shapes
    want = np.rint(pixels.reshape(60, 4, 80, 4, 3).mean(axis=(1, 3)))
    np.testing.assert_array_equal(layer.data[1][3:20, 5:], want[3:20, 5:])
    # The core reads what is in the file.
    assert layer_pyramid(layer).scale_factors == (1,)


def test_colours_that_are_no_bytes(tmp_path: Path) -> None:
    pixels = noise(40, 50, 3).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    found = layers(tmp_path / "a.tif")
    assert [layer.name for layer in found] == ["a: Red", "a: Green", "a: Blue"]
    assert [layer.colormap.name for layer in found] == ["red", "green", "blue"]


def test_several_files_at_once(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{k}.tif") for k in range(2)]
    for path in paths:
        tifffile.imwrite(path, noise(30, 30))
    reader = get_reader(paths)
    assert reader is not None
    found = reader(paths)
    assert [options["name"] for _, options, _ in found] == ["0", "1"]
    assert [options["metadata"]["path"] for _, options, _ in found] == paths


def test_labels_without_names(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "l.zarr", noise(90, 90) % 3, labels=True)
    (layer,) = layers(tmp_path / "l.zarr")
    assert isinstance(layer, Labels)


@pytest.mark.parametrize(
    "key",
    [
        (3,), (slice(2, 9), slice(None)), (slice(None, None, 3), 4), (Ellipsis, 5),
        (-1, slice(-4, None)), ([1, 5, 2], slice(0, 3)), (slice(8, 2, -2),),
        (slice(5, 5), slice(None)), (np.int64(2), np.int64(3)),
    ],
    ids=str,
)  # fmt: skip
def test_a_level_is_sliced_as_numpy_slices(key: tuple[object, ...]) -> None:
    pixels = noise(20, 30)
    view = LevelView(open_pyramid(pixels).levels[0], 0)
    assert view.ndim == 2
    assert view.size == 600
    np.testing.assert_array_equal(view[key], pixels[key])


def test_what_is_no_slide_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"nothing")
    reader = get_reader(str(tmp_path / "a.svs"))
    assert reader is not None
    with pytest.raises(PyramidError, match="no image"):
        reader(str(tmp_path / "a.svs"))
    with pytest.raises(PyramidError, match="a new Labels layer"):
        LevelView(open_pyramid(noise(4, 4)).levels[0], 0)[1, 1] = 2
    with pytest.raises(IndexError):
        LevelView(open_pyramid(noise(4, 4)).levels[0], 0)[9]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real files are not here")
def test_every_real_file_is_a_layer() -> None:
    refused = []
    paths = [p for kind in ("wsi", "omezarr") for p in sorted((DATA / kind).iterdir())]
    paths += sorted(DATA.glob("*/*_image.tif"))[::20]
    for path in paths:
        try:
            found = layers(path)
        except PyramidError:
            refused.append(path.name)
            continue
        for layer in found:
            level = layer.data[-1] if layer.multiscale else layer.data
            lead = level.ndim - 3 if layer.rgb else level.ndim - 2
            assert np.asarray(level[(0,) * lead]).size
    assert refused == ["broken.svs", "small_dicom.dcm"]


def test_scores_of_a_prediction_are_shown_from_0_to_255(tmp_path: Path) -> None:
    """By percentiles, a model that is never sure looked as sure as any."""
    pixels = np.full((64, 64), 90, np.uint8)
    pixels[:32] = 100
    image = open_pyramid(pixels)
    store = tmp_path / "a_muvit.zarr"
    classes = ["stroma", "tumour"], ["#112233", "#ff8800"]
    create_label_pyramid(store, image, *classes, 64)
    write_json(store / ".muvit" / "run.json", {"outputs": ["confidence"]})
    create_score_pyramid(store / "confidence", image)[0][:] = pixels
    create_score_pyramid(store / "probabilities", image, *classes)[0][:] = np.stack(
        [pixels] * 2
    )
    (confidence,) = layers(store / "confidence")
    assert isinstance(confidence, Image)
    assert confidence.contrast_limits == [0, 255]
    found = layers(store / "probabilities")
    assert [layer.contrast_limits for layer in found] == [[0, 255]] * 2
    assert [layer.name.split(": ")[1] for layer in found] == classes[0]
    np.testing.assert_allclose(
        found[1].colormap.map(1.0)[0], (1, 8 / 15, 0, 1), 0, 0.01
    )
    (labels,) = layers(store)
    assert isinstance(labels, Labels)


def test_channels_look_as_the_file_says(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.zarr", noise(2, 80, 90), channel_names=["x", "y"])
    # Our writer says white for all, which would not tell them apart.
    before = [layer.colormap.name for layer in layers(tmp_path / "a.zarr")]
    assert before == ["cyan", "magenta"]
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    ome = dict(group.attrs["ome"])
    window = {"start": 7, "end": 70}
    ome["omero"] = {"channels": [{"color": c, "window": window, "label": "d"}
                                 for c in ("0000FF", "00FF00")]}  # fmt: skip
    group.attrs["ome"] = ome
    first, second = layers(tmp_path / "a.zarr")
    assert first.contrast_limits == [7, 70]
    np.testing.assert_allclose(first.colormap.map(1.0)[0], (0, 0, 1, 1))
    np.testing.assert_allclose(second.colormap.map(1.0)[0], (0, 1, 0, 1))


def test_a_folder_that_is_no_slide_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("a")
    assert get_reader(str(tmp_path / "photos")) is None
    (tmp_path / "photos" / "a.dcm").write_bytes(b"")
    assert get_reader(str(tmp_path / "photos")) is not None


def test_the_one_channel_of_a_file_has_its_colour(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.zarr", noise(1, 60, 60), channel_names=["x"])
    (plain,) = layers(tmp_path / "a.zarr")
    assert plain.colormap.name == "gray"
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    ome = dict(group.attrs["ome"])
    ome["omero"] = {"channels": [{"color": "00FF00"}]}
    group.attrs["ome"] = ome
    (green,) = layers(tmp_path / "a.zarr")
    np.testing.assert_allclose(green.colormap.map(1.0)[0], (0, 1, 0, 1))
