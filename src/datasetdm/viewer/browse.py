"""A store as the page's server looks at it: pages of rows, filters, single samples, and what people say of them."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from functools import cached_property
from threading import RLock
from typing import Any

import numpy as np
import pyarrow as pa

from datasetdm.errors import DataError
from datasetdm.records import Sample
from datasetdm.store import Store, summary
from datasetdm.store.reviews import Review, append_review, read_reviews
from datasetdm.viewer import detail, paint
from datasetdm.viewer.index import Index, Query
from datasetdm.viewer.rows import Rows

LAYERS = {
    "semantic": ("semantic", "Semantic"),
    "semantic_confidence": ("doubt", "Doubt"),
    "instances": ("instance", "Instances"),
    "depth": ("depth", "Depth"),
    "depth_confidence": ("depth-doubt", "Depth doubt"),
    "keypoints": ("keypoints", "Skeletons"),
}
"""Column of a store -> (layer, its switch's text)."""


class Browser:
    """An opened store with its reviews. The index of all rows is read when a filter is first asked for, not before.

    Safe to share among threads.
    """

    def __init__(self, store: Store):
        self.store, self.rows = store, Rows(store)
        self.reviews = read_reviews(store.folder)
        self._edition = secrets.token_hex(4)
        self._lock = RLock()

    @cached_property
    def _index(self) -> Index:
        index = Index(self.rows.listed(0, len(self.rows)), self.store.labels.names, self.reviews)
        index.relabel({row: summary(self.sample(row)) for row in index.rows(Query(verdict="fixed")).tolist()})
        return index

    @property
    def index(self) -> Index:
        """Columns of all rows, read once."""
        with self._lock:
            return self._index

    def about(self) -> dict[str, Any]:
        """What the page shows before any sample."""
        labels, filled = self.store.labels, self.rows.annotated()
        colours = [paint.css(c) for c in paint.label_colours(labels)]
        return {
            "title": self.store.folder.resolve().name,
            "count": len(self.rows),
            "labels": [{"name": n, "colour": c} for n, c in zip(labels.names, colours, strict=True)],
            "layers": [{"name": name, "text": text} for column, (name, text) in LAYERS.items() if column in filled],
        }

    def page(self, query: Query, offset: int, limit: int) -> dict[str, Any]:
        """`limit` of the matching rows, from `offset`."""
        if query.everything:
            rows = np.arange(offset, min(offset + limit, len(self.rows)))
            total, table = len(self.rows), None
            if len(rows):
                table = self.rows.listed(int(rows[0]), int(rows[-1]) + 1)
        else:
            matching = self.index.rows(query)
            rows, total = matching[offset : offset + limit], len(matching)
            table = self.index.table.take(pa.array(rows))
        values = table.to_pylist() if table is not None else []
        items = [self._item(row, value) for row, value in zip(rows.tolist(), values, strict=True)]
        return {"total": total, "offset": offset, "items": items}

    def _item(self, row: int, value: dict[str, Any]) -> dict[str, Any]:
        review, score = self.reviews.get(value["key"]), value["score"]
        if review and review.fixes:
            value = value | summary(self.sample(row))
        return {
            "row": row,
            "key": value["key"],
            "prompt": value["prompt"] or "",
            "found": value["found"] or [],
            "objects": len(value["objects"] or ()),
            "score": None if score is None else round(score, 3),
            "review": self._said(value["key"]),
            "edition": self._edition_of(value["key"]),
        }

    def distribution(self, query: Query) -> dict[str, Any]:
        """How the matching rows are distributed."""
        return self.index.summary(self.index.rows(query))

    def sample(self, row: int) -> Sample:
        """A sample with its labels fixed."""
        raw = self.rows.sample(row)
        review = self.reviews.get(raw.key)
        return review.apply(raw) if review else raw

    def describe(self, row: int) -> dict[str, Any]:
        """Everything about one sample."""
        raw = self.rows.sample(row)
        said = {"row": row, "review": self._said(raw.key), "edition": self._edition_of(raw.key)}
        return said | detail.describe(raw, self.sample(row))

    def review(self, row: int, value: Any) -> dict[str, Any]:
        """Keep what somebody says of a sample; on the disk when this returns.

        Raises:
            IndexError, DataError, ConfigError: no such sample, no review, or labels and objects that are not there.
        """
        if not isinstance(value, dict):
            raise DataError("this is no review", expected="a JSON object")
        raw = self.rows.sample(row)
        review = Review.from_json(value | {"key": raw.key})
        told = summary(review.apply(raw))
        with self._lock:
            append_review(self.store.folder, review)
            self.reviews[raw.key] = review
            if "_index" in self.__dict__:
                self._index.review(row, review)
                self._index.relabel({row: told})
        said = {"review": self._said(raw.key), "edition": self._edition_of(raw.key)}
        return said | {"found": told["found"], "objects": len(told["objects"])}

    def _said(self, key: str) -> dict[str, Any] | None:
        review = self.reviews.get(key)
        return None if review is None else asdict(review)

    def _edition_of(self, key: str) -> str:
        """Part of the pictures' addresses: another one whenever they would look different."""
        review = self.reviews.get(key)
        fixes = f"{review.labels}{review.objects}" if review and review.fixes else ""
        return self._edition + (f"-{hash(fixes) & 0xFFFFFFFF:x}" if fixes else "")
