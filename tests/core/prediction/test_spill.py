"""Arrays on disk without a file that anybody could leave behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_muvit.core.errors import OutputError
from napari_muvit.core.prediction.spill import Spill


@pytest.mark.skipif(os.name == "nt", reason="there the file has a name until it ends")
def test_arrays_come_back_from_a_file_without_a_name(temporary: Path) -> None:
    spill, rng = Spill(), np.random.default_rng(0)
    arrays = [
        rng.integers(-9, 9, (3, 40, 50), np.int32),
        rng.integers(-9, 9, (3, 17, 50), np.int32),
        rng.random((40, 50)) < 0.5,
    ]
    stored = [spill.store(array) for array in arrays]
    assert not list(temporary.iterdir())
    for array, place in zip(reversed(arrays), reversed(stored), strict=True):
        found = spill.fetch(place)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    spill.close()
    spill.close()


def test_what_was_fetched_leaves_its_place(temporary: Path) -> None:
    spill = Spill()
    array = np.arange(6000, dtype=np.int32)
    ends = set()
    for number in range(5):
        stored = spill.store(array + number)
        ends.add(stored.offset)
        np.testing.assert_array_equal(spill.fetch(stored), array + number)
    assert ends == {0}
    spill.close()


def test_a_folder_that_cannot_be_written_is_named(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(temporary / "gone"))
    with pytest.raises(
        OutputError, match=r"temporary files, .*gone, cannot be written"
    ):
        Spill().store(np.zeros(5))
