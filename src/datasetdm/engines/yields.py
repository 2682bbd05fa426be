"""What of a store's samples passes the filters, read without decoding an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datasetdm.engines.progress import Yield
from datasetdm.store.store import Store


def yield_of(store: Store) -> Yield:
    """That of all samples of a store, with what filters found later."""
    found = Yield()
    for row in rows_of(store, ("key", "found", "quality_reasons")):
        found.add(row["found"], row["quality_reasons"])
    return found


def rows_of(store: Store, columns: Sequence[str], stop: int | None = None) -> Iterator[dict[str, Any]]:
    """Some columns of a store's rows, one shard at a time, up to before row `stop`."""
    for shard in store.shards:
        end = shard.start + shard.rows
        yield from store.table(columns, shard.start, end if stop is None else min(end, stop)).to_pylist()
