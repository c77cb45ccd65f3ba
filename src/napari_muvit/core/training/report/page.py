"""The report of a run: one HTML file that stands alone, and ``curves.png``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...figures import save_png
from ...files import write_text
from .commands import repeat_parts, use_parts
from .curves import draw_curves
from .examples import Example, ExampleSet
from .html import (
    Html,
    brief,
    count,
    css_color,
    details,
    duration,
    figure,
    page,
    paragraph,
    percent,
    picture_image,
    png_image,
    section,
    swatch,
    text,
    tiles,
)
from .pictures import Panel
from .record import RunRecord
from .settings import compare_settings
from .tables import (
    annotated_pixels,
    class_table,
    confusion_of,
    confusion_table,
    error_table,
    settings_part,
    slide_table,
    software_table,
)

REPORT, CURVES = "report.html", "curves.png"
MAX_NOTES = 8
"""Notes that are not folded away."""
ENDS = {
    "steps": "It ended at its limit of steps.",
    "minutes": "It ended at its limit of time; another run of as many minutes may do "
    "more or fewer steps.",
    "stopped": "It was stopped by the user before its limit.",
    "early": "It ended early, since the validation no longer got better.",
}
"""What is said of the reason why a run ended."""


def write_curves(folder: str | Path, record: RunRecord) -> Path:
    """Write ``curves.png``, whole or not at all; takes about half a second.

    Parameters
    ----------
    folder
        Made where it is missing.
    record
        Of a run, finished or not.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    return save_png(draw_curves(record), Path(folder) / CURVES)


