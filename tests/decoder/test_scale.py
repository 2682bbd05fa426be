from __future__ import annotations

import pytest
import torch

from datasetdm.decoder.blocks.scale import ScaleVotes, describe_regions


def box(top: int, left: int, height: int, width: int, side: int = 64) -> torch.Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., top : top + height, left : left + width] = 1
    return mask


def test_regions_are_described_by_size_and_place() -> None:
    small, area = describe_regions(box(8, 8, 8, 16))
    large, _ = describe_regions(box(16, 16, 16, 32))
    assert float(area) == pytest.approx(8 * 16 / 64**2)
    grown = (large - small)[0, 0]
    assert torch.allclose(grown[[0, 2, 3]], torch.full((3,), 2.0).log(), atol=0.02), "twice as large in every way"
    low, _ = describe_regions(box(48, 8, 8, 16))
    assert float(low[0, 0, 1]) > 0 > float(small[0, 0, 1])
    assert torch.allclose(low[0, 0, [0, 2, 3]], small[0, 0, [0, 2, 3]], atol=1e-4)


def test_absent_labels_have_no_vote_and_order_does_not_matter() -> None:
    torch.manual_seed(0)
    votes = ScaleVotes(6).eval()
    masks = torch.cat([box(8, 8, 16, 16), box(40, 8, 16, 40), torch.zeros(1, 1, 64, 64)], 1)
    text = torch.randn(3, 6)
    with torch.no_grad():
        scale = votes(masks, text)
        other = text.clone()
        other[2] = torch.randn(6) * 9
        assert torch.allclose(scale, votes(masks, other), atol=1e-3)
        order = [2, 0, 1]
        assert torch.allclose(scale, votes(masks[:, order], text[order]), atol=1e-6)
        assert votes(torch.zeros(1, 3, 64, 64), text).isfinite().all()


@pytest.mark.slow
def test_sizes_teach_distance() -> None:
    """Things of two known sizes at random distances: the scale of new pictures is found."""
    torch.manual_seed(0)

    def scene(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        kind, log_distance = torch.randint(2, (n,)), torch.rand(n) * 1.4
        side = (torch.where(kind == 0, 20.0, 44.0) / log_distance.exp()).round().int().clamp_min(2)
        masks = torch.zeros(n, 2, 64, 64)
        for i in range(n):
            masks[i, kind[i], : side[i], : side[i]] = 1
        return masks, log_distance - 0.7

    votes, text = ScaleVotes(6), torch.randn(2, 6)
    optimiser = torch.optim.Adam(votes.parameters(), 3e-3)
    masks, truth = scene(200)
    for _ in range(200):
        loss = (votes(masks, text) - truth).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    new, expected = scene(50)
    assert float((votes.eval()(new, text) - expected).abs().mean().detach()) < 0.12
