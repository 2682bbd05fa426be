"""Shards that any process on any machine writes beside a store, for the store's one writer to take in.

    STORE/staged/NAME.parquet      written whole, as a shard is
    STORE/staged/NAME.json         its manifest, written after it: without one, a staged shard is not there

Staging needs no lock: a name stands for its content, so two processes that stage one name write the same bytes. Readers do not
see what is staged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa

from datasetdm.errors import StoreError
from datasetdm.io.files import atomic
from datasetdm.io.remote import Place, as_place
from datasetdm.records import Labels, Sample
from datasetdm.store.manifest import Manifest, manifest_path, read_checked, write_manifest
from datasetdm.store.rows import to_row, to_table
from datasetdm.store.writer import Writer, write_parquet

STAGED = "staged"


def stage_shard(samples: Iterable[Sample], store: Place | str, name: str, labels: Labels) -> Manifest:
    """Write samples as one staged shard; it is there when this returns. The same name again replaces it.

    Args:
        samples: at least one; as many as a shard may have.
        store: the folder of a store that a writer has begun, local or a URL.
        name: letters, digits, `.`, `_` and `-`.
        labels: of the store.

    Returns:
        What the shard holds, for `take_staged`.

    Raises:
        StoreError: no sample, or one of other labels. OutputError, RemoteError: the place cannot be written.
    """
    rows = []
    for sample in samples:
        if sample.labels.names != labels.names:
            raise StoreError(f"sample {sample.key!r} has other labels", where=store, expected="the store's labels")
        rows.append(to_table([to_row(sample)]))
    if not rows:
        raise StoreError("a shard needs samples", where=store, expected="at least one")
    path = _staged_path(as_place(store), name)
    table = pa.concat_tables(rows).combine_chunks()
    with atomic(path) as temporary:
        write_parquet(table, temporary)
        manifest = Manifest.of_file(temporary, table["key"].to_pylist(), closed=True)
    write_manifest(path, manifest)
    return manifest


def staged_shards(store: Place | str) -> dict[str, Manifest]:
    """Name -> manifest of every shard that is staged and waits for the store's writer."""
    found = {}
    for path in sorted((as_place(store) / STAGED).glob("*.json")):
        try:
            found[path.stem] = Manifest.from_json(read_checked(path)["shard"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            continue  # it is written again
    return found


def take_staged(writer: Writer, name: str, manifest: Manifest) -> None:
    """Append a staged shard to the store as its next one, and delete it where it was staged. Safe to kill and to repeat: a shard
    that is in the store already is only deleted.

    Raises:
        StoreError: some of its keys are in the store, but not all.
    """
    path = _staged_path(writer.folder, name)
    if not all(key in writer for key in manifest.keys):
        writer.append_shard(path, manifest)
    manifest_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _staged_path(folder: Place, name: str) -> Place:
    if not re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII):
        raise StoreError(f"{name!r} is no name for a staged shard", expected="letters, digits, `.`, `_` and `-`")
    return folder / STAGED / f"{name}.parquet"
