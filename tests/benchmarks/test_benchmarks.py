"""The benchmarks' own code, on tiny models: the keys that they promise, and that baselines are no straw men."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.baselines import attention, mlp, paper, pixels, words
from benchmarks.baselines.base import Baseline, without_caption_labels
from benchmarks.baselines.mlp import PixelMLP
from benchmarks.baselines.paper import PaperDecoder
from benchmarks.baselines.pixels import CaptionPixelNet, PixelBackbone, PixelNet, with_encoder
from benchmarks.common import Work
from benchmarks.generated import agreement, oracle_maps
from miniworld.score.oracle import load_oracle, look

from benchmarks import fitting, report, spine, tasks, zero_shot
from datasetdm.backbones import Backbone
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.tasks import TASKS
from datasetdm.downstream import matching
from datasetdm.metrics import SemanticMeter
from datasetdm.pipelines.fit import FitConfig, iter_fit
from datasetdm.records import IGNORE, Labels, Prompt, SemanticMap, Skeleton
from factory import LABELS, known, make_sample

QUICK = FitConfig(steps=2, batch=4, variants=1, width=32, evaluate_every=4)
KEYS = ("semantic", "instance", "depth", "keypoints", "zero_shot")
OWN = replace(LABELS, stuff=("sky", "grass"), skeletons={"dog": Skeleton(("nose", "tail"))})


@pytest.fixture(scope="module")
def pictures() -> fitting.InMemoryReader:
    return fitting.InMemoryReader([make_sample(f"p{i}", (48, 48), i, OWN) for i in range(12)], OWN)


def source(method: type[Baseline], tiny: Backbone) -> Any:
    return PixelBackbone(len(LABELS), 64) if method is PixelNet else tiny


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines of a quick test's size."""
    for name, value in {"WIDTH": 32, "LAYERS": 3, "QUERIES": 12, "FEEDFORWARD": 64}.items():
        monkeypatch.setattr(paper, name, value)
    monkeypatch.setattr(mlp, "HIDDEN", (32, 16))
    monkeypatch.setattr(pixels, "WIDTHS", (8, 16, 16, 16, 16, 16))
    for method in (PixelNet, PixelMLP, PaperDecoder):
        monkeypatch.setattr(method, "VARIANTS", 1)
    for method in (PixelNet, PaperDecoder):
        monkeypatch.setattr(method, "RATES", (1e-3,))


@pytest.mark.parametrize(("method", "steps"), [(PixelNet, 16), (PixelMLP, 40), (PaperDecoder, 24)])
def test_baselines_learn(
    method: type[Baseline], steps: int, pictures: fitting.InMemoryReader, tiny: Backbone, tmp_path: Path, small: None
) -> None:
    """Their loss falls, and on the pictures that they were fitted on they know colours from chance."""
    given = source(method, tiny)
    asked = fitting.available(pictures.samples, method.TASKS)
    config = QUICK.model_copy(update={"steps": steps, "evaluate_every": steps, "learning_rate": 1e-2, "tasks": asked})
    config = config.model_copy(update={"held_out": 0.0})
    events = iter_fit(pictures, tmp_path / "d", backbone=given, config=config, build=method.for_backbone)
    losses = [e.loss for e in events if e.stage == "steps"]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    decoder = method.load(tmp_path / "d")
    assert type(decoder) is method and tuple(decoder.tasks) == asked
    found = fitting.figures(decoder, given, pictures.samples)
    assert set(found) >= set(asked)
    assert found["semantic"]["accuracy"] > 0.6  # the most frequent of three labels: 0.45
    assert {"miou", "miou_things", "miou_stuff"} <= found["semantic"].keys()


def test_the_pixel_network_has_a_few_million_weights(pictures: fitting.InMemoryReader) -> None:
    asked = fitting.available(pictures.samples)
    assert {"semantic", "depth", "instance"} <= set(asked) <= set(TASKS)
    net = PixelNet.for_backbone(PixelBackbone(30), LABELS, asked, 128)
    assert 2e6 < sum(p.numel() for p in net.parameters()) < 9e6
    assert [n for n, _ in net.normalisers()] == ["pixels"]


