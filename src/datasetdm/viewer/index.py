"""What filters ask for, as columns in memory: which rows match, and how they are distributed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64
from pydantic import BaseModel, ConfigDict, Field

from datasetdm.store.reviews import Review

SCORE_BINS = 20
UNSAID = "no reason given"
Flat = tuple[np.ndarray, np.ndarray]
"""(row, label number) of every entry of a column of lists, in any order."""

DROPPED = "dropped"
"""The entry of a sample's provenance that names why a filter would leave it out."""


class Query(BaseModel):
    """A filter. Empty texts and None ask for nothing.

    cls: a label that is found. objects_min, objects_max: number of objects, of that label if one is given.
    prompt: text that it contains, in any case. reason: why it was dropped or rejected.
    verdict: of people; "open" has none, "fixed" has labels fixed. order: of the rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cls: str = Field("", alias="class")
    objects_min: int | None = Field(None, ge=0)
    objects_max: int | None = Field(None, ge=0)
    score_min: float | None = None
    score_max: float | None = None
    prompt: str = ""
    reason: str = ""
    verdict: Literal["", "open", "accept", "reject", "fixed"] = ""
    order: Literal["row", "score", "-score"] = "row"

    @property
    def everything(self) -> bool:
        """Whether all rows match, in their order."""
        return self == Query()


class Index:
    """Columns of a whole store.

    Args:
        table: columns `rows.LISTED` of all rows. names: of the vocabulary. reviews: by key.
    """

    def __init__(self, table: pa.Table, names: Sequence[str], reviews: Mapping[str, Review]):
        self.table, self.names = table.combine_chunks(), tuple(names)
        count = table.num_rows
        vocabulary = pa.array(self.names, pa.string())
        self._found = _flat(self.table["found"], vocabulary)
        self._objects = _flat(self.table["objects"], vocabulary)
        self._scores = self.table["score"].to_numpy().astype(np.float32)
        self._verdicts, self._fixed = np.full(count, "", "U6"), np.zeros(count, bool)
        self._dropped = _dropped(self.table["provenance"])
        self._reasons = self._dropped.copy()
        said = _positions(self.table["key"], pa.array(list(reviews), pa.string()))
        rows = np.flatnonzero(said.is_valid().to_numpy())
        for row, key in zip(rows.tolist(), self.table["key"].take(pa.array(rows)).to_pylist(), strict=True):
            self.review(row, reviews[key])

    def review(self, row: int, review: Review) -> None:
        """Take note of what was said of a row."""
        self._verdicts[row], self._fixed[row] = review.verdict, review.fixes
        rejected = review.verdict == "reject"
        self._reasons[row] = review.reason or UNSAID if rejected else self._dropped[row]

    def relabel(self, changed: Mapping[int, Mapping[str, Any]]) -> None:
        """Take note of other labels: row -> what `store.summary` says of it."""
        self._found = self._replaced(self._found, {row: told["found"] for row, told in changed.items()})
        self._objects = self._replaced(self._objects, {row: told["objects"] for row, told in changed.items()})

    def _replaced(self, flat: Flat, names: Mapping[int, Sequence[str]]) -> Flat:
        kept = ~np.isin(flat[0], list(names))
        entries = [(row, self.names.index(name)) for row, found in names.items() for name in found]
        added = np.array(entries, np.int64).reshape(-1, 2).T
        return np.concatenate([flat[0][kept], added[0]]), np.concatenate([flat[1][kept], added[1]])

    def rows(self, query: Query) -> Int64[np.ndarray, "n"]:
        """The rows that match, in the query's order; rows without a score come last."""
        rows = np.flatnonzero(self._matches(query))
        if query.order != "row":
            sign = -1 if query.order == "-score" else 1
            rows = rows[np.argsort(sign * self._scores[rows], kind="stable")]
        return rows

    def _matches(self, query: Query) -> Bool[np.ndarray, "n"]:
        fits = np.ones(self.table.num_rows, bool)
        code = self.names.index(query.cls) if query.cls in self.names else None
        if query.cls:
            fits &= self._has(self._found, code) > 0
        if query.objects_min is not None or query.objects_max is not None:
            counts = self._has(self._objects, code if query.cls else -1)
            fits &= counts >= (query.objects_min or 0)
            if query.objects_max is not None:
                fits &= counts <= query.objects_max
        if query.score_min is not None:
            fits &= self._scores >= np.float32(query.score_min)
        if query.score_max is not None:
            fits &= self._scores <= np.float32(query.score_max)
        if query.prompt:
            fits &= _contains(self.table["prompt"], query.prompt)
        if query.reason:
            fits &= self._reasons == query.reason
        if query.verdict == "fixed":
            fits &= self._fixed
        elif query.verdict:
            fits &= self._verdicts == query.verdict.replace("open", "")
        return fits

    def _has(self, flat: Flat, code: int | None) -> Int64[np.ndarray, "n"]:
        """How often each row has a label; -1 counts all labels, None is a label that no row has."""
        rows, codes = flat
        chosen = rows if code == -1 else rows[codes == code] if code is not None else rows[:0]
        return np.bincount(chosen, minlength=self.table.num_rows)

    def summary(self, rows: Int64[np.ndarray, "n"]) -> dict[str, Any]:
        """JSON-ready: how many rows have each label, score, reason and verdict. Labels are ordered by their number."""
        chosen = np.zeros(self.table.num_rows, bool)
        chosen[rows] = True
        of_row, codes = self._found
        labels = np.bincount(codes[chosen[of_row]], minlength=len(self.names))
        order = np.argsort(-labels, kind="stable")
        scores = self._scores[rows]
        scores = scores[np.isfinite(scores)]
        bins, _ = np.histogram(np.clip(scores, 0, 1), SCORE_BINS, (0, 1))
        reasons, verdicts = self._reasons[self._reasons != ""], self._verdicts[rows]
        return {
            "total": len(rows),
            "labels": [[self.names[i], int(labels[i])] for i in order],
            "scores": bins.tolist(),
            "unscored": int(len(rows) - len(scores)),
            "reasons": dict(
                zip(*(v.tolist() for v in np.unique(reasons.astype(str), return_counts=True)), strict=True)
            ),
            "verdicts": {v or "open": int((verdicts == v).sum()) for v in ("", "accept", "reject")}
            | {"fixed": int(self._fixed[rows].sum())},
        }


def _flat(column: pa.ChunkedArray, vocabulary: pa.Array) -> Flat:
    """The entries of a column of lists; labels that are not in the vocabulary are none."""
    lists = column.combine_chunks()
    codes = pc.fill_null(_positions(lists.flatten(), vocabulary), -1).to_numpy()
    return lists.value_parent_indices().to_numpy()[codes >= 0], codes[codes >= 0]


def _positions(texts: Any, vocabulary: pa.Array) -> Any:
    """Where in `vocabulary` each text is, or null."""
    return pc.call_function("index_in", [texts], pc.SetLookupOptions(vocabulary))


def _contains(texts: Any, part: str) -> Bool[np.ndarray, "n"]:
    found = pc.call_function("match_substring", [texts], pc.MatchSubstringOptions(part, ignore_case=True))
    return pc.fill_null(found, False).to_numpy()


def _dropped(provenance: pa.ChunkedArray) -> np.ndarray:
    """Why each row was dropped; mostly empty."""
    reasons = np.full(len(provenance), "", object)
    for row in np.flatnonzero(_contains(provenance, f'"{DROPPED}"')).tolist():
        reasons[row] = str(json.loads(provenance[row].as_py()).get(DROPPED) or "")
    return reasons
