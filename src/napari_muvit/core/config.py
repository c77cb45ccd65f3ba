"""What a user can choose: frozen dataclasses with checks, in and out of JSON.

Torch-free, so that a command line or a form can use it without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .checks import JsonConfig
from .model_checks import check_model
from .prediction_config import PredictionConfig as PredictionConfig
from .training_config import Precision as Precision
from .training_config import Schedule as Schedule
from .training_config import TrainingConfig as TrainingConfig

Decoder = Literal["unetr", "pyramid", "mask2former"]
RotaryMode = Literal["none", "fixed", "shared", "per_layer"]
RotaryPosition = Literal["centre", "corner"]
Attention = Literal["joint", "coarse_to_fine", "fine_to_coarse", "within_level"]
MaskShares = Literal["dirichlet", "uniform", "equal"]
MAEContext = Literal["visible", "all"]
Norm = Literal["batch", "group"]
BoxMode = Literal["true", "naive"]
NormalisationMode = Literal["auto", "percentile", "uint8", "none"]

# The first ten stay apart for colour-blind eyes too, also from the background's grey.
DEFAULT_COLORS = (
    "#4daf4a", "#e41a1c", "#377eb8", "#8000ff", "#f0e442", "#00ffff", "#882255",
    "#785ef0", "#e69f00", "#56b4e9", "#a65628", "#f781bf", "#1b9e77", "#666666",
)  # fmt: skip
BACKGROUND_COLOR = "#999999"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(JsonConfig):
    """Everything that builds the network, plus what a slide must offer.

    The defaults are the paper's (section 3, Table S1).
    """

    in_channels: int = 1
    """Image channels C."""
    scale_factors: tuple[float, ...] = (1, 8, 32)
    """Downsampling factor of each level to the finest, ascending."""
    num_classes: int = 2
    """Classes K; logit k is label k + 1."""
    decoder: Decoder = "unetr"
    """``unetr`` and ``mask2former`` are the paper's, ``pyramid`` is ours (learns
    context within minutes)."""
    ndim: int = 2
    """Spatial axes."""
    crop_size: int = 256
    """Crop edge in pixels, the same at every level; a multiple of the patch."""
    patch_size: int | tuple[int, ...] = 8
    """Patch edge P in pixels, or one an axis."""
    embed_dim: int = 512
    """Token width D."""
    depth: int = 12
    """Transformer layers."""
    num_heads: int = 8
    """Attention heads."""
    mlp_ratio: float = 2.0
    """Hidden width of the feed-forward part over ``embed_dim``."""
    rotary_mode: RotaryMode = "per_layer"
    """World RoPE: frequencies learned per layer (paper), shared, fixed, or none."""
    rotary_base: float = 10000.0
    """Base b of the initial RoPE frequencies."""
    rotary_position: RotaryPosition = "centre"
    """Where in its box a token sits: ``centre`` of its patch, or ``corner`` to corner
    (checkpoints of the authors)."""
    level_embedding: bool = True
    """Add a learned vector to the tokens of each level."""
    attention: Attention = "joint"
    """``joint``: all levels attend to all (paper). ``coarse_to_fine``: a token attends
    to its own and coarser levels only; ``fine_to_coarse``: to its own and finer ones
    (the authors' "causal"); ``within_level``: to its own only."""
    context_skip: bool | None = None
    """Sample the next coarser level's decoder features at this crop's place (``unetr``
    and ``pyramid``). None: yes for ``pyramid``, else no."""
    level_heads: bool | None = None
    """Supervise every level (``unetr`` and ``pyramid``). None: yes for ``pyramid``,
    else no."""
    decoder_dim: int = 256
    """Width of the UNETR and the Mask2Former decoder."""
    num_queries: int | None = None
    """Mask queries of Mask2Former, at least the classes. None: 16, or the classes."""
    pyramid_channels: tuple[int, ...] = (24, 48, 48, 96)
    """Widths of the pyramid decoder at strides 1, 2, ..., ``patch_size``."""
    pyramid_norm: Norm = "batch"
    """Normalisation of the pyramid decoder: over the batch, or in groups of 8
    channels of each crop."""
    context_strides: tuple[int, ...] = (1,)
    """Strides at which the context skip enters the pyramid decoder."""
    mae_dim: int = 256
    """Token width of the MAE decoders (paper: 256)."""
    mae_depth: int = 2
    """Layers of each MAE decoder."""
    mask_ratio: float = 0.75
    """Share of all tokens that the MAE hides."""
    mask_shares: MaskShares = "dirichlet"
    """How the visible tokens are shared among levels: by Dirichlet(0.5) per sample
    (paper), ``uniform`` over all tokens, or ``equal`` for every level."""
    mae_context: MAEContext = "visible"
    """What MAE decoders attend to across levels: the visible tokens (paper), or
    ``all``, mask tokens too (the authors' checkpoints)."""
    normalise_target: bool = False
    """Whether the MAE predicts patches of zero mean and unit variance."""
    boxes: BoxMode = "true"
    """``naive`` feeds fixed centred boxes, the paper's baseline."""
    pixel_size: float | None = None
    """Edge of one world pixel in micrometres; None: unknown."""
    normalisation: NormalisationMode = "auto"
    """``percentile`` 1 / 99.8 per channel and slide, ``uint8`` (/255) or ``none``.
    ``auto``: /255 for RGB of type uint8, else percentile; resolved by training."""
    background_value: tuple[float, ...] | None = None
    """Padding outside a slide, one number a channel, after normalisation."""
    class_names: tuple[str, ...] | None = None
    """K names in label order; None: ``class 1`` ..."""
    class_colors: tuple[str, ...] | None = None
    """K colours as ``#rrggbb``; None: a default list."""
    background: int | None = None
    """Label left out of Dice and foreground sampling; None: the class named
    ``background``, if any."""
    zero_is_background: bool = False
    """Label v in files means class v + 1, and class 1 is the background."""

    def __post_init__(self) -> None:
        self.check_types()
        check_model(self)
        self._resolve()

    def _resolve(self) -> None:
        """Fill what follows from the rest, so that readers never meet None."""

        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("scale_factors", tuple(_plain(f) for f in self.scale_factors))
        if isinstance(self.patch_size, tuple) and len(set(self.patch_size)) == 1:
            put("patch_size", self.patch_size[0])
        if self.num_queries is None:
            put("num_queries", max(16, self.num_classes))
        ours = self.decoder == "pyramid" and len(self.scale_factors) > 1
        if self.context_skip is None:
            put("context_skip", ours)
        if self.level_heads is None:
            put("level_heads", ours)
        if self.class_names is None:
            put(
                "class_names",
                tuple(f"class {k}" for k in range(1, self.num_classes + 1)),
            )
        lower = [name.strip().lower() for name in self.names]
        if self.background is None and "background" in lower:
            put("background", lower.index("background") + 1)
        if self.class_colors is None:
            put("class_colors", default_colors(self.num_classes, self.background))

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.class_names or ()

    @property
    def colors(self) -> tuple[str, ...]:
        """Class colours in label order, ``#rrggbb``."""
        return self.class_colors or ()

    @property
    def foreground(self) -> tuple[int, ...]:
        """Labels that count in mDSC: all but the background."""
        return tuple(k for k in range(1, self.num_classes + 1) if k != self.background)

    @property
    def shares_context(self) -> bool:
        """Whether nothing in the coarse levels depends on the fine crop.

        They can then be computed once for all fine crops inside them.
        """
        return (
            self.attention in ("coarse_to_fine", "within_level")
            and self.decoder in ("pyramid", "unetr")
            and self.boxes == "true"
            and len(self.scale_factors) > 1
        )

    @property
    def patch(self) -> tuple[int, ...]:
        """Patch edge along each axis."""
        edge = self.patch_size
        return edge if isinstance(edge, tuple) else (edge,) * self.ndim

    @property
    def head_dim(self) -> int:
        """Width of an attention head of the encoder."""
        return self.embed_dim // self.num_heads


def _plain(factor: float) -> float:
    """1.0 -> 1, so that names and JSON read well."""
    return int(factor) if float(factor).is_integer() else float(factor)


def default_colors(num_classes: int, background: int | None = None) -> tuple[str, ...]:
    """Colours for labels 1..K; the background is grey."""
    palette = [DEFAULT_COLORS[k % len(DEFAULT_COLORS)] for k in range(num_classes)]
    if background is not None:
        palette.insert(background - 1, BACKGROUND_COLOR)
    return tuple(palette[:num_classes])
