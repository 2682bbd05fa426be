from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasetdm.records import Sample
from datasetdm.store import Store, write_store
from datasetdm.store.reviews import Review
from datasetdm.viewer.index import UNSAID, Index, Query
from datasetdm.viewer.rows import Rows
from factory import LABELS

ROW = st.fixed_dictionaries(
    {
        "found": st.lists(st.sampled_from(LABELS.names), unique=True),
        "objects": st.lists(st.sampled_from(LABELS.names), max_size=4),
        "score": st.none() | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
        "prompt": st.none() | st.sampled_from(["a dog", "A DOG, two", "nothing", ""]),
        "verdict": st.sampled_from(["", "accept", "reject"]),
        "reason": st.sampled_from(["", "mask"]),
        "dropped": st.sampled_from(["", "blurred"]),
    }
)
QUERY = st.fixed_dictionaries(
    {},
    optional={
        "class": st.sampled_from([*LABELS.names, "other"]),
        "objects_min": st.integers(0, 3),
        "objects_max": st.integers(0, 3),
        "score_min": st.sampled_from([0.25, 0.6]),
        "score_max": st.sampled_from([0.25, 0.9]),
        "prompt": st.sampled_from(["dog", "two"]),
        "reason": st.sampled_from(["mask", "blurred", UNSAID]),
        "verdict": st.sampled_from(["open", "accept", "reject"]),
    },
)


def matches(row: dict, query: dict) -> bool:
    """The filters once more, one row at a time."""
    objects = [o for o in row["objects"] if query.get("class", o) == o]
    reason = (row["reason"] or UNSAID) if row["verdict"] == "reject" else row["dropped"]
    score = row["score"]
    return (
        query.get("class") in (None, *row["found"])
        and query.get("objects_min", 0) <= len(objects) <= query.get("objects_max", 99)
        and ("score_min" not in query or (score is not None and score >= query["score_min"]))
        and ("score_max" not in query or (score is not None and score <= query["score_max"]))
        and query.get("prompt", "") in (row["prompt"] or "").lower()
        and query.get("reason", reason) == reason
        and query.get("verdict", row["verdict"]).replace("open", "") == row["verdict"]
    )


@given(st.lists(ROW, min_size=1, max_size=8), QUERY)
def test_filters_agree_with_a_loop(rows: list[dict], query: dict) -> None:
    names = ("key", "prompt", "found", "objects", "score", "provenance")
    types = (pa.string(), pa.string(), pa.list_(pa.string()), pa.list_(pa.string()), pa.float32(), pa.string())
    for i, row in enumerate(rows):
        row |= {"key": str(i), "provenance": json.dumps({"dropped": row["dropped"]} if row["dropped"] else {})}
    columns = [pa.array([r[n] for r in rows], t) for n, t in zip(names, types, strict=True)]
    reviews = {r["key"]: Review(r["key"], r["verdict"], r["reason"]) for r in rows if r["verdict"]}
    index = Index(pa.table(columns, names=list(names)), LABELS.names, reviews)
    found = index.rows(Query(**query))
    assert found.tolist() == [i for i, r in enumerate(rows) if matches(r, query)]
    summary = index.summary(found)
    counted = {n: sum(n in rows[i]["found"] for i in found) for n in LABELS.names}
    assert dict(summary["labels"]) == counted and sum(summary["scores"]) + summary["unscored"] == len(found)


def test_rows_are_read_by_group_in_any_order(samples: list[Sample], tmp_path: Path) -> None:
    write_store([replace(samples[i % 12], key=f"k{i}") for i in range(150)], tmp_path / "s", LABELS, shard_size=70)
    rows = Rows(Store(tmp_path / "s"))
    for i in (149, 0, 64, 69, 70, 133, 134, 63):
        assert rows.row(i)["key"] == f"k{i}" and rows.sample(i).digest() == samples[i % 12].digest()
    assert rows.listed(60, 145)["key"].to_pylist() == [f"k{i}" for i in range(60, 145)]
    with pytest.raises(IndexError):
        rows.row(150)
