from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from datasetdm.backbones import Backbone
from datasetdm.decoder.inference import read_images
from datasetdm.decoder.model import PDecoder
from datasetdm.decoder.tasks.depth import DepthHead, DepthOutputs, DepthTargets, DepthTask
from datasetdm.errors import ConfigError, DataError, OutputError
from datasetdm.pipelines.evaluate import evaluate
from datasetdm.pipelines.fit import FitConfig, fit, iter_fit, split
from datasetdm.pipelines.settings import COMPOSED_CAPTION_DROPOUT
from datasetdm.readers import read
from datasetdm.records import DepthMap, Labels, Prompt, Sample, Skeleton
from datasetdm.records.edits import reject, relabel
from datasetdm.store.reviews import Review, append_review
from datasetdm.store.store import Store
from datasetdm.store.writer import write_store
from factory import LABELS, make_sample
from sources import InMemoryReader

QUICK = dict(steps=6, batch=4, variants=2, width=32, evaluate_every=3)


@pytest.fixture(scope="module")
def decoder(tiny: Backbone) -> PDecoder:
    torch.manual_seed(0)
    return PDecoder.for_backbone(tiny, LABELS, ("semantic",), width=32).eval()


def weights_hash(backbone: Any) -> str:
    h = hashlib.sha256()
    for part in (backbone.pipe.unet, backbone.pipe.vae, backbone.pipe.text_encoder):
        for name, value in sorted(part.state_dict().items()):
            h.update(name.encode() + value.float().numpy().tobytes())
    return h.hexdigest()


def test_the_backbone_stays_frozen_and_any_size_fits(samples: list[Sample], tiny: Any, tmp_path: Path) -> None:
    before = weights_hash(tiny)
    decoder = fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, **QUICK)
    assert weights_hash(tiny) == before
    assert not any(p.requires_grad for p in tiny.pipe.unet.parameters())
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["config.json", "model.safetensors"]
    story: Any = decoder.config.fitted
    assert story["images"] == 11 and story["held_out_images"] == 1
    assert story["config"]["steps"] == 6 and "semantic.miou" in story["held_out_figures"]


def test_stopped_and_resumed_it_is_the_same(samples: list[Sample], tiny: Backbone, tmp_path: Path) -> None:
    config = FitConfig(**QUICK)
    for _ in iter_fit(InMemoryReader(samples), tmp_path / "whole", backbone=tiny, config=config):
        pass
    for stop in ("features", 3):  # in the middle of the features, and after the first checkpoint
        for event in iter_fit(InMemoryReader(samples), tmp_path / "parts", backbone=tiny, config=config):
            if event.stage == stop or (event.done == stop and event.stage == "steps"):
                break
    events = list(iter_fit(InMemoryReader(samples), tmp_path / "parts", backbone=tiny, config=config))
    steps = [e for e in events if e.stage == "steps"]
    assert len(steps) == 3 and steps[-1].done == 6
    whole, parts = PDecoder.load(tmp_path / "whole"), PDecoder.load(tmp_path / "parts")
    assert whole.fingerprint() == parts.fingerprint()


def composed(sample: Sample) -> Sample:
    """As readers give images without captions."""
    return replace(sample, prompt=replace(sample.prompt, origin="labels"))


def test_captions_are_dropped_where_they_were_composed_of_labels(
    samples: list[Sample], tiny: Backbone, tmp_path: Path
) -> None:
    """By default, as if it had been asked for; a fit that was stopped goes on, and the decoder remembers the value."""
    quick = QUICK | dict(steps=3, evaluate_every=2, held_out=0.0, tasks=("semantic",))
    bare, captioned = InMemoryReader([composed(s) for s in samples[:5]] + samples[5:6]), InMemoryReader(samples[:6])
    run: Any = iter_fit(bare, tmp_path / "default", backbone=tiny, config=FitConfig(**quick))
    assert next(e for e in run if e.done == 2 and e.stage == "steps")
    run.close()
    notes = next(iter_fit(bare, tmp_path / "default", backbone=tiny, config=FitConfig(**quick))).notes
    assert notes[0].startswith("5 of 6 images have no caption of their own") and "caption dropout 0.2:" in notes[0]
    default = fit(bare, tmp_path / "default", backbone=tiny, **quick)
    asked = fit(bare, tmp_path / "asked", backbone=tiny, caption_dropout=COMPOSED_CAPTION_DROPOUT, **quick)
    never = fit(bare, tmp_path / "never", backbone=tiny, caption_dropout=0.0, **quick)
    assert default.fingerprint() == asked.fingerprint() != never.fingerprint()
    own = fit(captioned, tmp_path / "own", backbone=tiny, **quick)
    for decoder, dropout in ((default, COMPOSED_CAPTION_DROPOUT), (never, 0), (own, 0)):
        story: Any = decoder.config.fitted
        assert story["config"]["caption_dropout"] == dropout


