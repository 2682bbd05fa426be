"""What every task promises; a new one is in the table and so in these tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import level_widths
from datasetdm.decoder.tasks import FLATTEST, TASKS, Head, Task, calibrated, make_task, sample_pixels
from datasetdm.decoder.tasks.depth import DepthHead
from datasetdm.decoder.tasks.instance import InstanceHead, centres, gather, is_right
from datasetdm.decoder.tasks.semantic import SemanticHead
from datasetdm.errors import ConfigError, DataError
from datasetdm.records import IGNORE, Annotations, DepthMap, Labels, Sample, Skeleton
from factory import LABELS, make_sample

SPECS = (FeatureSpec("a", 8, 4, "hidden"), FeatureSpec("att", 2, 4, "attention"), FeatureSpec("v", 4, 1, "vae"))
SIDE = 32
WIDTHS = level_widths(SPECS, SIDE, 32)
POSED = Labels(LABELS.names, LABELS.synonyms, ("sky", "grass"), {"dog": Skeleton(("nose", "tail"), ((0, 1),))})


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    return make_task(request.param)


def square(seed: int = 0) -> Sample:
    return make_sample("k", (SIDE, SIDE), seed, POSED)


def inputs(batch: int = 2) -> tuple[dict[int, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    pyramid = {s: torch.randn(batch, w, SIDE // s, SIDE // s) for s, w in WIDTHS.items()}
    return pyramid, {"att": torch.rand(batch, len(LABELS), 2, 8, 8)}, torch.randn(len(LABELS), 12)


def targets(task: Task, samples: list[Sample]) -> dict[str, torch.Tensor]:
    rows = [task.target(s) or {k: np.full((SIDE, SIDE), v) for k, v in task.blank().items()} for s in samples]
    return {k: torch.stack([torch.from_numpy(np.array(r[k], np.float32)) for r in rows]) for k in task.blank()}


def make_head(task: Task) -> Head:
    torch.manual_seed(0)
    head = task.head(SPECS, WIDTHS, 12)
    head.calibrate([square(i) for i in range(3)])
    return head


def test_is_a_task(task: Task) -> None:
    assert isinstance(task, Task)
    assert make_task(task.name).name == task.name
    assert task.meter().better[0] in task.meter().compute()


def test_outputs_are_dense_and_record_fits_the_picture(task: Task) -> None:
    head = make_head(task).eval()
    out = head(*inputs(), {})
    assert all(v.shape[0] == 2 and v.shape[-2:] == (SIDE, SIDE) for v in out.values())
    sample = square()
    objects = Annotations(instances=sample.instances)
    record = task.record(head, {k: v[0].detach() for k, v in out.items()}, POSED, objects)
    annotated = Sample("k", sample.image, POSED, **replace(objects, **{task.field: record}).fields())
    meter = task.meter()
    meter.update(getattr(annotated, task.field), getattr(sample, task.field), len(LABELS))
    assert np.isfinite(list(meter.compute().values())).all()


def test_perfect_predictions_get_perfect_figures(task: Task) -> None:
    meter = task.meter()
    truth = getattr(square(), task.field)
    meter.update(truth, truth, len(LABELS))
    figure, more = task.meter().better
    assert meter.compute()[figure] == pytest.approx(1.0 if more else 0.0)


def test_target_is_none_without_labels(task: Task) -> None:
    bare = Sample("k", square().image, LABELS)
    assert task.target(bare) is None
    full = task.target(square())
    assert full is not None and full.keys() == task.blank().keys()
    assert all(v.shape == (SIDE, SIDE) for v in full.values())


def test_unlabelled_samples_teach_nothing(task: Task) -> None:
    head = make_head(task)
    bare = Sample("k", square().image, LABELS)
    loss = task.loss(head, head(*inputs(), {}), targets(task, [bare, bare]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or not p.grad.abs().any() for p in head.parameters())


def test_learning_a_picture_by_heart(task: Task) -> None:
    """From features that hold the answer, every head must find it."""
    samples = [square(i) for i in range(2)]
    truth = targets(task, samples)
    head = make_head(task)
    pyramid, maps, text = inputs()
    for value in truth.values():
        for channel, level in enumerate(value.unique()[:6]):
            pyramid[1][:, channel] = (value == level).float() * 3
    pyramid[1][:, 8] = truth[next(iter(truth))].clamp(0.1, 99).log() if task.name == "depth" else pyramid[1][:, 8]
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    first = last = float("nan")
    for step in range(120):
        loss = task.loss(head, head(pyramid, maps, text, {}), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        last = float(loss.detach())
        first = last if step == 0 else first
    assert last < 0.45 * first


def test_unknown_task() -> None:
    with pytest.raises(ConfigError, match="did you mean 'semantic'"):
        make_task("semantics")


def test_sample_pixels_takes_the_same_pixels_of_everything() -> None:
    x = torch.arange(2 * 16 * 16.0).view(2, 1, 16, 16)
    out, target = sample_pixels({"x": x}, {"y": x[:, 0]}, 50)
    assert out["x"].shape == (2, 1, 50, 1) and target["y"].shape == (2, 50, 1)
    assert torch.equal(out["x"][:, 0], target["y"])
    assert len(target["y"][0].unique()) == 50


# ---------------------------------------------------------------------- semantic
def test_rare_labels_weigh_more_and_the_mean_is_one() -> None:
    head = make_head(make_task("semantic"))
    assert isinstance(head, SemanticHead)
    ids = np.concatenate([square(i).semantic.ids.ravel() for i in range(3)])
    share = np.bincount(ids, minlength=3) / len(ids)
    assert head.weights[1] > head.weights[0] and share[1] < share[0]
    assert float((head.weights * torch.tensor(share)).sum()) == pytest.approx(1, rel=1e-4)


def test_temperature_lowers_false_confidence() -> None:
    head = make_head(make_task("semantic"))
    assert isinstance(head, SemanticHead)
    truth = torch.zeros(1, SIDE, SIDE)
    truth[:, ::2] = 1
    overconfident = torch.zeros(1, 3, SIDE, SIDE)
    overconfident[:, 0] = 12
    head.tune([{"semantic": overconfident}], [{"semantic": truth}])
    assert float(head.temperature) == 4
    right = torch.nn.functional.one_hot(truth.long(), 3).movedim(-1, 1) * 12.0
    head.tune([{"semantic": right}], [{"semantic": truth}])
    assert float(head.temperature) == 0.5


def test_ignored_pixels_do_not_count() -> None:
    task, head = make_task("semantic"), make_head(make_task("semantic"))
    logits = torch.randn(1, 3, 4, 4)
    truth = torch.randint(0, 3, (1, 4, 4)).float()
    truth[:, :2] = IGNORE
    torch.manual_seed(0)
    a = task.loss(head, {"semantic": logits}, {"semantic": truth})
    changed = logits.clone()
    changed[:, :, :2] = 99
    torch.manual_seed(0)
    assert torch.allclose(a, task.loss(head, {"semantic": changed}, {"semantic": truth}))


# ---------------------------------------------------------------------- depth
def test_depth_is_calibrated_on_valid_pixels_only() -> None:
    head = make_head(make_task("depth"))
    assert isinstance(head, DepthHead)
    records = [square(i).depth for i in range(3)]
    logs = np.log(np.concatenate([r.depth[r.valid] for r in records]))
    assert float(head.mean) == pytest.approx(logs.mean(), rel=1e-4)
    assert float(head.std) == pytest.approx(logs.std(), rel=1e-4)


def test_zoomed_things_are_nearer() -> None:
    out = make_task("depth").zoomed("depth", torch.tensor([[4.0, 0.0, -1.0]]), 2.0)
    assert out.tolist() == [[2.0, 0.0, -1.0]]


def test_relative_depth_stays_relative() -> None:
    task, head = make_task("depth"), DepthHead(WIDTHS, 12)
    base = square()
    rows = [
        replace(base, depth=DepthMap(np.random.default_rng(0).random((SIDE, SIDE)), np.ones((SIDE, SIDE), bool), u))
        for u in ("relative", "metre")
    ]
    head.calibrate(rows[:1])
    out = {k: v[0].detach() for k, v in head(*inputs(), {}).items()}
    assert task.record(head, out, POSED, Annotations()).unit == "relative"
    with pytest.raises(DataError, match="some is relative"):
        head.calibrate(rows)


def test_depth_confidence_is_as_likely_as_it_says() -> None:
    """Held-out pictures correct one that is too sure: where it says 0.2 a fifth of the pixels is near the truth."""
    task, head = make_task("depth"), DepthHead(WIDTHS, 12)
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(4, 64, 64, generator=generator)
    right = torch.rand(4, 64, 64, generator=generator) < chance
    logit = 3 * torch.logit(chance.clamp(0.01, 0.99))[:, None] + 2
    error = torch.where(right, 1.2, 1.3).log()[:, None]
    targets = {"depth": torch.full((4, 64, 64), 5.0)}
    outputs = {"log_depth": error + targets["depth"][:, None].log(), "validity": torch.ones(4, 1, 64, 64)}
    head.tune([outputs | {"confidence": logit}], [targets])
    assert head.trust.tolist() == pytest.approx([1 / 3, -2 / 3], abs=0.05)
    record = task.record(head, {k: v[0] for k, v in (outputs | {"confidence": logit}).items()}, LABELS, Annotations())
    assert record.confidence is not None and np.abs(record.confidence - chance[0].numpy()).mean() < 0.02


def test_depth_confidence_teaches_the_rest_nothing() -> None:
    task, head = make_task("depth"), DepthHead(WIDTHS, 12)
    pyramid, *rest = inputs()
    pyramid = {s: x.requires_grad_() for s, x in pyramid.items()}
    head(pyramid, *rest, {})["confidence"].sum().backward()
    assert all(x.grad is None for x in pyramid.values()) and head.sure[str(min(WIDTHS))].weight.grad is not None
    outputs = head(pyramid, *rest, {})
    truth = outputs["log_depth"][:, 0].detach().exp() * 2
    task.loss(head, outputs, {"depth": truth}).backward()
    assert float(head.sure[str(min(WIDTHS))].bias.grad) > 0, "nothing is right, so it becomes less sure"


def test_depth_without_a_valid_pixel() -> None:
    nothing = DepthMap(np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), bool))
    with pytest.raises(DataError, match="no sample has valid depth"):
        DepthHead(WIDTHS, 12).calibrate([replace(square(), depth=nothing)])


def test_calibration_keeps_the_order_and_stays_finite() -> None:
    logits = torch.linspace(-4, 4, 9)
    assert calibrated(logits, torch.ones(9)) is None and calibrated(logits[:0], logits[:0]) is None
    slope, shift = calibrated(logits, (logits > 0.5).float()).tolist()
    assert 0 < slope < 20 and slope * 0.5 + shift == pytest.approx(0, abs=slope), (
        "few and told apart: not infinitely sure"
    )
    slope, shift = calibrated(logits, (logits < 0).float()).tolist()
    assert slope >= FLATTEST, "even where the surest are wrong"
    assert len((logits * slope + shift).sigmoid().unique()) == 9
    assert calibrated(logits.where(logits != 0, torch.nan), (logits > 0).float()) is None


# ---------------------------------------------------------------------- instances
def discs(places: list[tuple[int, int, int]], side: int = 48) -> torch.Tensor:
    """Disjoint discs (row, column, radius) as masks f[n h w]."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([((y - r) ** 2 + (x - c) ** 2 <= k**2).float() for r, c, k in places])


