"""Kinds of models, as files name them and as people do."""

from __future__ import annotations

from ..errors import CheckpointError

SEGMENTER, MAE, ENCODER = "MuViTSegmenter", "MuViTMAE", "MuViTEncoder"
PURPOSES = {
    SEGMENTER: "A MuViT segmentation model for napari-muvit.",
    MAE: "A MuViT masked autoencoder: a pretrained encoder, and its decoders.",
    ENCODER: "A MuViT encoder, to start a segmentation model from.",
}
_PLAIN = {
    SEGMENTER: "segmentation model",
    MAE: "masked autoencoder",
    ENCODER: "encoder",
}
_MAKERS = {
    SEGMENTER: ": `napari-muvit finetune` makes one, with --start from this model",
    MAE: ": `napari-muvit pretrain` makes one",
}


def plain_kind(kind: str) -> str:
    """Return what a kind of model is called in a sentence."""
    return _PLAIN.get(kind, kind)


def wrong_kind(what: str, held: str, needed: str) -> CheckpointError:
    """Return the error that says which kind of model was given and is needed.

    Parameters
    ----------
    what
        The model, such as its folder.
    held, needed
        Class names.
    """
    return CheckpointError(
        f"{what} is {_with_article(held)}; {_with_article(needed)} is needed"
        f"{_MAKERS.get(needed, '')}."
    )


def _with_article(kind: str) -> str:
    name = plain_kind(kind)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
