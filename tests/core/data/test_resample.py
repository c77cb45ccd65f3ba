from __future__ import annotations

import numpy as np
import pytest

from napari_muvit.core.data.resample import average_axis


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_one_broken_pixel_spoils_only_the_outputs_over_it(broken: float) -> None:
    # A running sum carried a NaN to every output behind it.
    row = np.arange(20, dtype=np.float32)[None]
    whole = average_axis(row, 1, 0.0, 2.5, 8)
    row[0, 6] = broken
    out = average_axis(row, 1, 0.0, 2.5, 8)
    assert np.flatnonzero(~np.isfinite(out[0])).tolist() == [2]
    keep = [0, 1, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(out[0, keep], whole[0, keep])
