"""What every task promises; a new one is in the table and so in these tests."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import level_widths
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.tasks import (
    MIN_SLOPE,
    TASKS,
    Head,
    Previous,
    Task,
    Tensors,
    make_task,
    platt_scaling,
    sample_pixels,
)
from datasetdm.decoder.tasks.depth import DepthHead, DepthOutputs, DepthTargets, DepthTask
from datasetdm.decoder.tasks.instance import (
    InstanceHead,
    InstanceOutputs,
    InstanceTargets,
    InstanceTask,
    centres,
    group_instances,
    is_right,
)
from datasetdm.decoder.tasks.semantic import SemanticHead, SemanticOutputs, SemanticTargets, SemanticTask
from datasetdm.errors import ConfigError, DataError
from datasetdm.metrics import Meter
from datasetdm.records import IGNORE, Annotations, DepthMap, Instances, Labels, Sample, Skeleton
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


def inputs(batch: int = 2) -> tuple[dict[int, torch.Tensor], DecoderInput]:
    torch.manual_seed(0)
    pyramid = {s: torch.randn(batch, w, SIDE // s, SIDE // s) for s, w in WIDTHS.items()}
    return pyramid, DecoderInput({"att": torch.rand(batch, len(LABELS), 2, 8, 8)}, torch.randn(len(LABELS), 12))


def unknown(task: Task) -> Tensors:
    return task.fill_values().map(lambda x: x.expand(*x.shape[:-2], SIDE, SIDE))


def targets(task: Task, samples: list[Sample]) -> Tensors:
    rows = [task.target(s) or unknown(task) for s in samples]
    return type(rows[0]).stack(rows)


def make_head(task: Task) -> Head:
    torch.manual_seed(0)
    head = task.head(SPECS, WIDTHS, 12)
    head.fit_statistics([square(i) for i in range(3)])
    return head


def test_is_a_task(task: Task) -> None:
    assert isinstance(task, Task)
    assert make_task(task.name).name == task.name
    meter = task.meter()
    assert isinstance(meter, Meter) and meter.better[0] in meter.compute()
    assert task.field in meter.reads and {task.field, *task.needs} <= {f.name for f in fields(Annotations)}


def test_outputs_are_dense_and_the_annotation_fits_the_image(task: Task) -> None:
    head = make_head(task).eval()
    out = head(*inputs(), Previous())
    assert isinstance(out, Tensors)
    assert all(v.shape[0] == 2 and v.shape[-2:] == (SIDE, SIDE) for v in out.named().values())
    sample = square()
    previous = Annotations(instances=sample.instances)
    found = task.postprocess(head, out[0].map(torch.Tensor.detach), POSED, previous)
    annotated = Sample("k", sample.image, POSED, **replace(previous, **{task.field: found}).fields())
    meter = task.meter()
    meter.update(annotated, sample)
    assert np.isfinite(list(meter.compute().values())).all()


def test_what_it_needs_is_what_it_cannot_do_without(task: Task) -> None:
    head = make_head(task).eval()
    out = head(*inputs(), Previous())[0].map(torch.Tensor.detach)
    assert (task.postprocess(head, out, POSED, Annotations()) is None) == bool(task.needs)


def test_label_order_does_not_matter(task: Task) -> None:
    """Labels permuted in the input are permuted in the outputs, and nothing else changes: no weight belongs to a label."""
    head = make_head(task).eval()
    pyramid, given = inputs()
    order = [2, 0, 1]
    semantic = torch.randn(2, len(LABELS), SIDE, SIDE)
    moved = DecoderInput({"att": given.maps["att"][:, order]}, given.text[order])
    with torch.no_grad():
        a = head(pyramid, given, Previous([SemanticOutputs(semantic)]))
        b = head(pyramid, moved, Previous([SemanticOutputs(semantic[:, order])]))
    for name, x in a.named().items():
        by_label = name in ("logits", "label_logits")
        assert torch.allclose(x[:, order] if by_label else x, getattr(b, name), atol=1e-4), name


def test_previous_outputs_are_found_by_type() -> None:
    semantic, depth = SemanticOutputs(torch.zeros(1, 2, 4, 4)), DepthOutputs(*torch.zeros(3, 1, 1, 4, 4))
    previous = Previous([semantic, depth])
    assert previous.get(SemanticOutputs) is semantic and previous.get(DepthOutputs) is depth
    assert previous.get(InstanceOutputs) is None


def test_perfect_predictions_get_perfect_figures(task: Task) -> None:
    meter = task.meter()
    meter.update(square(), square())
    figure, more = task.meter().better
    assert meter.compute()[figure] == pytest.approx(1.0 if more else 0.0)


def test_target_is_none_without_labels(task: Task) -> None:
    bare = Sample("k", square().image, LABELS)
    assert task.target(bare) is None
    full, fill = task.target(square()), task.fill_values()
    assert type(full) is type(fill)
    for name, x in full.named().items():
        own = getattr(fill, name)
        assert x.shape == (*own.shape[:-2], SIDE, SIDE) and x.dtype == own.dtype and own.shape[-2:] == (1, 1)


def test_unlabelled_samples_teach_nothing(task: Task) -> None:
    head = make_head(task)
    bare = Sample("k", square().image, LABELS)
    loss = task.loss(head, head(*inputs(), Previous()), targets(task, [bare, bare]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or not p.grad.abs().any() for p in head.parameters())


def test_an_unlabelled_sample_in_a_batch_changes_nothing(task: Task) -> None:
    """Beside a labelled one, outputs for an unlabelled sample get no gradient."""
    head = make_head(task)
    out = head(*inputs(), Previous()).map(lambda x: x.detach().requires_grad_())
    bare = Sample("k", square().image, LABELS)
    task.loss(head, out, targets(task, [square(), bare])).backward()
    grads = [x.grad for x in out.named().values() if x.grad is not None]
    assert any(g[0].abs().any() for g in grads) and not any(g[1].abs().any() for g in grads)


@pytest.mark.slow
def test_learning_a_picture_by_heart(task: Task) -> None:
    """From features that hold the answer, every head must find it."""
    samples = [square(i) for i in range(2)]
    truth = targets(task, samples)
    head = make_head(task)
    pyramid, given = inputs()
    for value in truth.named().values():
        dense = value if value.ndim == 3 else value[:, 0]
        for channel, level in enumerate(dense.unique()[:6]):
            pyramid[1][:, channel] = (dense == level).float() * 3
    if isinstance(truth, DepthTargets):
        pyramid[1][:, 8] = truth.depth.clamp(0.1, 99).log()
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    first = last = float("nan")
    for step in range(120):
        loss = task.loss(head, head(pyramid, given, Previous()), truth)
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
    out, target = sample_pixels(DepthOutputs(x, x, x), DepthTargets(x[:, 0]), 50)
    assert out.validity.shape == (2, 1, 50, 1) and target.depth.shape == (2, 50, 1)
    assert torch.equal(out.log_depth[:, 0], target.depth) and torch.equal(out.validity, out.log_depth)
    assert len(target.depth[0].unique()) == 50


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
    head.calibrate([SemanticOutputs(overconfident)], [SemanticTargets(truth.int())])
    assert float(head.temperature) == 4
    right = torch.nn.functional.one_hot(truth.long(), 3).movedim(-1, 1) * 12.0
    head.calibrate([SemanticOutputs(right)], [SemanticTargets(truth.int())])
    assert float(head.temperature) == 0.5


def test_ignored_pixels_do_not_count() -> None:
    task, head = SemanticTask(), make_head(make_task("semantic"))
    assert isinstance(head, SemanticHead)
    logits = torch.randn(1, 3, 4, 4)
    truth = SemanticTargets(torch.randint(0, 3, (1, 4, 4)))
    truth.ids[:, :2] = IGNORE
    torch.manual_seed(0)
    a = task.loss(head, SemanticOutputs(logits), truth)
    changed = logits.clone()
    changed[:, :, :2] = 99
    torch.manual_seed(0)
    assert torch.allclose(a, task.loss(head, SemanticOutputs(changed), truth))


# ---------------------------------------------------------------------- depth
def test_depth_statistics_are_of_valid_pixels_only() -> None:
    head = make_head(make_task("depth"))
    assert isinstance(head, DepthHead)
    records = [square(i).depth for i in range(3)]
    logs = np.log(np.concatenate([r.depth[r.valid] for r in records]))
    assert float(head.mean) == pytest.approx(logs.mean(), rel=1e-4)
    assert float(head.std) == pytest.approx(logs.std(), rel=1e-4)


@pytest.mark.parametrize("zoom", [2.0, -2.0])
def test_enlarged_things_are_nearer(zoom: float) -> None:
    out = DepthTask().rescale_target(DepthTargets(torch.tensor([[4.0, 0.0, -1.0]])), zoom)
    assert out.depth.tolist() == [[2.0, 0.0, -1.0]], "mirrored or not; what is not known stays so"


def test_relative_depth_stays_relative() -> None:
    task, head = DepthTask(), DepthHead(WIDTHS, 12)
    base = square()
    rows = [
        replace(base, depth=DepthMap(np.random.default_rng(0).random((SIDE, SIDE)), np.ones((SIDE, SIDE), bool), u))
        for u in ("relative", "metre")
    ]
    head.fit_statistics(rows[:1])
    out = head(*inputs(), Previous())[0].map(torch.Tensor.detach)
    assert task.postprocess(head, out, POSED, Annotations()).unit == "relative"
    with pytest.raises(DataError, match="some is relative"):
        head.fit_statistics(rows)


def test_depth_confidence_is_as_likely_as_it_says() -> None:
    """Held-out pictures correct one that is too sure: where it says 0.2 a fifth of the pixels is near the truth."""
    task, head = DepthTask(), DepthHead(WIDTHS, 12)
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(4, 64, 64, generator=generator)
    right = torch.rand(4, 64, 64, generator=generator) < chance
    logit = 3 * torch.logit(chance.clamp(0.01, 0.99))[:, None] + 2
    error = torch.where(right, 1.2, 1.3).log()[:, None]
    targets = DepthTargets(torch.full((4, 64, 64), 5.0))
    outputs = DepthOutputs(error + targets.depth[:, None].log(), torch.ones(4, 1, 64, 64), logit)
    head.calibrate([outputs], [targets])
    assert head.trust.tolist() == pytest.approx([1 / 3, -2 / 3], abs=0.05)
    record = task.postprocess(head, outputs[0], LABELS, Annotations())
    assert record.confidence is not None and np.abs(record.confidence - chance[0].numpy()).mean() < 0.02


def test_depth_confidence_teaches_the_rest_nothing() -> None:
    task, head = DepthTask(), DepthHead(WIDTHS, 12)
    pyramid, given = inputs()
    pyramid = {s: x.requires_grad_() for s, x in pyramid.items()}
    head(pyramid, given, Previous()).confidence.sum().backward()
    assert all(x.grad is None for x in pyramid.values()) and head.sure[str(min(WIDTHS))].weight.grad is not None
    outputs = head(pyramid, given, Previous())
    truth = outputs.log_depth[:, 0].detach().exp() * 2
    task.loss(head, outputs, DepthTargets(truth)).backward()
    assert float(head.sure[str(min(WIDTHS))].bias.grad) > 0, "nothing is right, so it becomes less sure"


def test_depth_without_a_valid_pixel() -> None:
    nothing = DepthMap(np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), bool))
    with pytest.raises(DataError, match="no sample has valid depth"):
        DepthHead(WIDTHS, 12).fit_statistics([replace(square(), depth=nothing)])


def test_calibration_keeps_the_order_and_stays_finite() -> None:
    logits = torch.linspace(-4, 4, 9)
    assert platt_scaling(logits, torch.ones(9)) is None and platt_scaling(logits[:0], logits[:0]) is None
    slope, shift = platt_scaling(logits, (logits > 0.5).float()).tolist()
    assert 0 < slope < 20 and slope * 0.5 + shift == pytest.approx(0, abs=slope), (
        "few and told apart: not infinitely sure"
    )
    slope, shift = platt_scaling(logits, (logits < 0).float()).tolist()
    assert slope >= MIN_SLOPE, "even where the surest are wrong"
    assert len((logits * slope + shift).sigmoid().unique()) == 9
    assert platt_scaling(logits.where(logits != 0, torch.nan), (logits > 0).float()) is None


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
    ids, labels = torch.zeros(8, 8, dtype=torch.int32), torch.full((8, 8), -1, dtype=torch.int32)
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
    task, head = InstanceTask(), InstanceHead(WIDTHS, 12)
    mask = discs([(20, 20, 9)]).expand(8, -1, -1)
    label = torch.zeros(8, 3, 48, 48)
    label[:, 1] = 5
    centre, offset = torch.full((8, 1, 48, 48), -9.0), torch.zeros(8, 2, 48, 48)
    outputs = InstanceOutputs((mask * 8 - 4)[:, None], centre, offset, label)
    truth = torch.where(torch.arange(8) < 6, 1, 2)[:, None, None]
    targets = InstanceTargets(mask.int(), torch.where(mask > 0, truth, -1).int())

    def score() -> float:
        record = task.postprocess(head, outputs[0], LABELS, Annotations())
        assert record.label_ids.tolist() == [1]
        return float(record.scores[0])

    assert score() > 0.9
    head.calibrate([outputs[:5], outputs[5:]], [targets[:5], targets[5:]])
    assert score() == pytest.approx(0.75, abs=0.08)
    before = head.trust.clone()
    nobody = targets.map(lambda x: torch.full_like(x, -1))
    head.calibrate([outputs, outputs], [targets, nobody])
    assert torch.allclose(head.trust, before, atol=1e-3), "what nobody labelled is neither right nor wrong"


def test_objects_are_grouped_again_from_their_own_maps() -> None:
    """Two of one label that touch, and one of another: masks, labels and order come back."""
    masks = discs([(12, 12, 7), (12, 27, 7), (36, 30, 10)])
    heat, offset, _ = (v[0] for v in centres(masks[None]))
    label = torch.zeros(3, 48, 48)
    label[1] += 9 * (masks[0] + masks[1])
    label[2] += 9 * masks[2]
    found, labels, scores = group_instances(
        masks.sum(0) * 20 - 10, torch.logit(heat.clamp(1e-4, 1 - 1e-4)), offset, label
    )
    assert sorted(labels.tolist()) == [1, 1, 2] and (scores > 0.9).all()
    assert {tuple(m.flatten().tolist()) for m in found} == {tuple(m.bool().flatten().tolist()) for m in masks}


def test_no_object_is_no_error() -> None:
    nothing = torch.full((8, 8), -9.0)
    masks, labels, scores = group_instances(nothing, nothing, torch.zeros(2, 8, 8), torch.zeros(3, 8, 8))
    assert len(masks) == len(labels) == len(scores) == 0


def test_pixels_of_a_crowd_are_unknown() -> None:
    masks = np.zeros((3, SIDE, SIDE), bool)
    masks[0, :20] = True
    masks[1, 4:8, 4:8] = masks[2, 24:, 24:] = True
    sample = replace(
        square(), keypoints=None, instances=Instances.from_masks(masks, [1, 1, 0], crowd=[True, False, False])
    )
    target = InstanceTask().target(sample)
    assert target is not None
    objects = target.objects.numpy()
    assert (objects[4:8, 4:8] == 2).all() and (objects[24:, 24:] == 3).all(), "objects lie on top of a crowd"
    assert (objects[masks[0] & ~masks[1]] == -1).all() and (objects[20:24] == 0).all()
    assert (target.labels.numpy()[masks[0] & ~masks[1]] == -1).all()
