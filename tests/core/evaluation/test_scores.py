"""Results of several slides: each of them, their pool, tables, page and plot."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.evaluation import Evaluation, dice_from_confusion, evaluate
from napari_muvit.core.figures import png_bytes, save_png


def result(classes: int, slides: int = 1, missed: bool = False) -> Evaluation:
    rng = np.random.default_rng(classes)
    counts = rng.integers(0, 900, (slides, classes + 1, classes + 1))
    counts[:, 1:, 0] *= missed
    names = ("background", *(f"a rather long name {k}" for k in range(classes - 1)))
    each = [
        Evaluation(confusion=c, class_names=names, background=1, name=f"slide {i}")
        for i, c in enumerate(counts)
    ]
    return Evaluation(
        confusion=counts.sum(axis=0), class_names=names, background=1,
        slides=tuple(each),
    )  # fmt: skip


def test_each_slide_is_as_if_it_were_alone() -> None:
    rng = np.random.default_rng(0)
    guesses = [rng.integers(0, k, (20, 31), dtype=np.uint8) for k in (3, 5, 3)]
    truths = [rng.integers(0, 4, (20, 31), dtype=np.uint8) for _ in guesses]
    pooled = evaluate(guesses, truths, num_classes=4)
    assert [slide.name for slide in pooled.slides] == ["slide 1", "slide 2", "slide 3"]
    for slide, guess, truth in zip(pooled.slides, guesses, truths, strict=True):
        alone = evaluate(guess, truth, num_classes=4)
        np.testing.assert_array_equal(slide.confusion, alone.confusion)
        np.testing.assert_array_equal(slide.dice, alone.dice)
    assert sum(slide.confusion for slide in pooled.slides).tolist() == (
        pooled.confusion.tolist()
    )
    scores = [slide.mdice for slide in pooled.slides]
    assert pooled.slide_mdice == pytest.approx(
        (np.mean(scores), np.std(scores, ddof=1))
    )


def test_slides_of_one_name_are_told_apart() -> None:
    plain = np.ones((4, 5), np.uint8)
    twin = open_pyramid(plain, name="a")
    other = open_pyramid(plain, name="b")
    found = evaluate([twin, twin, other], [plain] * 3)
    assert [slide.name for slide in found.slides] == ["a (1)", "a (2)", "b"]


def test_a_slide_without_annotation_has_no_score() -> None:
    ones = np.ones((4, 5), np.uint8)
    found = evaluate([ones, ones], [ones, ones * 0], num_classes=2)
    assert found.slide_mdice[0] == 1.0
    assert np.isnan(found.slide_mdice[1])
    second = found.to_dict()["slides"][1]
    assert second["name"] == "slide 2"
    assert second["mDSC"] is None
    assert "slide 2       -         -                 0" in found.slide_table()
    assert "| slide 2 | - | - | 0 | - | - |" in found.markdown()


@given(st.integers(1, 6), st.integers(0, 5), st.booleans())
def test_all_forms_of_a_result_say_the_same(
    classes: int, slides: int, missed: bool
) -> None:
    found = result(classes, slides, missed) if slides else result(classes, 1).slides[0]
    content = json.loads(json.dumps(found.to_dict()))
    confusion = np.array(content["confusion"])
    dice = dice_from_confusion(confusion)
    assert [row["dice"] for row in content["classes"]] == pytest.approx(list(dice))
    assert len(content.get("slides", [])) == slides
    if slides:
        parts = [np.array(slide["confusion"]) for slide in content["slides"]]
        assert np.array_equal(np.sum(parts, axis=0), confusion)
    page = found.markdown()
    for value in dice:
        assert f"{value:.4f}" in page
    assert ("not predicted" in page) == (int(confusion[1:, 0].sum()) > 0)
    assert f"{found.mdice:.4f}" in page or not np.isfinite(found.mdice)


def test_shares_are_of_the_truth() -> None:
    confusion = np.array([[5, 9, 9], [1, 3, 0], [0, 0, 0]])
    found = Evaluation(confusion=confusion, class_names=("a", "b"))
    np.testing.assert_array_equal(found.shares()[0], [0.25, 0.75, 0])
    assert np.isnan(found.shares()[1]).all()
    assert "| a | 75.0 | 0.0 | 25.0 |" in found.markdown()
    assert "| b | - | - | - |" in found.markdown()


def test_a_table_of_many_classes_is_folded() -> None:
    found = result(15, 3)
    lines = found.slide_table().splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("slide 2 ") for line in lines) > 1
    cells = " ".join(lines).split()
    for slide in found.slides:
        assert all(f"{value:.4f}" in cells for value in slide.dice)


def test_names_do_not_break_a_markdown_table() -> None:
    found = Evaluation(confusion=np.ones((2, 2), int), class_names=("a|b\nc",))
    (row,) = [line for line in found.markdown().splitlines() if line.startswith("| 1 ")]
    assert row.startswith("| 1 | a\\|b c | ")


@pytest.mark.parametrize("classes", [2, 40])
def test_plots_of_few_and_of_many_classes(classes: int, tmp_path) -> None:
    path = save_png(result(classes, 3, missed=True).figure(), tmp_path / "a.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width < 3500
        assert image.height > 300
        assert len(image.convert("L").getcolors()) > 50


def test_a_plot_shows_what_was_found() -> None:
    found = result(3, 2)
    bars, cells = found.figure().axes
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(found.dice)
    np.testing.assert_allclose(cells.images[0].get_array(), found.shares()[:, 1:])
    names = [label.get_text() for label in cells.get_xticklabels()]
    assert len(names) == 3  # no column for what is not predicted: there is none
    assert len(result(3, 2, missed=True).figure().axes[1].get_xticklabels()) == 4


def test_nothing_to_draw_is_no_error() -> None:
    empty = Evaluation(confusion=np.zeros((3, 3), int), class_names=("a", "b"))
    assert png_bytes(empty.figure()).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("background", "expected"),
    [
        (1, "mDSC is the mean of gland and stroma, without glass."),
        (None, "mDSC is the mean of glass, gland and stroma; no class is left out"),
    ],
)
def test_the_mean_says_what_it_is_over(background: int | None, expected: str) -> None:
    """Without a class named background the first one counted in silence."""
    truth = np.array([[1, 2, 3, 3]])
    names = ("glass", "gland", "stroma")
    found = evaluate(truth, truth, class_names=names, background=background)
    for page in (found.table(), found.markdown(), found.to_dict()["about"]):
        assert expected in page


def test_classes_that_the_labels_do_not_show_are_told() -> None:
    names = ("background", "a", "b", "c")
    found = evaluate(np.array([[1, 2, 3]]), np.array([[1, 2, 2]]), class_names=names)
    assert "the mean of a and b, without background" in found.about_mean()
    assert "Not found, so left out: c." in found.about_mean()
    assert "without an annotated pixel" in found.about_mean()
    assert "counts: b." in found.about_mean()


def test_many_classes_are_not_all_named() -> None:
    labels = np.arange(1, 41)[None]
    said = evaluate(labels, labels).about_mean()
    assert "class 6 and 34 more" in said
