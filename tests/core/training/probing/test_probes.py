"""Probes of models on small slides, from arrays to results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_muvit.core import (
    Annotations,
    ModelConfig,
    MuViTMAE,
    MuViTSegmenter,
    Progress,
    export_reference_checkpoint,
    open_pyramid,
    probe_boxes,
    probe_linear,
    probe_mae,
    save_model,
)
from napari_muvit.core.data.annotations import Polygon
from napari_muvit.core.data.geojson import write_geojson
from napari_muvit.core.errors import (
    AnnotationError,
    Cancelled,
    CheckpointError,
    ConfigError,
    DeviceError,
)
from napari_muvit.core.evaluation.box_noise import box_noise_curve
from napari_muvit.core.training.probing.linear_task import held_out

SIZE = {
    "scale_factors": (1, 2), "crop_size": 16, "embed_dim": 16, "depth": 1,
    "num_heads": 2, "mae_dim": 16, "mae_depth": 1, "decoder_dim": 16,
    "normalisation": "percentile", "background_value": (0.0,),
}  # fmt: skip
FAST = {"device": "cpu", "batch_size": 8}


def config(**changes: object) -> ModelConfig:
    return ModelConfig(**{**SIZE, **changes})


def made(kind: type, **changes: object):
    torch.manual_seed(0)
    return kind(config(**changes))


def spots(seed: int, bright: int, shape: tuple[int, int] = (96, 80)) -> np.ndarray:
    """Bright spots on dark ground, or dark ones on bright ground, with noise."""
    rng = np.random.default_rng(seed)
    image = np.where(rng.random(shape) < 0.2, 180, 20)
    image = 200 - image if bright else image
    return (image + rng.integers(0, 50, shape)).astype(np.uint8)


def halves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright spots above dark ones, with labels."""
    image = np.vstack((spots(seed, 0, (48, 80)), spots(seed, 1, (48, 80))))
    labels = np.repeat([1, 2], 48)[:, None].repeat(80, axis=1).astype(np.uint8)
    return image, labels


def named(images: list[np.ndarray]) -> list:
    return [open_pyramid(im, name=f"im{i}") for i, im in enumerate(images)]


GROUPS = ["dark", "bright"] * 4


def test_groups_of_images_are_told_apart() -> None:
    images = named([spots(k, k % 2) for k in range(8)])
    mae = made(MuViTMAE)
    before = {k: v.clone() for k, v in mae.state_dict().items()}
    found = probe_linear(mae, images, groups=GROUPS, untrained=True, **FAST)
    assert found.class_names == ("dark", "bright")
    assert [(row.levels, row.untrained) for row in found.rows] == [
        ((1,), False), ((2,), False), ((1, 2), False),
        ((1,), True), ((2,), True), ((1, 2), True),
    ]  # fmt: skip
    # Even random weights tell a dark ground from a bright one.
    assert all(row.auc > 0.95 for row in found.rows)
    assert found.train_crops == (15, 15)
    assert found.test_crops == (10, 10)
    assert len(found.test_images) == 2
    assert not set(found.test_images) & set(found.train_images)
    assert "held out for it: im" in found.notes[-1]
    assert all(torch.equal(before[k], v) for k, v in mae.state_dict().items())


def test_the_yardstick_has_weights_of_its_own() -> None:
    images = named([spots(k, k % 2) for k in range(8)])
    encoder = made(MuViTMAE).encoder
    torch.nn.init.zeros_(encoder.patch_embeddings[0][0].weight)
    found = probe_linear(encoder, images, groups=GROUPS, untrained=True, **FAST)
    # Blind, every crop is the same to it.
    assert found.rows[0].auc == pytest.approx(0.5, abs=0.2)
    assert found.rows[1].auc > 0.95
    assert found.rows[3].auc > 0.95


def test_groups_that_do_not_differ_are_not() -> None:
    images = named([spots(k, 0) for k in range(16)])
    found = probe_linear(
        made(MuViTMAE), images[:8], groups=GROUPS, test_images=images[8:],
        test_groups=GROUPS, **FAST,
    )  # fmt: skip
    assert all(0.2 < row.auc < 0.8 for row in found.rows)
    assert found.test_crops == (40, 40)
    assert found.notes == ()


