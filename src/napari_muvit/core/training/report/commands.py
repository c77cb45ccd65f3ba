"""What to type: to use the model of a report, and to do its run again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from .html import Html, details, paragraph, text
from .record import RunRecord

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
                f"              start={path!r}, out='new_model')"
            ),
        ]
    channels = record.model.get("in_channels", 1)
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
            f"It reads slides with {channels} channel{'' if channels == 1 else 's'}"
            f"{_at_size(record)}."
        ),
    ]


def _at_size(record: RunRecord) -> str:
    size = record.model.get("pixel_size")
    if size is None:
        return ", as they are, whatever the size of their pixels"
    return f" at {size:g} µm a pixel; slides with other pixels are brought to that"


def repeat_parts(record: RunRecord) -> list[Html]:
    """Say how the run is done again."""
    parts = []
    if record.config_file:
        parts += _by_settings(record)
    if record.command:
        parts += [paragraph("The command was:"), _folded(_wrapped(record.command))]
    if not parts:
        parts += _by_paths(record)
    if record.training.get("seed") is not None:
        parts.append(
            paragraph(
                "The same machine, versions, files and settings give the same curve "
                f"(seed {record.training['seed']}), for runs limited by steps or "
                "epochs.",
                "soft",
            )
        )
    return parts


def _by_settings(record: RunRecord) -> list[Html]:
    command = ("napari-muvit", record.kind, "--config", record.config_file)
    parts = [_code(shlex.join([*command, "--out", "NEW_MODEL"]))]
    if not _have_paths(record):
        parts.append(
            paragraph(
                "Slides and labels that were given as arrays have no path; save them, "
                "and name all of them in the command."
            )
        )
    return parts


def _by_paths(record: RunRecord) -> list[Html]:
    """A command that names the slides, where they have paths."""
    if not record.slides or not _have_paths(record):
        return [paragraph("It was run from Python on arrays in memory.")]
    training, validation = (
        record.slides_of(role) for role in ("training", "validation")
    )
    groups = [
        ("--images", [s.path for s in training]),
        ("--labels", [s.labels for s in training]),
        ("--val-images", [s.path for s in validation]),
        ("--val-labels", [s.labels for s in validation]),
    ]
    if record.kind == "pretrain":
        # Its images come first, without an option.
        groups = [("", groups[0][1]), groups[2]]
    words = ["napari-muvit", record.kind]
    for option, paths in groups:
        words += [*([option] if option else []), *paths] if paths else []
    return [
        paragraph("With the settings above, as options or in a file by --config:"),
        _folded(_wrapped([*words, "--out", "NEW_MODEL"])),
    ]


def _have_paths(record: RunRecord) -> bool:
    labelled = record.kind == "finetune"
    return all(s.path and (s.labels or not labelled) for s in record.slides)


def _wrapped(words: Sequence[str]) -> str:
    """Return a shell command, an option a line."""
    lines = [""]
    for word in words:
        if word.startswith("--"):
            lines.append("   ")
        lines[-1] += (" " if lines[-1] else "") + shlex.quote(word)
    return " \\\n".join(lines)


def _folded(command: str) -> Html:
    code = _code(command)
    return details("The command", code) if len(command) > LONG else code


def _code(content: str) -> Html:
    return f"<pre>{text(content)}</pre>"
