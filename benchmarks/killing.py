"""Runs that are killed, and what they leave: compared with an undisturbed one's."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from datasetdm.io.digests import file_digest
from datasetdm.store.store import Store

FORK = multiprocessing.get_context("fork")
PATIENCE = 300
"""Seconds that one process may take."""
LOOK = 0.004
"""Seconds between two looks at the output."""


@dataclass(frozen=True)
class Work:
    """A command, without its `--out`.

    Args:
        words: of the command line.
        store: whether it writes a store; its samples are compared, otherwise its files.
    """

    words: Sequence[str]
    store: bool = False


@dataclass
class Found:
    """What was wrong in one round or more."""

    lost: int = 0
    duplicated: int = 0
    differing: int = 0
    leftovers: int = 0

    def add(self, other: Found) -> None:
        """Sums."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Running:
    """A process, and the file of what it says."""

    process: BaseProcess
    said: Path

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said; one that takes too long is killed."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise SystemExit(f"error: a run did not end in {PATIENCE} seconds: {self.said.read_text(errors='replace')}")
        code, said = self.process.exitcode or 0, self.said.read_text(errors="replace")
        self.said.unlink()
        return code, said


def said_by(folder: Path, work: Callable[[], object]) -> Running:
    """Do some work in a fork of this process; what it says is in a file of the folder."""
    handle, name = tempfile.mkstemp(prefix="said-", dir=folder)
    process = FORK.Process(target=_work, args=(work, handle))
    process.start()
    os.close(handle)
    return Running(process, Path(name))


def _work(work: Callable[[], object], said: int) -> None:
    os.dup2(said, 1)
    os.dup2(said, 2)
    work()


def written(out: Path) -> int:
    """Bytes below the output and beside it under a temporary name; they grow while the work goes on."""
    total = 0
    for top in (out, *out.parent.glob(f".{out.name}.*.tmp")):
        for folder, _, names in os.walk(top):
            for name in names:
                try:
                    total += (Path(folder) / name).stat().st_size
                except OSError:  # it was renamed meanwhile
                    continue
    return total


def kill_at(process: BaseProcess, out: Path, changes: int, delay: float, number: int) -> bool:
    """Send a signal when the output has changed so many times, and `delay` seconds later; whether it had not ended before."""
    last, seen, until = written(out), 0, time.monotonic() + PATIENCE
    while seen < changes and process.is_alive() and time.monotonic() < until:
        size = written(out)
        seen += size != last
        last = size
        time.sleep(LOOK)
    time.sleep(delay)
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, number)
        return True
    return False


def contents(work: Work, out: Path) -> list[tuple[str, str]]:
    """Key and hash of every sample, or of every file."""
    if work.store:
        rows = [(sample.key, sample.digest()) for sample in Store(out)]
        shards = [(p.name, file_digest(p)) for p in sorted((out / "data").glob("*.parquet"))]
        return rows + shards
    return [(str(p.relative_to(out)), file_digest(p)) for p in sorted(out.rglob("*")) if p.is_file()]


def is_leftover(path: Path) -> bool:
    """Whether a run should have taken it away."""
    return path.suffix in (".tmp", ".lock", ".holder") or path.name in ("work", "parts")


def compare(right: Sequence[tuple[str, str]], work: Work, out: Path) -> Found:
    """An output against the contents of an undisturbed one."""
    try:
        found = contents(work, out)
    except Exception as e:
        print(f"  {out} cannot be read: {e}", flush=True)
        return Found(lost=len(right))
    expected, names = dict(right), Counter(name for name, _ in found)
    left = [p for p in (*out.rglob("*"), *out.parent.glob(f".{out.name}.*")) if is_leftover(p)]
    result = Found(
        lost=len(expected.keys() - names.keys()),
        duplicated=sum(n - 1 for n in names.values()) + len(names.keys() - expected.keys()),
        differing=sum(name in expected and expected[name] != value for name, value in found),
        leftovers=len(left),
    )
    if any(vars(result).values()):
        print(f"  {out}: {vars(result)} {left[:3]}", flush=True)
    return result
