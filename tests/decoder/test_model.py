from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from datasetdm.backbones import Backbone, FeatureConfig
from datasetdm.backbones.canvas import Placement
from datasetdm.backbones.features import Features
from datasetdm.decoder.blocks.transformer import UNSEEN_WORD_LOGIT
from datasetdm.decoder.config import CONFIG
from datasetdm.decoder.inference import read_images
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import WEIGHTS, PDecoder
from datasetdm.decoder.tasks import TASKS, Previous
from datasetdm.decoder.tasks.semantic import SemanticHead
from datasetdm.errors import DecoderError
from datasetdm.records import Annotations, Labels, Prompt
from factory import LABELS, known, make_sample


@pytest.fixture
def decoder(tiny: Backbone) -> PDecoder:
    torch.manual_seed(0)
    return PDecoder.for_backbone(tiny, LABELS, ("semantic", "depth"), width=32).eval()


def test_saved_and_loaded_it_is_the_same(decoder: PDecoder, tiny: Backbone, tmp_path: Path) -> None:
    decoder.save(tmp_path / "d")
    again = PDecoder.load(tmp_path / "d")
    assert again.config == decoder.config and again.fingerprint() == decoder.fingerprint()
    assert not again.training
    latents = tiny.sample([Prompt("a dog")], 1, 1.0)
    inputs = DecoderInput.from_features(tiny.features(latents, ["a dog"], LABELS.names), ["a dog"], LABELS)
    place = Placement.fit((50, 30), tiny.size)
    a, b = decoder.annotate(inputs, [place])[0], again.annotate(inputs, [place])[0]
    assert known(a) == known(b) == ["semantic", "depth"]
    assert a.semantic.size == (50, 30)
    assert (a.semantic.ids == b.semantic.ids).all() and (a.depth.depth == b.depth.depth).all()


def test_files_are_safetensors_and_json_only(decoder: PDecoder, tmp_path: Path) -> None:
    decoder.save(tmp_path / "d")
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [CONFIG, WEIGHTS]
    assert json.loads((tmp_path / "d" / CONFIG).read_text())["identity"] == decoder.config.identity


def test_weights_and_backbone_make_the_fingerprint(decoder: PDecoder) -> None:
    before = decoder.fingerprint()
    with torch.no_grad():
        next(decoder.parameters()).add_(1e-3)
    assert decoder.fingerprint() != before


def test_another_backbone_is_refused(decoder: PDecoder, tiny: Backbone, mini: Backbone) -> None:
    decoder.check_backbone(tiny)
    with pytest.raises(DecoderError, match="fitted on another backbone") as caught:
        decoder.check_backbone(mini)
    assert "--backbone" in str(caught.value)
    decoder.config = dataclasses.replace(decoder.config, features=FeatureConfig(timesteps=(1,)))
    with pytest.raises(DecoderError, match="in another way"):
        decoder.check_backbone(tiny)


def test_every_feature_is_standardised_once(decoder: PDecoder) -> None:
    names = [n for n, _ in decoder.normalisers()]
    used = {n for names in decoder.pixels.names.values() for n in names}
    used |= {s.name for s in decoder.config.specs if s.kind == "attention"}
    assert sorted(names) == sorted(used)


