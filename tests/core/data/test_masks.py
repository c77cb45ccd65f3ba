"""Which label images are masks, and what their values stand for."""

from __future__ import annotations

import numpy as np
import pytest

from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.masks import mask_note, mask_values
from napari_muvit.core.errors import AnnotationError


def source(*values: int, dtype: type = np.uint8) -> ArraySource:
    """All the values, in an image that one block does not cover."""
    image = np.zeros((2100, 8), dtype)
    image[-len(values) :, -1] = values
    return ArraySource(image, "yx")


@pytest.mark.parametrize(
    ("values", "classes", "zero", "object_value"),
    [
        ((0, 255), None, False, 255),
        ((0, 255), None, True, 255),
        ((255, 255), None, False, 255),
        ((0, 255), ("Background", "gland"), False, 255),
        ((0, 255), ("a", "b"), True, 255),
        ((0, 7), ("background", "gland"), False, 7),
        # These are numbers of classes.
        ((0, 7), None, False, None),
        ((0, 1), None, True, None),
        ((0, 2), ("background", "gland"), False, None),
        ((0, 1), ("background", "gland"), True, None),
        ((0, 2), ("background", "gland"), True, 2),
        ((1, 255), None, False, None),
        ((7, 255), None, False, None),
        ((0, 0), None, False, None),
    ],
)
def test_masks_are_told_from_classes(
    values: tuple[int, ...],
    classes: tuple[str, ...] | None,
    zero: bool,
    object_value: int | None,
) -> None:
    found = mask_values([source(*values)], classes, zero_is_background=zero)
    wanted = None if object_value is None else {0: 1, object_value: 2}
    assert found == wanted


def test_all_images_decide_together() -> None:
    mask, empty = source(0, 255), source(0, 0)
    assert mask_values([empty, mask, empty], None) == {0: 1, 255: 2}
    assert mask_values([mask, source(1, 2)], None) is None
    wide = source(0, 65535, dtype=np.uint16)
    assert mask_values([wide], None) == {0: 1, 65535: 2}
    assert mask_values([mask, wide], None) is None


def test_a_new_class_of_an_earlier_model_is_no_mask() -> None:
    """Names that were not given may be followed by more classes."""
    known = ("background", "gland")
    assert mask_values([source(0, 3)], known, explicit=False) is None


@pytest.mark.parametrize("classes", [("gland",), ("a", "b"), ("a", "b", "c")])
def test_masks_among_other_classes_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(AnnotationError, match=r"only 0 and 255.*--classes background,"):
        mask_values([source(0, 255)], classes)


def test_the_note_names_the_classes() -> None:
    assert "0 as background and 255 as class 2" in mask_note({0: 1, 255: 2}, None)
    assert "255 as gland" in mask_note({0: 1, 255: 2}, ("glass", "gland"))
