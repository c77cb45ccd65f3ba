"""What of an earlier model was taken over and what is new, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from ..config import ModelConfig
from .kinds import ENCODER, MAE, SEGMENTER, plain_kind
from .source import Source

ENCODER_PREFIX = "encoder."
_DECODERS = {SEGMENTER: "decoder", MAE: "MAE decoders"}
_EMBEDDINGS = f"{ENCODER_PREFIX}patch_embeddings."
_PIXELS = ("in_channels", "patch")
_SAME = (
    *_PIXELS, "embed_dim", "depth", "num_heads", "mlp_ratio", "rotary_mode",
    "rotary_position", "level_embedding",
)  # fmt: skip
"""Properties in which an encoder must agree with the one that it gives its weights."""
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What of a checkpoint was taken over and what stays new."""

    taken: tuple[str, ...]
    """Parameters that were loaded whole."""
    fresh: tuple[str, ...]
    """Parameters of the new model that the checkpoint does not have in this shape, or
    in which it means something else."""
    mixed: tuple[str, ...] = ()
    """Heads of which the rows of some classes were loaded."""
    source: str = ""
    """Where from: ``MODEL (masked autoencoder, levels 1, 8, 32)``."""
    parts: tuple[str, ...] = ()
    """A phrase on each part of the model."""
    levels: tuple[tuple[float, float], ...] = ()
    """Scale factor of each level, and of the level whose weights it has."""
    kept_classes: tuple[str, ...] = ()
    """Classes whose part of the head was loaded."""
    new_classes: tuple[str, ...] = ()
    """Classes of the new model whose part of the head is new."""
    lost_classes: tuple[str, ...] = ()
    """Classes of the checkpoint that the new model does not have."""

    @property
    def encoder_is_whole(self) -> bool:
        """Whether nothing of the encoder is new."""
        return not any(name.startswith(ENCODER_PREFIX) for name in self.fresh)

    def summary(self) -> str:
        """Return one sentence for people."""
        counts = f"{len(self.taken)} parameters taken over, {len(self.fresh)} new"
        return f"Start: {self.source}: {'; '.join(self.parts) or counts}."


def describe_source(source: Source) -> str:
    """Name a source, its kind and its levels."""
    kind = plain_kind(source.kind)
    if source.of_the_authors:
        kind += " of the authors' package"
    return f"{source.name} ({kind}, levels {factors(source.config.scale_factors)})"


def factors(scale_factors: Iterable[float]) -> str:
    """Scale factors as a list."""
    return ", ".join(f"{f:g}" for f in scale_factors)


def differences(
    theirs: ModelConfig, ours: ModelConfig, names: Sequence[str] = _SAME
) -> list[str]:
    """Say in what two encoders differ, levels apart."""
    found = []
    for name in names:
        there, here = getattr(theirs, name), getattr(ours, name)
        if there != here:
            found.append(f"{name} {_value(there)} there and {_value(here)} here")
    return found


def _value(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def describe_parts(
    source: Source,
    ours: ModelConfig,
    kind: str,
    report: LoadReport,
) -> tuple[str, ...]:
    """Return a phrase on the encoder, one on the decoder, and further ones.

    Parameters
    ----------
    source
        Where the weights are from.
    ours, kind
        The model that has taken them.
    report
        Its tuples; ``parts`` is not used.
    """
    parts = [_encoder(source.config, ours, report)]
    if kind != ENCODER:
        parts.append(_decoder(source, ours, kind, report))
    parts += _heads(report)
    if source.of_the_authors:
        parts.append(f"crops of {ours.crop_size} px (theirs are not stored)")
    return tuple(parts)


def _encoder(theirs: ModelConfig, ours: ModelConfig, report: LoadReport) -> str:
    taken, fresh = (
        [n for n in names if n.startswith(ENCODER_PREFIX)]
        for names in (report.taken, report.fresh)
    )
    reasons = differences(theirs, ours)
    if not taken:
        return f"encoder new ({', '.join(reasons)})" if reasons else "encoder new"
    if all(name.startswith(_EMBEDDINGS) for name in fresh):
        where = _levels(report.levels)
        if not fresh:
            # Such as another place of the tokens in their patches.
            return f"encoder taken over whole ({', '.join([where, *reasons])})"
        pixels = ", ".join(differences(theirs, ours, _PIXELS))
        return (
            f"encoder taken over ({where}) but for its patch embeddings, which are new "
            f"({pixels})"
        )
    count = f"{len(taken)} of {len(taken) + len(fresh)} parameters"
    return f"encoder taken over in part ({', '.join([count, *reasons])})"


def _levels(levels: Sequence[tuple[float, float]]) -> str:
    names = [f"{m:g}" if m == t else f"{m:g} from {t:g}" for m, t in levels]
    return f"levels {', '.join(names)}"


def _decoder(source: Source, ours: ModelConfig, kind: str, report: LoadReport) -> str:
    name = _DECODERS[kind]
    taken, fresh = (
        [n for n in names if not n.startswith(ENCODER_PREFIX)]
        for names in (report.taken, report.fresh)
    )
    # The classes have a phrase of their own.
    body = [n for n in fresh if ".head." not in n or kind != SEGMENTER]
    if not any(".head." not in n for n in taken):
        other = source.config.decoder != ours.decoder and source.kind == kind
        reason = f" ({source.config.decoder} there, {ours.decoder} here)"
        return f"{name} new" + (reason if other and kind == SEGMENTER else "")
    if not body:
        return f"{name} taken over" + ("" if report.new_classes else " whole")
    return f"{name} taken over in part ({len(taken)} of {len(taken) + len(fresh)})"


def _heads(report: LoadReport) -> list[str]:
    """Say which classes go on, where some do not."""
    phrases = []
    # Of a new decoder the heads are new anyway.
    if report.new_classes and any(n.startswith("decoder.") for n in report.taken):
        kept, new = _names(report.kept_classes), _names(report.new_classes)
        if report.kept_classes:
            phrases.append(f"heads kept for {kept}, new for {new}")
        else:
            phrases.append(f"heads new for {new}")
    if report.lost_classes:
        phrases.append(f"no more {_names(report.lost_classes)}")
    return phrases


def _names(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names[:MAX_NAMED]]
    more = len(names) - len(quoted)
    return ", ".join(chain(quoted, [f"{more} more"] if more else []))
