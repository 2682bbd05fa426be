"""The loop that lets workers write a stream into a store, each with its own models, on one machine or many (Ray).

The driver divides the numbers of the samples into parts, gives each part to a worker, and takes the finished ones over in their
order: it holds progress, never samples of whole shards. A part whose worker ends is given to another one. What ends workers, or
fails, `TRIES` times is made sample by sample; a sample that still does is set aside in `STORE/failed.jsonl`, and the run goes on.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from datasetdm.engines.cluster import Cluster, connected, worker_count, worker_options
from datasetdm.engines.failures import Done, Failure, append_failures, read_failures
from datasetdm.engines.parts import Opened, Part, Step, Task, divide, part_size
from datasetdm.engines.progress import FLUSH_SECONDS, Seen
from datasetdm.engines.worker import TRIES, Worker, WorkerBroken
from datasetdm.errors import DataError, DatasetDMError, EngineError
from datasetdm.io.remote import Place, as_place
from datasetdm.store.handover import adopt, discard, open_staged, remove_parts, staged_names
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer

LOOK_SECONDS = 1.0
"""Between two looks at the cluster, when no worker says anything."""
MOST = 600
"""Characters of an error that are shown."""
FEW = 32
"""Samples after which a run ends if more than half of them failed: it is then not the prompts."""


@dataclass
class Event:
    """How far a run is.

    Args:
        held: samples that the store holds.
        made: the same with those that workers have made and that the store does not hold yet.
        workers: that have loaded their models.
        seen: of the samples that this run made.
        failures: that this run set aside.
        skipped: errors in the data.
        notes: of the first worker.
    """

    held: int = 0
    made: int = 0
    workers: int = 0
    seen: Seen = field(default_factory=Seen)
    failures: list[Failure] = field(default_factory=list)
    skipped: list[DataError] = field(default_factory=list)
    notes: Sequence[str] = ()


@dataclass(eq=False)
class _Member:
    """A worker as the driver sees it; `waiting` is what it will answer with."""

    actor: Any
    waiting: Any
    opened: Opened | None = None
    number: int = 0
    part: Part | None = None
    step: Step | None = None


def iter_write(
    task: Task, out: Place | str, cluster: Cluster, count: int | None = None, shard_size: int = 256
) -> Generator[Event]:
    """Bring the store `out` to `count` samples, or to all that there are. Yields whenever something has happened; the event is
    always the same object.

    Raises:
        ConfigError: Ray or the cluster is not there. EngineError: the workers cannot work. Others as the local engine's `write`.
    """
    out = as_place(out)
    if isinstance(out, Path):
        out = out.absolute()
    with connected(cluster) as ray:
        run = _Run(ray, task, cluster, out)
        try:
            opened = run.first()
            run.event.notes = opened.notes
            yield run.event
            with Writer(out, opened.labels, opened.origin, shard_size, opened.made_by) as writer:
                yield from run.write(writer, count)
        finally:
            run.dismiss_all()


class _Run:
    """One run's workers, and what is left to do."""

    def __init__(self, ray: Any, task: Task, cluster: Cluster, out: Place):
        self.ray, self.task, self.cluster, self.out = ray, task, cluster, out
        self.actor = ray.remote(Worker).options(**worker_options(ray, cluster))
        self.event = Event()
        self.members: list[_Member] = []
        self.model: Opened | None = None
        """What the first worker said: all must say the same."""
        self.again: deque[tuple[int, Part]] = deque()
        self.ready: dict[int, Part] = {}
        """Parts that are finished, by their place in the order."""
        self.exhausted = False
        """Whether every part has been given out."""
        self.next = self.tried = 0
        self.unborn = 0
        """Workers that ended, one after the other, before they did anything."""
        self.deaths: Counter[tuple[int, ...]] = Counter()

    # ------------------------------------------------------------------ the whole
    def first(self) -> Opened:
        """Hire workers; what the first one says that has loaded its models."""
        while self.model is None:
            self._hire()
            self._listen()
        return self.model

    def write(self, writer: Writer, count: int | None) -> Generator[Event]:
        """Give out all parts and take them over."""
        failed = read_failures(self.out)
        begun = writer.written + len(failed)
        if writer.written:
            self.task.check(Store(self.out))
        if not self.task.fixed:
            remove_parts(self.out)
        left = staged_names(self.out)
        numbers = self.task.pending(Done(writer, failed) if begun else None)
        rest = None if count is None else max(0, count - begun)
        total = rest if rest is not None else self.task.total and max(0, self.task.total - begun)
        size = part_size(total, worker_count(self.ray, self.cluster), self.task.batch, writer.shard_size)
        parts = enumerate(divide(islice(numbers, rest), begun, writer.shard_size, size))
        taken: list[str] = []
        flushed = time.monotonic()
        while True:
            self._hire()
            self._assign(parts, left)
            self._take_over(writer, taken)
            if time.monotonic() - flushed > FLUSH_SECONDS or not writer.begun:
                writer.flush()
                discard(self.out, taken)
                taken.clear()
                flushed = time.monotonic()
            self._count(writer)
            yield self.event
            if self.exhausted and not (self.again or self.ready or any(m.part for m in self.members)):
                break
            self._listen()
        writer.flush()
        remove_parts(self.out)

    # ------------------------------------------------------------------ workers
    def _hire(self) -> None:
        while len(self.members) < worker_count(self.ray, self.cluster):
            actor = self.actor.remote(self.task.open, str(Path.cwd()))
            self.members.append(_Member(actor, actor.open.remote()))

    def _assign(self, parts: Iterator[tuple[int, Part]], left: set[str]) -> None:
        """Give every idle worker a part; what an earlier run left is not made again."""
        for member in self.members:
            while member.opened and not member.part:
                number, part = self.again.popleft() if self.again else next(parts, (0, None))
                if part is None:
                    self.exhausted = True
                    return
                if part.name in left and open_staged(self.out, part.name):
                    self.ready[number] = part
                    continue
                left.discard(part.name)
                make = member.actor.make.options(num_returns="streaming", _generator_backpressure_num_objects=1)
                member.number, member.part, member.step = number, part, None
                member.waiting = make.remote(str(self.out), part)

    def _listen(self) -> None:
        """Wait until a worker says something, or ends."""
        waiting = {m.waiting: m for m in self.members if m.waiting is not None}
        found, _ = self.ray.wait([*waiting], timeout=LOOK_SECONDS) if waiting else ([], [])
        for answer in found:
            member = waiting[answer]
            try:
                said = self.ray.get(answer if member.part is None else next(answer))
            except self.ray.exceptions.RayTaskError as e:
                if isinstance(e.cause, DatasetDMError):
                    raise e.cause from None
                if not isinstance(e.cause, WorkerBroken):
                    raise EngineError("a worker failed", where=_brief(e), remedy="run it with --engine local") from e
                self._bury(member, _brief(e.cause))
            except (self.ray.exceptions.RayError, StopIteration) as e:
                self._bury(member, f"its process ended: {_brief(e)}")
            else:
                self._note(member, said)

    def _note(self, member: _Member, said: Opened | Step) -> None:
        if isinstance(said, Opened):
            self._greet(member, said)
            return
        member.step, self.unborn = said, 0
        if not said.numbers and member.part is not None:
            self.ready[member.number] = member.part
            member.part = member.step = member.waiting = None

    def _greet(self, member: _Member, said: Opened) -> None:
        """Raises EngineError for a worker that would make other samples than the first one."""
        member.opened, member.waiting = said, None
        self.model = self.model or said
        if json.dumps([said.origin, said.labels.to_json()]) != json.dumps(
            [self.model.origin, self.model.labels.to_json()]
        ):
            raise EngineError(
                "two workers have different models, prompts or settings",
                where=f"{self.model.place}; {said.place}",
                expected="the same files under the same paths on all machines",
                remedy="put decoder, backbone and prompts on a file system that all machines share",
            )

    def _bury(self, member: _Member, why: str) -> None:
        """A worker has ended: its part is made again, and what has ended `TRIES` workers is made by itself or given up."""
        self.members.remove(member)
        self.ray.kill(member.actor)
        numbers = member.step.numbers if member.step else ()
        if not numbers:
            self.unborn += 1
        if self.unborn >= TRIES:
            raise EngineError(
                f"{TRIES} workers ended before they did anything",
                where=why,
                expected="models that can be loaded, and memory for them",
                remedy="run it with --engine local to see the whole error; use fewer --workers if memory is short",
            )
        if member.part is None:
            return
        part = member.part
        self.deaths[numbers] += 1
        if numbers and self.deaths[numbers] >= TRIES:
            if len(numbers) == 1:
                part = replace(part, failed={**part.failed, numbers[0]: f"it ended {TRIES} workers: {why}"})
                part = replace(part, alone=frozenset())
            else:
                part = replace(part, alone=part.alone | {*numbers})
        self.again.append((member.number, part))

    def dismiss_all(self) -> None:
        """End all workers."""
        for member in self.members:
            self.ray.kill(member.actor)

    # ------------------------------------------------------------------ results
    def _take_over(self, writer: Writer, taken: list[str]) -> None:
        """Append the finished parts that are next in the order to the store."""
        while (part := self.ready.get(self.next)) is not None:
            staged = open_staged(self.out, part.name, verify=False)
            del self.ready[self.next]
            if staged is None:
                self._seek(part)
                return
            adopt(writer, staged, part.ends)
            self._account(part, staged.about)
            taken.append(part.name)
            self.next += 1

    def _seek(self, part: Part) -> None:
        """A finished part is not there: it is made again. Raises EngineError if that happens again and again."""
        self.again.append((self.next, part))
        self.deaths[part.numbers] += 1
        if self.deaths[part.numbers] >= TRIES:
            raise EngineError(
                "what a worker wrote cannot be seen here",
                where=self.out,
                expected="a folder that all machines share",
                remedy="put the store on a file system that every machine reaches under the same path",
            )

    def _account(self, part: Part, about: Mapping[str, Any]) -> None:
        """Count what the worker says of its part, and write down what it gave up."""
        self.event.seen.update(Seen.from_json(about["seen"]))
        self.event.skipped += [DataError(what, where=where) for what, where in about["skipped"]]
        failures = [Failure(**f) for f in about["failed"]]
        append_failures(self.out, failures)
        self.event.failures += failures
        self.tried += len(part.numbers)
        if self.tried >= FEW and len(self.event.failures) > self.tried / 2:
            last = self.event.failures[-1]
            raise EngineError(
                f"{len(self.event.failures)} of {self.tried} samples failed",
                where=f"{last.key}: {last.error}",
                expected="few that do",
                remedy=f"correct the cause, delete {self.out / 'failed.jsonl'}, and run the same command again",
            )

    def _count(self, writer: Writer) -> None:
        under_way = sum(m.step.done for m in self.members if m.step)
        self.event.held = writer.written
        self.event.made = writer.written + under_way + sum(len(p.numbers) for p in self.ready.values())
        self.event.workers = sum(m.opened is not None for m in self.members)


def _brief(error: BaseException) -> str:
    """The end of an error's text, where Ray says what happened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MOST else f"... {text[-MOST:]}"
