"""MuViT segmenter: the encoder and one of the decoders.

Reference: MuViT (arXiv 2602.24222), section 3.4.

Shapes: B batch, L levels, C channels, N spatial axes, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ConfigError
from .encoder import MuViTEncoder
from .pyramid_decoder import PyramidDecoder
from .rope import relative_to_origin
from .unetr import UNETRDecoder


class MuViTSegmenter(nn.Module):
    """Nested crops in, logits of the finest level out.

    Parameters
    ----------
    config
        The whole network; every choice keeps the MuViT encoder and world RoPE.

    Raises
    ------
    ConfigError
        If the decoder is not available.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = MuViTEncoder(config)
        self.decoder: UNETRDecoder | PyramidDecoder
        if config.decoder == "unetr":
            self.decoder = UNETRDecoder(config)
        elif config.decoder == "pyramid":
            self.decoder = PyramidDecoder(config)
        else:
            raise ConfigError(
                f"The decoder {config.decoder} is not part of this version; choose "
                "pyramid or unetr.",
                "decoder",
            )

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
        grid = tuple(s // self.config.patch_size for s in x.shape[3:])
        maps = [self.encoder.as_maps(t, grid) for t in tokens]
        return self.decoder(x, relative_to_origin(bboxes), maps)  # type: ignore[no-any-return]


def build_model(config: ModelConfig) -> MuViTSegmenter:
    """Return an untrained segmenter."""
    return MuViTSegmenter(config)
