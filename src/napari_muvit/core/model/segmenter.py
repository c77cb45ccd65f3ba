"""MuViT segmenter: the encoder and one of the decoders.

Reference: MuViT (arXiv 2602.24222), section 3.4.

Shapes: B batch, L levels, C channels, N spatial axes, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..config import ModelConfig
from .encoder import MuViTEncoder
from .mask2former import Mask2FormerDecoder
from .patches import grid_of
from .pyramid_decoder import PyramidDecoder
from .rope import relative_to_origin
from .unetr import UNETRDecoder

DECODERS: Mapping[
    str, type[UNETRDecoder] | type[PyramidDecoder] | type[Mask2FormerDecoder]
] = {
    "unetr": UNETRDecoder,
    "pyramid": PyramidDecoder,
    "mask2former": Mask2FormerDecoder,
}


class MuViTSegmenter(nn.Module):
    """Nested crops in, logits of the finest level out.

    Parameters
    ----------
    config
        The whole network; every choice keeps the MuViT encoder and world RoPE.

    Raises
    ------
    ConfigError
        If the decoder does not do what is asked of it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = MuViTEncoder(config)
        self.decoder: UNETRDecoder | PyramidDecoder | Mask2FormerDecoder
        self.decoder = DECODERS[config.decoder](config)

    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        """Segment the finest level.

        Parameters
        ----------
        x
            (B, L, C, *spatial) normalised pixels, finest level first, float32.
        bboxes
            (B, L, 2, N) world boxes ((lower...), (upper...)).

        Returns
        -------
        Tensor
            (B, K, *spatial); logit k is label k + 1.
        """
        return self.level_logits(x, bboxes)[0]

    def level_logits(self, x: Tensor, bboxes: Tensor) -> tuple[Tensor, ...]:
        """Logits of every level that has a head, finest first; see `forward`."""
        layers = self.decoder.layers
        tokens = self.encoder.intermediate_tokens(x, bboxes, layers)
        grid = grid_of(x, self.config.patch)
        maps = [self.encoder.as_maps(t, grid) for t in tokens]
        # Mask2Former rotates tokens only, so its origin is fixed: the finest box.
        ours = self.config.decoder == "mask2former"
        arrangement = "joint" if ours else self.config.attention
        local = relative_to_origin(bboxes, arrangement)
        return self.decoder(x, local, maps)  # type: ignore[no-any-return]


def build_model(config: ModelConfig) -> MuViTSegmenter:
    """Return an untrained segmenter."""
    return MuViTSegmenter(config)