def test_figures_on_new_images_are_those_without_composed_captions(
    samples: list[Sample], decoder: PDecoder, tiny: Backbone
) -> None:
    bare = [composed(s) for s in samples]
    without, under = evaluate(decoder, tiny, samples, captions=False), evaluate(decoder, tiny, samples)
    assert evaluate(decoder, tiny, bare) == without != under == evaluate(decoder, tiny, bare, composed=True)


def test_long_captions_are_counted(samples: list[Sample], tiny: Backbone, tmp_path: Path) -> None:
    """Their labels are those of the words that were kept."""
    long = replace(samples[0], prompt=Prompt("grass " * 40 + "and a dog", origin="caption"))
    event = next(
        iter_fit(InMemoryReader([long, *samples[1:]]), tmp_path / "d", backbone=tiny, config=FitConfig(**QUICK))
    )
    assert len(event.notes) == 1 and event.notes[0].startswith(
        "1 of 12 captions are longer than the text encoders read"
    )
    inputs, _ = read_images(tiny, [long], LABELS)
    assert inputs.mentioned.tolist() == [[-1, -1, 1]]


def test_two_fits_at_once_and_a_kill_while_it_cleans_up(
    samples: list[Sample], tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is told who holds the folder; nothing is left of the work whenever it ends."""
    out, config = tmp_path / "d", FitConfig(**QUICK)

    def begin() -> Generator[Any]:
        return iter_fit(InMemoryReader(samples), out, backbone=tiny, config=config)

    first = begin()
    next(first)
    with pytest.raises(OutputError, match="this decoder is being written") as caught:
        next(begin())
    assert f"process {os.getpid()}" in str(caught.value)

    def killed(path: Path) -> None:
        raise SystemExit("killed")

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(Path, "rmdir", killed)
        list(first)
    assert (out / "work").exists()
    assert list(begin()) == [], "there is nothing left to fit"
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(OutputError, match="not empty"):
        list(begin())


def test_learning_shows(tiny: Backbone, tmp_path: Path) -> None:
    """Sky, grass and dogs can be told apart by colour, even through random features."""
    train = [make_sample(f"t{i}", (48, 48), i) for i in range(16)]
    test = [make_sample(f"v{i}", (48, 48), 100 + i) for i in range(8)]
    decoder = fit(
        InMemoryReader(train), tmp_path / "d", backbone=tiny, steps=60, batch=8, variants=2, width=32, evaluate_every=60
    )
    figures = evaluate(decoder, tiny, test)
    assert figures["semantic"]["accuracy"] > 0.8
    untrained = PDecoder.for_backbone(tiny, LABELS, ("semantic", "depth"), width=32).eval()
    assert figures["semantic"]["miou"] > evaluate(untrained, tiny, test)["semantic"]["miou"] + 0.2


def test_the_figures_told_are_those_of_the_last_step(
    samples: list[Sample], tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out pictures are too few to choose by, even where they prefer an earlier step."""
    said = [{"semantic": {"miou": v}} for v in (0.9, 0.1)]
    monkeypatch.setattr("datasetdm.pipelines.fit.evaluate", lambda decoder, backbone, held: said.pop(0))
    fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, **QUICK)
    monkeypatch.undo()
    decoder = fit(InMemoryReader(samples), tmp_path / "plain", backbone=tiny, **(QUICK | dict(evaluate_every=100)))
    last, story = PDecoder.load(tmp_path / "d"), PDecoder.load(tmp_path / "d").config.fitted
    assert story is not None and story["held_out_figures"] == {"semantic.miou": 0.1} and said == []
    assert all(torch.equal(a, b) for a, b in zip(last.parameters(), decoder.parameters(), strict=True))


def test_tasks_and_labels_may_be_missing(samples: list[Sample], tiny: Backbone, tmp_path: Path) -> None:
    partial = [
        Sample(
            s.key,
            s.image,
            s.labels,
            s.prompt,
            semantic=None if i % 2 else s.semantic,
            depth=s.depth if i % 2 else None,
        )
        for i, s in enumerate(samples)
    ]
    decoder = fit(InMemoryReader(partial), tmp_path / "both", backbone=tiny, **QUICK)
    assert set(decoder.tasks) == {"semantic", "depth"}
    only = [Sample(s.key, s.image, s.labels, s.prompt, semantic=s.semantic) for s in samples]
    with pytest.raises(DataError, match="no sample has a depth label"):
        fit(InMemoryReader(only), tmp_path / "x", backbone=tiny, tasks=("semantic", "depth"), **QUICK)
    assert set(fit(InMemoryReader(only), tmp_path / "one", backbone=tiny, **QUICK).tasks) == {"semantic"}
    bare = [Sample(s.key, s.image, s.labels, s.prompt) for s in samples]
    with pytest.raises(DataError, match="no sample has a label to learn from"):
        fit(InMemoryReader(bare), tmp_path / "x", backbone=tiny, **QUICK)


