from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasetdm.backbones.canvas import Placement, to_uint8
from datasetdm.training.augment import augment


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 90), st.integers(1, 90))
def test_any_size_fits_and_comes_back(h: int, w: int) -> None:
    place = Placement.fit((h, w), (32, 32))
    assert max(place.inner) == 32 and place.inner[0] <= 32 and place.inner[1] <= 32
    image = np.full((h, w, 3), 77, np.uint8)
    canvas = place.image(image)
    assert canvas.shape == (1, 3, 32, 32) and torch.allclose(canvas, torch.tensor(77 / 255), atol=1e-5)
    assert place.undo(canvas).shape == (1, 3, h, w)


def test_margins_are_filled_and_labels_are_not_blended() -> None:
    place = Placement.fit((10, 40), (32, 32))
    values = np.where(np.arange(40)[None] < 20, 1.0, 5.0) * np.ones((10, 1))
    canvas = place.map(torch.from_numpy(values), -1.0)
    assert place.inner == (8, 32)
    assert set(canvas.unique().tolist()) == {-1.0, 1.0, 5.0}
    assert (canvas[..., 8:, :] == -1).all() and (canvas[..., :8, :] != -1).all()


def test_round_trip_at_the_native_size() -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    place = Placement.fit((32, 32), (32, 32))
    assert np.array_equal(to_uint8(place.image(image))[0], image)


@pytest.mark.parametrize("seed", range(8))
def test_augmentation_moves_image_and_labels_together(seed: int) -> None:
    """An image whose brightness is its label stays so wherever the geometry takes it."""
    labels = torch.zeros(1, 1, 64, 64)
    labels[..., 20:40, 10:50] = 1
    image = (labels * 0.8 + 0.1).expand(-1, 3, -1, -1)
    moved, [mask], zoom = augment(image, [labels], seed)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    bright = moved.mean(1, keepdim=True)
    threshold = (bright.max() + bright.min()) / 2
    agree = ((bright > threshold) == (mask > 0.5)).float().mean()
    assert agree > 0.96 or mask.unique().numel() == 1
    assert 0.99 <= abs(zoom) <= 2
    again, [same], _ = augment(image, [labels], seed)
    assert torch.equal(moved, again) and torch.equal(mask, same)


def test_zoom_says_how_much_larger_things_appear() -> None:
    rows = torch.arange(64.0)[None, None, :, None].expand(1, 1, 64, 64).contiguous()
    columns = rows.transpose(-1, -2).contiguous()
    seen = set()
    for seed in range(6):
        _, maps, zoom = augment(torch.zeros(1, 3, 64, 64), [rows, columns], seed)
        span = [float(m.max() - m.min() + 1) for m in maps]
        assert (zoom < 0) == bool(maps[1][0, 0, 0, 0] > maps[1][0, 0, 0, -1]), "negative where it is mirrored"
        assert abs(zoom) == pytest.approx((64 * 64 / (span[0] * span[1])) ** 0.5, rel=0.1)
        seen.add(round(zoom, 2))
    assert len(seen) > 3


def test_the_masks_of_no_object_have_a_place() -> None:
    place = Placement.fit((20, 40), (64, 64))
    assert place.map(torch.zeros(0, 20, 40), 0.0).shape == (0, 64, 64)
