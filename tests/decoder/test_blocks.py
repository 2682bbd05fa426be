from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from datasetdm.backbones.features import FITTED, NAMED, FeatureSpec
from datasetdm.decoder.blocks.pixel import PixelDecoder, Standardise, level_widths, merge, positions
from datasetdm.decoder.blocks.transformer import HEARD, UNSEEN, LabelDecoder, upsample

SPECS = (
    FeatureSpec("mid", 24, 16, "hidden"),
    FeatureSpec("up.0", 16, 8, "hidden"),
    FeatureSpec("attention8@1", 2, 8, "attention"),
    FeatureSpec("attention8@9", 3, 8, "attention"),
    FeatureSpec("vae0", 8, 4, "vae"),
    FeatureSpec("vae1", 8, 1, "vae"),
)
SIDE = 64


def random_maps(labels: int = 3, batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        s.name: torch.randn(
            batch, *((labels,) if s.kind == "attention" else ()), s.channels, SIDE // s.stride, SIDE // s.stride
        )
        for s in SPECS
    }


def label_decoder() -> tuple[PixelDecoder, LabelDecoder]:
    torch.manual_seed(1)
    pixels = PixelDecoder(SPECS, SIDE, 32).eval()
    return pixels, LabelDecoder(pixels.widths, SPECS, 12).eval()


def test_widths_follow_the_specs() -> None:
    assert level_widths(SPECS, SIDE, 128) == {16: 128, 8: 128, 4: 128, 1: 32}
    large = (FeatureSpec("a", 1, 64, "hidden"), FeatureSpec("b", 1, 8, "hidden"), FeatureSpec("c", 1, 2, "vae"))
    assert level_widths(large, 512, 128) == {64: 128, 8: 32}, "more than 128 positions a side are left out"


def test_pyramid_shapes() -> None:
    pixels, _ = label_decoder()
    pyramid = pixels(random_maps())
    assert {s: tuple(x.shape) for s, x in pyramid.items()} == {
        s: (2, w, SIDE // s, SIDE // s) for s, w in pixels.widths.items()
    }


def test_merge_is_a_sum_of_upsampled_levels() -> None:
    coarse, fine = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 8, 8)
    expected = fine + F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(merge({8: coarse, 4: fine}), expected)
    assert torch.equal(merge({4: fine}), fine)


def test_standardise() -> None:
    module = Standardise(3)
    data = torch.randn(4, 3, 50, 50) * torch.tensor([1.0, 10, 0.1])[:, None, None] + 5
    module.measure([data[:2], data[2:]])
    out = module(data)
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-3)
    assert torch.allclose(out.std((0, 2, 3)), torch.ones(3), atol=1e-2)
    assert float(module(data * 1e6).max()) == 6


def test_label_order_does_not_matter() -> None:
    """No weight belongs to a label: permuting the labels permutes the masks, and new labels need no new weights."""
    pixels, labels = label_decoder()
    maps, text = random_maps(5), torch.randn(5, 12)
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = {n: x[:, order] if "attention" in n else x for n, x in maps.items()}
    with torch.no_grad():
        pyramid = pixels(maps)
        a, b = labels(pyramid, maps, text), labels(pyramid, moved, text[order])
        assert (
            labels(pyramid, {n: x[:, :1] if "attention" in n else x for n, x in maps.items()}, text[:1]).shape[1] == 1
        )
    assert a.shape == (2, 5, SIDE, SIDE)
    assert torch.allclose(a[:, order], b, atol=1e-4)


@pytest.mark.parametrize("part", ["text", "named", "attention8@1", "attention8@9"])
def test_every_evidence_counts(part: str) -> None:
    pixels, labels = label_decoder()
    maps, text = random_maps() | {NAMED: torch.zeros(2, 3)}, torch.randn(3, 12)
    with torch.no_grad():
        pyramid = pixels(maps)
        before = labels(pyramid, maps, text)
        if part == "text":
            text = text + torch.randn(3, 12)
        else:
            maps[part] = maps[part] + torch.randn_like(maps[part])
        assert not torch.allclose(before, labels(pyramid, maps, text), atol=1e-3)


def test_words_of_labels_that_no_fit_saw_count_for_a_part() -> None:
    """Known labels are read as ever; an unknown one's query holds `UNSEEN` of its words."""
    pixels, labels = label_decoder()
    maps, text, known = random_maps(), torch.randn(3, 12), torch.tensor([[1.0, 0, 1]]).expand(2, -1)
    with torch.no_grad():
        pyramid = pixels(maps)
        assert torch.equal(labels(pyramid, maps, text), labels(pyramid, maps | {FITTED: torch.ones(2, 3)}, text))
        assert not torch.allclose(labels(pyramid, maps, text), labels(pyramid, maps | {FITTED: known}, text), atol=1e-3)
        words = labels.words(text)
        meant = labels._meant(text, {FITTED: known}, 2)
    assert torch.allclose(meant, (words * torch.tensor([1, UNSEEN, 1])[:, None]).expand(2, -1, -1))


def test_some_labels_learn_without_their_words() -> None:
    _, labels = label_decoder()
    labels.wordless = 1.0
    assert labels._meant(torch.randn(3, 12), {}, 2).any()
    assert not labels.train()._meant(torch.randn(3, 12), {}, 2).any()


def test_captions_are_doubted_while_learning_and_louder_afterwards() -> None:
    _, labels = label_decoder()
    named = torch.tensor([1.0, -1.0]).expand(20_000, 2)
    assert torch.equal(labels._doubted(named), HEARD * named)
    torch.manual_seed(0)
    heard = labels.train()._doubted(named)
    told = heard[heard[:, 0] != 0]
    assert (heard == 0).all(1).float().mean() == pytest.approx(labels.uncaptioned, abs=0.01)
    assert (told[:, 0] < 0).float().mean() == pytest.approx(labels.unsaid, abs=0.01)
    assert (told[:, 1] > 0).float().mean() == pytest.approx(labels.undrawn, abs=0.01)


def test_positions_agree_between_sizes() -> None:
    coarse, fine = (positions(torch.zeros(1, 8, n, n)) for n in (1, 3))
    assert torch.allclose(coarse[:, 0, 0], fine[:, 1, 1], atol=1e-6)


def test_upsample_leaves_the_right_size_alone() -> None:
    x = torch.randn(1, 2, 5, 7)
    assert upsample(x, (5, 7)) is x and upsample(x, (10, 3)).shape == (1, 2, 10, 3)