def test_held_out_share() -> None:
    samples = [make_sample(str(i), (4, 6), i) for i in range(30)]
    kept, held = split(samples, 0.1, 0)
    assert len(held) == 3 and len(kept) == 27 and not {s.key for s in kept} & {s.key for s in held}
    assert (
        [s.key for s in split(samples, 0.1, 0)[1]]
        == [s.key for s in held]
        != [s.key for s in split(samples, 0.1, 1)[1]]
    )
    assert split(samples[:9], 0.1, 0) == (samples[:9], [])


def test_one_picture_is_enough_to_run(tiny: Backbone, tmp_path: Path) -> None:
    decoder = fit(InMemoryReader([make_sample("k", (4, 200))]), tmp_path / "d", backbone=tiny, **QUICK)
    assert decoder.config.fitted is not None and decoder.config.fitted["held_out_images"] == 0


def test_output_folders_are_not_overwritten(samples: list[Sample], tiny: Backbone, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        fit(InMemoryReader(samples), tmp_path / "mine", backbone=tiny, **QUICK)
    next(iter_fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, config=FitConfig(**QUICK)))
    with pytest.raises(OutputError, match="another, unfinished fit"):
        fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, seed=1, **QUICK)


def test_settings_are_checked(samples: list[Sample], tiny: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, step=3)
    with pytest.raises(ConfigError, match="batch"):
        fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, batch=0)
    with pytest.raises(ConfigError, match="seed"):
        fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, seed=-1)
    with pytest.raises(ConfigError, match="tasks"):
        fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, tasks=())
    with pytest.raises(ConfigError, match="unknown task 'dept'"):
        fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, tasks=("dept",))
    assert not (tmp_path / "d").exists()


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(
    samples: list[Sample], tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = DepthTask.loss, []

    def broken(self: DepthTask, *args: object) -> torch.Tensor:
        calls.append(1)
        return real(self, *args) * (np.nan if len(calls) > 4 else 1)

    monkeypatch.setattr(DepthTask, "loss", broken)
    with pytest.raises(DataError, match=r"not finite at step 4.*depth nan") as caught:
        fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, **QUICK)
    assert "where:    samples 0000" in str(caught.value)
    assert (tmp_path / "d" / "work" / "checkpoint.safetensors").exists()


def test_a_full_disk_stops_a_fit_with_one_clear_error(
    samples: list[Sample], tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasetdm.decoder.tensor_files as tensors

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OutputError, match="disk is full"):
        fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, **QUICK)
    assert sorted(p.name for p in (tmp_path / "d" / "work").iterdir()) == ["recipe.json"]
    monkeypatch.undo()
    assert fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, **QUICK).config.fitted


def test_other_label_names_are_another_fit(samples: list[Sample], tiny: Backbone, tmp_path: Path) -> None:
    next(iter_fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, config=FitConfig(**QUICK)))
    renamed = Labels(("heaven", "dog", "grass"))
    others = [Sample(s.key, s.image, renamed, s.prompt, **s.annotations.fields()) for s in samples]
    with pytest.raises(OutputError, match="another, unfinished fit"):
        fit(InMemoryReader(others), tmp_path / "d", backbone=tiny, **QUICK)


def test_figures_match_labels_by_name_and_refuse_others(samples: list[Sample], tiny: Backbone) -> None:
    torch.manual_seed(0)
    decoder = PDecoder.for_backbone(tiny, Labels(("dog", "sky", "grass")), ("semantic",), width=32).eval()
    own = [relabel(s, decoder.config.labels, [1, 0, 2]) for s in samples[:2]]
    assert str(evaluate(decoder, tiny, samples[:2])) == str(evaluate(decoder, tiny, own))  # NaN is not equal to itself
    decoder = PDecoder.for_backbone(tiny, Labels(("dog", "heaven", "grass")), ("semantic",), width=32).eval()
    with pytest.raises(DataError, match="only the data have sky; only the decoder has heaven"):
        evaluate(decoder, tiny, samples[:1])


def test_only_maps_that_are_read_are_kept(samples: list[Sample], tiny: Backbone, tmp_path: Path) -> None:
    list(
        itertools.islice(iter_fit(InMemoryReader(samples), tmp_path / "d", backbone=tiny, config=FitConfig(**QUICK)), 2)
    )
    kept = load_file(next((tmp_path / "d" / "work").glob("0*.safetensors")))
    decoder = PDecoder.for_backbone(tiny, LABELS, ("semantic",), width=32)
    assert {k[4:] for k in kept if k.startswith("map.")} == {n for n, _ in decoder.normalisers()}
    assert torch.equal(kept["mentioned"].abs(), torch.ones(3)) and kept["target.semantic.ids"].dtype == torch.int32