def write_report(
    folder: str | Path, record: RunRecord, examples: ExampleSet | None = None
) -> Path:
    """Write ``report.html`` and ``curves.png``; each appears whole or not at all.

    Parameters
    ----------
    folder
        Made where it is missing.
    record
        Of the run.
    examples
        Pictures, see `segmentation_examples` and `reconstruction_examples`.

    Returns
    -------
    Path
        Of the report.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    curves = write_curves(folder, record).read_bytes()
    return write_text(Path(folder) / REPORT, report_page(record, curves, examples))


def report_page(
    record: RunRecord, curves: bytes, examples: ExampleSet | None = None
) -> str:
    """Return the report as an HTML document.

    Parameters
    ----------
    record
        Of the run.
    curves
        PNG file of its curves.
    examples
        Pictures.
    """
    parts = [
        _head(record),
        section("What it was trained on", *_data(record)),
        section("Curves", _curves(record, curves)),
        _results(record),
        section("Examples", *_examples(examples)),
        section(
            "Settings",
            settings_part(record, compare_settings(record)),
            software_table(record.software),
        ),
        section("How to use the model", *use_parts(record)),
        section("How to repeat the run", *repeat_parts(record)),
    ]
    return page(_title(record), "\n".join(part for part in parts if part))


def _title(record: RunRecord) -> str:
    name = Path(record.model_path).name if record.model_path else ""
    return name or ("Pretraining" if record.kind == "pretrain" else "Segmentation")


def _head(record: RunRecord) -> Html:
    what = {
        "finetune": "Segmentation model (MuViT), report of its training",
        "pretrain": "Masked autoencoder (MuViT), report of its pretraining",
    }[record.kind]
    said = [what, f"levels {_levels(record)}", f"napari-muvit {record.version}"]
    said += [part for part in (_utc(record.started), record.device) if part]
    return "\n".join(
        [
            f"<header>\n<h1>{text(_title(record))}</h1>",
            paragraph(" · ".join(said), "soft"),
            tiles(_headline(record)),
            paragraph(_kept(record)),
            "</header>",
        ]
    )


def _utc(started: str) -> str:
    return f"{started} UTC" if started and "UTC" not in started else started


def _levels(record: RunRecord) -> str:
    return ", ".join(f"{factor:g}" for factor in record.levels)


def _headline(record: RunRecord) -> list[tuple[str, str]]:
    entries = []
    if record.kind == "pretrain":
        value = record.best.get("val_loss", math.nan)
        entries.append((figure(value, 4), "validation error (mean squared)"))
    else:
        entries.append(
            (figure(record.best.get("mDSC", math.nan)), "mDSC in validation")
        )
        confusion = confusion_of(record)
        if confusion is not None and confusion[1:].sum():
            right = float(np.trace(confusion[1:, 1:]) / confusion[1:].sum())
            entries.append((percent(right), "of the validation pixels right"))
    entries += [
        (count(record.steps), "steps"),
        (duration(record.seconds), f"{duration(record.cpu_seconds)} of CPU time"),
    ]
    if record.slides:
        entries.append(_slide_tile(record))
    annotated = sum(annotated_pixels(record, "training"))
    if annotated:
        entries.append((brief(annotated), "annotated pixels for training"))
    if record.peak_memory:
        entries.append((f"{record.peak_memory / 2**30:.1f} GiB", "peak memory"))
    return entries


def _slide_tile(record: RunRecord) -> tuple[str, str]:
    training, validation = (
        len(record.slides_of(role)) for role in ("training", "validation")
    )
    more = f", {validation} to validate on" if validation else ""
    return count(training), f"slide{'' if training == 1 else 's'} to train on{more}"


def _kept(record: RunRecord) -> str:
    """Say which weights were kept, and why the run ended."""
    parts = []
    without = "" if record.background is None else ", without the background"
    step = record.best.get("step", math.nan)
    if math.isfinite(step):
        parts.append(f"The weights of step {step:.0f} were kept, the best validation.")
    elif not record.history:
        parts.append("There was no validation; the last weights were kept.")
    ended = ENDS.get(record.stopped, "")
    if record.stopped and not ended:
        ended = f"It ended by: {record.stopped}."
    if record.kind == "finetune" and math.isfinite(record.best.get("mDSC", math.nan)):
        parts.append(
            f"mDSC is the mean Dice of the classes that occur{without}, over all "
            "validation crops together."
        )
    return " ".join([*parts, ended]).strip()


def _data(record: RunRecord) -> list[Html]:
    return [
        paragraph(record.validation),
        _notes(record.notes[:MAX_NOTES]),
        details(f"{more} more notes", _notes(record.notes[MAX_NOTES:]))
        if (more := len(record.notes) - MAX_NOTES) > 0
        else "",
        slide_table(record),
        paragraph(f"Start: {record.start}" if record.start else ""),
    ]


def _notes(notes: Sequence[str]) -> Html:
    entries = "".join(f"<li>{text(note)}</li>" for note in notes)
    return f'<div class="note"><ul>{entries}</ul></div>' if entries else ""


def _curves(record: RunRecord, curves: bytes) -> Html:
    if record.kind == "pretrain":
        score = "error of the hidden patches, level by level"
    else:
        score = "Dice of each class and their mean"
    caption = (
        "Left: training loss (thin as it came, thick smoothed), validation loss, and "
        f"the learning rate. Right: {score}. The dashed line is at the kept weights."
    )
    return (
        f'<figure class="plot">{png_image(curves, "Curves of the training")}'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def _results(record: RunRecord) -> Html:
    if record.kind == "pretrain":
        return section("Levels", error_table(record))
    said = (
        "Pixels are those of the finest level; validation: of its crops. Found: the "
        "share of a class's annotated pixels that were predicted as it (recall). "
        "Precise: the share of the annotated pixels predicted as it that are it "
        "(precision). Mostly taken for: the most frequent mistake."
    )
    known = confusion_of(record) is not None
    return section(
        "Classes", class_table(record), paragraph(said, "soft") if known else ""
    ) + section("What was taken for what", confusion_table(record))


def _examples(examples: ExampleSet | None) -> list[Html]:
    if examples is None:
        return []
    legend = "".join(
        f"<span>{swatch(color)}{text(name)}</span>" for name, color in examples.legend
    )
    if not examples.items:
        return [paragraph(examples.note or "There was no place to show.")]
    return [
        paragraph(examples.caption),
        f'<p class="legend">{legend}</p>' if legend else "",
        *(_example(item) for item in examples.items),
        paragraph(examples.note, "soft"),
    ]


def _example(example: Example) -> Html:
    rows = "\n".join(_panels(row, example.title) for row in example.rows)
    return (
        f'<div class="example"><b>{text(example.title)}</b> '
        f'<span class="soft">{text(example.place)}</span>\n{rows}</div>'
    )


def _panels(row: tuple[Panel, ...], name: str) -> Html:
    columns = max(4, len(row))
    made = []
    for panel in row:
        image = picture_image(panel.picture, f"{panel.title}, {name}")
        if panel.color:
            style = f'style="border-color:{css_color(panel.color)}"'
            image = image.replace("<img ", f"<img {style} ", 1)
        note = f"<span>{text(panel.note)}</span>" if panel.note else ""
        made.append(f'<div class="panel"><b>{text(panel.title)}</b>{image}{note}</div>')
    return (
        f'<div class="panels" style="grid-template-columns:repeat({columns},'
        f'minmax(0,1fr))">{"".join(made)}</div>'
    )