def test_classes_of_crops() -> None:
    pairs = [halves(k) for k in range(4)]
    pairs[3][1][:] = 0
    images, labels = named([p[0] for p in pairs]), [p[1] for p in pairs]
    arguments = {"crops": 12, "test_crops": 9, **FAST}
    found = probe_linear(
        made(MuViTSegmenter), images[:2], labels[:2], test_images=images[2:],
        test_labels=labels[2:], classes=("above", "below"), **arguments,
    )  # fmt: skip
    assert found.class_names == ("above", "below")
    assert sum(found.train_crops) == 24
    assert sum(found.test_crops) == 9
    assert found.rows[-1].auc > 0.9
    assert any("left out: im3" in note for note in found.notes)
    same = probe_linear(
        made(MuViTSegmenter), images[:2], labels[:2], test_images=images[2:],
        test_labels=labels[2:], classes=("above", "below"),
        **{**arguments, "batch_size": 5},
    )  # fmt: skip
    assert [row.auc for row in same.rows] == pytest.approx(
        [row.auc for row in found.rows]
    )


def test_crops_without_a_label_are_skipped_and_lone_classes_named() -> None:
    image, labels = halves(0)
    only = np.zeros_like(labels)
    only[3:30, 5:60], only[60:90, 5:60] = 1, 2
    other = np.where(only == 2, 3, only)
    found = probe_linear(
        made(MuViTMAE), named([image]), [only], test_images=named([image]),
        test_labels=[other], crops=20, test_crops=20, **FAST,
    )  # fmt: skip
    assert found.class_names == ("class 1", "class 2", "class 3")
    assert sum(found.train_crops) + sum(found.test_crops) + found.skipped == 40
    assert found.train_crops[2] == found.test_crops[1] == 0
    assert all(np.isnan(found.rows[0].class_auc))
    assert "class 2 (no test crop), class 3 (no training crop)" in found.notes[-1]


def test_labels_that_name_their_classes(tmp_path: Path) -> None:
    image, _ = halves(0)
    squares = [np.array([(y, 0), (y, 80), (y + 48, 80), (y + 48, 0)]) for y in (0, 48)]
    first, second = tmp_path / "a.geojson", tmp_path / "b.geojson"
    items = tuple(Polygon(k + 1, s) for k, s in enumerate(squares))
    write_geojson(Annotations(items, ("up", "down")), first)
    write_geojson(Annotations(items[::-1], ("up", "down")), second)
    images = named([image, image])
    found = probe_linear(
        made(MuViTMAE), images[:1], [first], test_images=images[1:],
        test_labels=[second], crops=12, test_crops=12, **FAST,
    )  # fmt: skip
    assert set(found.class_names) == {"up", "down"}
    assert found.rows[0].auc > 0.9


def test_a_folder_of_each_kind(tmp_path: Path) -> None:
    images = named([spots(k, k % 2) for k in range(4)])
    mae = made(MuViTMAE)
    segmenter = made(MuViTSegmenter)
    segmenter.encoder.load_state_dict(mae.encoder.state_dict())
    found = {}
    for model in (mae, segmenter, mae.encoder):
        save_model(model, tmp_path / type(model).__name__)
        found[type(model).__name__] = probe_linear(
            tmp_path / type(model).__name__, images, groups=GROUPS[:4], crops=3,
            test_crops=4, **FAST,
        )  # fmt: skip
    assert {k: v.kind for k, v in found.items()} == {k: k for k in found}
    assert {v.model for v in found.values()} == set(found)
    # The same encoder in each.
    assert len({tuple(row.class_auc for row in v.rows) for v in found.values()}) == 1


def test_a_test_image_that_was_trained_on_is_said(tmp_path: Path) -> None:
    import tifffile

    paths = []
    for k in range(2):
        tifffile.imwrite(tmp_path / f"{k}.tif", spots(k, k))
        paths.append(tmp_path / f"{k}.tif")
    found = probe_linear(
        made(MuViTMAE), paths, groups=["a", "b"], test_images=paths[1:],
        test_groups=["b"], crops=2, test_crops=2, **FAST,
    )  # fmt: skip
    assert "1 is a training and a test image" in found.notes[0]


def test_held_out_images() -> None:
    assert len(held_out(None, 9, 0)) == 2
    assert len(held_out(None, 2, 0)) == 1
    groups = [1] * 8 + [2] * 4 + [3]
    chosen = held_out(groups, 13, 5)
    assert [sum(groups[i] == k for i in chosen) for k in (1, 2, 3)] == [2, 1, 0]
    assert held_out(groups, 13, 5) == chosen
    assert len({tuple(held_out(None, 12, seed)) for seed in range(9)}) > 3


