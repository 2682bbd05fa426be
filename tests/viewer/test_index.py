from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasetdm.records import Sample
from datasetdm.store import Store, write_store
from datasetdm.store.reviews import Review
from datasetdm.viewer.index import NO_REASON, SCORE_BINS, Index, Limit, Query
from datasetdm.viewer.rows import Listed, Rows
from factory import LABELS

SCORES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
ROW = st.fixed_dictionaries(
    {
        "labels": st.lists(st.sampled_from(LABELS.names), unique=True),
        "objects": st.lists(st.sampled_from(LABELS.names), max_size=4),
        "confidence": st.none() | SCORES,
        "sharpness": st.none() | SCORES,
        "prompt": st.none() | st.sampled_from(["a dog", "A DOG, two", "nothing", ""]),
        "verdict": st.sampled_from(["", "accept", "reject"]),
        "reason": st.sampled_from(["", "mask"]),
        "reasons": st.lists(st.sampled_from(["blurred", "twice", "mask"]), unique=True),
    }
)
QUERY = st.fixed_dictionaries(
    {},
    optional={
        "class": st.sampled_from([*LABELS.names, "other"]),
        "objects_min": st.integers(0, 3),
        "objects_max": st.integers(0, 3),
        "score": st.sampled_from(["confidence", "sharpness", "other"]),
        "score_min": st.sampled_from([0.25, 0.6]),
        "score_max": st.sampled_from([0.25, 0.9]),
        "prompt": st.sampled_from(["dog", "two"]),
        "reason": st.sampled_from(["mask", "blurred", NO_REASON, "other"]),
        "verdict": st.sampled_from(["open", "accept", "reject", "filtered"]),
    },
)


def matches(row: dict, query: dict) -> bool:
    """The filters once more, one row at a time."""
    objects = [o for o in row["objects"] if query.get("class", o) == o]
    reasons = row["reasons"] + ([row["reason"] or NO_REASON] if row["verdict"] == "reject" else [])
    score = row.get(query.get("score", "confidence"))
    verdicts = {row["verdict"] or "open"} | ({"filtered"} if row["reasons"] else set())
    return (
        query.get("class") in (None, *row["labels"])
        and query.get("objects_min", 0) <= len(objects) <= query.get("objects_max", 99)
        and ("score_min" not in query or (score is not None and score >= query["score_min"]))
        and ("score_max" not in query or (score is not None and score <= query["score_max"]))
        and query.get("prompt", "") in (row["prompt"] or "").lower()
        and query.get("reason") in (None, *reasons)
        and query.get("verdict") in (None, *verdicts)
    )


def numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], np.float32)


def indexed(rows: list[dict]) -> Index:
    texts = {n: pa.array([r[n] for r in rows], pa.list_(pa.string())) for n in ("labels", "objects", "reasons")}
    listed = Listed(
        keys=pa.array([str(i) for i in range(len(rows))]),
        prompts=pa.array([r["prompt"] for r in rows], pa.string()),
        confidence=numbers([r["confidence"] for r in rows]),
        scores={"sharpness": numbers([r["sharpness"] for r in rows])},
        **texts,
    )
    reviews = {str(i): Review(str(i), r["verdict"], r["reason"]) for i, r in enumerate(rows) if r["verdict"]}
    return Index(listed, LABELS.names, reviews)


@settings(deadline=None)
@given(
    st.lists(ROW, min_size=1, max_size=8), st.sampled_from(["confidence", "sharpness", "other"]), SCORES | st.just(0.6)
)
def test_a_threshold_is_previewed_as_a_loop_would(rows: list[dict], score: str, below: float) -> None:
    border = indexed(rows).border(Limit(score=score, below=below), 3)
    accepted = [i for i, r in enumerate(rows) if not r["reasons"] and r["verdict"] != "reject"]
    known = [(rows[i][score], i) for i in accepted if rows[i].get(score) is not None]
    dropped = sorted(((-value, i) for value, i in known if value < below))
    kept = sorted((value, i) for value, i in known if value >= below)
    assert (border.accepted, border.dropped) == (len(accepted), len(dropped))
    assert border.below.tolist() == [i for _, i in dropped[:3]] and border.above.tolist() == [i for _, i in kept[:3]]


@settings(deadline=None)  # the first call compiles shape checks
@given(st.lists(ROW, min_size=1, max_size=8), QUERY)
def test_filters_agree_with_a_loop(rows: list[dict], query: dict) -> None:
    index = indexed(rows)
    found = index.rows(Query(**query)).tolist()
    assert found == [i for i, r in enumerate(rows) if matches(r, query)]
    summary = index.summary(Query(**query))
    expected = {n: sum(n in rows[i]["labels"] for i in found) for n in LABELS.names}
    assert {c.name: c.rows for c in summary.labels} == expected
    assert summary.total == len(found) == sum(summary.score.counts) + summary.score.missing
    score = query.get("score") or "confidence"
    accepted = [i for i in found if rows[i]["verdict"] != "reject" and not rows[i]["reasons"]]
    assert sum(summary.score.accepted) == sum(rows[i].get(score) is not None for i in accepted)
    assert all(a <= n for a, n in zip(summary.score.accepted, summary.score.counts, strict=True))
    assert summary.verdicts.filtered == sum(bool(rows[i]["reasons"]) for i in found)
    reasons = [
        *(t for r in rows for t in r["reasons"]),
        *(r["reason"] or NO_REASON for r in rows if r["verdict"] == "reject"),
    ]
    assert {c.name: c.rows for c in summary.reasons} == Counter(reasons)


def test_the_histogram_spans_the_values() -> None:
    """From 0 to 1 for probabilities, else from the least to the largest."""
    nothing = pa.array([[]] * 3, pa.list_(pa.string()))
    keys = pa.array(["a", "b", "c"])
    scores = {"sharpness": numbers([3, 43, None]), "constant": numbers([7, 7, 7])}
    index = Index(Listed(keys, keys, nothing, nothing, numbers([0.2, 0.4, None]), nothing, scores), LABELS.names, {})
    score = index.summary(Query()).score
    assert score.names == ["confidence", "constant", "sharpness"] and (score.low, score.high) == (0, 1)
    score = index.summary(Query(score="sharpness")).score
    assert (score.low, score.high, score.missing) == (3, 43, 1) and score.counts == [1, *[0] * (SCORE_BINS - 2), 1]
    assert index.rows(Query(score="sharpness", order="-score")).tolist() == [1, 0, 2]
    assert sum(index.summary(Query(score="constant")).score.counts) == 3


def same_annotations(a: Sample, b: Sample) -> bool:
    return a.size == b.size and replace(a, image=b.image, encoded=None).digest() == b.digest()


def test_rows_are_read_by_group_in_any_order(samples: list[Sample], tmp_path: Path) -> None:
    write_store([replace(samples[i % 12], key=f"k{i}") for i in range(150)], tmp_path / "s", LABELS, shard_size=70)
    rows = Rows(Store(tmp_path / "s"))
    for i in (149, 0, 64, 69, 70, 133, 134, 63):
        assert rows.sample(i).key == f"k{i}" and same_annotations(rows.sample(i), samples[i % 12])
    assert rows.listed(60, 145).keys.to_pylist() == [f"k{i}" for i in range(60, 145)]
    with pytest.raises(IndexError):
        rows.sample(150)
