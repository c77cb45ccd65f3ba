from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data.annotations import (
    Annotations,
    BrushMask,
    Ellipse,
    Polygon,
    Rectangle,
)
from napari_muvit.core.data.crops import SlideNormalisation
from napari_muvit.core.data.items import Item, Region
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.sampling import HoldOut, TrainingSlide, hold_out
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.training.label_checks import (
    check_learnable,
    class_amounts,
    label_notes,
)

NAMES = ("background", "tumour", "stroma")
CONFIG = ModelConfig(scale_factors=(1,), crop_size=32, num_classes=3, class_names=NAMES)


def slide_of(marks: Annotations, size: int = 1000, classes: int = 3) -> TrainingSlide:
    view = open_pyramid(np.zeros((size, size), np.uint8), name="slide")
    index = marks.index(view.extent, classes, 0)
    return TrainingSlide(view, marks, SlideNormalisation((0.0,), (255.0,)), index)


def squares(label: int, count: int, size: float = 20, row: int = 0) -> list[Item]:
    """Rectangles in a row, in different crops."""
    return [Rectangle(label, (50 + 100 * row, 20 + 48 * n), (size, size))
            for n in range(count)]  # fmt: skip


def amounts(items: Sequence[Item]) -> list[tuple[int, int]]:
    slide = slide_of(Annotations(tuple(items)))
    found = class_amounts([slide], CONFIG, [None])
    return [(a.pixels, a.places) for a in found]


def test_an_outline_is_a_place_however_many_share_a_crop() -> None:
    nuclei = [Ellipse(1, (50 + 8 * n, 50), (3, 3)) for n in range(6)]
    pixels, places = amounts(nuclei)[0]
    assert places == 6
    assert 6 * 20 < pixels < 6 * 36


def test_a_large_area_is_as_many_places_as_crops() -> None:
    # A whole label image counts by crops too, and so does the background of a region.
    whole = np.full((320, 320), 2, np.uint8)
    marks = Annotations.from_labels(whole)
    slide = slide_of(marks, 320)
    # As many as lie a crop apart, not as many cells of some grid as it touches.
    assert 50 <= class_amounts([slide], CONFIG, [None])[1].places <= 100
    region = Region(Rectangle(1, (0, 0), (320, 320)))
    pixels, places = amounts([region])[0]
    assert pixels == 320 * 320
    assert 50 <= places <= 100
    assert amounts([Rectangle(1, (27, 27), (10, 10))])[0] == (100, 1)


def test_strokes_of_one_brush_mask_are_counted() -> None:
    painted = np.zeros((30, 30), bool)
    painted[2:5, 2:20] = painted[10:13, 2:20] = painted[20:23, 2:20] = True
    painted[23:26, 20:22] = True  # touches at a corner: the same stroke
    assert amounts([BrushMask(3, painted, (100.0, 100.0))])[2] == (3 * 54 + 6, 3)


def test_what_lies_outside_or_below_is_no_place() -> None:
    hidden = [Rectangle(2, (10, 10), (5, 5)), Rectangle(1, (0, 0), (40, 40))]
    outside = [Rectangle(2, (2000, 10), (5, 5))]
    assert amounts([*hidden, *outside])[1] == (0, 0)


def notes_of(items: Sequence[Item], outs: Sequence[HoldOut | None] = (None,)) -> str:
    slide = slide_of(Annotations(tuple(items)))
    return "\n".join(label_notes([slide], CONFIG, outs))


def test_few_places_and_few_pixels_are_told_in_one_line() -> None:
    items = [*squares(1, 18), *squares(2, 4, row=1), *squares(3, 18, size=4, row=2)]
    (line,) = [n for n in notes_of(items).splitlines() if "Little" in n]
    assert "tumour (4 places, 1,600 px) and stroma (18 places, 288 px)" in line
    assert "background (" not in line
    # Three classes: 15 are the least, 40 are advised.
    assert "3 classes should have at least 15 places" in line
    assert "better 40" in line


def test_enough_is_not_remarked() -> None:
    items = [*squares(1, 18), *squares(2, 18, row=1), *squares(3, 18, row=2)]
    assert "Little" not in notes_of(items)
    assert "times the annotated pixels" not in notes_of(items)


def test_many_poor_classes_are_one_line() -> None:
    config = ModelConfig(scale_factors=(1,), crop_size=32, num_classes=12)
    marks = Annotations(
        tuple(i for k in range(12) for i in squares(k + 1, 1, row=k % 9))
    )
    notes = label_notes([slide_of(marks, classes=12)], config, [None])
    (line,) = [n for n in notes if "Little" in n]
    assert line.count("px)") == 5
    assert "more: each of" in line


