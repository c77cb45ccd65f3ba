from __future__ import annotations

import dataclasses

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.training.start import continued_fields

EARLIER = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=32, embed_dim=32, num_heads=2,
    normalisation="uint8", background_value=(0.5,),
)  # fmt: skip


def continued(changes: dict[str, object], channels: int = 1) -> ModelConfig:
    fields = continued_fields(EARLIER, changes, channels)
    return ModelConfig(**{**fields, "in_channels": channels})


def test_without_changes_it_is_the_same_model() -> None:
    assert continued({}) == EARLIER
    assert continued({"scale_factors": [1, 4]}) == EARLIER


def test_every_option_of_the_network_is_kept() -> None:
    # New options were forgotten in a list, and a model went on as another one.
    options = {
        "attention": "coarse_to_fine", "context_strides": (1, 8), "mae_dim": 64,
        "rotary_position": "corner", "level_embedding": False, "pyramid_norm": "group",
    }  # fmt: skip
    earlier = dataclasses.replace(EARLIER, **options)
    assert ModelConfig(**continued_fields(earlier, {}, 1)) == earlier


def test_another_decoder_chooses_its_own_context_skip() -> None:
    # The pyramid decoder's was handed on, and unetr refused it.
    assert continued({"decoder": "unetr"}).context_skip is False
    alone = dataclasses.replace(
        EARLIER, scale_factors=(1,), context_skip=None, level_heads=None
    )
    fields = continued_fields(alone, {"scale_factors": (1, 4)}, 1)
    assert ModelConfig(**fields).context_skip is True


def test_other_channels_drop_the_padding_value() -> None:
    # "background_value has 1 entries; 3 are needed" was no help to anybody.
    config = continued({}, channels=3)
    assert config.background_value is None
    assert config.normalisation == "auto"
