"""The loop that writes a stream into a store on this machine."""

from __future__ import annotations

import time
from collections.abc import Generator
from itertools import islice

from datasetdm.engines.failures import Done, read_failures
from datasetdm.engines.progress import FLUSH_SECONDS
from datasetdm.io.remote import Place
from datasetdm.pipelines.made import made_by
from datasetdm.pipelines.stream import Source
from datasetdm.records import Sample
from datasetdm.store.handover import remove_parts
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer


def iter_write(
    source: Source, out: Place | str, count: int | None = None, shard_size: int = 256
) -> Generator[tuple[int, Sample | None]]:
    """`write` as a generator of (how many samples the store holds, the last one), at the start with None."""
    with Writer(out, source.labels, source.origin(), shard_size, made_by(source)) as writer:
        yield writer.written, None
        if writer.written:
            source.check(Store(out))
        remove_parts(writer.folder)
        failed = read_failures(writer.folder)
        rest = None if count is None else max(0, count - writer.written - len(failed))
        flushed = time.monotonic()
        for sample in islice(source.samples(done=Done(writer, failed)), rest):
            writer.add(sample)
            if time.monotonic() - flushed > FLUSH_SECONDS:
                writer.flush()
                flushed = time.monotonic()
            yield writer.written, sample


def write(source: Source, out: Place | str, count: int | None = None, shard_size: int = 256) -> int:
    """Bring the store `out` to `count` samples, or to all that the source has; returns how many it holds.

    Args:
        source: a stream or a source alone. A store that is begun already goes on, if it is of the same one.
        out: the store's folder, or its URL.
        count: of samples, those that are there already included; None for a source that ends.
        shard_size: samples per file.

    Raises:
        StoreError: the folder holds something else, or a store of another stream or of other data.
    """
    held = 0
    for held, _ in iter_write(source, out, count, shard_size):  # noqa: B007
        pass
    return held
