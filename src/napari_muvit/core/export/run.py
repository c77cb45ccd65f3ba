"""Exports a prediction: reads it once, and writes objects, tables and a report."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ..data.project_file import write_whole
from ..files import write_bytes, write_json, write_text
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from .config import ExportConfig
from .features import FeatureWriter
from .output import OutputFolder
from .pieces import CornerFile
from .result import ClassFigures, Export
from .rings import Objects, find_objects
from .runs import BlockGrid, Labels, Runs, merged, read_bands
from .source import LabelSource, open_labels
from .thumbnail import Thumbnail, image_below
from .tracer import Tracer

OBJECTS_HEAD = (
    "id", "class", "label", "area_px", "area_um2", "centroid_x", "centroid_y",
    "x0", "y0", "x1", "y1", "holes",
)  # fmt: skip
FILES = (
    "objects.csv", "classes.csv", "objects.geojson", "thumbnail.png", "report.md",
    "report.json",
)  # fmt: skip
TOLD_EVERY = 256
"""Objects between two words of progress."""


def export_prediction(
    labels: Any,
    out: str | Path | None = None,
    config: ExportConfig | None = None,
    *,
    image: str | int | None = None,
    planes: Mapping[str, int] | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Export:
    """Write objects, tables, outlines and a picture of a prediction.

    The labels are read once, some rows at a time. Memory holds at most 64 Mi pixels of
    them as runs, and some 0.3 kB an outline; corners wait in a file beside the output,
    8 bytes each.

    Parameters
    ----------
    labels
        A prediction, or any label image in a plane that `open_pyramid` reads; 0 is
        nothing.
    out
        Folder for the files; None: ``NAME_export`` beside the prediction.
    config
        What becomes an object; None: all of the classes, but the background.
    image, planes
        What is chosen of a file; see `open_pyramid`.
    pixel_size
        Micrometres of a pixel, instead of what the file says.
    overwrite
        Write into a folder that holds files, and replace those of the same names.
    on_progress, should_stop
        See `napari_muvit.core.progress`; blocks, then objects.

    Returns
    -------
    Export
        The figures.

    Raises
    ------
    AnnotationError
        If it is no label image, or more noise than image.
    ConfigError
        If a class is not there.
    OutputError
        If something else is at ``out``, or it cannot be written; it is then as it was.
    PyramidError
        If pixels cannot be read.
    Cancelled
        If ``should_stop`` said so; nothing is left.
    """
    config = config or ExportConfig()
    source = open_labels(labels, image=image, planes=planes, pixel_size=pixel_size)
    chosen = source.chosen(config.classes)
    for note in source.notes:
        on_progress(Progress(stage="prepare", done=0, total=1, message=note))
    with OutputFolder(out or _default_folder(source), overwrite) as folder:
        job = _Job(source, config, chosen, folder, on_progress, should_stop)
        result = job.run()
        check_stop(should_stop)
        folder.commit()
    return result


def _default_folder(source: LabelSource) -> Path:
    path = source.pyramid.path
    beside = Path() if path is None else Path(path).absolute().parent
    return beside / f"{source.name}_export"


class _Job:
    """One export, from the first block to the report."""

    def __init__(
        self,
        source: LabelSource,
        config: ExportConfig,
        chosen: frozenset[int],
        folder: OutputFolder,
        on_progress: ProgressFn,
        should_stop: StopFn,
    ) -> None:
        self.source, self.chosen, self.folder = source, chosen, folder
        self.on_progress, self.should_stop = on_progress, should_stop
        size = source.pixel_size
        self.pixel_area = None if size is None else size[0] * size[1]
        self.least, self.most = config.pixels(self.pixel_area or 1.0)
        self.tolerance = config.simplify / (1.0 if size is None else min(size))
        self.counts = np.zeros(256, dtype=np.int64)
        self.thumbnail = Thumbnail(source.shape)
        self._kept = np.zeros(256, dtype=bool)
        self._kept[sorted(chosen)] = True
        chunks = source.pyramid.levels[0].source.chunks
        self._grid = BlockGrid.of(source.shape, chunks)
        self._blocks = 0

    def run(self) -> Export:
        """Read, and write all files aside."""
        spool = self.folder.part / "corners.bin"
        with CornerFile(spool) as corners:
            objects = self._follow(corners)
            writer = FeatureWriter(
                objects, self._style, self.tolerance, self.pixel_area
            )
            self._write_outlines(writer)
            self._write_objects(objects)
            notes = [*self.source.notes, *self._exact_notes(writer)]
            below, note = image_below(
                self.source.record, self.source.shape, self.thumbnail.labels.shape
            )
            notes += [note] if note else []
            result = self._result(objects, notes)
            del objects, writer
        spool.unlink()
        self._write_report(result, below)
        return result

    def _follow(self, corners: CornerFile) -> Objects:
        """Read the labels, and find the objects in them."""
        tracer = Tracer(
            self.source.shape[1], corners, self.least, enclosing=self.most > 0
        )
        for _, bottom, runs in read_bands(self._grid, self.source.read, self._see):
            tracer.add(bottom, runs)
        tracer.finish(self.source.shape[0])
        return find_objects(tracer, self.least, self.most)

    def _see(self, runs: Runs, block: Labels, top: int, left: int) -> Runs:
        """Count a block, and return the runs that are followed."""
        check_stop(self.should_stop)
        lengths = (runs.last - runs.first).astype(np.float64)
        counts = np.bincount(runs.value, weights=lengths, minlength=256)
        self.counts += counts.astype(np.int64)
        self.thumbnail.see(block, top, left)
        self._blocks += 1
        self.on_progress(
            Progress(
                stage="export", done=self._blocks, total=self._grid.count, unit="block"
            )
        )
        kept = self._kept[runs.value]
        if self.most == 0:
            return runs.select(kept)
        # What lies around the objects tells which hole they lie in.
        value = np.where(kept, runs.value, np.uint8(0))
        return merged(Runs(runs.row, runs.first, runs.last, value))

    def _style(self, label: int) -> tuple[str, str]:
        return self.source.class_name(label), self.source.color(label)

    def _exact_notes(self, writer: FeatureWriter) -> Iterator[str]:
        exact = writer.exact
        if len(exact):
            yield (
                f"{len(exact)} objects have too many corners to be simplified; their "
                f"outlines are exact: {', '.join(map(str, (exact[:20] + 1).tolist()))}"
                + ("." if len(exact) <= 20 else ", ...")
            )

    def _write_outlines(self, writer: FeatureWriter) -> None:
        total = len(writer.objects)

        def told(done: int) -> None:
            if done % TOLD_EVERY == 0 or done == total:
                check_stop(self.should_stop)
                self.on_progress(
                    Progress(stage="write", done=done, total=total, unit="object")
                )

        pieces = _gathered(writer.text(told))
        write_whole(self.folder.part / "objects.geojson", pieces)

    def _write_objects(self, objects: Objects) -> None:
        write_whole(
            self.folder.part / "objects.csv",
            _csv(itertools.chain([OBJECTS_HEAD], self._object_rows(objects))),
        )

    def _object_rows(self, objects: Objects) -> Iterator[Sequence[Any]]:
        holes = np.diff(objects.hole_bounds)
        for index in range(len(objects)):
            label, area = int(objects.value[index]), int(objects.area[index])
            y, x = objects.centroid[index].tolist()
            y0, x0, y1, x1 = objects.box[index].tolist()
            size = "" if self.pixel_area is None else f"{area * self.pixel_area:.6g}"
            yield (
                index + 1, self.source.class_name(label), label, area, size,
                f"{x:.2f}", f"{y:.2f}", x0, y0, x1, y1, int(holes[index]),
            )  # fmt: skip

    def _result(self, objects: Objects, notes: Sequence[str]) -> Export:
        number = np.bincount(objects.value, minlength=256)
        pixels = np.zeros(256, dtype=np.int64)
        np.add.at(pixels, objects.value, objects.area)
        labels = {k for k in range(1, 256) if self.counts[k]} | set(self.source.names)
        total = int(self.counts[1:].sum())
        figures = [
            ClassFigures(
                label=k,
                name=self.source.class_name(k),
                color=self.source.color(k),
                exported=k in self.chosen,
                predicted_px=int(self.counts[k]),
                share=int(self.counts[k]) / total if total else math.nan,
                objects=int(number[k]),
                objects_px=int(pixels[k]),
            )
            for k in sorted(labels)
            if 1 <= k <= 255
        ]
        pyramid = self.source.pyramid
        return Export(
            folder=self.folder.path,
            prediction=pyramid.url or str(pyramid.path or pyramid.name),
            shape=self.source.shape,
            pixel_size=self.source.pixel_size,
            classes=tuple(figures),
            min_object_px=self.least,
            max_hole_px=self.most,
            tolerance_px=self.tolerance,
            dropped=objects.dropped,
            filled=objects.filled,
            files=FILES,
            notes=tuple(notes),
            package_version=__version__,
        )

    def _write_report(self, result: Export, below: Any) -> None:
        part = self.folder.part
        colors = {c.label: c.color for c in result.classes if c.exported}
        write_bytes(part / "thumbnail.png", self.thumbnail.png(colors, below))
        write_whole(part / "classes.csv", _csv(result.class_rows()))
        write_text(part / "report.md", result.markdown())
        write_json(part / "report.json", result.to_dict())


def _csv(rows: Iterator[Sequence[Any]]) -> Iterator[bytes]:
    """Text of a table, some rows at a time."""
    while chunk := list(itertools.islice(rows, 4096)):
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(chunk)
        yield text.getvalue().encode()


def _gathered(pieces: Iterator[bytes], size: int = 2**20) -> Iterator[bytes]:
    """Join small pieces into larger ones."""
    held: list[bytes] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    yield b"".join(held)