def test_the_papers_decoder_has_the_papers_sizes(mini: Backbone) -> None:
    net = PaperDecoder.for_backbone(mini, LABELS, ("semantic", "instance"))
    for head in net.heads.values():
        decoder = head.decoder
        assert len(decoder.layers) == 10 and decoder.queries.shape == (100, 256)
        assert {m.num_heads for m in decoder.modules() if isinstance(m, torch.nn.MultiheadAttention)} == {8}
    assert min(net.pixels.widths) == 4 and set(net.pixels.widths.values()) == {256}


def test_who_gets_caption_labels(pictures: fitting.InMemoryReader) -> None:
    """A caption-conditioned network depends on it, a plain one and one without caption labels do not."""
    torch.manual_seed(0)
    inner = PixelBackbone(len(OWN), 64)
    mentioned = torch.tensor([[1.0, -1, 1]])
    given = DecoderInput({"pixels": torch.rand(1, 3, 64, 64)}, torch.eye(3), mentioned)
    other = replace(given, mentioned=-mentioned)

    def differs(build: Callable[..., Any], change: Callable[[Any], Any] = lambda d: d) -> bool:
        decoder = build(inner, OWN, ("semantic",), 32).eval()
        if hasattr(decoder.heads["semantic"].decoder, "convs") and decoder.heads["semantic"].decoder.named is not None:
            torch.nn.init.ones_(decoder.heads["semantic"].decoder.named)
        change(decoder)
        a, b = (decoder(x)["semantic"].logits for x in (given, other))
        return not torch.equal(a, b)

    assert differs(CaptionPixelNet.for_backbone) and not differs(PixelNet.for_backbone)
    assert not differs(CaptionPixelNet.for_backbone, without_caption_labels)


def test_matching_is_the_cheapest() -> None:
    torch.manual_seed(0)
    masks, classes = torch.randn(5, 40), torch.randn(5, 4)
    truth, labels = (torch.rand(3, 40) > 0.5).float(), torch.tensor([0, 2, 1])

    def cost(query: int, segment: int) -> float:
        m, t = masks[query], truth[segment]
        bce = torch.nn.functional.binary_cross_entropy_with_logits(m, t)
        p = m.sigmoid()
        dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
        return float(5 * bce + 5 * dice - 2 * classes[query].softmax(0)[labels[segment]])

    rows, columns = matching._match(masks, truth, classes, labels)
    total = sum(cost(q, s) for q, s in zip(rows.tolist(), columns.tolist(), strict=True))
    best = min(sum(cost(q, s) for s, q in enumerate(p)) for p in itertools.permutations(range(5), 3))
    assert total == pytest.approx(best, rel=1e-4)


def test_matched_loss_knows_right_from_wrong() -> None:
    truth = torch.zeros(1, 8, 8)
    truth[0, :4] = 1
    known = torch.ones(1, 8, 8).bool()
    masks = torch.full((1, 1, 3, 8, 8), -9.0)
    masks[0, 0, 1][truth[0] > 0] = 9
    classes = torch.tensor([[[[-9.0, -9, 9], [9, -9, -9], [-9, -9, 9]]]])
    good = matching.matched_loss(masks, classes, [truth], [torch.tensor([0])], known)
    wrong_label = matching.matched_loss(masks, classes, [truth], [torch.tensor([1])], known)
    wrong_mask = matching.matched_loss(masks, classes, [1 - truth], [torch.tensor([0])], known)
    assert good < 0.1 and wrong_label > good + 1 and wrong_mask > good + 5
    nobody_knows = matching.matched_loss(masks, classes, [truth[:0]], [torch.zeros(0).long()], ~known)
    assert float(nobody_knows) == 0


