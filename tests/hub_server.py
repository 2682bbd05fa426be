"""A stand-in of the Hugging Face hub's HTTP interface: repositories that are made, committed to, listed and downloaded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Held:
    """A repository: files, private or not, commits."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(self.commits).encode()).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        data = self.files[path]
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def tree(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        start = f"{folder}/" if folder else ""
        below = [p for p in sorted(self.files) if p.startswith(start)]
        if recursive:
            return [self.entry(p) for p in below]
        names = dict.fromkeys(start + p.removeprefix(start).partition("/")[0] for p in below)
        return [
            self.entry(n) if n in self.files else {"type": "directory", "path": n, "oid": "0", "size": 0} for n in names
        ]


class Hub:
    """The server. `repositories` by `datasets/ORG/NAME` or `models/ORG/NAME`; only the token `good` may write."""

    def __init__(self) -> None:
        self.repositories: dict[str, Held] = {}
        self.failing = 0
        """So many of the next requests are answered by 500."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None: ...

            def do_GET(self) -> None:
                self._answer()

            do_HEAD = do_POST = do_GET

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if hub.failing:
                    hub.failing -= 1
                    return self._send(500, b"{}")
                writes = self.command == "POST" and "paths-info" not in self.path
                if writes and self.headers.get("Authorization") != "Bearer good":
                    return self._send(401, b'{"error": "no"}', {"X-Error-Message": "Invalid credentials"})
                address = urlsplit(self.path)
                try:
                    status, data, headers = hub.answer(
                        self.command, unquote(address.path), parse_qs(address.query), body, self.headers.get("Range")
                    )
                except KeyError:
                    status, data, headers = 404, b"{}", {"X-Error-Code": "RepoNotFound"}
                self._send(status, data, headers)

            def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes, span: str | None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
            status = 409 if name in self.repositories else 200
            self.repositories.setdefault(name, Held(asked.get("visibility") == "private"))
            return status, json.dumps({"url": f"{self.url}/{name.removeprefix('models/')}"}).encode(), {}
        if path == "/api/validate-yaml":
            return 200, b'{"errors": [], "warnings": []}', {}
        if match := re.fullmatch(r"/api/((?:datasets|models)/[^/]+/[^/]+)(?:/(.*))?", path):
            return (
                200,
                json.dumps(self._api(self.repositories[match[1]], match[1], match[2] or "", query, body)).encode(),
                {},
            )
        match = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/[^/]+/(.*)", path)
        if match is None:
            raise KeyError(path)
        name = match[1] if match[1].startswith("datasets/") else f"models/{match[1]}"
        repository = self.repositories[name]
        if match[2] not in repository.files:
            return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.sha}
        data = repository.files[match[2]]
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": repository.sha,
            "Accept-Ranges": "bytes",
        }
        if span:
            first, last = span.removeprefix("bytes=").split("-")
            stop = min(len(data), int(last) + 1) if last else len(data)
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
            return 206, data[int(first) : stop], headers
        return 200, data, headers

    def _api(self, held: Held, name: str, rest: str, query: dict[str, list[str]], body: bytes) -> Any:
        verb, _, tail = rest.partition("/")
        if verb == "preupload":
            files = json.loads(body)["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if verb == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    held.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del held.files[value["path"]]
            held.commits.append(lines[0]["value"]["summary"])
            return {"commitUrl": f"{self.url}/{name}/commit/{held.sha}", "commitOid": held.sha}
        if verb == "tree":
            return held.tree(tail.partition("/")[2], "recursive" in query and query["recursive"] != ["false"])
        if verb == "paths-info":
            paths = parse_qs(body.decode()).get("paths", []) if body[:1] != b"{" else json.loads(body)["paths"]
            found = [held.entry(p) for p in paths if p in held.files]
            folders = [p for p in paths if p not in held.files and held.tree(p, True)]
            return found + [{"type": "directory", "path": p, "oid": "0"} for p in folders]
        if verb in ("", "revision"):
            siblings = [{"rfilename": p} for p in sorted(held.files)]
            return {
                "id": name.partition("/")[2],
                "sha": held.sha,
                "private": held.private,
                "siblings": siblings,
                "tags": [],
            }
        raise KeyError(rest)
