"""What an edited sample was before, and the command that edits what is shown."""

from __future__ import annotations

import shlex
from functools import cached_property

import pyarrow as pa

from datasetdm.errors import ConfigError, DataError
from datasetdm.io.codecs import encode_png
from datasetdm.records import Sample
from datasetdm.store.store import Store


class Parents:
    """The images that edited samples were made from.

    Args:
        store: that they lie in.
    """

    def __init__(self, store: Store):
        self.store = store

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.store.keys())}

    def image(self, edited: Sample) -> pa.Buffer:
        """The image of the sample's parent as PNG.

        Raises:
            DataError: the sample was not edited, or its parent is not in this store.
        """
        made = edited.provenance.details
        row = self._rows.get(str(made.get("parent")))
        parent = None if row is None else self.store[row]
        if parent is None or parent.digest() != made.get("parent_sha256"):
            raise DataError(
                f"the image that {edited.key!r} was made from is not there",
                where=self.store.folder,
                expected="the store that `datasetdm edit` read",
                remedy="name that store with --before",
            )
        return pa.py_buffer(encode_png(parent.image))


def edit_command(store: Store, old: str, new: str) -> str:
    """The command that replaces a label by a word in all images of a store.

    Raises:
        ConfigError: a label that the store does not know, or a word that is none.
    """
    if old not in store.labels.names:
        raise ConfigError(f"the store has no label {old!r}", expected=f"one of: {', '.join(store.labels.names)}")
    if not new.strip() or "=" in new or "," in new:
        raise ConfigError("this is no word to put there", expected="a name without = and comma")
    place = str(store.folder)
    return shlex.join(["datasetdm", "edit", place, "--replace", f"{old}={new.strip()}", "--out", f"{place}-edited"])
