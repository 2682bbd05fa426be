"""What the driver uses of Ray, in one process: workers take turns, and one that ends raises `Ended`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """Of any kind."""


class RayTaskError(RayError):
    """What a worker raised."""

    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


class Ended(BaseException):
    """The end of a worker's process."""


class Answer:
    """What a call gives, worked out when it is asked for; or the values of a call that yields."""

    def __init__(self, call: Callable[[], Any], actor: Actor):
        self.call, self.actor = call, actor
        self.values: Iterator[Any] | None = None

    def __next__(self) -> Answer:
        if self.values is None:
            self.values = iter(self.call())
        return Answer(lambda: next(self.values or iter(())), self.actor)

    def get(self) -> Any:
        if not self.actor.alive:
            raise RayError("it is gone")
        try:
            return self.call()
        except Ended:
            self.actor.alive = False
            raise RayError("it has ended") from None
        except Exception as e:
            raise RayTaskError(e) from e


class Actor:
    """A worker in this process."""

    def __init__(self, kind: type, arguments: Sequence[Any]):
        self.alive, self.worker = True, kind(*arguments)

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any) -> Answer:
            return Answer(lambda: getattr(self.worker, name)(*arguments), self)

        return SimpleNamespace(remote=remote, options=lambda **_: SimpleNamespace(remote=remote))


class InProcess:
    """Stands for the module `ray`.

    The last of the waiting workers answers more often than the first, so parts are not finished in their order."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, gpus: int = 0):
        self.gpus, self.asked, self.hired, self.looks = gpus, {}, 0, 0

    def remote(self, kind: type) -> Any:
        def hire(*arguments: Any) -> Actor:
            self.hired += 1
            return Actor(kind, arguments)

        def options(**asked: Any) -> Any:
            self.asked = asked
            return SimpleNamespace(remote=hire)

        return SimpleNamespace(options=options)

    def wait(self, answers: Sequence[Answer], timeout: float) -> tuple[list[Answer], list[Answer]]:
        self.looks += 1
        first = answers[0 if self.looks % 4 == 0 else -1]
        return [first], [a for a in answers if a is not first]

    def get(self, answer: Answer) -> Any:
        return answer.get()

    def kill(self, actor: Actor) -> None:
        actor.alive = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0, "GPU": float(self.gpus)}

    def connected(self, _: object) -> Any:
        @contextmanager
        def connection() -> Generator[Any]:
            yield self

        return connection()
