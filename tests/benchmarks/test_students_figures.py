"""Figures of the students' tables and their intervals: those of the meters, and of plain resampling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from benchmarks.students import gains
from benchmarks.students.figures import (
    AbsRel,
    Evidence,
    HarmonicIoU,
    Judge,
    MeanIoU,
    ObjectAP,
    PointAP,
    evidence_of,
    pack,
    unpack,
)
from benchmarks.students.plot import plot_gains

from datasetdm.metrics import DepthMeter, InstanceMeter, KeypointMeter, SemanticMeter
from datasetdm.metrics.meter import Meter
from datasetdm.readers import read
from datasetdm.readers.formats.mini import LABELS
from datasetdm.records import DepthMap, Sample, SemanticMap


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Sample, Sample]]:
    """Renders, and what somebody says who leaves out, doubles and shifts."""
    rng, rows = np.random.default_rng(0), []
    for true in islice(read("mini:test"), 24):
        semantic, depth, objects, points = true.semantic, true.depth, true.instances, true.keypoints
        assert semantic is not None and depth is not None and objects is not None and points is not None
        chosen = np.flatnonzero(rng.random(len(objects)) > 0.2)
        scores = rng.random(len(chosen)).astype(np.float32)
        found = replace(objects.take(chosen), scores=scores)
        moved = replace(
            points.take(chosen), xy=(points.xy[chosen] + rng.normal(0, 2, points.xy[chosen].shape)).clip(0, 127)
        )
        far = DepthMap(depth.depth * np.float32(rng.uniform(0.5, 1.5)), depth.valid)
        ids = np.where(rng.random(true.size) > 0.3, semantic.ids, 3).astype(np.uint16)
        rows.append((true, replace(true, semantic=SemanticMap(ids), depth=far, instances=found, keypoints=moved)))
    return rows


@pytest.mark.parametrize(
    ("judge", "meter", "figure"),
    [
        (MeanIoU(), SemanticMeter, "miou"),
        (AbsRel(), DepthMeter, "absrel"),
        (ObjectAP(), InstanceMeter, "ap"),
        (PointAP(), KeypointMeter, "oks_ap"),
    ],
)
def test_figures_are_those_of_the_meters(
    judge: Judge, meter: type[Meter], figure: str, pairs: list[tuple[Sample, Sample]]
) -> None:
    """Of all images, and of a resample: images that are taken twice are seen twice."""

    def by_meter(rows: list[tuple[Sample, Sample]], figure: str = figure) -> float:
        own = meter()
        for true, found in rows:
            own.update(found, true)
        return own.compute()[figure]

    kept = judge.look(iter(pairs))
    value = {name: pack(v) for name, v in kept.items()}
    again = evidence_of(json.loads(json.dumps(value)))
    assert judge.figure(again) == pytest.approx(by_meter(pairs), abs=2e-3)
    for name, value in judge.details(again).items():
        assert value == pytest.approx(by_meter(pairs, name), rel=1e-5), name
    taken = np.random.default_rng(1).integers(0, len(pairs), len(pairs))
    weights = np.bincount(taken, minlength=len(pairs))[None].astype(float)
    assert judge.figures(again, weights)[0] == pytest.approx(by_meter([pairs[i] for i in taken]), abs=0.01)


def test_nothing_found_is_an_ap_of_0(pairs: list[tuple[Sample, Sample]]) -> None:
    none = np.zeros(0, int)
    empty = [
        (t, replace(f, instances=f.instances.take(none), keypoints=f.keypoints.take(none)))
        for t, f in pairs[:3]
        if f.instances and f.keypoints
    ]
    for judge in (ObjectAP(), PointAP()):
        kept = judge.look(empty)
        assert judge.figure(kept) == 0 and kept["truth"].sum() > 0 and kept["found"].shape == (0, 5)


def test_other_figures_of_the_same_counts() -> None:
    a, b, c = LABELS.names[:3]
    counts = np.zeros((4, len(LABELS), 3), int)
    counts[:2, :3], counts[2:, :3] = [[9, 10, 9], [0, 10, 0], [5, 10, 5]], [[1, 10, 1], [2, 10, 2], [5, 10, 5]]
    kept = {"counts": counts}
    assert MeanIoU(names=(a, b)).figure(kept) == pytest.approx((0.5 + 0.1) / 2)
    assert MeanIoU(names=(a, b)).details(kept) == {"all labels": pytest.approx((0.5 + 0.1 + 0.5) / 3)}
    groups = MeanIoU(groups=("dusk", "dawn")).details(kept)
    assert groups == {"dusk": pytest.approx((0.9 + 0 + 0.5) / 3), "dawn": pytest.approx((0.1 + 0.2 + 0.5) / 3)}
    harmonic = HarmonicIoU(names=(a, c), unseen=(b,))
    assert harmonic.figure(kept) == pytest.approx(2 * 0.5 * 0.1 / 0.6)
    assert harmonic.details(kept)["seen"] == pytest.approx(0.5) and harmonic.details(kept)["unseen"] == pytest.approx(
        0.1
    )
    assert (unpack(json.loads(json.dumps(pack(counts)))) == counts).all()


# ---------------------------------------------------------------------- intervals
def found(judge: Judge, evidence: Evidence) -> gains.Found:
    value: dict[str, Any] = {"figure": judge.figure(evidence), **{n: pack(v) for n, v in evidence.items()}}
    return gains.Found(value, judge)


def test_the_interval_is_that_of_resampled_images() -> None:
    rng, judge = np.random.default_rng(1), MeanIoU()

    def counts(right: float) -> np.ndarray:
        true = rng.integers(20, 60, (40, 3))
        hit = rng.binomial(true, right)
        return np.stack([hit, true, hit + rng.integers(0, 9, hit.shape)], -1)

    good, bad = ({s: counts(right) for s in seeds} for right, seeds in ((0.7, (0, 1)), (0.5, (0, 1, 2))))
    own, base = ({s: found(judge, {"counts": c}) for s, c in rows.items()} for rows in (good, bad))
    value = gains.difference(own, base)
    assert value is not None and value["seeds"] == [0, 1] and value["ratio"] > 1.2
    again = np.random.default_rng(5).integers(0, 40, (1000, 40))  # plain loops as the reference
    sampled = [np.mean([figure(good[s][i]) - figure(bad[s][i]) for s in (0, 1)]) for i in again]
    low, high = np.percentile(sampled, gains.INTERVAL)
    assert value["low"] == pytest.approx(low, abs=0.003) and value["high"] == pytest.approx(high, abs=0.003)
    assert value["low"] < value["gain"] < value["high"] and value["low"] > 0
    assert gains.difference(own, own) == {"gain": 0, "low": 0, "high": 0, "ratio": 1, "seeds": [0, 1]}
    assert gains.difference(own, {}) is None


def figure(counts: np.ndarray) -> float:
    return MeanIoU().figure({"counts": counts})


def test_less_depth_error_is_a_gain() -> None:
    good, bad = (
        {0: found(AbsRel(), {"errors": np.array(e, np.float32)[:, None]})} for e in ([0.1, 0.2, np.nan], [0.2, 0.4, 9])
    )
    value = gains.difference(good, bad)
    assert value is not None and value["gain"] > 0 and value["low"] > 0 and value["ratio"] < 0.1


def test_the_plot_shows_every_gain() -> None:
    gain = {"gain": 0.1, "low": 0.05, "high": 0.15}
    tables: dict[str, Mapping[str, Mapping[str, Any]]] = {
        "A < B": {"real": {"gain": None}, "both": {"gain": gain}, "upper": {"gain": {**gain, "low": -0.01}}},
        "empty": {"both": {"gain": None}},
    }
    drawn = plot_gains(tables)
    assert drawn.count("<circle") == 2 and "A &lt; B" in drawn and "empty" not in drawn and drawn.endswith("</svg>\n")
    assert plot_gains({"empty": tables["empty"]}) == ""
