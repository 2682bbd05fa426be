"""A store as the page's server looks at it: pages of rows, filters, single samples, and reviews."""

from __future__ import annotations

import secrets
import shlex
from concurrent.futures import Future
from threading import RLock
from typing import Any

import numpy as np

from datasetdm.errors import DataError
from datasetdm.io.files import size_of
from datasetdm.records import Sample
from datasetdm.store.reviews import REVIEWS, Review, append_review, read_reviews
from datasetdm.store.rows import summary
from datasetdm.store.store import Store
from datasetdm.viewer import detail, paint
from datasetdm.viewer.edits import Parents
from datasetdm.viewer.index import CONFIDENCE, Index, Limit, Query, Relabelled
from datasetdm.viewer.payloads import (
    LAYER_TEXTS,
    About,
    Detail,
    Item,
    Label,
    Layer,
    LayerName,
    Page,
    Preview,
    PromptFacts,
    Reviewed,
    Shapes,
    Summary,
)
from datasetdm.viewer.rows import Listed, Rows
from datasetdm.viewer.thumbnails import Encoded, Thumbnails

COLUMNS = {
    LayerName.SEMANTIC: "semantic",
    LayerName.UNCERTAINTY: "semantic_confidence",
    LayerName.INSTANCES: "instances",
    LayerName.DEPTH: "depth",
    LayerName.DEPTH_UNCERTAINTY: "depth_confidence",
    LayerName.KEYPOINTS: "keypoints",
}
"""Overlay -> the store's column that it shows."""


THRESHOLD_OPTIONS = {
    CONFIDENCE: "--min-confidence",
    "filter-by-confidence": "--min-confidence",
    "filter-by-prompt": "--min-prompted",
    "filter-by-contrast": "--min-contrast",
    "filter-by-clipping": "--min-unclipped",
    "filter-duplicates": "--duplicates",
}
"""Score -> the option of `datasetdm filter` that rejects lower ones. Scores of objects' filters depend on two options, so a
threshold of theirs is no command."""

BORDER = 4
"""Rows that are shown on either side of a threshold."""


class ReviewedMeanwhile(DataError):
    """Another viewer reviewed the sample after the page had shown it; `now` is what counts."""

    def __init__(self, now: Reviewed):
        super().__init__("another viewer has reviewed this image meanwhile; its review is kept, and shown now")
        self.now = now


