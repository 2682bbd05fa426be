"""Workers (Ray) that write a store together, and what may befall them. `python -m benchmarks.faults` runs the rounds.

In a round one thing happens, at a random moment:

    worker     a worker is killed (SIGKILL); the run goes on without it
    driver     the driver is killed; the same run is begun again, while the first one's workers may still write
    storage    the store lies on an S3 server (moto's) of whose answers one in ten fails, is cut off or damaged
    disk       the disk becomes full (a small tmpfs, which only root can mount); it is enlarged, and the run is begun again
    memory     a worker is refused memory while it makes samples (RLIMIT_AS)
    shard      the last shard of a begun store is damaged; it is deleted, as the message asks, and the run is begun again

Then the store must equal that of an undisturbed local engine, byte for byte. Models and samples are the embedded model's.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Work as Units
from benchmarks.killing import LOOK, PATIENCE, Found, Running, Work, compare, contents, kill_at, said_by, written
from benchmarks.storage import ENVIRONMENT
from datasetdm.engines.cluster import PRIVATE, QUIET, Cluster
from datasetdm.engines.local import write
from datasetdm.engines.parts import Task
from datasetdm.engines.ray import iter_write
from datasetdm.errors import DatasetDMError
from datasetdm.io.remote import RemotePath
from datasetdm.pipelines.generate import pending
from datasetdm.pipelines.stream import Stream
from datasetdm.recipe.schema import GenerateStage
from datasetdm.recipe.sources import StageJob, open_generator, open_job
from datasetdm.records import Sample
from datasetdm.store.manifest import manifest_path, shard_path
from datasetdm.store.store import Store

KILLS, OTHERS = ("worker", "driver"), ("storage", "disk", "memory", "shard")
WORKERS, SHARD = 2, 8
STORE = Work((), store=True)

MACHINES = """
import sys
from ray.cluster_utils import Cluster
machines = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 8, "include_dashboard": False, "object_store_memory": 80 * 2**20}
)
print(machines.address, flush=True)
sys.stdin.read()
machines.shutdown()
"""
"""A cluster that outlives drivers, with room for the workers of those that were killed."""

STORAGE = """
import random, sys
from benchmarks.storage import S3
server, rng = S3(), random.Random(int(sys.argv[1]))
faults = {"GET": ["error", "throttle", "truncate", "corrupt"]}
print(server.url, flush=True)
server.fail(lambda r: rng.choice(faults.get(r[:3], ["error", "throttle"])) if "/bucket/" in r and rng.random() < 0.1 else "")
sys.stdin.read()
"""


# ---------------------------------------------------------------------- in the processes
@dataclass(frozen=True)
class ShortOfMemory(Stream):
    """A stream that is refused memory when it makes one of `numbers` for the first time; what happens is noted in `folder`."""

    numbers: Collection[int] = ()
    folder: Path = Path()

    def make(self, group: Sequence[int], without: Collection[int] = ()) -> list[Sample]:
        """The samples, or what the lack of memory raises."""
        first = next((n for n in group if n in self.numbers), None)
        if first is None or (self.folder / f"short-{first}").exists():
            return super().make(group, without)
        (self.folder / f"short-{first}").touch()
        old = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (2**20, old[1]))
        try:
            return super().make(group, without)
        except (MemoryError, RuntimeError):
            (self.folder / f"refused-{first}").touch()
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_AS, old)


def open_noted(stage: str, folder: Path, short: Collection[int]) -> StageJob:
    """A worker's job; its process is noted in the folder."""
    job = open_job(GenerateStage, stage, threads=1)
    (folder / f"worker-{os.getpid()}").touch()
    stream = job.opened.stream
    short_stream = ShortOfMemory(stream.source, stream.transforms, short, folder)
    return StageJob(replace(job.opened, stream=short_stream), job.known)


