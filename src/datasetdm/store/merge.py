"""Several stores as one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasetdm.errors import StoreError
from datasetdm.io.remote import Place
from datasetdm.records import Labels, Sample
from datasetdm.records.edits import relabel
from datasetdm.store.keys import KeySet
from datasetdm.store.reviews import append_reviews, read_reviews
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer, doubled


@dataclass(frozen=True)
class Changes:
    """Samples that are not taken as they are.

    Args:
        sha256: of what the changes were read from: a merge goes on with the same changes only.
        by_key: what is done to a sample.
    """

    sha256: str
    by_key: Mapping[str, Callable[[Sample], Sample]]


def merge(
    stores: Sequence[Store], out: Place | str, prefix: bool = False, changes: Changes | None = None
) -> Generator[int]:
    """Write all rows of several stores, in order, as a new store `out`; yields how many it holds so far, the last time all.

    Where labels are equal, shard files are linked or copied, not rewritten. Scores, reasons and reviews come along. The stream
    of the new store is `{"merged": [the streams]}`. A repeated merge adds, by key, what is not there yet: it goes on after an
    interruption, takes in what its sources have got since, and never replaces what was said of the result.

    Args:
        stores: at least one, whose labels have the same names, in any order; of this format version or an older one.
        out: a new folder, or one that the same merge began.
        prefix: put the name of its store's folder before every key, as in `FOLDER-KEY`, for stores that use the same keys.
        changes: of samples; without `prefix`, and for stores whose labels are the first one's.

    Raises:
        StoreError: labels of other names, two rows of one key, or a folder that holds something else.
    """
    if not stores:
        raise StoreError("no store to merge", expected="at least one")
    labels = stores[0].labels
    for store in stores:
        _check_labels(store, labels, stores[0].folder)
    stream: dict[str, Any] = {"merged": [s.stream for s in stores], **({"prefix": True} if prefix else {})}
    if changes is not None:
        stream["changes"] = changes.sha256
    starts = [f"{s.folder.resolve().name}-" if prefix else "" for s in stores]
    _check_keys(stores, starts)
    with Writer(out, labels, stream, made={"merged": [s.made for s in stores]}) as writer:
        reviewed = {*read_reviews(writer.folder)}
        for store, start in zip(stores, starts, strict=True):
            reviews = (replace(r, key=start + r.key) for r in read_reviews(store.folder).values())
            if new := [r for r in reviews if r.key not in reviewed]:
                append_reviews(writer.folder, new)
            if prefix or store.labels != labels:
                yield from _rewrite(store, writer, start)
            else:
                writer.assess({key: q for key, q in store.quality.items() if key not in writer.quality})
                writer.append(store, None if changes is None else changes.by_key)
            yield writer.written


def _rewrite(store: Store, writer: Writer, start: str) -> Iterator[int]:
    """Add a store's samples that are not there yet in the writer's vocabulary, with `start` before their keys."""
    new_ids = [writer.labels.index[name] for name in store.labels.names]
    for row, key in enumerate(store.keys()):
        if start + key not in writer:
            sample = store[row]
            fitting = sample if store.labels == writer.labels else relabel(sample, writer.labels, new_ids)
            writer.add(replace(fitting, key=start + key))
            yield writer.written


def _check_keys(stores: Sequence[Store], starts: Sequence[str]) -> None:
    """Raise StoreError if two rows would have one key."""
    seen = KeySet()
    for store, start in zip(stores, starts, strict=True):
        for key in map(start.__add__, store.keys()):
            if key in seen:
                raise doubled(key, store.folder)
            seen.add(key)


def _check_labels(store: Store, labels: Labels, first: Place) -> None:
    """Raise StoreError unless the store's labels are `labels`, in any order."""
    own = store.labels
    odd = set(own.names) ^ set(labels.names) or set(own.stuff) ^ set(labels.stuff)
    odd = odd or {n for n in own.names if own.skeletons.get(n) != labels.skeletons.get(n)}
    if odd:
        raise StoreError(
            f"the stores have different labels: {min(odd)!r} is not the same in both",
            where=store.folder,
            expected=f"the labels of {first}",
            remedy="give them one vocabulary first: a stream with the transform remap-labels writes such a store",
        )