class Browser:
    """An opened store with its reviews. The index of all rows is read when a filter is first used, not before.

    Reviews that other viewers of the same store append are read at the next request. Safe to share among threads.

    Args:
        before: the store that an edited one was made from.
    """

    def __init__(self, store: Store, before: Store | None = None):
        self.store, self.rows = store, Rows(store)
        self._thumbnails = Thumbnails(self.rows)
        self.parents = Parents(before) if before else None
        self._reviews: dict[str, Review] = {}
        self._reviews_size = -1
        self._start = secrets.token_hex(4)
        self._lock = RLock()
        self._opened_index: Index | None = None

    def reviews(self) -> dict[str, Review]:
        """Key -> the review that counts, by whichever viewer."""
        with self._lock:
            size = self._size_of_reviews()
            if size != self._reviews_size:
                self._reviews, self._reviews_size = read_reviews(self.store.folder), size
                self._opened_index = None
            return self._reviews

    def _size_of_reviews(self) -> int:
        return size_of(self.store.folder / REVIEWS)

    def index(self) -> Index:
        """Columns of all rows, read once per change by another viewer."""
        with self._lock:
            reviews = self.reviews()
            if self._opened_index is None:
                index = Index(self.rows.listed(0, len(self.rows)), self.store.labels.names, reviews)
                fixed = index.rows(Query(verdict="fixed")).tolist()
                index.relabel({row: _relabelled(self.sample(row)) for row in fixed})
                self._opened_index = index
            return self._opened_index

    def about(self) -> About:
        """What the page shows before any sample."""
        labels, filled = self.store.labels, self.rows.annotated()
        colours = paint.label_colours(labels)
        return About(
            title=self.store.folder.resolve().name,
            count=len(self.rows),
            labels=[Label(name, paint.css(colour)) for name, colour in zip(labels.names, colours, strict=True)],
            layers=[Layer(name, text) for name, text in LAYER_TEXTS.items() if COLUMNS[name] in filled],
        )

    def page(self, query: Query, offset: int, limit: int) -> Page:
        """`limit` of the matching rows, from `offset`."""
        if query.everything:
            total, rows = len(self.rows), np.arange(offset, min(offset + limit, len(self.rows)))
            listed = self.rows.page(int(rows[0]), int(rows[-1]) + 1) if len(rows) else None
        else:
            index = self.index()
            matching = index.rows(query)
            total, rows = len(matching), matching[offset : offset + limit]
            listed = index.listed.take(rows)
        return Page(total, offset, self._items(rows, listed) if listed else [])

    def _items(self, rows: np.ndarray, listed: Listed) -> list[Item]:
        reviews = self.reviews()
        columns = (listed.keys, listed.prompts, listed.labels, listed.objects, listed.reasons)
        items = []
        for row, confidence, key, prompt, labels, objects, reasons in zip(
            rows.tolist(), listed.confidence.tolist(), *(c.to_pylist() for c in columns), strict=True
        ):
            review = reviews.get(key)
            if review and review.fixes:
                known = _relabelled(self.sample(row))
                labels, objects = known.labels, known.objects
            item = Item(
                row=row,
                key=key,
                prompt=prompt or "",
                labels=labels or [],
                objects=len(objects or ()),
                confidence=None if np.isnan(confidence) else round(confidence, 3),
                reasons=reasons or [],
                review=review,
                revision=self._revision(review),
            )
            items.append(item)
        return items

    def summary(self, query: Query) -> Summary:
        """How the matching rows are distributed."""
        return self.index().summary(query)

    def preview(self, limit: Limit) -> Preview:
        """What a threshold would reject, before it is set."""
        index = self.index()
        border = index.border(limit, BORDER)
        below, above = (self._items(rows, index.listed.take(rows)) for rows in (border.below, border.above))
        return Preview(border.accepted, border.dropped, below, above, self._command(limit))

    def _command(self, limit: Limit) -> str:
        option = THRESHOLD_OPTIONS.get(limit.score or CONFIDENCE)
        if option is None or not 0 <= limit.below <= 1:
            return ""
        return shlex.join(["datasetdm", "filter", str(self.store.folder), option, f"{limit.below:.6g}"])

    def sample(self, row: int) -> Sample:
        """A sample with its labels corrected by its review."""
        return self._fixed(self.rows.sample(row))

    def _fixed(self, stored: Sample) -> Sample:
        review = self.reviews().get(stored.key)
        return review.apply(stored) if review else stored

    def image(self, row: int, side: int) -> Future[Encoded]:
        """The stored image, or a small one (`detail.thumbnail`)."""
        return self._thumbnails.get(row, side)

    def parent_image(self, row: int, side: int) -> tuple[bytes, str]:
        """`image` of what the sample was before it was edited. Raises DataError if that is not there."""
        if self.parents is None:
            raise DataError(
                "what was before an edit is not known", remedy="name the store that was edited: --before STORE"
            )
        with self.rows.turn(row):
            return detail.thumbnail(self.parents.image(self.rows.sample(row)), side)

    def layer(self, row: int, name: LayerName, side: int) -> bytes:
        """A layer as PNG (`detail.layer`)."""
        with self.rows.turn(row):
            return detail.layer(self.sample(row), name, side)

    def shapes(self, row: int, side: int) -> Shapes:
        """Outlines and keypoints of one sample (`detail.shapes`)."""
        with self.rows.turn(row):
            stored = self.rows.sample(row)
            return detail.shapes(stored, self._fixed(stored), side)

    def detail(self, row: int, side: int) -> Detail:
        """Everything about one sample."""
        with self.rows.turn(row):
            stored = self.rows.sample(row)
            prompt, review = stored.prompt, self.reviews().get(stored.key)
            return Detail(
                row=row,
                key=stored.key,
                split=stored.split,
                prompt=PromptFacts(prompt.text, prompt.labels, str(prompt.seed), prompt.origin) if prompt else None,
                shapes=detail.shapes(stored, self._fixed(stored), side),
                regions=detail.regions(stored),
                depth=detail.depth_scale(stored),
                scores=stored.quality.scores,
                reasons=stored.quality.reasons,
                before=self.parents is not None and "parent" in stored.provenance.details,
                provenance={str(k): str(v) for k, v in stored.provenance.to_json().items()},
                review=review,
                revision=self._revision(review),
            )

    def review(self, row: int, value: Any) -> Reviewed:
        """Keep a review; it is on the disk when this returns.

        Args:
            row: of the sample.
            value: the review as JSON, with the one that it replaces as `seen`; without `seen` it replaces any.

        Raises:
            ReviewedMeanwhile: `seen` is not the review that counts.
            IndexError: no such row.
            DataError: no review, or objects that are not there.
            ConfigError: unknown labels.
        """
        if not isinstance(value, dict) or not isinstance(value.get("seen"), dict | None):
            raise DataError("this is no review", expected="a JSON object")
        with self.rows.turn(row):
            stored = self.rows.sample(row)
            review = Review.from_json(value | {"key": stored.key})
            seen = Review.from_json((value["seen"] or {}) | {"key": stored.key}) if "seen" in value else None
            known = _relabelled(review.apply(stored))

        def check() -> None:
            counts = self.reviews().get(stored.key, Review(stored.key))
            if seen not in (None, counts):
                raise ReviewedMeanwhile(self._reviewed(counts, _relabelled(counts.apply(stored))))

        with self._lock:
            self._reviews_size = append_review(self.store.folder, review, check)
            self._reviews[stored.key] = review
            if self._opened_index is not None:
                self._opened_index.review(row, review)
                self._opened_index.relabel({row: known})
        return self._reviewed(review, known)

    def _reviewed(self, review: Review, known: Relabelled) -> Reviewed:
        return Reviewed(review, self._revision(review), known.labels, len(known.objects))

    def _revision(self, review: Review | None) -> str:
        """Part of the images' addresses: another one whenever they would look different."""
        fixes = f"{review.labels}{review.objects}" if review and review.fixes else ""
        return self._start + (f"-{hash(fixes) & 0xFFFFFFFF:x}" if fixes else "")


def _relabelled(sample: Sample) -> Relabelled:
    known = summary(sample)
    return Relabelled(known["found"], known["objects"])