WRONG_LINEAR = {
    "nothing": ({}, "Neither labels nor groups"),
    "both": ({"labels": ["x"] * 4, "groups": GROUPS[:4]}, "one of the two"),
    "count": ({"groups": ["a", "b"]}, "4 images and 2 groups"),
    "one group": ({"groups": ["a"] * 4}, "All training images are of the group a"),
    "lone": ({"groups": ["a", "b", "c", "d"]}, "each group has one image"),
    "no name": ({"groups": ["a", "b", "a", " "]}, "without a name"),
    "crops": ({"groups": GROUPS[:4], "crops": 0}, "crops is 0"),
    "test crops": ({"groups": GROUPS[:4], "test_crops": -1}, "test_crops is -1"),
    "seed": ({"groups": GROUPS[:4], "seed": -1}, "seed is -1"),
    "test without groups": (
        {"groups": GROUPS[:4], "test_images": [spots(0, 0)]},
        "1 test images, 0 test labels and 0 test groups",
    ),
    "test of another kind": (
        {"groups": GROUPS[:4], "test_images": [spots(0, 0)], "test_labels": ["x"]},
        "one of the test groups",
    ),
    "penalty": ({"groups": GROUPS[:4], "l2": -1.0}, "l2 is -1"),
}


@pytest.mark.parametrize("name", WRONG_LINEAR)
def test_wrong_input_of_the_linear_probe(name: str) -> None:
    given, message = WRONG_LINEAR[name]
    images = named([spots(k, k % 2) for k in range(4)])
    with pytest.raises(ConfigError, match=message):
        probe_linear(made(MuViTMAE), images, **given, **FAST)


def test_what_else_is_wrong() -> None:
    images = named([spots(k, k % 2) for k in range(4)])
    plain = np.zeros((96, 80), np.uint8)
    with pytest.raises(AnnotationError, match="Nothing is annotated"):
        probe_linear(made(MuViTMAE), images, [plain] * 4, **FAST)
    half = [plain + 1, plain + 2, plain, plain]
    with pytest.raises(AnnotationError, match="None of the test images is annotated"):
        probe_linear(
            made(MuViTMAE), images[:2], half[:2], test_images=images[2:],
            test_labels=half[2:], **FAST,
        )  # fmt: skip
    with pytest.raises(
        CheckpointError, match="given model is a segmentation model; a masked"
    ):
        probe_mae(made(MuViTSegmenter), images, **FAST)
    with pytest.raises(CheckpointError, match="no model folder"):
        probe_mae("nowhere", images, **FAST)
    with pytest.raises(CheckpointError, match="A dict was given"):
        probe_linear({}, images, groups=GROUPS[:4], **FAST)
    with pytest.raises(DeviceError):
        probe_mae(made(MuViTMAE), images, device="abacus")


def test_error_by_level() -> None:
    images = named([spots(k, k % 2) for k in range(3)])
    mae = made(MuViTMAE)
    events: list[Progress] = []
    found = probe_mae(mae, images, crops=6, **FAST, on_progress=events.append)
    assert found.crops == (18, 18)
    assert found.images == ("im0", "im1", "im2")
    assert [row.boxes for row in found.rows] == ["true", "naive"]
    assert all(error > 0 for row in found.rows for error in row.error)
    assert found.rows[0].error != found.rows[1].error
    assert (events[-1].done, events[-1].total, events[-1].unit) == (18, 18, "crop")
    again = probe_mae(mae, images, crops=6, **{**FAST, "batch_size": 5})
    for first, second in zip(found.rows, again.rows, strict=True):
        assert first.error == pytest.approx(second.error, rel=1e-4)
    other = probe_mae(mae, images, crops=6, seed=1, **FAST)
    assert other.rows[0].error != found.rows[0].error


def test_a_model_of_one_level_cannot_tell_its_boxes() -> None:
    images = named([spots(0, 0)])
    found = probe_mae(made(MuViTMAE, scale_factors=(1,)), images, crops=9, **FAST)
    assert found.rows[1].difference[0] == pytest.approx(0, abs=1e-6)
    assert found.notes == ("The model has one level, so its boxes tell it nothing.",)