def drive(stage: GenerateStage, out: str, address: str, folder: Path, short: Collection[int]) -> None:
    """A driver, as the command line has it."""
    task = Task(partial(open_noted, stage.model_dump_json(), folder, short), pending, stage.batch or 1, stage.count)
    try:
        with closing(iter_write(task, out, Cluster(address, WORKERS, gpu=False), stage.count, SHARD)) as events:
            for event in events:
                if event.failures:
                    print(f"set aside: {event.failures}")
    except DatasetDMError as e:
        print(e)
        sys.exit(2)


def write_locally(stage: GenerateStage, out: Path, count: int) -> None:
    """The local engine, with as many threads as a worker has."""
    torch.set_num_threads(1)
    write(open_generator(stage)[1].stream, out, count, SHARD)


# ---------------------------------------------------------------------- rounds
@contextmanager
def serving(code: str, *arguments: str) -> Generator[str]:
    """A process that serves until the block ends; what it says first."""
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(PATIENCE)


class Rounds:
    """What all rounds share.

    Args:
        folder: for stores and notes.
        address: of the cluster.
        count: of samples.
    """

    def __init__(self, folder: Path, address: str, count: int):
        self.folder, self.address = folder, address
        prompts = ("a photo of a dog", "two cats on a sofa", "a red car")
        self.stage = GenerateStage(prompts=prompts, count=count, steps=2, batch=2, device="cpu")
        self.done: Counter[str] = Counter()
        _finish(_begin(folder, write_locally, self.stage, folder / "right", count))
        self.right = contents(STORE, folder / "right")

    def start(self, out: Path | str, notes: Path, short: Collection[int] = ()) -> Running:
        """Begin a driver in a process of its own."""
        return _begin(self.folder, drive, self.stage, str(out), self.address, notes, short)

    def run(self, kind: str, number: int, seed: int) -> dict[str, int]:
        """One round: what was wrong, and `done`: how often what was to happen did."""
        rng, out, notes = (
            np.random.default_rng((seed, number)),
            self.folder / f"{kind}-{number}",
            self.folder / f"n-{number}",
        )
        notes.mkdir()
        done, place = getattr(self, f"_{kind}")(out, notes, rng)
        return {**vars(compare(self.right, STORE, place)), "done": int(done)}

    def _moment(self, rng: np.random.Generator) -> tuple[int, float]:
        """After how many changes of the output, and how many seconds later."""
        return int(rng.integers(1, 12)), float(rng.uniform(0, 0.6))

    def _worker(self, out: Path, notes: Path, rng: np.random.Generator) -> tuple[bool, Path]:
        running = self.start(out, notes)
        _until(running, out, *self._moment(rng))
        workers = sorted(int(p.name.partition("-")[2]) for p in notes.glob("worker-*"))
        killed = bool(workers) and running.process.is_alive()
        if killed:
            with suppress(ProcessLookupError):
                os.kill(workers[int(rng.integers(len(workers)))], signal.SIGKILL)
        _finish(running)
        return killed, out

    def _driver(self, out: Path, notes: Path, rng: np.random.Generator) -> tuple[bool, Path]:
        running = self.start(out, notes)
        killed = kill_at(running.process, out, *self._moment(rng), signal.SIGKILL)
        running.end()
        _finish(self.start(out, notes))
        return killed, out

    def _storage(self, out: Path, notes: Path, rng: np.random.Generator) -> tuple[bool, Path]:
        url = f"s3://bucket/{out.name}"
        code, _ = self.start(url, notes).end()
        if code:  # five answers in a row failed
            _finish(self.start(url, notes))
        _finish(_begin(self.folder, download, url, out))
        return True, out

    def _disk(self, out: Path, notes: Path, rng: np.random.Generator) -> tuple[bool, Path]:
        size = int(rng.uniform(0.1, 0.9) * written(self.folder / "right"))
        out.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(out)], check=True)
        try:
            code, said = self.start(out / "store", notes).end()
            subprocess.run(["mount", "-o", "remount,size=100m", str(out)], check=True)
            if code:
                assert code == 2 and "the disk is full" in said, said
                _finish(self.start(out / "store", notes))
            subprocess.run(["cp", "-r", str(out / "store"), str(out.with_suffix(".copy"))], check=True)
        finally:
            subprocess.run(["umount", "-l", str(out)], check=True)
        return bool(code), out.with_suffix(".copy")

    def _memory(self, out: Path, notes: Path, rng: np.random.Generator) -> tuple[bool, Path]:
        numbers = rng.choice(self.stage.count or 1, 3, replace=False).tolist()
        _finish(self.start(out, notes, numbers))
        return bool([*notes.glob("refused-*")]), out

    def _shard(self, out: Path, notes: Path, rng: np.random.Generator) -> tuple[bool, Path]:
        begun = int(rng.integers(1, self.stage.count or 1))
        _finish(_begin(self.folder, write_locally, self.stage, out, begun))
        last = shard_path(out, len(Store(out).shards) - 1)
        assert isinstance(last, Path)
        data = last.read_bytes()
        cut = len(data) - int(rng.integers(1, 1000))
        last.write_bytes(data[:cut] if rng.random() < 0.5 else data[:cut] + bytes([data[cut] ^ 1]) + data[cut + 1 :])
        code, said = self.start(out, notes).end()
        assert code == 2 and "a shard is damaged" in said and "delete both files" in said, said
        for path in (last, manifest_path(last)):
            path.unlink()
        _finish(self.start(out, notes))
        return True, out


