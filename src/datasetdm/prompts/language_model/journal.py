"""Every reply of a language model on the disk, one line each, as soon as it is there: nothing that was paid for is lost."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasetdm.errors import OutputError
from datasetdm.io.files import locked, parse_json, write_text, writing
from datasetdm.prompts.language_model.replies import Reply


class Journal:
    """The replies to the requests of one command; `opened` makes it.

    Attributes:
        replies: by key of their request.
    """

    def __init__(self, path: Path):
        self.path = path
        self.replies: dict[str, Reply] = {}

    @property
    def tokens(self) -> tuple[int, int]:
        """Of all requests and of all answers."""
        sent, received = (sum(r.tokens[i] for r in self.replies.values()) for i in (0, 1))
        return sent, received

    @property
    def rejected(self) -> Counter[str]:
        """Texts that are not used, by reason."""
        found: Counter[str] = Counter()
        for reply in self.replies.values():
            found.update(reply.rejected)
        return found

    def append(self, reply: Reply) -> None:
        """Keep a reply: it is on the disk when this returns."""
        line = {
            "request": reply.key,
            "texts": sorted(reply.texts.items()),
            "rejected": dict(reply.rejected),
            "tokens": list(reply.tokens),
        }
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.replies[reply.key] = reply

    def _load(self, settings: Mapping[str, Any]) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        lines = text.split("\n")[:-1]  # what follows the last newline is half a line of a killed run
        if lines:
            _compare(lines[0], settings, self.path)
        for number, line in enumerate(lines[1:], 2):
            try:
                value = parse_json(line)
                texts = {int(i): str(t) for i, t in value["texts"]}
                reply = Reply(value["request"], texts, Counter(value["rejected"]), tuple(value["tokens"]))
            except (ValueError, KeyError, TypeError) as e:
                raise OutputError(
                    "a line of the replies cannot be read",
                    where=f"{self.path}, line {number}",
                    expected="what this command wrote",
                    remedy="delete the line: its request is asked again",
                ) from e
            self.replies[reply.key] = reply
        whole = "".join(f"{line}\n" for line in lines or [json.dumps({"settings": dict(settings)})])
        if whole != text:
            write_text(self.path, whole)


@contextmanager
def opened(path: Path, settings: Mapping[str, Any]) -> Generator[Journal]:
    """The replies at `path`, to go on with, held for this process alone.

    Args:
        path: a JSON lines file; a new one gets the settings as its first line.
        settings: all that the requests depend on, JSON-ready.

    Raises:
        OutputError: replies to a command of other settings, or another process that writes them.
    """
    with locked(path.with_name(f".{path.name}.lock"), "file of replies"):
        journal = Journal(path)
        with writing(path):
            journal._load(json.loads(json.dumps(settings)))
        yield journal


def _compare(line: str, settings: Mapping[str, Any], path: Path) -> None:
    try:
        held = parse_json(line)["settings"]
        other = sorted(k for k in {*held, *settings} if held.get(k) != settings.get(k))
    except (ValueError, KeyError, TypeError):
        other = ["settings"]
    if other:
        raise OutputError(
            f"the replies that are there belong to another command: other {', '.join(other)}",
            where=path,
            expected="the settings with which it was begun; --count and the limits may change",
            remedy="choose another --out, or delete the file of replies",
        )
