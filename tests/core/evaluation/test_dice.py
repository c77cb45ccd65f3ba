"""Dice against numpy on whole arrays; what is left out and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_muvit.core.errors import AnnotationError, Cancelled, ConfigError
from napari_muvit.core.evaluation import Evaluation, dice_from_confusion, evaluate
from napari_muvit.core.prediction.record import read_classes
from napari_muvit.core.progress import Progress


def pair(shape: tuple[int, ...], classes: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, classes + 1, shape, dtype=np.uint8) for _ in range(2)]


def dice_of(guess: np.ndarray, truth: np.ndarray, label: int) -> float:
    known = truth > 0
    a, b = (guess == label) & known, truth == label
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("shape", [(301, 207), (20, 31, 17)])
def test_dice_equals_numpy(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_muvit.core.evaluation.dice.BLOCK_PIXELS", 1000)
    guess, truth = pair(shape, 3)
    events: list[Progress] = []
    result = evaluate(guess, truth, on_progress=events.append)
    expected = [dice_of(guess, truth, k) for k in (1, 2, 3)]
    assert result.dice == pytest.approx(expected)
    assert result.mdice == pytest.approx(np.mean(expected))
    assert result.accuracy == pytest.approx((guess == truth)[truth > 0].mean())
    assert result.confusion.sum() == guess.size
    assert result.confusion.dtype == np.int64
    assert result.class_names == ("class 1", "class 2", "class 3")
    assert events[-1].fraction == 1.0
    assert len(events) > 10


def test_background_and_absent_classes_do_not_count() -> None:
    truth = np.array([[1, 1, 2, 2]], np.uint8)
    guess = np.array([[1, 2, 2, 2]], np.uint8)
    result = evaluate(guess, truth, class_names=("background", "a", "b"))
    assert result.background == 1
    assert result.dice[:2] == pytest.approx((2 / 3, 0.8))
    assert np.isnan(result.dice[2])
    assert result.mdice == pytest.approx(0.8)
    only = evaluate(np.ones_like(truth), np.ones_like(truth), background=1)
    assert np.isnan(only.mdice)


def test_not_predicted_is_wrong_and_not_annotated_is_left_out() -> None:
    truth = np.array([[1, 1, 0, 0]], np.uint8)
    guess = np.array([[1, 0, 1, 0]], np.uint8)
    result = evaluate(guess, truth)
    assert result.dice == pytest.approx((2 / 3,))
    assert result.accuracy == 0.5
    assert result.to_dict()["not_predicted"] == 1


def test_zero_is_background_shifts_the_truth_only() -> None:
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    guess = np.array([[1, 1, 2, 1]], np.uint8)
    result = evaluate(guess, truth, zero_is_background=True)
    assert result.class_names == ("background", "class 2")
    assert result.background == 1
    assert result.mdice == pytest.approx(2 / 3)


def test_several_slides_are_pooled() -> None:
    (a, b), (c, d) = pair((30, 40), 2), pair((25, 10), 3, seed=1)
    result = evaluate([a, c], [b, d])
    whole = evaluate(a, b, num_classes=3).confusion + evaluate(c, d).confusion
    assert (result.confusion == whole).all()


def test_names_come_with_the_prediction(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "p.zarr", zarr_format=3)
    names = [{"label-value": 1, "name": "gland"}, {"label-value": 2, "class": "stroma"}]
    group.attrs["ome"] = {"image-label": {"properties": names}}
    stored = read_classes(tmp_path / "p.zarr")
    assert stored == (("gland", "stroma"), None)
    (tmp_path / "p.zarr" / ".muvit").mkdir()
    record = {"class_names": ["a", "b"], "background": 2}
    (tmp_path / "p.zarr" / ".muvit" / "run.json").write_text(json.dumps(record))
    assert read_classes(tmp_path / "p.zarr") == (("a", "b"), 2)


def test_table_and_json() -> None:
    guess, truth = pair((50, 50), 2)
    result = evaluate(guess, truth, class_names=("background", "gland"))
    lines = result.table().splitlines()
    assert lines[0].split() == ["label", "class", "Dice", "annotated", "pixels"]
    assert lines[1].split()[:3] == ["1", "background", "(background)"]
    assert lines[3].split() == ["mDSC", f"{result.dice[1]:.4f}"]
    assert "not predicted" in lines[-1]
    assert json.loads(json.dumps(result.to_dict()))["mDSC"] == result.mdice
    empty = Evaluation(
        confusion=np.zeros((3, 3), np.int64), class_names=("background", "gland")
    )
    assert json.loads(json.dumps(empty.to_dict()))["mDSC"] is None
    assert "-" in empty.table()


def test_truth_without_a_pixel_is_no_result() -> None:
    """It gave mDSC - as if something had been compared."""
    guess, truth = pair((50, 50), 2)
    with pytest.raises(AnnotationError, match="nothing to compare: in the label image"):
        evaluate(guess, np.zeros_like(truth), num_classes=2)
    # One slide of two may have none.
    both = evaluate([guess, guess], [truth, np.zeros_like(truth)], num_classes=2)
    assert both.mdice == both.slides[0].mdice


def test_an_image_is_no_prediction() -> None:
    """Its grey values counted as 255 classes."""
    _, truth = pair((50, 50), 2)
    grey = np.random.default_rng(0).integers(0, 256, truth.shape).astype(np.uint8)
    with pytest.raises(AnnotationError, match=r"up to 255, but .* 1 to 2"):
        evaluate(grey, truth)
    with pytest.raises(AnnotationError, match="Is it an image instead of a prediction"):
        evaluate(grey, truth, class_names=("a", "b"))
    with pytest.raises(AnnotationError, match="float32; whole numbers"):
        evaluate(grey.astype(np.float32), truth)
    # More classes than the truth shows are possible where they are named.
    assert len(evaluate(truth + 1, truth, num_classes=3).dice) == 3


@pytest.mark.parametrize("names", [None, ("background", "gland")])
@pytest.mark.parametrize("zero", [False, True])
def test_masks_are_read_as_masks(names: tuple[str, ...] | None, zero: bool) -> None:
    guess, truth = (
        np.where(v == 2, 255, 0).astype(np.uint8) for v in pair((50, 50), 2)
    )
    options = {"class_names": names, "zero_is_background": zero}
    wanted = evaluate(
        guess // 255 + 1, truth // 255 + 1, class_names=("background", "x")
    )
    said: list[str] = []
    for prediction in (guess, guess // 255 + 1):
        events: list[Progress] = []
        found = evaluate(prediction, truth, **options, on_progress=events.append)
        said += [event.message for event in events]
        np.testing.assert_array_equal(found.confusion, wanted.confusion)
        assert found.background == 1
        assert found.class_names[0] == "background"
    assert sum("The predictions hold only 0 and 255" in text for text in said) == 1
    assert sum("The label images hold only 0 and 255" in text for text in said) == 2


def test_the_background_may_be_named() -> None:
    guess, truth = pair((50, 50), 3)
    names = ("glass", "tissue", "gland")
    for background in ("Glass", 1, "1"):
        found = evaluate(guess, truth, class_names=names, background=background)
        assert found.background == 1
        assert found.mdice == pytest.approx(np.mean(found.dice[1:]))
    with pytest.raises(ConfigError, match=r"'gloss'.*glass, tissue, gland"):
        evaluate(guess, truth, class_names=names, background="gloss")
    with pytest.raises(ConfigError, match="from 1 to 3"):
        evaluate(guess, truth, class_names=names, background=4)


def test_dice_from_confusion_of_counts() -> None:
    confusion = np.array([[9, 9, 9], [1, 5, 0], [0, 2, 2]])
    assert dice_from_confusion(confusion) == pytest.approx((10 / 13, 4 / 6))


@pytest.mark.parametrize(
    ("guess", "truth", "options", "match"),
    [
        (np.ones((4, 5), int), np.ones((4, 6), int), {}, "4 x 5 pixels.* 4 x 6"),
        (np.ones((4, 5)), np.ones((4, 5), int), {}, "float64"),
        (np.ones((4, 5), int), np.full((4, 5), 300), {}, "single objects"),
        (np.ones((4, 5), int), np.full((4, 5), -1), {}, "-1"),
        (np.ones((4, 5), int), np.full((4, 5), 3), {"num_classes": 2}, "label 3"),
        (np.ones(5, int), np.ones(5, int), {}, "two to four"),
        ([np.ones((4, 5), int)], [], {}, "1 predictions and 0 label images"),
    ],
)
def test_what_cannot_be_compared(
    guess: object, truth: object, options: dict[str, int], match: str
) -> None:
    with pytest.raises(AnnotationError, match=match):
        evaluate(guess, truth, **options)  # type: ignore[arg-type]


def test_contradictions_and_stop() -> None:
    one = np.ones((4, 5), int)
    with pytest.raises(ConfigError, match="class names"):
        evaluate(one, one, num_classes=3, class_names=("a", "b"))
    with pytest.raises(ConfigError, match="background is 4"):
        evaluate(one, one, num_classes=3, background=4)
    with pytest.raises(Cancelled):
        evaluate(one, one, should_stop=lambda: True)


def test_names_of_somebody_elses_label_image(tmp_path: Path) -> None:
    # OME-Zarr 0.4 keeps them in .zattrs, which was not looked at; entries that are
    # no mapping raised AttributeError.
    group = zarr.create_group(tmp_path / "old.zarr", zarr_format=2)
    group.attrs["image-label"] = {
        "version": "0.4",
        "properties": [{"label-value": 1, "class": "a"}, "odd",
                       {"label-value": 2, "name": "b"}],
    }  # fmt: skip
    assert read_classes(tmp_path / "old.zarr") == (("a", "b"), None)


def test_a_label_beyond_the_classes_says_what_to_do() -> None:
    guess = np.ones((4, 4), np.uint8)
    with pytest.raises(AnnotationError, match=r"only the classes 1 to 2.*zero_is"):
        evaluate(guess, guess + 2, num_classes=2)
