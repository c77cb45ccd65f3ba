"""The tables of a report: slides, classes, what was taken for what, settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...evaluation import dice_from_confusion
from .html import (
    Html,
    bar,
    brief,
    count,
    details,
    figure,
    paragraph,
    percent,
    setting,
    swatch,
    table,
    text,
)
from .record import RunRecord, SlideRecord
from .settings import Change, Comparison

MAX_MATRIX = 26
"""Classes whose whole matrix is shown; of more the largest mistakes."""
FEW = 8
"""Classes whose matrix has room for a decimal."""
MAX_MISTAKES = 25
MAX_COLUMNS = 6
"""Classes that have a column in the table of slides."""
MAX_SLIDES = 15
"""Slides that are not folded away."""
Confusion = NDArray[np.float64]


def confusion_of(record: RunRecord) -> Confusion | None:
    """Confusion matrix (K + 1, K + 1), float64; None where there is none that fits."""
    size = len(record.class_names) + 1
    if record.confusion is None or len(record.confusion) != size or size == 1:
        return None
    return np.asarray(record.confusion, dtype=np.float64)


def slide_table(record: RunRecord) -> Html:
    """Every slide: size, pixel size, annotated share, and pixels of few classes."""
    annotated = any(slide.annotated for slide in record.slides)
    names = record.class_names if len(record.class_names) <= MAX_COLUMNS else ()
    head = ["slide", "used for", "pixels", "pixel size"]
    if annotated:
        head += ["annotated", *names]
    rows = [_slide_row(slide, annotated, len(names)) for slide in record.slides]
    if not rows:
        return ""
    made = table(head, rows, numeric=range(2, len(head)))
    if len(rows) <= MAX_SLIDES:
        return made
    return details(f"All {len(rows)} slides", made)


def _slide_row(slide: SlideRecord, annotated: bool, classes: int) -> list[Html]:
    row = [
        text(slide.name)
        + (f'<br><span class="soft">{text(slide.path)}</span>' if slide.path else ""),
        text(slide.role),
        " × ".join(count(n) for n in slide.shape)
        + (f"<br>{slide.channels} channels" if slide.channels != 1 else ""),
        _pixel_size(slide),
    ]
    if annotated:
        total, whole = sum(slide.annotated), math.prod(slide.shape)
        row.append(percent(total / whole if whole else math.nan))
        counts = [*slide.annotated[:classes], *[0] * classes][:classes]
        row += [brief(pixels) if pixels else "–" for pixels in counts]
    return row


def _pixel_size(slide: SlideRecord) -> Html:
    if slide.pixel_size is None:
        return "not known"
    unit = "µm" if slide.unit == "micrometer" else text(slide.unit)
    sizes = list(dict.fromkeys(f"{size:.4g}" for size in slide.pixel_size))
    return f"{' × '.join(sizes)} {unit}"


def class_table(record: RunRecord) -> Html:
    """Each class: how much of it there was, Dice, and what it is taken for."""
    names = record.class_names
    if not names:
        return ""
    confusion = confusion_of(record)
    trained = annotated_pixels(record, "training")
    head = ["class", "annotated (training)", "share"]
    if confusion is not None:
        head += ["validation", "Dice", "found", "precise", "mostly taken for"]
    rows = []
    for label, name in enumerate(names, start=1):
        said = f"{text(name)}"
        if label == record.background:
            said += ' <span class="soft">(background: not in mDSC)</span>'
        pixels = trained[label - 1] if len(trained) == len(names) else math.nan
        whole = sum(trained)
        row = [
            swatch(record.class_colors[label - 1]) + said,
            count(pixels),
            percent(pixels / whole if whole else math.nan),
        ]
        if confusion is not None:
            row += _scores(confusion, label, names)
        rows.append(row)
    return table(head, rows, numeric=(1, 2, 3, 5, 6))


def annotated_pixels(record: RunRecord, role: str) -> list[int]:
    """Annotated pixels of each class on the slides of a role; empty without any."""
    known = [s.annotated for s in record.slides_of(role) if s.annotated]
    if len({len(counts) for counts in known}) != 1:
        return []
    return [sum(column) for column in zip(*known, strict=True)]


def _scores(confusion: Confusion, label: int, names: tuple[str, ...]) -> list[Html]:
    dice = float(dice_from_confusion(confusion.astype(np.int64))[label - 1])
    row = confusion[label]
    total, predicted = row.sum(), confusion[1:, label].sum()
    wrong = row.copy()
    wrong[label] = 0
    worst = int(wrong.argmax())
    taken = "–"
    if total and wrong[worst]:
        taken = f"{text(_name(worst, names))} {percent(wrong[worst] / total)}"
    return [
        count(total),
        f'<span class="whole">{bar(dice)}{figure(dice)}</span>',
        percent(row[label] / total if total else math.nan),
        percent(row[label] / predicted if predicted else math.nan),
        taken,
    ]


def _name(label: int, names: tuple[str, ...]) -> str:
    return names[label - 1] if label else "not predicted"


def confusion_table(record: RunRecord) -> Html:
    """What each class was taken for: a matrix, or the largest mistakes."""
    confusion = confusion_of(record)
    if confusion is None or not confusion[1:].sum():
        return ""
    if len(record.class_names) > MAX_MATRIX:
        return _mistakes(confusion, record.class_names)
    return _matrix(confusion, record)


def _matrix(confusion: Confusion, record: RunRecord) -> Html:
    names, colors = record.class_names, record.class_colors
    # Nothing but a prediction of other software leaves pixels without a class.
    first = 0 if confusion[1:, 0].any() else 1
    head = "".join(
        f'<th title="{text(_name(k, names))}">'
        + (f"{swatch(colors[k - 1])}{k}" if k else "none")
        + "</th>"
        for k in range(first, len(confusion))
    )
    digits = 1 if len(names) <= FEW else 0
    rows = []
    for label, name in enumerate(names, start=1):
        total = confusion[label].sum()
        cells = "".join(
            _cell(confusion[label, k], total, k == label, digits)
            for k in range(first, len(confusion))
        )
        rows.append(
            f"<tr><th>{swatch(colors[label - 1])}{label} {text(name)}</th>"
            f"{cells}<td>{count(total)}</td></tr>"
        )
    return (
        paragraph(
            "Rows: truth. Columns: prediction, by number. Per cent of the annotated "
            "pixels of the row, in the validation crops; the last column counts them.",
            "soft",
        )
        + '<div class="wide"><table class="matrix">'
        f"<thead><tr><th></th>{head}<th>pixels</th></tr></thead>\n"
        f"<tbody>{chr(10).join(rows)}</tbody></table></div>"
    )


def _cell(pixels: float, total: float, right: bool, digits: int) -> Html:
    share = pixels / total if total else math.nan
    if not math.isfinite(share):
        return "<td>–</td>"
    color = "70, 140, 220" if right else "220, 90, 50"
    shown = f"{100 * share:.{digits}f}" if pixels else "·"
    return (
        f'<td style="background:rgba({color},{0.75 * share**0.6:.2f})" '
        f'title="{pixels:,.0f} pixels">{shown}</td>'
    )


def _mistakes(confusion: Confusion, names: tuple[str, ...]) -> Html:
    wrong = confusion[1:].copy()
    totals = wrong.sum(axis=1)
    wrong[np.arange(len(names)), np.arange(1, len(names) + 1)] = 0
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_MISTAKES]
    rows = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            rows.append(
                [
                    text(names[row]),
                    text(_name(int(column), names)),
                    count(wrong[row, column]),
                    percent(wrong[row, column] / totals[row]),
                ]
            )
    return table(
        ["truth", "taken for", "pixels", "of the class"],
        rows,
        numeric=(2, 3),
        caption=f"The largest mistakes among {len(names)} classes.",
    )


def error_table(record: RunRecord) -> Html:
    """Error of each level at the first validation and with the kept weights."""
    if not record.history:
        return ""
    last = record.best or record.history[-1]
    names = [n for n in last if n.startswith("error ")]
    rows = [
        [
            text(name.removeprefix("error ")),
            figure(record.history[0].get(name, math.nan), 4),
            figure(last[name], 4),
        ]
        for name in names
    ]
    head = ["level (scale factor)", "first validation", "kept weights"]
    return table(head, rows, numeric=(1, 2)) if rows else ""


def settings_part(record: RunRecord, comparison: Comparison) -> Html:
    """What differs from the preset, then everything."""
    changes = [("model", c) for c in comparison.model]
    changes += [("training", c) for c in comparison.training]
    parts = []
    if comparison.preset:
        parts.append(
            paragraph(
                f"{'These' if changes else 'No'} settings differ from the preset "
                f"“{comparison.preset}”{':' if changes else '.'}"
            )
        )
    if changes:
        parts.append(_change_table(changes, comparison.preset))
    for title, values in (("model", record.model), ("training", record.training)):
        if values:
            parts.append(
                details(
                    f"All settings of the {title} ({len(values)})", _all(values.items())
                )
            )
    return "\n".join(parts)


def _change_table(changes: Iterable[tuple[str, Change]], preset: str) -> Html:
    rows = [
        [
            text(part),
            f"<code>{text(change.name)}</code>",
            text(setting(change.value)),
            text(setting(change.usual)),
        ]
        for part, change in changes
    ]
    return table(["of", "setting", "here", f"in {preset}"], rows)


def _all(values: Iterable[tuple[str, Any]]) -> Html:
    rows = [
        [f"<code>{text(name)}</code>", text(setting(value))] for name, value in values
    ]
    return table(["setting", "value"], rows)


def software_table(software: Mapping[str, str]) -> Html:
    """Versions of what the run was made with."""
    rows = [[text(name), text(version)] for name, version in software.items()]
    return details("Software", table(["what", "version"], rows)) if rows else ""
