"""Stand-ins for slides and models: a model that returns its input as labels."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch import Tensor, nn

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model

CLASSES = 4


class IdentityModel(nn.Module):
    """The class of a pixel is its value: logits are one-hot of the finest level."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gain = nn.Parameter(torch.ones(()))
        self.stage = nn.Identity()
        self.shapes: list[tuple[int, ...]] = []
        self.boxes: list[Tensor] = []

    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        self.boxes.append(bboxes.clone())
        assert x.dtype == bboxes.dtype == torch.float32
        value = self.stage(x[:, 0, 0]).round().long()
        value = value.clamp(0, self.config.num_classes - 1)
        hot = nn.functional.one_hot(value, self.config.num_classes)
        return hot.movedim(-1, 1).float() * self.gain


def make_config(**changes: object) -> ModelConfig:
    values: dict[str, object] = {
        "in_channels": 1,
        "scale_factors": (1, 4),
        "num_classes": CLASSES,
        "crop_size": 64,
        "embed_dim": 32,
        "num_heads": 2,
        "normalisation": "none",
    }
    return ModelConfig(**(values | changes))  # type: ignore[arg-type]


def make_labels(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Values 0..K-1, so that labels are values + 1."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, CLASSES, size=shape, dtype=np.uint8)


def make_pyramid(array: object, **changes: object) -> Pyramid:
    source = ArraySource(array, axes="yx")  # type: ignore[arg-type]
    level = PyramidLevel(source, scale=(1.0, 1.0), offset=(0.0, 0.0))
    return Pyramid((level,), **changes)  # type: ignore[arg-type]


def balance(network: MuViTSegmenter) -> None:
    """Take the preference of an untrained network for one class away."""
    config = network.config
    shape = (4, len(config.scale_factors), config.in_channels)
    x = torch.rand(*shape, config.crop_size, config.crop_size)
    boxes = torch.zeros(*shape[:2], 2, 2)
    for level, factor in enumerate(config.scale_factors):
        boxes[:, level, 1] = config.crop_size * factor
    with torch.no_grad():
        mean = network.eval()(x, boxes).mean(dim=(0, 2, 3))
        heads = [
            module
            for module in network.modules()
            if isinstance(module, nn.Conv2d) and module.bias is not None
            if module.out_channels == config.num_classes
        ]
        assert heads[0].bias is not None
        heads[0].bias -= mean


@pytest.fixture
def identity_model() -> Callable[..., IdentityModel]:
    def build(**changes: object) -> IdentityModel:
        return IdentityModel(make_config(**changes))

    return build


@pytest.fixture
def slide() -> Callable[..., Pyramid]:
    def build(shape: tuple[int, int], seed: int = 0, **changes: object) -> Pyramid:
        return make_pyramid(make_labels(shape, seed), **changes)

    return build


@pytest.fixture
def zarr_slide(tmp_path: Path) -> Callable[..., Pyramid]:
    """A slide on disk, in chunks."""

    def build(shape: tuple[int, int], chunk: int = 64) -> Pyramid:
        path = tmp_path / "slide.zarr"
        array = zarr.create_array(
            path, shape=shape, chunks=(chunk, chunk), dtype="uint8"
        )
        array[:] = make_labels(shape)
        return make_pyramid(zarr.open_array(path, mode="r"), name="slide", path=path)

    return build


@pytest.fixture
def tiny_model(tmp_path: Path) -> Callable[..., Path]:
    """The folder of a real model whose coarse levels may be shared."""

    def build(**changes: object) -> Path:
        torch.manual_seed(0)
        values: dict[str, object] = {
            "decoder": "pyramid", "scale_factors": (1, 4), "num_classes": 3,
            "crop_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2,
            "normalisation": "percentile", "attention": "coarse_to_fine",
            "pyramid_channels": (8, 8, 8, 8),
        }  # fmt: skip
        network = build_model(ModelConfig(**(values | changes)))  # type: ignore[arg-type]
        balance(network)
        save_model(network, tmp_path / "model")
        return tmp_path / "model"

    return build


@pytest.fixture
def chunks_of() -> Callable[[Path], dict[str, bytes]]:
    """All files of a store but those that name the run."""

    def read(out: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(out)): path.read_bytes()
            for path in out.rglob("*")
            if path.is_file() and path.name not in ("run.json", "lock")
        }

    return read


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files, of this process and of its children."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def check_same(
    chunks_of: Callable[[Path], dict[str, bytes]], temporary: Path
) -> Callable[[Path, Path], None]:
    """The bytes of an unbroken run, and nothing of ours is left anywhere."""

    def check(out: Path, whole: Path) -> None:
        found, expected = chunks_of(out), chunks_of(whole)
        assert found.keys() == expected.keys()
        assert found == expected
        assert {p.name for p in (out / ".muvit").iterdir()} == {"done", "run.json"}
        assert not [p for p in out.parent.iterdir() if p.name.startswith(".")]
        assert not [p for p in temporary.iterdir() if "muvit" in p.name]
        names = [thread.name for thread in threading.enumerate()]
        assert not [name for name in names if name.startswith("muvit")]

    return check
