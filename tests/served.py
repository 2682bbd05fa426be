"""A viewer that runs while a test looks at it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from datasetdm.store import Store
from datasetdm.viewer.guard import TOKEN, address, new_token
from datasetdm.viewer.server import listen, server


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Speaks HTTP to one server, with the cookie that its page would have; nothing in it is the server's own code."""

    url: str
    """With the token."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def cookie(self) -> str:
        (token,) = parse_qs(urlsplit(self.url).query)[TOKEN]
        return f"datasetdm-{self.host.partition(':')[2]}={token}"

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        given = {"Cookie": self.cookie} | {k.replace("_", "-"): v for k, v in headers.items()}
        try:
            connection.request(method, path, body, given)
            reply = connection.getresponse()
            return Answer(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def get(self, path: str, **values: Any) -> Any:
        answer = self.ask(f"{path}?{urlencode(values)}" if values else path)
        assert answer.status == 200, answer.body
        return answer.json

    def keys(self, **query: Any) -> list[str]:
        return [i["key"] for i in self.get("/api/samples", **query)["items"]]

    def review(self, row: int, value: Any, **headers: str) -> Answer:
        given = {"Content_Type": "application/json", "Origin": f"http://{self.host}"} | headers
        return self.ask(f"/api/review/{row}", "POST", json.dumps(value).encode(), **given)


@contextmanager
def serving(folder: Path, before: Path | None = None) -> Generator[Client]:
    """A server over the store in `folder` on a free port."""
    with listen() as connection:
        token = new_token()
        running = server(Store(folder), token, Store(before) if before else None)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [connection]}, daemon=True)
        thread.start()
        try:
            yield Client(address(connection.getsockname()[1], token))
        finally:
            running.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
