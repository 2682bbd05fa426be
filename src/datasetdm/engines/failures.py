"""Samples that a run gave up, in the store: `STORE/failed.jsonl`, one JSON object a line.

    {"key": "00000007", "prompt": "a photo of a dog", "error": "RuntimeError: ...", "tries": 3}

They count as done. Whoever deletes the file lets the next run try them again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from datasetdm.io.remote import Place
from datasetdm.pipelines.divisible import Keys
from datasetdm.store.quality import append_lines, read_latest

FAILED = "failed.jsonl"


@dataclass(frozen=True)
class Failure:
    """A sample that was given up.

    Args:
        key, prompt: of the sample.
        error: what its last try ended with.
        tries: how many there were.
    """

    key: str
    prompt: str
    error: str
    tries: int


@dataclass(frozen=True)
class Done:
    """The keys that a run need not make: those of the store, and those that were given up."""

    held: Keys
    failed: Collection[str]

    def __contains__(self, key: str) -> bool:
        return key in self.failed or key in self.held


def read_failures(store: Place) -> Mapping[str, Failure]:
    """Key -> what was given up. Raises StoreError for a line that is none."""
    return read_latest(store / FAILED, "a failure", lambda v: (v["key"], Failure(**v)))


def append_failures(store: Place, failures: Sequence[Failure]) -> None:
    """Write them down; the caller holds the store's lock."""
    if failures:
        append_lines(store / FAILED, map(asdict, failures))
