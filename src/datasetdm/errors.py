"""Every error that a user can cause, in one tree.

DatasetDMError            what was wrong, where, what was expected, what to do; the command line exits with 2
├── ConfigError           an unknown name or an impossible setting
├── DataError             labelled data that cannot be read as they say they are
├── BackboneError         a folder or hub id that is no usable text-to-image pipeline
├── DecoderError          a P-Decoder that is broken or belongs to another backbone
├── StoreError            a store that is broken or belongs to another stream
├── OutputError           a place that cannot be written (full disk, no permission)
├── RemoteError           a storage or hub behind a URL that refuses, or gives no good answer
└── EngineError           workers that end again and again, or can make hardly any sample
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class DatasetDMError(Exception):
    """An error with a remedy.

    Args:
        what: what was wrong, in one sentence.
        where: file, line, key, image id: the place to look at.
        expected: what would have been right.
        remedy: what to do now.
    """

    def __init__(self, what: str, *, where: object = None, expected: str | None = None, remedy: str | None = None):
        self.what, self.where, self.expected, self.remedy = what, where, expected, remedy
        super().__init__(what)

    def __str__(self) -> str:
        parts = (("where", self.where), ("expected", self.expected), ("remedy", self.remedy))
        return "\n".join([self.what, *(f"  {name + ':':10}{text}" for name, text in parts if text is not None)])


class ConfigError(DatasetDMError):
    """An unknown name or an impossible setting."""


class DataError(DatasetDMError):
    """Labelled data that cannot be read as they say they are."""


class BackboneError(DatasetDMError):
    """A folder or hub id that is no usable text-to-image pipeline."""


class DecoderError(DatasetDMError):
    """A P-Decoder that is broken or belongs to another backbone."""


class StoreError(DatasetDMError):
    """A store that is broken or belongs to another stream."""


class OutputError(DatasetDMError):
    """A place that cannot be written."""


class RemoteError(DatasetDMError):
    """A storage or hub behind a URL that refuses, or gives no good answer."""


class EngineError(DatasetDMError):
    """Workers that end again and again, or can make hardly any sample."""


SHOWN = 8
"""Names that a message lists."""


def first_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are; empty if there is none."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """A `ConfigError` for a name that is in no table, with the nearest known one."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(known)}"
    return ConfigError(f"unknown {kind} {name!r}", expected=f"one of: {', '.join(known)}", remedy=remedy)