def test_centres_and_the_ways_to_them() -> None:
    masks = discs([(10, 12, 5), (30, 33, 9)])
    heat, offset, area = (v[0] for v in centres(masks[None]))
    assert heat[10, 12] == 1 and heat[30, 33] == 1 and heat[10, 33] < 1e-3
    assert torch.allclose(offset[:, 27, 35] * 48, torch.tensor([3.0, -2.0]), atol=1e-4)
    assert area[30, 33] == masks[1].sum() and area[0, 0] == 0 and not offset[:, 0, 0].any()


def test_an_object_is_right_by_label_and_overlap() -> None:
    ids, labels = torch.zeros(8, 8), torch.full((8, 8), -1.0)
    ids[:4, :4], labels[:4, :4] = 1, 2
    ids[:, 7], labels[:, 7] = -1, -1
    half = torch.zeros(8, 8, dtype=torch.bool)
    half[:2, :4] = True
    assert is_right(half, 2, ids, labels) and not is_right(half, 1, ids, labels)
    half[0, 0] = False
    assert not is_right(half, 2, ids, labels), "less than half of the union"
    assert not is_right(ids < 0, 2, ids, labels), "where nobody labelled"


def test_scores_say_how_often_objects_are_right() -> None:
    """The same clear disc in eight held-out pictures, in two of them with another label: 0.75."""
    task, head = make_task("instance"), InstanceHead(WIDTHS, 12)
    mask = discs([(20, 20, 9)]).expand(8, -1, -1)
    label = torch.zeros(8, 3, 48, 48)
    label[:, 1] = 5
    outputs = {"object": (mask * 8 - 4)[:, None], "centre": torch.full((8, 1, 48, 48), -9.0)}
    outputs |= {"offset": torch.zeros(8, 2, 48, 48), "label": label}
    truth = torch.where(torch.arange(8) < 6, 1.0, 2.0)[:, None, None]
    targets = {"object": mask, "label": torch.where(mask > 0, truth, -1.0)}

    def score() -> float:
        record = task.record(head, {k: v[0] for k, v in outputs.items()}, LABELS, Annotations())
        assert record.label_ids.tolist() == [1]
        return float(record.scores[0])

    assert score() > 0.9
    head.tune([{k: v[:5] for k, v in outputs.items()}, {k: v[5:] for k, v in outputs.items()}],
              [{k: v[:5] for k, v in targets.items()}, {k: v[5:] for k, v in targets.items()}])  # fmt: skip
    assert score() == pytest.approx(0.75, abs=0.08)
    before = head.trust.clone()
    nobody = {k: torch.full_like(v, -1) for k, v in targets.items()}
    head.tune([outputs, outputs], [targets, nobody])
    assert torch.allclose(head.trust, before, atol=1e-3), "what nobody labelled is neither right nor wrong"


def test_objects_are_gathered_again_from_their_own_maps() -> None:
    """Two of one label that touch, and one of another: masks, labels and order come back."""
    masks = discs([(12, 12, 7), (12, 27, 7), (36, 30, 10)])
    heat, offset, _ = (v[0] for v in centres(masks[None]))
    label = torch.zeros(3, 48, 48)
    label[1] += 9 * (masks[0] + masks[1])
    label[2] += 9 * masks[2]
    found, labels, scores = gather(masks.sum(0) * 20 - 10, torch.logit(heat.clamp(1e-4, 1 - 1e-4)), offset, label)
    assert sorted(labels.tolist()) == [1, 1, 2] and (scores > 0.9).all()
    assert {tuple(m.flatten().tolist()) for m in found} == {tuple(m.bool().flatten().tolist()) for m in masks}


def test_no_object_is_no_error() -> None:
    nothing = torch.full((8, 8), -9.0)
    masks, labels, scores = gather(nothing, nothing, torch.zeros(2, 8, 8), torch.zeros(3, 8, 8))
    assert len(masks) == len(labels) == len(scores) == 0