def test_against_a_model_of_naive_boxes(tmp_path: Path) -> None:
    images = named([spots(0, 0)])
    save_model(made(MuViTMAE), tmp_path / "true")
    torch.manual_seed(7)
    other = MuViTMAE(config(boxes="naive"))
    save_model(other, tmp_path / "naive")
    found = probe_mae(
        tmp_path / "true", images, naive_model=tmp_path / "naive", crops=5, **FAST
    )
    told = [(row.model, row.boxes) for row in found.rows]
    assert told == [("true", "true"), ("true", "naive"), ("naive", "naive")]
    # To the model of naive boxes the naive ones are what `finetune` gave it.
    turned = probe_mae(tmp_path / "naive", images, crops=5, **FAST)
    assert turned.rows[1].error == pytest.approx(found.rows[2].error)
    assert "naive was trained with naive boxes" in turned.notes[0]
    twice = probe_mae(
        tmp_path / "true", images, naive_model=made(MuViTMAE), crops=2, **FAST
    )
    assert "was trained with true boxes" in twice.notes[0]
    with pytest.raises(ConfigError, match=r"scale_factors \(1, 2\), but"):
        probe_mae(
            tmp_path / "true", images, naive_model=made(MuViTMAE, scale_factors=(1, 4)),
            **FAST,
        )  # fmt: skip


def test_noise_on_boxes() -> None:
    image, labels = halves(0)
    segmenter = made(MuViTSegmenter, decoder="pyramid", class_names=("up", "down"))
    found = probe_boxes(
        segmenter, named([image]), [labels], sigmas=(0, 50), crops=10, **FAST
    )
    assert [row.sigma for row in found.rows] == [0, 50]
    assert found.class_names == ("up", "down")
    assert found.crops == 10
    # Noise of nothing is the model as it is.
    from napari_muvit.core.training.prepare import open_annotations, prepare
    from napari_muvit.core.training.probing.data import labelled_crops

    images = named([image])
    data = prepare(images, open_annotations([labels], images), segmenter.config, 0)
    (crops,) = labelled_crops(data.slides, data.config, 0)
    samples = [crops[i][:3] for i in range(10)]
    batch = [torch.stack(parts) for parts in zip(*samples, strict=True)]
    (plain,) = box_noise_curve(lambda x, b: segmenter.eval()(x, b), [batch], (0,))
    assert found.rows[0].dice == pytest.approx(plain.dice)
    again = probe_boxes(
        segmenter, named([image]), [labels], sigmas=(0, 50), crops=10, **FAST
    )
    assert again.rows == found.rows


def test_wrong_input_of_the_noise() -> None:
    image, labels = halves(0)
    segmenter = made(MuViTSegmenter)
    for sigmas in ((), (-1,), (float("inf"),), (float("nan"),)):
        with pytest.raises(ConfigError, match="The sigmas are"):
            probe_boxes(segmenter, [image], [labels], sigmas=sigmas, **FAST)
    with pytest.raises(AnnotationError, match="the class 3"):
        probe_boxes(segmenter, [image], [labels + 1], **FAST)
    with pytest.raises(AnnotationError, match="for the probe"):
        probe_boxes(segmenter, [image], [], **FAST)


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_a_probe_stops_when_asked(after: int) -> None:
    image, labels = halves(0)
    images = named([spots(k, k % 2) for k in range(4)])
    for run in (
        lambda **o: probe_mae(made(MuViTMAE), images, crops=8, **o),
        lambda **o: probe_boxes(made(MuViTSegmenter), [image], [labels], **o),
        lambda **o: probe_linear(made(MuViTMAE), images, groups=GROUPS[:4], **o),
    ):
        asked = 0

        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked > after

        with pytest.raises(Cancelled):
            run(should_stop=stop, **FAST)
        assert asked == after + 1


def test_folders_of_the_authors(tmp_path: Path) -> None:
    images = named([spots(k, k % 2) for k in range(4)])
    mae = made(MuViTMAE, rotary_position="corner", mae_context="all",
               mae_dim=16, embed_dim=32, background_value=None,
               normalisation="auto", crop_size=32)  # fmt: skip
    folder = export_reference_checkpoint(mae, tmp_path / "theirs")
    found = probe_mae(folder, images, crops=2, **FAST)
    assert found.titles() == ["true boxes", "naive boxes"]
    linear = probe_linear(folder, images, groups=GROUPS[:4], crops=3, **FAST)
    assert linear.kind == "MuViTMAE"
    assert linear.model == "theirs"
    with pytest.raises(CheckpointError, match="a segmentation model is needed"):
        probe_boxes(folder, images[:1], [np.ones((96, 80), np.uint8)], **FAST)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_model_is_looked_through() -> None:
    images = named([spots(0, 0)])
    mae = made(MuViTMAE)
    compiled = torch.compile(mae)
    (first, second) = (
        probe_mae(model, images, crops=3, **FAST) for model in (mae, compiled)
    )
    assert first.rows == second.rows
