"""OME-Zarr 0.5 groups and their metadata, checked by yaozarrs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from yaozarrs import v05

from ..errors import OutputError


def level_shapes(
    shape: Sequence[int], smallest: int, most: int | None = None
) -> list[tuple[int, ...]]:
    """Shapes of the levels until no edge exceeds ``smallest``, at most ``most``."""
    shapes = [tuple(int(n) for n in shape)]
    while max(shapes[-1]) > smallest and (most is None or len(shapes) < most):
        factor = 2 ** len(shapes)
        shapes.append(tuple(-(-int(n) // factor) for n in shape))
    return shapes


def label_metadata(
    class_names: Sequence[str], class_colors: Sequence[str]
) -> dict[str, Any]:
    """Return the ``image-label`` part of OME metadata: colours and class names."""
    colors = [
        v05.LabelColor.model_validate({"label-value": k, "rgba": [*_rgb(color), 255]})
        for k, color in enumerate(class_colors, start=1)
    ]
    label = v05.ImageLabel(colors=colors or None).model_dump(
        exclude_none=True, by_alias=True
    )
    for color in label.get("colors", ()):
        color["label-value"] = int(color["label-value"])
    # The model of a property drops the free keys, which hold the names.
    if class_names:
        label["properties"] = [
            {"label-value": k, "class": name}
            for k, name in enumerate(class_names, start=1)
        ]
    return {"image-label": label}


def _rgb(color: str) -> tuple[int, int, int]:
    digits = color.lstrip("#")
    try:
        if len(digits) != 6:
            raise ValueError
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise OutputError(
            f"The class colour {color!r} cannot be written; #rrggbb is needed."
        ) from None
    return red, green, blue


def channel_metadata(names: Sequence[str], rgb: bool) -> dict[str, Any]:
    """Return the ``omero`` part of OME metadata, or nothing without names."""
    if rgb:
        names = ("Red", "Green", "Blue")
    if not names:
        return {}
    colors = ("FF0000", "00FF00", "0000FF") if rgb else ("FFFFFF",) * len(names)
    channels = [
        {
            "label": name,
            "color": color,
            "active": True,
            "window": {"start": 0, "min": 0, "end": 255, "max": 255},
        }
        for name, color in zip(names, colors, strict=True)
    ]
    return {"omero": {"channels": channels if rgb else [_plain(c) for c in channels]}}


def score_metadata(
    class_names: Sequence[str], class_colors: Sequence[str]
) -> dict[str, Any]:
    """Return the ``omero`` part of OME metadata of an image of scores, 0 to 255.

    Parameters
    ----------
    class_names, class_colors
        Of the channels; colours as ``#rrggbb``.
    """
    colors = ["{:02X}{:02X}{:02X}".format(*_rgb(color)) for color in class_colors]
    if colors == ["FF0000", "00FF00", "0000FF"]:
        # Three such channels are taken for a photograph.
        colors[0] = "FE0000"
    window = {"start": 0, "min": 0, "end": 255, "max": 255}
    channels = [
        {"label": name, "color": color, "active": True, "window": window}
        for name, color in zip(class_names, colors, strict=True)
    ]
    return {"omero": {"channels": channels}}


def _plain(channel: dict[str, Any]) -> dict[str, Any]:
    """Without a display range that nobody measured (the reader finds its own)."""
    return {**channel, "window": {"start": 0, "min": 0, "end": 65535, "max": 65535}}


def _multiscale(
    axes: str,
    count: int,
    pixel_size: Sequence[float] | None,
    translation: Sequence[float] | None,
    unit: str | None,
    name: str,
) -> dict[str, Any]:
    """Return validated ``multiscales`` metadata."""
    size = np.ones(2) if pixel_size is None else np.asarray(pixel_size, dtype=float)
    origin = np.zeros(2)
    if translation is not None and pixel_size is not None:
        origin = np.asarray(translation, dtype=float)
    lead = len(axes) - 2
    datasets = []
    for k in range(count):
        scale = [1.0] * lead + (size * 2**k).tolist()
        place = [0.0] * lead + (origin + (2**k - 1) / 2 * size).tolist()
        datasets.append(
            {
                "path": str(k),
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": place},
                ],
            }
        )
    kinds = {"c": {"name": "c", "type": "channel"}}
    for letter in "zyx":
        kinds[letter] = {"name": letter, "type": "space"}
        if pixel_size is not None and unit is not None:
            kinds[letter]["unit"] = unit
    model = v05.Multiscale.model_validate(
        {"name": name, "axes": [kinds[a] for a in axes], "datasets": datasets}
    )
    return model.model_dump(exclude_none=True, by_alias=True)


def _shard(shape: Sequence[int], chunk: int, shard: int) -> tuple[int, ...]:
    """Shard of whole chunks that is no larger than the array needs."""
    edges = []
    for size in shape:
        edge = min(chunk, max(size, 1))
        edges.append(edge * min(shard // chunk, -(-max(size, 1) // edge)))
    return tuple(edges)


def create_arrays(
    path: str | Path,
    shapes: Sequence[tuple[int, ...]],
    *,
    dtype: Any,
    axes: str,
    chunk: int,
    channels: int = 1,
    channel_chunk: int | None = None,
    pixel_size: Sequence[float] | None = None,
    translation: Sequence[float] | None = None,
    unit: str | None = "micrometer",
    name: str = "image",
    ome: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    shard: int | None = None,
) -> list[zarr.Array[Any]]:
    """Create an OME-Zarr 0.5 group with one empty array a level.

    Parameters
    ----------
    path
        Where; nothing may be there yet.
    shapes
        Spatial shape of each level, finest first.
    dtype
        Pixel type.
    axes
        ``yx`` or ``cyx``.
    chunk
        Edge of a chunk.
    channels
        Length of the c axis.
    channel_chunk
        Channels in a chunk; None: all.
    pixel_size, translation, unit
        Physical edge and centre of the finest pixel 0; None: unknown.
    name
        Of the image.
    ome
        More metadata, merged into the ``ome`` attribute.
    attributes
        More attributes of the group.
    shard
        Edge of a shard, which keeps many chunks in one file; a multiple of the chunk.
        None: a file a chunk.

    Raises
    ------
    OutputError
        If something is there already, or the folder cannot be written.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} exists already; remove it or choose another name.")
    multiscale = _multiscale(axes, len(shapes), pixel_size, translation, unit, name)
    lead = (channels,) if axes.startswith("c") else ()
    lead_chunk = lead if channel_chunk is None else (channel_chunk,) * len(lead)
    try:
        group = zarr.create_group(
            path,
            zarr_format=3,
            attributes={
                "ome": {"version": "0.5", "multiscales": [multiscale], **(ome or {})},
                **(attributes or {}),
            },
        )
        return [
            group.create_array(
                str(k),
                shape=(*lead, *shape),
                chunks=(*lead_chunk, *(min(chunk, max(n, 1)) for n in shape)),
                shards=None if shard is None else (*lead, *_shard(shape, chunk, shard)),
                dtype=np.dtype(dtype),
                fill_value=0,
                dimension_names=list(axes),
            )
            for k, shape in enumerate(shapes)
        ]
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}.") from error
