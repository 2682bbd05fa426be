"""What an evaluation says beyond its means: figures by label, seen and unseen labels, counts, scores of single images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from datasetdm.errors import ConfigError
from datasetdm.metrics import DepthMeter, InstanceMeter, KeypointMeter, Meter, PanopticMeter, SemanticMeter
from datasetdm.pipelines.evaluate import compare, zero_shot
from datasetdm.records import IGNORE, Sample
from datasetdm.records.edits import ignore_pixels
from factory import LABELS, make_sample


def meters() -> dict[str, Meter]:
    kinds = (SemanticMeter, InstanceMeter, DepthMeter, KeypointMeter, PanopticMeter)
    return {kind.__name__: kind() for kind in kinds}


def pairs(count: int = 4) -> Iterator[tuple[Sample, Sample]]:
    """The first image is found exactly, the others are another one's annotations."""
    for i in range(count):
        true = make_sample(f"k{i}", seed=i)
        yield true, replace(make_sample(seed=i + (i > 0)), key=true.key, image=true.image)


def test_means_over_labels_are_the_figures() -> None:
    own = meters()
    found = compare(pairs(), own, LABELS)
    assert {*found.by_label} == {*found.figures} - {"DepthMeter"}
    for name, rows in found.by_label.items():
        first = [next(iter(row.values())) for row in rows.values()]
        assert {*rows} <= {*LABELS.names}
        assert np.mean(first) == pytest.approx(found.figures[name][own[name].better[0]]), name


def test_every_image_has_its_own_score() -> None:
    seen: list[tuple[str, dict[str, float]]] = []
    compare(pairs(), meters(), LABELS, on_pair=lambda true, _, scores: seen.append((true.key, dict(scores))))
    assert [key for key, _ in seen] == ["k0", "k1", "k2", "k3"]
    assert all(value == pytest.approx(1) for value in seen[0][1].values()) and len(seen[0][1]) == 5
    assert all(0 <= v <= 1 for _, scores in seen for v in scores.values())
    assert min(seen[1][1].values()) < 0.9


def test_what_was_compared_is_counted() -> None:
    true = make_sample("a")
    crowd = replace(true.instances, crowd=[True])
    ignored = ignore_pixels(replace(true, instances=crowd), true.semantic.ids == 0)
    counts = compare([(true, true), (ignored, true)], meters(), LABELS).counts
    sky = int((true.semantic.ids == 0).sum())
    assert (counts.images, counts.objects, counts.crowds, counts.pixels) == (2, 1, 1, 2 * true.semantic.ids.size)
    assert counts.unlabelled == int((ignored.semantic.ids == IGNORE).sum()) == sky
    assert counts.without_depth == 2 * int((~true.depth.valid).sum())
    only = compare([(ignored, true)], {"s": SemanticMeter()}, LABELS).counts
    assert (only.objects, only.crowds, only.without_depth) == (0, 0, 0), "what is not compared is not counted"


def test_seen_and_unseen_labels() -> None:
    rows = {"background": {"iou": 1.0}, "dog": {"iou": 0.6}, "cat": {"iou": 0.2}, "cow": {"iou": 0.4}}
    found = zero_shot(rows, ("cat", "cow"), "miou")
    assert found == pytest.approx({"miou_seen": 0.6, "miou_unseen": 0.3, "miou_harmonic": 0.4})
    assert zero_shot({"dog": {"iou": 0.0}, "cat": {"iou": 0.0}}, ("cat",), "x")["x_harmonic"] == 0
    assert zero_shot(rows, ("horse",), "x") == {}, "the truth shows no unseen label"
    figures = compare(pairs(), {"s": SemanticMeter()}, LABELS, unseen=("dog",)).figures["s"]
    assert figures["miou_unseen"] < figures["miou_harmonic"] < figures["miou_seen"]
    with pytest.raises(ConfigError, match="unknown label 'dgo'"):
        compare(pairs(), {}, LABELS, unseen=("dgo",))
