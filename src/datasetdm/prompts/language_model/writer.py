"""Prompts from a language model: requests in parallel, replies to the disk, until there are enough.

Request `n` is the same whatever came before it, and prompts are taken in the order of requests, so the same replies give the same
prompts however they arrive, and a run that was killed goes on with the requests that have no reply.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from datasetdm.errors import ConfigError
from datasetdm.prompts.language_model.endpoint import Endpoint, Failure
from datasetdm.prompts.language_model.journal import Journal
from datasetdm.prompts.language_model.replies import Check, Reply
from datasetdm.prompts.language_model.requests import Request
from datasetdm.prompts.spread import same_text

MOST_BARREN = 8
"""Replies in a row that bring no new prompt, after which there is no hope for more."""
MOST_FAILED = 4
"""Requests in a row that fail, after which the server counts as gone; or twice those that run at a time."""

Asked = tuple[Request, Check]
Report = Callable[[int], None]


@dataclass(frozen=True)
class Limits:
    """What may be used: tokens in all, and cost at prices of a million tokens of requests and of answers; None is no limit.

    A request is not begun if it could pass a limit, those that are still running counted at their most.
    """

    max_tokens: int | None = None
    max_cost: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0

    def __post_init__(self) -> None:
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise ConfigError("--max-cost without prices", expected="--price-in and --price-out of a million tokens")

    def cost(self, tokens: tuple[int, int]) -> float:
        """What tokens of requests and of answers cost."""
        return (tokens[0] * self.price_in + tokens[1] * self.price_out) / 1e6

    def passed(self, tokens: tuple[int, int]) -> str | None:
        """The option whose limit these tokens pass."""
        if self.max_tokens is not None and sum(tokens) > self.max_tokens:
            return f"--max-tokens {self.max_tokens}"
        if self.max_cost is not None and self.cost(tokens) > self.max_cost:
            return f"--max-cost {self.max_cost:g}"
        return None


class Writer:
    """Asks until there is enough, with what the journal holds already.

    Args:
        endpoint: the model.
        journal: of the replies.
        limits: at which it stops.
        parallel: requests at a time.

    Attributes:
        stopped: why there are fewer than were asked for; None if there are enough.
    """

    def __init__(self, endpoint: Endpoint, journal: Journal, limits: Limits, parallel: int):
        self.endpoint, self.journal, self.limits, self.parallel = endpoint, journal, limits, parallel
        self.stopped: str | None = None

    def collect(
        self, requests: Callable[[int], Asked | None], wanted: int, report: Report
    ) -> list[tuple[int, int, str]]:
        """At most `wanted` different texts in the order of the requests, each with the numbers of its request and its item.

        Args:
            requests: number -> what to ask and how to check it; None where there is no further request.
            wanted: number of texts.
            report: is given how many there are.

        Raises:
            ConfigError: a server that does not answer or refuses, or a model of which no text is usable.
        """
        asked: dict[str, int] = {}
        seen: set[str] = set()
        number = barren = failed = 0
        exhausted = False
        self.stopped = None

        def next_request(running: Sequence[Request]) -> Asked | None:
            """The next request without a reply, as long as those that run may not be enough."""
            nonlocal number, exhausted
            expected = len(seen) + sum(len(r.items) for r in running)
            while expected < wanted and not exhausted and self.stopped is None:
                found = requests(number)
                if found is None:
                    exhausted = True
                    break
                request = found[0]
                if request.key in self.journal.replies:
                    asked[request.key] = number
                    seen.update(map(same_text, self.journal.replies[request.key].texts.values()))
                    expected, number = len(seen) + sum(len(r.items) for r in running), number + 1
                    continue
                self.stopped = self.limits.passed(self._reserved([*running, request]))
                if self.stopped is None:
                    asked[request.key], number = number, number + 1
                    return found
            return None

        for answer in self._answers(next_request):
            if isinstance(answer, Failure):
                failed += 1
                if answer.fatal or failed >= max(MOST_FAILED, 2 * self.parallel) or not self.journal.replies:
                    raise answer.error
                continue
            self.journal.append(answer)
            before = len(seen)
            seen.update(map(same_text, answer.texts.values()))
            failed, barren = 0, 0 if len(seen) > before else barren + 1
            report(min(len(seen), wanted))
            if barren >= MOST_BARREN and self.stopped is None:
                self.stopped = f"{barren} replies in a row brought nothing new"
        report(min(len(seen), wanted))
        return self._in_order(asked, wanted)

    def _in_order(self, asked: Mapping[str, int], wanted: int) -> list[tuple[int, int, str]]:
        texts: dict[str, tuple[int, int, str]] = {}
        for key, number in sorted(asked.items(), key=lambda pair: pair[1]):
            reply = self.journal.replies.get(key)
            for item, text in sorted(reply.texts.items()) if reply else ():
                texts.setdefault(same_text(text), (number, item, text))
        found = list(texts.values())[:wanted]
        if not found:
            raise self._nothing()
        if len(found) >= wanted:
            self.stopped = None
        return found

    def _nothing(self) -> ConfigError:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.journal.rejected.most_common())
        return ConfigError(
            f"the model {self.endpoint.model!r} gave no usable text" + (f" ({reasons})" if reasons else ""),
            where=self.endpoint.url,
            expected="sentences that name the labels",
            remedy=f"raise {self.stopped}" if (self.stopped or "").startswith("--") else
            "use a model that follows instructions, a smaller --batch, or another --style",
        )  # fmt: skip

    def _reserved(self, running: Sequence[Request]) -> tuple[int, int]:
        """Tokens that are used, and that running requests may use at most."""
        used = [self.journal.tokens, *map(self.endpoint.estimate, running)]
        return sum(t[0] for t in used), sum(t[1] for t in used)

    def _answers(self, next_request: Callable[[Sequence[Request]], Asked | None]) -> Iterator[Reply | Failure]:
        """Replies as they arrive. Threads do nothing but wait for the server; they end with the process."""
        tasks: SimpleQueue[Asked | None] = SimpleQueue()
        answers: SimpleQueue[tuple[Request, Reply | Exception]] = SimpleQueue()

        def work() -> None:
            while (task := tasks.get()) is not None:
                try:
                    answers.put((task[0], self.endpoint.ask(*task)))
                except Exception as e:  # a Failure, or an error of ours, which the caller raises
                    answers.put((task[0], e))

        running: dict[str, Request] = {}
        threads = 0
        try:
            while True:
                while len(running) < self.parallel and (task := next_request([*running.values()])) is not None:
                    running[task[0].key] = task[0]
                    tasks.put(task)
                    if threads < len(running):
                        threading.Thread(target=work, daemon=True).start()
                        threads += 1
                if not running:
                    return
                request, answer = answers.get()
                del running[request.key]
                if isinstance(answer, Exception) and not isinstance(answer, Failure):
                    raise answer
                yield answer
        finally:
            for _ in range(threads):
                tasks.put(None)