def download(url: str, folder: Path) -> None:
    """Copy a store from behind a URL."""
    place = RemotePath.of(url)
    for name in place.fs.find(place.path):
        path = folder / name.removeprefix(f"{place.path}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(RemotePath(name, place.fs).read_bytes())


def make_bucket() -> None:
    """On a server whose answers may fail."""
    RemotePath.of("s3://bucket").fs.mkdir("bucket")


def _begin(folder: Path, target: Callable[..., None], *arguments: Any) -> Running:
    return said_by(folder, lambda: target(*arguments))


def _finish(running: Running) -> None:
    code, said = running.end()
    if code or "set aside" in said:
        raise SystemExit(f"error: a run ended with {code}: {said}")


def _until(running: Running, out: Path, changes: int, delay: float) -> None:
    """Wait until the output has changed so many times, and `delay` seconds longer."""
    last, until = written(out), time.monotonic() + PATIENCE
    while changes and running.process.is_alive() and time.monotonic() < until:
        time.sleep(LOOK)
        changes -= (size := written(out)) != last
        last = size
    time.sleep(delay)


def may_mount() -> bool:
    """Whether this process can make a small disk."""
    return os.geteuid() == 0 and subprocess.run(["mount", "-f", "-t", "tmpfs", "t", "/"], check=False).returncode == 0


def measure(units: Units, folder: Path, kills: int, others: int, seed: int, count: int) -> dict[str, Any]:
    """Rounds in which workers and drivers are killed in turn, then the other kinds in turn; the figures."""
    kinds = [KILLS[i % 2] for i in range(kills)] + [OTHERS[i % len(OTHERS)] for i in range(others)]
    kinds = [kind for kind in kinds if kind != "disk" or may_mount()]
    total, done, rounds = Found(), Counter[str](), Counter[str](kinds)
    with ExitStack() as stack:
        shared: list[Rounds] = []

        def run(number: int, kind: str) -> dict[str, int]:
            if not shared:
                url = stack.enter_context(serving(STORAGE, str(seed)))
                os.environ.update(ENVIRONMENT | QUIET | PRIVATE)
                os.environ.update({"RAY_AUTH_TOKEN": secrets.token_hex(32), "AWS_ENDPOINT_URL": url})
                _finish(_begin(folder, make_bucket))
                shared.append(Rounds(folder, stack.enter_context(serving(MACHINES)), count))
            return shared[0].run(kind, number, seed)

        for number, kind in enumerate(kinds):
            found = units.unit(f"{number:03d}-{kind}", lambda number=number, kind=kind: run(number, kind))
            done[kind] += found.pop("done")
            total.add(Found(**found))
    return {
        "rounds": len(kinds),
        **vars(total),
        "rounds_by_kind": dict(rounds),
        "happened": json.loads(json.dumps(done)),
    }
