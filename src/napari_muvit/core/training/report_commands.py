"""What to type: to use the model of a report, and to do its run again."""

from __future__ import annotations

import shlex

from .record import RunRecord
from .report_html import Html, details, paragraph, text

LONG = 1500
"""Letters from which on a command is folded away."""


def use_parts(record: RunRecord) -> list[Html]:
    """Say what can be done with the model."""
    path = record.model_path or "MODEL"
    if record.kind == "pretrain":
        return [
            paragraph("Start a segmentation model from it, on the command line:"),
            _code(
                "napari-muvit finetune --images IMAGE... --labels LABELS... "
                f"--start {shlex.quote(path)} --out NEW_MODEL"
            ),
            paragraph("or from Python:"),
            _code(
                "from napari_muvit import core\n\n"
                "core.finetune(images, labels, core.TrainingConfig(minutes=5),\n"
                f"              model=..., start={path!r}, out='new_model')"
            ),
        ]
    return [
        paragraph(
            "In napari: Plugins > MuViT, step Predict, choose the model's folder. On "
            "the command line:"
        ),
        _code(f"napari-muvit predict IMAGE --model {shlex.quote(path)} --out DIR"),
        paragraph("From Python:"),
        _code(
            "from napari_muvit import core\n\n"
            f"for tile in core.predict('slide.tif', {path!r}, out='prediction.zarr'):\n"
            "    print(tile.done, 'of', tile.total)"
        ),
        paragraph(
            "It reads slides with "
            f"{record.model.get('in_channels', 1)} channel"
            f"{'' if record.model.get('in_channels', 1) == 1 else 's'}"
            + _at_size(record)
            + "."
        ),
    ]


def _at_size(record: RunRecord) -> str:
    size = record.model.get("pixel_size")
    if size is None:
        return ", as they are, whatever the size of their pixels"
    return f" at {size:g} µm a pixel; slides with other pixels are brought to that"


def repeat_parts(record: RunRecord) -> list[Html]:
    """Say how the run is done again."""
    lines = _command(record)
    seed = record.training.get("seed")
    said = (
        "The same machine, versions, files and settings give the same curve "
        f"(seed {seed}), for runs limited by steps or epochs."
        if seed is not None
        else ""
    )
    if not lines:
        return [
            paragraph("It was run from Python on arrays in memory; see the settings."),
            paragraph(said, "soft"),
        ]
    if not record.command and not record.config_file:
        said = f"Give the settings above as options, or in a file by --config. {said}"
    made = _code(lines)
    if len(lines) > LONG:
        made = details("The command", made)
    return [made, paragraph(said, "soft")]


def _command(record: RunRecord) -> str:
    """Return the command of the run, or one that would do the same; empty if none."""
    if record.command:
        return _wrapped(list(record.command))
    training, validation = (
        record.slides_of(role) for role in ("training", "validation")
    )
    slides = [*training, *validation]
    labelled = record.kind == "finetune"
    if not slides or not all(s.path and (s.labels or not labelled) for s in slides):
        return ""
    words = ["napari-muvit", record.kind]
    images = ["--images"] if labelled else []
    words += [*images, *(s.path for s in training)]
    if labelled:
        words += ["--labels", *(s.labels for s in training)]
        if validation:
            words += ["--val-images", *(s.path for s in validation)]
            words += ["--val-labels", *(s.labels for s in validation)]
    words += ["--config", record.config_file] if record.config_file else []
    return _wrapped([*words, "--out", "NEW_MODEL"])


def _wrapped(words: list[str]) -> str:
    """Return a shell command, an option a line."""
    quoted = [shlex.quote(word) for word in words]
    lines = [""]
    for word, shown in zip(words, quoted, strict=True):
        if word.startswith("--"):
            lines.append("   ")
        lines[-1] += f" {shown}" if lines[-1] else shown
    return " \\\n".join(lines)


def _code(content: str) -> Html:
    return f"<pre>{text(content)}</pre>"