def test_very_uneven_classes() -> None:
    items = [Rectangle(1, (300, 0), (600, 900)), *squares(2, 18, size=15),
             *squares(3, 18, row=1, size=18)]  # fmt: skip
    told = notes_of(items)
    assert "background has over 100 times the annotated pixels of tumour" in told
    assert "tumour and stroma" not in told


def test_validation_by_place_is_said_with_its_share_and_blocks() -> None:
    items = [*squares(1, 18), *squares(2, 18, row=1), *squares(3, 1, row=2)]
    slide = slide_of(Annotations(tuple(items)))
    out = hold_out(slide.index, 32, 0.2, 0)
    assert out is not None
    notes = label_notes([slide], CONFIG, [out])
    (line,) = [n for n in notes if n.startswith("Validation is on")]
    assert f"blocks of {out.edge:g} px" in line
    share = int(line.split("is on ")[1].split(" %")[0])
    assert 10 <= share <= 35
    # One place cannot be on both sides.
    assert any("Validation shows nothing of stroma" in n for n in notes)


def test_both_sides_add_up() -> None:
    items = [*squares(1, 18), *squares(2, 18, row=1), *squares(3, 12, row=2)]
    slide = slide_of(Annotations(tuple(items)))
    out = hold_out(slide.index, 32, 0.2, 0)
    kept = class_amounts([slide], CONFIG, [out])
    held = class_amounts([slide], CONFIG, [out], held=True)
    for k, (a, b) in enumerate(zip(kept, held, strict=True), start=1):
        assert a.pixels + b.pixels == pytest.approx(slide.index.counts[k], abs=1)
    assert sum(b.places for b in held) > 0


def test_nothing_held_out_is_said() -> None:
    assert "No annotations are held out" in notes_of(squares(1, 2))


def test_validation_slides_that_lack_a_class() -> None:
    items = [*squares(1, 18), *squares(2, 18, row=1), *squares(3, 18, row=2)]
    training = slide_of(Annotations(tuple(items)))
    other = slide_of(Annotations(tuple(squares(1, 3))))
    notes = label_notes([training], CONFIG, [None], validation=[other])
    assert notes == (
        "Validation shows nothing of tumour and stroma: how well the model knows that "
        "is not measured.",
    )


def test_a_class_that_is_held_out_whole() -> None:
    slide = slide_of(Annotations((*squares(1, 18), *squares(2, 18, row=1))))
    # Cells of 100 px: the second row of squares lies in the second row of cells.
    held = np.zeros((10, 10), bool)
    held[1] = True
    out = HoldOut(100.0, (0.0, 0.0), held)
    notes = "\n".join(label_notes([slide], CONFIG, [out]))
    assert "Nothing of tumour is left to train on" in notes


def test_a_model_of_one_class_is_refused() -> None:
    config = ModelConfig(scale_factors=(1,), crop_size=32, class_names=("cell",),
                         num_classes=1)  # fmt: skip
    slide = slide_of(Annotations(tuple(squares(1, 3))), classes=1)
    with pytest.raises(AnnotationError, match=r"only one class, 'cell'.*background"):
        check_learnable([slide], config)
    with pytest.raises(AnnotationError, match="only one class, 'cell'"):
        check_learnable([slide], config, start_knows=True)


def test_one_annotated_class_is_refused_unless_the_model_knows_the_others() -> None:
    slide = slide_of(Annotations(tuple(squares(2, 30))))
    with pytest.raises(AnnotationError, match="Only tumour is annotated, one of 3"):
        check_learnable([slide], CONFIG)
    check_learnable([slide], CONFIG, start_knows=True)
    other = slide_of(Annotations(tuple(squares(1, 1))))
    check_learnable([slide, other], CONFIG)
    # A region makes background of what is unmarked.
    area = Region(Rectangle(1, (0, 0), (500, 500)))
    both = Annotations((area, *squares(2, 3)))
    check_learnable([slide_of(both)], CONFIG)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(-200, 1100),
                          st.integers(-200, 1100), st.integers(1, 90)),
                min_size=1, max_size=12), st.booleans())  # fmt: skip
def test_any_annotations_get_lines_not_errors(
    drawn: list[tuple[int, int, int, int]], split: bool
) -> None:
    items = [Polygon(k, np.array([[y, x], [y + e, x], [y, x + e]], float))
             for k, y, x, e in drawn]  # fmt: skip
    slide = slide_of(Annotations(tuple(items)))
    out = hold_out(slide.index, 32, 0.2, 0) if split else None
    notes = label_notes([slide], CONFIG, [out])
    assert all("\n" not in note and note.endswith(".") for note in notes)
    if slide.index.counts[1:].any():
        for amount in class_amounts([slide], CONFIG, [None]):
            assert (amount.pixels > 0) == (amount.places > 0)
