from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasetdm.backbones import Backbone
from datasetdm.backbones.canvas import Placement
from datasetdm.decoder.model import PDecoder
from datasetdm.errors import ConfigError
from datasetdm.pipelines.annotate import Annotator
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.pipelines.stream import Data
from datasetdm.quality.checks import FlipConsistency, Made, agreement
from datasetdm.records import IGNORE
from factory import LABELS, make_sample
from sources import InMemoryReader

FAST = dict(steps=1, guidance=1.0, batch=2)


def decoder(tiny: Backbone, *tasks: str) -> PDecoder:
    torch.manual_seed(0)
    return PDecoder.for_backbone(tiny, LABELS, tasks, width=32).eval()


@pytest.fixture(scope="module")
def semantic(tiny: Backbone) -> PDecoder:
    return decoder(tiny, "semantic")


def made(tiny: Backbone, model: PDecoder, latents: torch.Tensor) -> Made:
    texts = ["a dog"] * len(latents)
    features = tiny.features(latents, texts, LABELS.names)
    places = [Placement.fit(tiny.size, tiny.size)] * len(latents)
    return Made(latents, features, texts, [("dog",)] * len(latents), LABELS, tiny, model, places)


def test_agreement_is_the_mirror_images_mirrored(tiny: Backbone, semantic: PDecoder) -> None:
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    own, other = (np.stack(agreement(made(tiny, semantic, x))) for x in (latents, latents.flip(-1)))
    assert own.shape == (2, *tiny.size) and own.min() >= 0 and own.max() <= 1.0001
    assert np.allclose(own, other[..., ::-1], atol=1e-3)
    assert np.allclose(own[1:], agreement(made(tiny, semantic, latents[1:])), atol=1e-3), "alone as in a batch"


def test_pixels_without_agreement_are_ignored(tiny: Backbone, semantic: PDecoder) -> None:
    plain = DatasetGenerator(["a dog"], decoder=semantic, backbone=tiny, **FAST)
    given = plain.batch(0)
    seen = np.stack(agreement(made(tiny, semantic, tiny.sample([plain.prompt(i) for i in range(2)], 1, 1.0, ["", ""]))))
    limit = float(np.median(seen))
    checked = DatasetGenerator(["a dog"], decoder=semantic, backbone=tiny, flip_agreement=limit, **FAST)
    for before, after, own in zip(given, checked.batch(0), seen, strict=True):
        assert before.semantic is not None and after.semantic is not None
        ignored = after.semantic.ids == IGNORE
        assert 0 < ignored.mean() < 1 and np.mean(ignored == (own < limit)) > 0.99
        assert np.array_equal(after.semantic.ids[~ignored], before.semantic.ids[~ignored])
        assert after.accepted and after.quality.scores["flip-consistency"] == pytest.approx(own.mean(), abs=1e-3)
    assert checked.origin()["checks"] == [{"name": "flip-consistency", "minimum": limit, "mean": 0.0}]
    assert "checks" not in plain.origin()


def test_images_without_agreement_are_rejected(tiny: Backbone, semantic: PDecoder) -> None:
    given = DatasetGenerator(["a dog"], decoder=semantic, backbone=tiny, **FAST).batch(0)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    found = FlipConsistency(minimum=0, mean=1)(given, made(tiny, semantic, latents))
    assert [s.quality.reasons for s in found] == [("flip-consistency: the mirror image has other labels",)] * 2
    assert [replace(s, quality=g.quality).digest() for s, g in zip(found, given, strict=True)] == [
        s.digest() for s in given
    ]


def test_it_needs_semantic_maps(tiny: Backbone) -> None:
    generator = DatasetGenerator(["a dog"], decoder=decoder(tiny, "depth"), backbone=tiny, flip_agreement=0.5, **FAST)
    with pytest.raises(ConfigError, match="this decoder makes none"):
        generator.batch(0)


def test_annotated_images_are_checked_at_their_own_size(tiny: Backbone, semantic: PDecoder) -> None:
    """Of any aspect; the margin of the canvas has no part in it, and a batch gives each image what it gets alone."""
    data = [make_sample("a", (64, 64), 0), make_sample("b", (40, 96), 1)]
    plain = Annotator(Data(InMemoryReader(data)), decoder=semantic, backbone=tiny)
    checked = Annotator(
        Data(InMemoryReader(data)), decoder=semantic, backbone=tiny, checks=[FlipConsistency(minimum=0.5)]
    )
    assert checked.origin()["checks"][0]["name"] == "flip-consistency" and "checks" not in plain.origin()
    for before, after in zip(plain.samples(), checked.samples(), strict=True):
        ignored = after.semantic.ids == IGNORE
        assert ignored.shape == before.size and np.array_equal(
            after.semantic.ids[~ignored], before.semantic.ids[~ignored]
        )
        assert 0 < after.quality.scores["flip-consistency"] <= 1 and after.provenance == before.provenance
    (alone,) = checked.samples(done={"a"})
    assert alone.quality.scores["flip-consistency"] == pytest.approx(after.quality.scores["flip-consistency"], abs=1e-3)
