"""Colours and ranges that an OME-Zarr has for its channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_muvit.core.data.channel_display import ChannelDisplay, channel_displays
from napari_muvit.core.data.place import Place
from napari_muvit.core.data.zarr_writer import write_pyramid

PIXELS = np.zeros((2, 40, 40), np.uint8)


def place_of(path: Path, channels: Any) -> Place:
    write_pyramid(path, PIXELS, channel_names=["a", "b"])
    group = zarr.open_group(path, mode="r+")
    ome = dict(group.attrs["ome"])
    ome["omero"] = {"channels": channels}
    group.attrs["ome"] = ome
    return Place(path)


def test_colour_and_window_are_read(tmp_path: Path) -> None:
    window = {"start": 3, "end": 90.5, "min": 0, "max": 255}
    place = place_of(
        tmp_path / "a.zarr", [{"color": "00FFaa", "window": window}, {"color": "red"}]
    )
    assert channel_displays(place, 2) == (
        ChannelDisplay("#00ffaa", (3.0, 90.5)), ChannelDisplay(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "window",
    [None, 7, {}, {"start": "x", "end": 1}, {"start": 5, "end": 5}, {"start": 9,
     "end": 1}, {"start": 0, "end": float("inf")}, {"start": 0, "end": 65535}],
)  # fmt: skip
def test_a_window_that_is_none_is_left_out(tmp_path: Path, window: object) -> None:
    place = place_of(tmp_path / "a.zarr", [{"window": window}, None])
    assert channel_displays(place, 2) == (ChannelDisplay(),) * 2


@pytest.mark.parametrize("channels", [None, {}, [{"color": "00FFaa"}]])
def test_a_list_that_does_not_fit_is_not_believed(
    tmp_path: Path, channels: object
) -> None:
    place = place_of(tmp_path / "a.zarr", channels)
    assert channel_displays(place, 2) == (ChannelDisplay(),) * 2


def test_what_is_no_ome_zarr_says_nothing(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "b.zarr", shape=(4, 4), dtype="u1")
    assert channel_displays(Place(tmp_path / "b.zarr"), 1) == (ChannelDisplay(),)
    assert channel_displays(None, 3) == (ChannelDisplay(),) * 3