def test_labels_follow_the_data(tiny: Backbone, tmp_path: Path) -> None:
    """Those that no image of the fit shows are known as such."""
    labels = Labels(("night sky", "pug", "lawn", "moon"))
    own = [make_sample(str(i), (20, 20), i, labels) for i in range(3)]
    own = [Sample(s.key, s.image, labels, Prompt("a pug"), **s.annotations.fields()) for s in own]
    events = list(iter_fit(InMemoryReader(own), tmp_path / "d", backbone=tiny, config=FitConfig(**QUICK)))
    assert [n for n in events[0].notes if n.endswith("by their words alone: moon")]
    config = PDecoder.load(tmp_path / "d").config
    assert config.labels == labels and config.unseen == ("moon",) and config.seen == {"night sky", "pug", "lawn"}
    assert not fit(InMemoryReader(own), tmp_path / "deep", backbone=tiny, tasks=("depth",), **QUICK).config.unseen


def test_the_sample_whose_loss_is_no_number_is_named(
    samples: list[Sample], tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DepthTask.loss

    def fragile(self: DepthTask, head: DepthHead, outputs: DepthOutputs, targets: DepthTargets) -> torch.Tensor:
        return real(self, head, outputs, targets) * (np.nan if (targets.depth > 900).any() else 1)

    monkeypatch.setattr(DepthTask, "loss", fragile)
    deep = samples[2].depth
    ill = replace(samples[2], depth=DepthMap(np.where(deep.valid, 4000, 0), deep.valid))
    with pytest.raises(DataError, match="not finite at step") as caught:
        fit(InMemoryReader([*samples[:2], ill, samples[3]]), tmp_path / "d", backbone=tiny, tasks=("depth",), **QUICK)
    assert "samples 00002-s2\n" in str(caught.value) + "\n"


def test_labels_of_the_same_words_are_refused(tiny: Backbone, tmp_path: Path) -> None:
    labels = Labels(("sky", "dog house", "dog  house"))
    with pytest.raises(DataError, match="'dog house' and 'dog  house'"):
        fit(InMemoryReader([make_sample("k", (24, 24), 0, labels)]), tmp_path / "d", backbone=tiny, **QUICK)


@pytest.mark.parametrize("tasks", [("keypoints",), None])
def test_keypoints_train_alone_and_by_default(tasks: tuple[str, ...] | None, tiny: Backbone, tmp_path: Path) -> None:
    labels = Labels(LABELS.names, stuff=("sky", "grass"), skeletons={"dog": Skeleton(("nose", "tail"))})
    own = [make_sample(str(i), (40, 40), i, labels) for i in range(12)]
    decoder = fit(InMemoryReader(own), tmp_path / "d", backbone=tiny, tasks=tasks, **QUICK)
    story: Any = decoder.config.fitted
    assert 0 <= story["held_out_figures"]["keypoints.pck"] <= 1
    figures = evaluate(decoder, tiny, own[:4])
    assert figures.keys() == ({*tasks} if tasks else {"semantic", "depth", "instance", "keypoints", "panoptic"})
    assert PDecoder.load(tmp_path / "d").fingerprint() == decoder.fingerprint()


def test_rejected_samples_are_skipped(samples: list[Sample], tiny: Backbone, tmp_path: Path) -> None:
    """As if they were not there: in the fit, and in the figures."""
    marked = [reject(s, "blurred") if i % 3 == 0 else s for i, s in enumerate(samples)]
    accepted = [s for s in marked if s.accepted]
    a = fit(InMemoryReader(marked), tmp_path / "a", backbone=tiny, **QUICK)
    b = fit(InMemoryReader(accepted), tmp_path / "b", backbone=tiny, **QUICK)
    assert len(accepted) == 8 and a.fingerprint() == b.fingerprint()
    assert evaluate(a, tiny, marked) == evaluate(b, tiny, accepted) != evaluate(b, tiny, samples)


def test_reviews_of_a_store_are_applied(samples: list[Sample], tiny: Backbone, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_store(samples, store, samples[0].labels)
    decoder = fit(f"store:{store}", tmp_path / "all", backbone=tiny, **QUICK)
    for sample in samples[1:]:
        append_review(store, Review(sample.key, "reject"))
    found = evaluate(decoder, tiny, Store(store))
    assert found == evaluate(decoder, tiny, read(f"store:{store}")) == evaluate(decoder, tiny, samples[:1])
    assert found != evaluate(decoder, tiny, samples)
    fitted = fit(f"store:{store}", tmp_path / "one", backbone=tiny, **QUICK).config.fitted
    assert fitted is not None and fitted["images"] == 1
