from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_muvit.core.training import batch_statistics as module
from napari_muvit.core.training.batch_statistics import RecentBatches, renew_statistics


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3),
            nn.BatchNorm2d(4), nn.Dropout(0.5),
        )  # fmt: skip

    def forward(self, pixels: torch.Tensor, _boxes: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(pixels[:, 0])
        return found


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    return [
        (5 + 3 * torch.randn(6, 1, 1, 20, 20), torch.zeros(6, 1, 2, 2))
        for _ in range(count)
    ]


def test_statistics_fit_the_weights_that_they_are_of() -> None:
    network = Small()
    with torch.no_grad():  # as a fast step does: nothing fits any longer
        for parameter in network.parameters():
            parameter.mul_(7).add_(1)
    given = batches(4)
    renew_statistics(network, given)
    assert not network.training
    outputs = torch.cat([network(*batch) for batch in given])
    mean, std = outputs.mean((0, 2, 3)), outputs.std((0, 2, 3))
    last = network.layers[4]
    torch.testing.assert_close(mean, last.bias, atol=0.05, rtol=0.02)
    torch.testing.assert_close(std, last.weight.abs(), atol=0.05, rtol=0.05)
    assert [m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)] == [
        0.1, 0.1
    ]  # fmt: skip
    assert not any(m.training for m in network.modules())


def test_each_batch_counts_alike() -> None:
    network, given = Small(), batches(3)
    renew_statistics(network, given)
    first = network.layers[0]
    with torch.no_grad():
        means = torch.stack([first(p[:, 0]).mean((0, 2, 3)) for p, _ in given])
    torch.testing.assert_close(network.layers[1].running_mean, means.mean(0))


@pytest.mark.parametrize("network", [Small(), nn.Sequential(nn.Conv2d(1, 2, 1))])
def test_without_batches_or_layers_nothing_changes(network: nn.Module) -> None:
    before = {k: v.clone() for k, v in network.state_dict().items()}
    renew_statistics(network, [] if isinstance(network, Small) else batches(2))
    assert not network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_only_as_many_crops_are_kept_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = RecentBatches()
    given = batches(12)  # of 6 crops each
    for batch in given:
        kept.add(*batch)
    assert 6 * (6 - 1) < module.CROPS <= 6 * 6
    assert all(p is q for (p, _), (q, _) in zip(kept.all(), given[6:], strict=True))
    monkeypatch.setattr(module, "MAX_BYTES", 2 * given[0][0].nbytes)
    kept.add(*given[0])
    assert len(kept.all()) == 2
    monkeypatch.setattr(module, "MAX_BYTES", 1)
    kept.add(*given[1])
    assert [p is given[1][0] for p, _ in kept.all()] == [True]
