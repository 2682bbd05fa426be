"""Several stores as one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from datasetdm.errors import StoreError
from datasetdm.records import Labels
from datasetdm.records.edits import relabel
from datasetdm.store.quality import append_quality
from datasetdm.store.reviews import append_reviews, read_reviews
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer


def merge(stores: Sequence[Store], out: Path | str, prefix: bool = False) -> Generator[int]:
    """Write all rows of several stores, in order, as a new store `out`; yields how many it holds so far, the last time all.

    Where labels are equal, shard files are linked or copied, not rewritten. Scores, reasons and reviews come along. The stream
    of the new store is `{"merged": [the streams]}`. An interrupted merge goes on where it stopped.

    Args:
        stores: at least one, whose labels have the same names, in any order; of this format version or an older one.
        out: a new folder, or one that the same merge began.
        prefix: put the name of its store's folder before every key, as in `FOLDER-KEY`, for stores that use the same keys.

    Raises:
        StoreError: labels of other names, two rows of one key, or a folder that holds something else.
    """
    if not stores:
        raise StoreError("no store to merge", expected="at least one")
    labels = stores[0].labels
    for store in stores:
        _check_labels(store, labels, stores[0].folder)
    stream = {"merged": [s.stream for s in stores], **({"prefix": True} if prefix else {})}
    with Writer(out, labels, stream) as writer:
        before = 0
        for store in stores:
            start = f"{store.folder.resolve().name}-" if prefix else ""
            reviews = read_reviews(store.folder).values()
            append_reviews(writer.folder, [replace(r, key=start + r.key) for r in reviews])
            done = max(0, writer.written - before)
            if done < len(store) and (prefix or store.labels != labels):
                yield from _rewrite(store, writer, start, done)
            elif done < len(store):
                for key, quality in store.quality.items():
                    append_quality(writer.folder, key, quality)
                writer.append(store, done)
            before += len(store)
            yield writer.written


def _rewrite(store: Store, writer: Writer, start: str, done: int) -> Iterator[int]:
    """Add a store's samples in the writer's vocabulary, with `start` before their keys, from row `done` on."""
    new_ids = [writer.labels.index[name] for name in store.labels.names]
    for sample in islice(store, done, None):
        fitting = sample if store.labels == writer.labels else relabel(sample, writer.labels, new_ids)
        writer.add(replace(fitting, key=start + fitting.key))
        yield writer.written


def _check_labels(store: Store, labels: Labels, first: Path) -> None:
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
