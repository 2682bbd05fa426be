from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import PixelDecoder, Standardise, level_widths, merge, positions
from datasetdm.decoder.blocks.transformer import CAPTION_GAIN, UNSEEN_WORD_WEIGHT, LabelDecoder, upsample
from datasetdm.decoder.inputs import DecoderInput

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
        a, b = labels(pyramid, DecoderInput(maps, text)), labels(pyramid, DecoderInput(moved, text[order]))
        one = {n: x[:, :1] if "attention" in n else x for n, x in maps.items()}
        assert labels(pyramid, DecoderInput(one, text[:1])).shape[1] == 1
    assert a.shape == (2, 5, SIDE, SIDE)
    assert torch.allclose(a[:, order], b, atol=1e-4)


@pytest.mark.parametrize("part", ["text", "mentioned", "attention8@1", "attention8@9"])
def test_every_evidence_counts(part: str) -> None:
    pixels, labels = label_decoder()
    given = DecoderInput(random_maps(), torch.randn(3, 12), torch.zeros(2, 3))
    changed = {
        "text": replace(given, text=given.text + torch.randn(3, 12)),
        "mentioned": replace(given, mentioned=torch.randn(2, 3)),
    }
    if part not in changed:
        changed[part] = replace(given, maps={**given.maps, part: torch.randn_like(given.maps[part])})
    with torch.no_grad():
        pyramid = pixels(given.maps)
        assert not torch.allclose(labels(pyramid, given), labels(pyramid, changed[part]), atol=1e-3)


def test_words_of_labels_that_no_fit_saw_count_for_a_part() -> None:
    """Known labels are read as ever; an unknown one's query holds `UNSEEN_WORD_WEIGHT` of its text embedding."""
    pixels, labels = label_decoder()
    plain = DecoderInput(random_maps(), torch.randn(3, 12))
    known, partly = (replace(plain, in_vocabulary=torch.tensor(v)) for v in ([1.0, 1, 1], [1.0, 0, 1]))
    with torch.no_grad():
        pyramid = pixels(plain.maps)
        assert torch.equal(labels(pyramid, plain), labels(pyramid, known))
        assert not torch.allclose(labels(pyramid, plain), labels(pyramid, partly), atol=1e-3)
        words, embedded = labels.words(plain.text), labels.embed_text(partly, 2)
    assert torch.allclose(embedded, (words * torch.tensor([1, UNSEEN_WORD_WEIGHT, 1])[:, None]).expand(2, -1, -1))


def test_some_labels_learn_without_their_words() -> None:
    _, labels = label_decoder()
    labels.drop_text = 1.0
    given = DecoderInput({}, torch.randn(3, 12))
    assert labels.embed_text(given, 2).any()
    assert not labels.train().embed_text(given, 2).any()


def test_mentions_are_corrupted_while_learning_and_amplified_afterwards() -> None:
    _, labels = label_decoder()
    mentioned = torch.tensor([1.0, -1.0]).expand(20_000, 2)
    assert torch.equal(labels.corrupt_mentions(mentioned), CAPTION_GAIN * mentioned)
    torch.manual_seed(0)
    corrupted = labels.train().corrupt_mentions(mentioned)
    kept = corrupted[corrupted[:, 0] != 0]
    assert (corrupted == 0).all(1).float().mean() == pytest.approx(labels.drop_caption, abs=0.01)
    assert (kept[:, 0] < 0).float().mean() == pytest.approx(labels.drop_mention, abs=0.01)
    assert (kept[:, 1] > 0).float().mean() == pytest.approx(labels.false_mention, abs=0.01)


def test_positions_agree_between_sizes() -> None:
    coarse, fine = (positions(torch.zeros(1, 8, n, n)) for n in (1, 3))
    assert torch.allclose(coarse[:, 0, 0], fine[:, 1, 1], atol=1e-6)


def test_upsample_leaves_the_right_size_alone() -> None:
    x = torch.randn(1, 2, 5, 7)
    assert upsample(x, (5, 7)) is x and upsample(x, (10, 3)).shape == (1, 2, 10, 3)
