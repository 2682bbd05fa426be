"""An HTTP server of the tests' own that speaks the chat-completions interface, well or badly, as a test says."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server sends: a message's content, or any body with any status; `parts` are sent one by one, with pauses."""

    content: Any = None
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"
    refusal: str | None = None
    usage: Any = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150})
    parts: Callable[[], Generator[bytes]] | None = None
    pause: float = 0.0


Behaviour = Callable[["Server", dict[str, Any]], Answer]


@dataclass
class Server:
    """A running server: its URL, what was asked so far, and how many requests ran at once at most."""

    behaviour: Behaviour
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def items_of(request: dict[str, Any]) -> list[str]:
    """The numbered items of a request."""
    content = request["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return [re.sub(r"^\d+\. ", "", line) for line in text.splitlines()]


def as_items(texts: list[str]) -> str:
    """Texts in the form that was asked for."""
    return json.dumps({"items": [{"number": i, "text": t} for i, t in enumerate(texts, 1)]})


def scene_text(item: str, salt: object) -> str:
    """A sentence that names the labels of a scene; another salt gives other words."""
    things = re.sub(r" \(.*?\)", "", item.partition(" | ")[0])
    code = hashlib.sha256(str(salt).encode()).hexdigest()
    return f"A photo of {things} {' '.join(code[i : i + 4] for i in range(0, 32, 4))} end"


def good(server: Server, request: dict[str, Any]) -> Answer:
    """A sentence for every item, different in every request."""
    return Answer(as_items([scene_text(item, f"{request['seed']}-{i}") for i, item in enumerate(items_of(request))]))


def always(answer: Answer) -> Behaviour:
    """The same answer to everything."""
    return lambda server, request: answer


@contextmanager
def chat_server(behaviour: Behaviour = good) -> Generator[Server]:
    """A server on a free port of this machine."""
    state = Server(behaviour)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(Answer(body=b'{"data": [{"id": "tiny-model"}, {"id": "other"}]}'))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.asked.append(request)
                state.keys.append(self.headers.get("Authorization"))
                state.running += 1
                state.most_running = max(state.most_running, state.running)
            try:
                self._send(state.behaviour(state, request))
            finally:
                with state.lock:
                    state.running -= 1

        def _send(self, answer: Answer) -> None:
            time.sleep(answer.pause)
            body = answer.body
            if body is None:
                message = {"role": "assistant", "content": answer.content, "refusal": answer.refusal}
                choice = {"index": 0, "message": message, "finish_reason": answer.finish}
                body = json.dumps({"id": "x", "choices": [choice], "usage": answer.usage}).encode()
            try:
                self.send_response(answer.status)
                for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
                    self.send_header(name, value)
                if answer.parts is None:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for part in answer.parts() if answer.parts else [body]:
                    self.wfile.write(part)
            except OSError:  # the client has left
                pass

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is printed."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    state.url = f"http://127.0.0.1:{running.server_port}/v1"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        running.shutdown()
        running.server_close()
        thread.join(5)
