"""A worker: it holds its own models, makes the samples of parts and writes them beside the store."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from datasetdm.engines.failures import Failure
from datasetdm.engines.parts import Job, Opened, Part, Step
from datasetdm.engines.progress import Seen
from datasetdm.errors import DatasetDMError
from datasetdm.io.remote import as_place
from datasetdm.records import Sample
from datasetdm.store.handover import PartWriter

TRIES = 3
"""Times that a sample is tried before it is given up, in a batch and by itself."""
BROKEN = "CUDA error"
"""In the message of an error after which a process cannot use its GPU any more."""


class WorkerBroken(RuntimeError):
    """Nothing can be made any more: another worker must go on."""


class Worker:
    """One process with its own job.

    Args:
        open_job: loads the models.
        folder: the working folder, so that relative paths mean the same as where the run was begun.
    """

    def __init__(self, open_job: Callable[[], Job], folder: str):
        with contextlib.suppress(OSError):  # another machine may lack it
            os.chdir(folder)
        self._open_job = open_job

    def open(self) -> Opened:
        """Load everything."""
        self.job = self._open_job()
        self.source = self.job.source
        place = f"process {os.getpid()} on {socket.gethostname()}"
        return Opened(self.source.labels, self.source.origin(), self.job.made_by(), self.job.notes(), place)

    def make(self, store: str, part: Part) -> Iterator[Step]:
        """Make and write a part; before each group, and at the end, where the work is."""
        writer, seen = PartWriter(as_place(store), part.name), Seen()
        failed = {n: why for n, why in part.failed.items() if n in part.numbers}
        done = 0
        for group in self.source.groups(part.numbers):
            if part.alone.isdisjoint(group):
                yield Step(done, group)
                samples = self._group(group, failed)
            else:
                samples = []
                for number in group:
                    if number not in failed:
                        yield Step(done, (number,))
                        samples += self._alone(number, failed)
            for sample in samples:
                writer.add(sample)
            seen.update(self.job.count(samples))
            done += len(group)
        failures = [asdict(Failure(*self._describe(n), why, TRIES)) for n, why in sorted(failed.items())]
        writer.finish({"seen": seen.to_json(), "failed": failures, "skipped": self.job.skipped()})
        yield Step(done)

    def _group(self, group: tuple[int, ...], failed: dict[int, str]) -> list[Sample]:
        """The samples of a group; those that cannot be made are added to `failed`.

        Raises:
            WorkerBroken: none of them can be made.
        """
        known = {n for n in group if n in failed}
        for _ in range(TRIES):
            made, error = _tried(lambda: self.source.make(group, known))
            if made is not None:
                return made
        bad: dict[int, str] = {}
        single = {n: self._alone(n, bad) for n in group if n not in known}
        if len(bad) == len(single) > 1:
            raise WorkerBroken(error)
        failed.update(bad)
        made, _ = _tried(lambda: self.source.make(group, known | bad.keys())) if bad else (None, "")
        return [s for samples in single.values() for s in samples] if made is None else made

    def _alone(self, number: int, failed: dict[int, str]) -> list[Sample]:
        for _ in range(TRIES):
            made, error = _tried(lambda: self.source.make_alone(number))
            if made is not None:
                return made
        failed[number] = error
        return []

    def _describe(self, number: int) -> tuple[str, str]:
        described, _ = _tried(lambda: self.source.describe(number))
        return described or (f"sample {number}", "")


def _tried(make: Callable[[], Any]) -> tuple[Any, str]:
    """What it makes, or None and the error.

    Raises:
        DatasetDMError: settings, data or places are wrong, which no other try helps. WorkerBroken: the process cannot go on.
    """
    try:
        return make(), ""
    except DatasetDMError:
        raise
    except Exception as e:
        error = f"{type(e).__name__}: {' '.join(str(e).split())[:500]}".removesuffix(": ")
        if BROKEN in error:
            raise WorkerBroken(error) from e
        return None, error
