"""Several stores as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from datasetdm.errors import StoreError
from datasetdm.store.quality import append_quality
from datasetdm.store.reviews import append_reviews, read_reviews
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer


def merge(stores: Sequence[Store], out: Path | str) -> Iterator[int]:
    """Write all rows of several stores, in order, as a new store `out`; yields how many it holds after every store.

    Shard files are linked or copied, not rewritten. Scores, reasons and reviews come along. The stream of the new store is
    `{"merged": [the streams]}`. An interrupted merge goes on with the next store.

    Args:
        stores: at least one, of the same labels, of this format version or an older one.
        out: a new folder, or one that the same merge began.

    Raises:
        StoreError: other labels, two rows of one key, or a folder that holds something else.
    """
    if not stores:
        raise StoreError("no store to merge", expected="at least one")
    if any(s.labels != stores[0].labels for s in stores):
        other = next(s for s in stores if s.labels != stores[0].labels)
        raise StoreError(
            "the stores have different labels",
            where=other.folder,
            expected=f"the labels of {stores[0].folder}",
            remedy="merge stores of one vocabulary",
        )
    with Writer(out, stores[0].labels, {"merged": [s.stream for s in stores]}) as writer:
        end = 0
        for store in stores:
            start, end = end, end + len(store)
            if writer.written < end:
                append_reviews(writer.folder, read_reviews(store.folder).values())
                for key, quality in store.quality.items():
                    append_quality(writer.folder, key, quality)
                writer.append(store, skip=writer.written - start)
            yield writer.written
