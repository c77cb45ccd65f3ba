from __future__ import annotations

import torch

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data.datasets import CropBatch
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.training.modules import FineTuneModule, class_weights

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1,), crop_size=16, patch_size=8, embed_dim=32,
    depth=1, num_heads=2, num_classes=2, pyramid_channels=(8, 8, 8, 8),
)  # fmt: skip


def test_a_loss_that_is_no_number_makes_no_step() -> None:
    # Zero times NaN had gradients of NaN, which wiped out all weights.
    module = FineTuneModule(build_model(CONFIG), TrainingConfig(steps=1))
    pixels = torch.rand(1, 1, 1, 16, 16)
    boxes = torch.tensor([[[[0.0, 0.0], [16.0, 16.0]]]])
    labels = torch.ones(1, 16, 16, dtype=torch.uint8)
    shares = torch.zeros(1, 0, 2, 16, 16)
    optimiser = module.configure_optimizers()
    before = {k: v.clone() for k, v in module.network.state_dict().items()}

    def step() -> bool:
        module.remember_buffers()
        module.training_step(CropBatch(pixels, boxes, labels, shares), 0).backward()
        module.configure_gradient_clipping(optimiser)
        optimiser.step()
        after = module.network.state_dict()
        return any(not torch.equal(before[k], after[k]) for k in before)

    pixels[..., 0, 0] = torch.inf
    assert not step()
    assert module.skipped == 1
    pixels[..., 0, 0] = 0.5
    assert step()
    assert module.skipped == 1


def test_rare_classes_weigh_more_up_to_a_limit() -> None:
    config = ModelConfig(num_classes=4, class_names=("background", "a", "b", "c"))
    weights = class_weights(config, (500, 900, 900, 100, 1), 5.0)
    assert weights.tolist() == [1.0, 1.0, 3.0, 5.0]
    # A foreground that is no rarer than the background is not preferred to it.
    assert class_weights(config, (0, 10, 10, 10, 0), 5.0).tolist()[:3] == [1, 1, 1]
    assert class_weights(config, None, 2.0).tolist() == [1.0, 2.0, 2.0, 2.0]
