"""An S3 server on this machine (moto's), whose answers can be made to fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
}
ERROR = "<Error><Code>{}</Code><Message>of a test</Message></Error>"

Fault = Callable[[Iterable[bytes]], Iterable[bytes]]


class S3:
    """A server with a bucket `bucket`, and the faults of its answers.

    Attributes:
        url: of the server.
        requests: method and path of every request.
    """

    def __init__(self) -> None:
        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.requests: list[str] = []
        self._fault: Callable[[str], str] = lambda _: ""
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(self, fault: Callable[[str], str]) -> None:
        """From now on every request has the fault that is chosen for it, or none ("")."""
        self._fault = fault

    @contextmanager
    def failing(
        self, fault: str, when: Callable[[str], bool] = lambda _: True, times: int = 10**9
    ) -> Generator[list[str]]:
        """While the block runs, the first `times` requests that fit have a fault.

        Args:
            fault: `error` (500), `throttle` (503), `deny` (403), `truncate` (half of the body), `corrupt` (one byte is
                another), `slow`.
            when: whether a request (`GET /bucket/key`) fits.
            times: how often.

        Yields:
            The requests that failed.
        """
        failed: list[str] = []

        def chosen(request: str) -> str:
            if len(failed) < times and when(request):
                failed.append(request)
                return fault
            return ""

        self._fault = chosen
        try:
            yield failed
        finally:
            self._fault = lambda _: ""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.requests.append(request)
        fault = self._fault(request)
        if fault in ("error", "throttle", "deny"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, code = {
                "error": ("500 Internal Server Error", "InternalError"),
                "throttle": ("503 Slow Down", "ServiceUnavailable"),
                "deny": ("403 Forbidden", "AccessDenied"),
            }[fault]
            start(status, [("Content-Type", "application/xml")])
            return [] if request.startswith("HEAD") else [ERROR.format(code).encode()]
        if fault == "slow":
            time.sleep(0.05)
        body: Iterable[bytes] = self._app(environ, start)
        if fault in ("truncate", "corrupt"):
            data = b"".join(body)
            middle = len(data) // 2
            return (
                [data[:middle]]
                if fault == "truncate"
                else [data[:middle], bytes([data[middle] ^ 1]), data[middle + 1 :]]
            )
        return body