def test_broken_decoders(decoder: PDecoder, tmp_path: Path) -> None:
    with pytest.raises(DecoderError, match="no decoder here"):
        PDecoder.load(tmp_path / "none")
    decoder.save(tmp_path / "d")
    (tmp_path / "d" / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(DecoderError, match="weights cannot be read"):
        PDecoder.load(tmp_path / "d")
    (tmp_path / "d" / CONFIG).write_text('{"tasks": []}')
    with pytest.raises(DecoderError, match=r"config\.json cannot be read"):
        PDecoder.load(tmp_path / "d")


BAD_CONFIGS: dict[str, Any] = {
    **{f"width {w!r}": {"width": w} for w in (10**9, 4096, "x", -1, 0, 1, 33, 1.5, True)},
    **{f"side {s!r}": {"side": s} for s in (0, 10**6, 16_384, "x")},
    "no specs": {"specs": []},
    "no features": {"features": None},
    "timesteps of text": {"features": {"timesteps": "abc"}},
    "a backbone of 5": {"backbone": 5},
    "an identity of 5": {"identity": 5},
    "no tasks": {"tasks": []},
    "an unknown task": {"tasks": ["colour"]},
    "one task as text": {"tasks": "semantic"},
    "no labels": {"labels": None},
    "names of 5": {"labels": {"names": 5, "synonyms": []}},
    "labels that clash": {"labels": {"names": ["a", "A"], "synonyms": [[], []]}},
    "a wide text": {"text_width": 65_000},
    "another key": {"colour": 1},
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_config_with_a_wrong_value_is_one_error(case: str, decoder: PDecoder, tmp_path: Path) -> None:
    decoder.save(tmp_path)
    content = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(content | BAD_CONFIGS[case]))
    with pytest.raises(DecoderError) as caught:
        PDecoder.load(tmp_path)
    assert str(tmp_path) in str(caught.value) and "remedy" in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[]", "{", ""])
def test_a_config_that_is_no_object_is_one_error(text: str, decoder: PDecoder, tmp_path: Path) -> None:
    decoder.save(tmp_path)
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(DecoderError, match=r"config\.json cannot be read"):
        PDecoder.load(tmp_path)


def test_inputs_know_which_labels_a_caption_mentions() -> None:
    labels = Labels(("cow", "tv", "sky"), ((), ("television",), ()))
    blank = Features({}, torch.zeros(3, 2), torch.zeros(2, 3, 8, 8))
    inputs = DecoderInput.from_features(blank, ["two cows beside a television", ""], labels)
    assert inputs.mentioned is not None and inputs.mentioned.tolist() == [[1, 1, -1], [0, 0, 0]]


def test_a_decoder_tells_its_head_which_labels_it_was_fitted_on(decoder: PDecoder) -> None:
    seen = []
    decoder.heads["semantic"].register_forward_pre_hook(lambda _, given: seen.append(given[1].in_vocabulary))
    maps = {
        s.name: torch.zeros(
            1, *((2,) if s.kind == "attention" else ()), s.channels, *[decoder.config.side // s.stride] * 2
        )
        for s in decoder.config.specs
    }
    known = decoder.config.labels.names[0]
    side = decoder.config.side
    inputs = DecoderInput(maps, torch.zeros(2, decoder.config.text_width))
    decoder.annotate(inputs, [Placement.fit((side, side), (side, side))], Labels((known, "something else")))
    decoder.config = dataclasses.replace(decoder.config, unseen=(known,))
    decoder.annotate(inputs, [Placement.fit((side, side), (side, side))], Labels((known, "something else")))
    assert [s.tolist() for s in seen] == [[1, 0], [0, 0]]


def test_labels_that_no_fit_saw_get_more_pixels_where_a_caption_asks_for_them(
    decoder: PDecoder, tiny: Backbone
) -> None:
    """Their logits are raised by `UNSEEN_WORD_LOGIT` temperatures; without their word, and for fitted labels, nothing changes."""
    own = decoder.config.labels
    image = make_sample("k", tiny.size)
    inputs, _ = read_images(tiny, [image, image], own)
    flags, mentioned = torch.ones(len(own)), -torch.ones(2, len(own))
    flags[1], mentioned[0, 1] = 0, 1
    given = dataclasses.replace(inputs, in_vocabulary=flags, mentioned=mentioned)
    head = decoder.heads["semantic"]
    assert isinstance(head, SemanticHead)
    head.temperature.fill_(1.5)
    with torch.no_grad():
        pyramid = decoder.pixels(given.maps)
        raised = head(pyramid, given, Previous()).logits - head.decoder(pyramid, given)
        blank = dataclasses.replace(given, mentioned=None)
        assert torch.equal(head(pyramid, blank, Previous()).logits, head.decoder(pyramid, blank))
    assert torch.allclose(raised[0, 1], torch.tensor(1.5 * UNSEEN_WORD_LOGIT), atol=1e-5)
    raised[0, 1] = 0
    assert not raised.any()


def test_a_fingerprint_heeds_labels_that_no_fit_saw(decoder: PDecoder) -> None:
    own, before = decoder.config.labels, decoder.fingerprint()
    assert before == decoder.fingerprint(own) == decoder.fingerprint(Labels(own.names[:2]))
    assert decoder.fingerprint(Labels((*own.names, "something else"))) != before
    decoder.config = dataclasses.replace(decoder.config, unseen=own.names[:1])
    assert decoder.fingerprint() == decoder.fingerprint(own) != before
    assert decoder.fingerprint(Labels(own.names[1:])) == before


def test_known_annotations_are_kept_and_their_tasks_skipped(decoder: PDecoder, tiny: Backbone) -> None:
    image = make_sample("k", tiny.size)
    inputs, places = read_images(tiny, [image], LABELS)
    given = Annotations(semantic=image.semantic)
    found = decoder.annotate(inputs, places, known=[given])[0]
    assert found.semantic is image.semantic and found.depth is not None


def test_missing_maps_are_named(decoder: PDecoder) -> None:
    inputs = DecoderInput({}, torch.zeros(3, decoder.config.text_width))
    with pytest.raises(DecoderError, match=r"the backbone gives no attention"):
        decoder.annotate(inputs, [])


def test_the_shipped_decoder_loads() -> None:
    """Its state has the names of today's modules, none more and none less."""
    shipped = PDecoder.load("mini")
    assert set(shipped.tasks) == set(TASKS) and len(shipped.config.labels) == 30