@pytest.mark.slow
def test_words_pretrain_the_encoder(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions that say the colour: the loss on held-out pictures falls and the encoder goes into the pixel network."""
    monkeypatch.setattr(words, "WARM_UP", 1)
    captions = ["a photo of red things", "the blue thing"] * 20
    assert words.vocabulary(captions) == ["photo", "red", "things", "blue", "thing"]
    images = torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
    images[::2, 0], images[1::2, 2] = 200, 200
    truth = torch.eye(2).repeat(20, 1)
    net, (before, after), steps = words.fit(images, truth, lambda n: n / 60, 0)
    assert steps == 60 and after < 0.7 * before
    words.save_tensors(tmp_path / "e.safetensors", net.encoder.state_dict())
    other = with_encoder(tmp_path / "e.safetensors")(PixelBackbone(3, 64), LABELS, ("semantic",), 32)
    own, given = other.pixels.encoder.state_dict(), net.encoder.state_dict()
    assert own and all(torch.equal(own[name], given[name]) for name in own)


def test_attention_alone(pictures: fitting.InMemoryReader, tiny: Backbone) -> None:
    """Asking all samples' own names, only labels that a caption names are given out where that is the better way."""
    way = attention.choose_way(tiny, pictures.samples[:4], LABELS.names)
    meter = attention.measure(tiny, pictures.samples[:4], LABELS.names, way)
    assert meter.confusion.sum() == 4 * 48 * 48
    named = replace(way, mentioned=True)
    only = attention.measure(tiny, pictures.samples[:2], LABELS.names, named).confusion
    assert only[:, 1].sum() == only.sum()  # the caption is "a photo of a dog"


# ---------------------------------------------------------------------- zero-shot
def test_every_thing_is_unseen_once() -> None:
    labels = Labels(tuple("abcdefghij"), stuff=("j",))
    folds = [zero_shot.unseen_things(labels, s) for s in range(3)]
    assert sorted(itertools.chain(*folds)) == list("abcdefghi") and {len(f) for f in folds} == {3}


def test_unseen_pixels_are_ignored(pictures: fitting.InMemoryReader) -> None:
    sample = pictures.samples[0]
    given = zero_shot.seen_only([sample], ["dog"])
    assert given.labels.names == ("sky", "grass") and given.labels.stuff == ("sky", "grass")
    before, after = sample.semantic.ids, given.samples[0].semantic.ids
    assert (after[before == 1] == IGNORE).all() and (after[before == 0] == 0).all() and (after[before == 2] == 1).all()
    assert known(given.samples[0]) == ["semantic"]


def test_harmonic_mean() -> None:
    found = zero_shot.harmonic(np.array([0.9, 0.2, 0.6, np.nan]), Labels(tuple("abcd"), stuff=("a",)), ["b", "d"])
    assert found["seen"] == pytest.approx(0.6) and found["unseen"] == pytest.approx(0.2)
    assert found["harmonic"] == pytest.approx(0.3) and found["seen_all"] == pytest.approx(0.75)
    assert found["unseen_to_seen"] == pytest.approx(1 / 3)


# ---------------------------------------------------------------------- drawn pictures
def test_agreement_with_the_oracle() -> None:
    """A picture annotated as the oracle sees it agrees wholly; one annotated otherwise does not."""
    samples = [s for s in fitting.load_samples("mini:test", 6) if s.prompt and s.prompt.labels]
    oracle = load_oracle()
    said = oracle_maps(oracle, [s.image for s in samples])
    assert said[0].ids.shape == (128, 128)
    same = agreement((replace(s, semantic=m) for s, m in zip(samples, said, strict=True)), oracle)
    assert same["miou"] == 1 and same["hit_where_seen"] == 1 and same["prompted"] >= same["hit"] * same["prompted"]
    nothing = SemanticMap(np.full((128, 128), IGNORE, np.uint16))
    assert agreement((replace(s, semantic=nothing) for s in samples), oracle)["hit"] == 0
    truth = SemanticMeter()
    for s, m in zip(samples, said, strict=True):
        truth.update(replace(s, semantic=m), s)
    assert truth.compute()["accuracy"] > 0.6  # of 30 labels, so the labels' order is right
    assert look(oracle, torch.zeros(1, 3, 128, 128, dtype=torch.uint8)).classes.shape == (1, 33, 32, 32)


# ---------------------------------------------------------------------- whole runs
@pytest.fixture
def bench(
    pictures: fitting.InMemoryReader, tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None
) -> Callable[..., tasks.Bench]:
    """A benchmark of a few steps; fits in this process, nothing drawn."""

    def fit_ours(data: str, out: Path, backbone: str, config: FitConfig) -> dict[str, float]:
        return {"fit_seconds": min(0.5, fitting.fit(pictures, out, tiny, config)), "fit_peak_gb": 1.0}

    monkeypatch.setattr(fitting, "fit_ours", fit_ours)
    monkeypatch.setattr(fitting, "steps_for", lambda *_: 2)
    drawn = {"generated_miou_gap": 0.1, "prompted_label_hit": 0.2, "drawn_hit_where_seen": float("nan")}
    monkeypatch.setattr(tasks, "generated_figures", lambda *_: drawn)
    monkeypatch.setattr(tasks, "speed", lambda *_: {"ratios": [0.8]})

    def make(seeds: list[int], **more: Any) -> tasks.Bench:
        own = tasks.Bench(Work(tmp_path / "w", {}), pictures.samples, pictures.samples[:3], seeds, QUICK, **more)
        own.backbone = tiny
        return own

    return make


@pytest.mark.slow
def test_all_keys_and_nothing_measured_twice(
    bench: Callable[..., tasks.Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tasks.run(bench([0]), list(tasks.METHODS), 4, 1, False)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for key in KEYS:
        assert {"ours", "pixels", "pixels_pretrained", "attention", "mlp", "paper", "deviation"} <= found[key].keys()
    for key in set(TASKS) & set(KEYS):
        assert found[key]["ours"] >= 0 and found[key]["pixels"] >= 0 and found[key]["deviation"] is None
    assert found["semantic"]["mlp"] is not None and found["semantic"]["attention"] is not None
    assert found["instance"]["paper"] is not None and found["instance"]["mlp"] is None
    assert found["zero_shot"].keys() >= {"seen", "unseen"} and found["zero_shot"]["ours"] is not None
    assert found["annotate_share"] == pytest.approx(0.25) and found["fit_seconds"] > 0 and found["fit_peak_gb"] == 1
    assert (found["generated_miou_gap"], found["prompted_label_hit"]) == (0.1, 0.2)
    assert any("pixels_pretrained" in n for n in found["notes"])
    assert found["fits"]["mlp"][0]["rate"] in PixelMLP.RATES

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(fitting, "fit", never)
    monkeypatch.setattr(fitting, "figures", never)
    assert tasks.run(bench([0]), list(tasks.METHODS), 4, 1, False) == found


def test_the_best_learning_rate_of_the_first_seed_is_every_seeds(
    bench: Callable[..., tasks.Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[tuple[int, float]] = []

    def fit(name: str, seed: int, rate: float, steps: int) -> tuple[float, float]:
        fits.append((seed, rate))
        return rate, 60.0

    scores = dict(zip(PixelMLP.RATES, (0.2, 0.7, 0.4), strict=True))
    monkeypatch.setattr(fitting, "held_out_score", lambda decoder: scores[decoder])
    monkeypatch.setattr(fitting, "figures", lambda *_: {"semantic": {"miou": 0.5}})
    own = bench([0, 1])
    monkeypatch.setattr(own, "_fit", fit)
    monkeypatch.setattr(own, "_steps", lambda name: 100)
    best = PixelMLP.RATES[1]
    assert [own.baseline("mlp", s)["rate"] for s in (0, 1)] == [best, best]
    assert fits == [*((0, r) for r in PixelMLP.RATES), (0, best), (1, best)]


def test_means_and_deviations() -> None:
    rows = [{"figures": {"depth": {"absrel": v, "delta1": 0.5}}, "fit_seconds": 60, "fit_peak_gb": v} for v in (1, 3)]
    unseen = [{"harmonic": 0.2, "seen": 0.4, "unseen": float("nan")}]
    drawn = {"generated_miou_gap": float("nan"), "prompted_label_hit": 0.5}
    found = report.summary(("depth",), {"ours": rows}, unseen, [], drawn, {"annotate_share": 0.1}, [])
    assert found["depth"]["ours"] == 2 and found["depth"]["deviation"] == pytest.approx(2**0.5)
    assert found["depth"]["all"]["ours"] == {"absrel": 2, "delta1": 0.5} and found["fit_peak_gb"] == 3
    assert found["semantic"]["ours"] is None and found["generated_miou_gap"] is None
    assert found["zero_shot"]["unseen"] is None and found["zero_shot"]["seen"] == 0.4
    assert "semantic: there is no such task yet" in found["notes"]


def test_quick_has_the_same_keys_and_says_who_had_less_time(bench: Callable[..., tasks.Bench]) -> None:
    own = bench([0], trial=0.5, limit=0.6, zero_shot_steps=2)
    found = tasks.run(own, ["pixels"], 4, 1, True)
    assert found["semantic"]["deviation"] is None and found["semantic"]["mlp"] is None
    assert found["semantic"]["pixels"] is not None and found["zero_shot"]["ours"] is not None
    assert any(n.startswith("pixels: fitted for 0 s") for n in found["notes"])


@pytest.mark.slow
def test_only_the_baselines_and_seeds_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run(own: tasks.Bench, methods: list[str], prompts: int, pairs: int, quick: bool) -> dict[str, Any]:
        seen.extend([methods, own.asked("mlp"), own.config.steps, prompts, quick])
        return {"semantic": {"ours": 0.5}}

    monkeypatch.setattr(tasks, "run", run)
    path = tmp_path / "t.json"
    tasks.main(["--json", str(path), "--methods", "mlp", "paper", "--baseline-seeds", "1"])
    assert seen == [["mlp", "paper"], [0], FitConfig().steps, 400, False]
    value = json.loads(path.read_text())
    assert value["semantic"] == {"ours": 0.5} and value["seeds"] == [0, 1, 2] and value["test_pictures"] == 800
    with pytest.raises(SystemExit):
        tasks.main(["--json", str(path), "--methods", "mpl"])


def test_a_work_folder_belongs_to_its_settings(tmp_path: Path) -> None:
    work = Work(tmp_path, {"quick": True})
    assert work.unit("a", lambda: {"x": 1}) == work.unit("a", dict) == {"x": 1}
    assert work.known("b") is None
    with pytest.raises(SystemExit, match="other settings"):
        Work(tmp_path, {"quick": False})


def test_fits_share_views_and_keep_their_time(pictures: fitting.InMemoryReader, tiny: Backbone, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"tasks": ("semantic",), "variants": 2})
    seconds = fitting.fit(pictures, tmp_path / "a", tiny, config, views=tmp_path / "views")
    kept = sorted(p.name for p in (tmp_path / "views").iterdir())
    assert len(kept) == 11 * 2 + 1 and "text.safetensors" in kept and "checkpoint.safetensors" not in kept
    again = fitting.fit(pictures, tmp_path / "b", tiny, config, views=tmp_path / "views")
    a, b = (tasks.PDecoder.load(tmp_path / n).fingerprint() for n in "ab")
    assert a == b and seconds > 0 and again > 0
    assert fitting.fit(pictures, tmp_path / "a", tiny, config) == seconds
    assert 1e8 < fitting.peak_bytes() < 1e11


def test_prompts_may_be_missing() -> None:
    sample = fitting.load_samples("mini:test", 1)[0]
    found = agreement([replace(sample, prompt=None), replace(sample, prompt=Prompt("x"))], load_oracle())
    assert found["prompted"] == 0 and found["hit"] == 0 and np.isnan(found["hit_where_seen"])


def test_reliability_of_confidences() -> None:
    """Sure pixels that are right as often as they say, and unsure ones that are right always."""
    rng = np.random.default_rng(0)
    confidence = np.where(np.arange(100_000) < 60_000, 0.8, 0.3)
    right = np.where(confidence > 0.5, rng.random(100_000) < 0.8, True)
    counts = spine.levels(confidence, right, np.arange(100_000) != 5)
    found = spine.reliability(counts + spine.levels(confidence, right, np.zeros(100_000, bool)))
    assert counts.sum(0)[0] == 99_999 and found["sure"] == pytest.approx(0.6, abs=1e-3)
    assert found["sure_right"] == pytest.approx(0.8, abs=0.01) and found["right"] == pytest.approx(0.88, abs=0.01)
    assert found["calibration"] == pytest.approx(0.4 * 0.7, abs=0.01)
