"""Who may ask the page's server: only who knows the token of its address, and only under a name of this machine.

The token is new with every start. Its first use answers with a cookie, so that the address need not keep it. The cookie's name
holds the port, because browsers keep one set of cookies for all ports of a machine.
"""

from __future__ import annotations

import secrets
from http import HTTPStatus
from urllib.parse import urlencode

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasetdm.viewer.payloads import Problem

LOCAL = "127.0.0.1"
HOSTS = (LOCAL, "localhost")
TOKEN = "token"
"""The parameter that holds the token in an address."""

TOKEN_BYTES = 16

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def new_token() -> str:
    """One that cannot be guessed."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def address(port: int, token: str) -> str:
    """Where the page is."""
    return f"http://{LOCAL}:{port}/?{urlencode({TOKEN: token})}"


def problem(status: HTTPStatus, text: str) -> Response:
    """A refusal."""
    return Response(orjson.dumps(Problem(text)), status, media_type="application/json")


class Guard:
    """Refuses requests for other hosts or without the token, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, token: str):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        hosts = request.headers.getlist("host")
        name, _, port = (hosts[0] if len(hosts) == 1 else "").partition(":")
        cookie = f"datasetdm-{port}"
        in_address = self._is_token(request.query_params.get(TOKEN))
        added = {**HEADERS, **({"set-cookie": self._cookie(cookie)} if in_address else {})}

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in added.items())]
            await send(message)

        if name not in HOSTS:
            app = problem(HTTPStatus.BAD_REQUEST, "the Host header names another machine")
        elif in_address or self._is_token(request.cookies.get(cookie)):
            app = self.app
        else:
            app = problem(HTTPStatus.FORBIDDEN, "open the address that `datasetdm view` printed: it ends with a token")
        await app(scope, receive, guarded)

    def _is_token(self, text: str | None) -> bool:
        """Whether it is, in a time that does not depend on the text."""
        return secrets.compare_digest((text or "").encode("utf-8", "replace"), self.token.encode())

    def _cookie(self, name: str) -> str:
        """Scripts cannot read it, other sites cannot send it, and it ends with the browser."""
        return f"{name}={self.token}; Path=/; HttpOnly; SameSite=Strict"
