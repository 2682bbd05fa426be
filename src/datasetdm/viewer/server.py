"""The page's server, on this machine only: Starlette answers, uvicorn serves (small, typed, long kept, no build step).

    GET  /                        the page; its files are in `static/`
    GET  /api/store               labels, colours, layers, count
    GET  /api/samples?...         a page of rows; parameters: `index.Query`, offset, limit
    GET  /api/summary?...         how the matching rows are distributed
    GET  /api/sample/ROW          one sample: regions, outlines, points, depth scale, review;  .../shapes for the grid
    GET  /picture/ROW/LAYER?side  a picture or a layer of it
    POST /api/review/ROW          what somebody says of it

Other sites cannot reach it: the Host header must name this machine (DNS rebinding), a review must come from the page itself.
"""

from __future__ import annotations

import contextlib
import json
import socket
import webbrowser
from http import HTTPStatus
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasetdm.errors import ConfigError, DatasetDMError
from datasetdm.io.settings import validated
from datasetdm.store import Store
from datasetdm.viewer import detail
from datasetdm.viewer.browse import Browser
from datasetdm.viewer.index import Query

STATIC = Path(__file__).parent / "static"
LOCAL = "127.0.0.1"
MAX_BODY = 1_000_000
"""Bytes that a review may have."""

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


def application(browser: Browser) -> Starlette:
    """The server's routes over an opened store."""

    async def page(_: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    def store(_: Request) -> Response:
        return JSONResponse(browser.about())

    def samples(request: Request) -> Response:
        query, others = _query(request)
        return JSONResponse(browser.page(query, _number(others, "offset", 0), _number(others, "limit", 48, 500)))

    def summary(request: Request) -> Response:
        return JSONResponse(browser.distribution(_query(request)[0]))

    def sample(request: Request) -> Response:
        return JSONResponse(browser.describe(request.path_params["row"]))

    def shapes(request: Request) -> Response:
        return JSONResponse(detail.shapes(browser.sample(request.path_params["row"])))

    def picture(request: Request) -> Response:
        row, layer = request.path_params["row"], request.path_params["layer"]
        side = _number(dict(request.query_params), "side", 0, 4096)
        if layer == "image":
            content, kind = detail.thumbnail(browser.rows.row(row)["image"]["bytes"], side)
        elif layer in detail.DRAWN:
            content, kind = detail.layer(browser.sample(row), layer, side), "image/png"
        else:
            return _problem(HTTPStatus.NOT_FOUND, f"no layer {layer!r}")
        # The address names this server's start and the review, so that what it shows never changes.
        return Response(content, media_type=kind, headers={"cache-control": "private, max-age=86400, immutable"})

    async def review(request: Request) -> Response:
        if request.headers.get("origin") != f"http://{request.headers['host']}":
            return _problem(HTTPStatus.FORBIDDEN, "a review must come from the page itself")
        if request.headers.get("content-type") != "application/json":
            return _problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a review is application/json")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a review has at most {MAX_BODY} bytes")
        try:
            value = json.loads(body)
        except ValueError as e:
            return _problem(HTTPStatus.BAD_REQUEST, f"this is no JSON: {e}")
        return JSONResponse(await run_in_threadpool(browser.review, request.path_params["row"], value))

    routes = [
        Route("/", page),
        Route("/api/store", store),
        Route("/api/samples", samples),
        Route("/api/summary", summary),
        Route("/api/sample/{row:int}", sample),
        Route("/api/sample/{row:int}/shapes", shapes),
        Route("/picture/{row:int}/{layer}", picture),
        Route("/api/review/{row:int}", review, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    middleware = [Middleware(_Guard), Middleware(TrustedHostMiddleware, allowed_hosts=[LOCAL, "localhost"])]
    refused = {DatasetDMError: _refused, IndexError: _missing}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=refused)


class _Guard:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        await self.app(scope, receive, guarded)


def _refused(_: Request, error: Exception) -> Response:
    return _problem(HTTPStatus.BAD_REQUEST, str(error))


def _missing(_: Request, error: Exception) -> Response:
    return _problem(HTTPStatus.NOT_FOUND, f"no sample {error}")


def _problem(status: HTTPStatus, text: str) -> Response:
    return JSONResponse({"error": text}, status)


def _query(request: Request) -> tuple[Query, dict[str, str]]:
    """The filter, and the parameters that are none."""
    values = dict(request.query_params)
    others = {k: values.pop(k) for k in ("offset", "limit") if k in values}
    return validated(Query, **{k: v for k, v in values.items() if v != ""}), others


def _number(values: dict[str, str], name: str, default: int, most: int = 2**53) -> int:
    text = values.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and int(text) <= most):
        raise ConfigError(f"{name} = {text!r}", expected=f"a whole number of at most {most}")
    return int(text)


def listen(port: int = 0) -> socket.socket:
    """A listening socket that only this machine reaches; port 0 takes a free one.

    Raises:
        ConfigError: the port is taken or not allowed.
    """
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        connection.bind((LOCAL, port))
        connection.listen()
    except (OSError, OverflowError) as e:
        connection.close()
        raise ConfigError(f"--port {port}: {e}", expected="a free port", remedy="leave it out") from e
    return connection


def address(connection: socket.socket) -> str:
    """Where the page is."""
    return f"http://{LOCAL}:{connection.getsockname()[1]}/"


def server(store: Store) -> uvicorn.Server:
    """Ready to `run(sockets=[listen()])` until it is interrupted."""
    config = uvicorn.Config(application(Browser(store)), log_level="warning", server_header=False, lifespan="off")
    return uvicorn.Server(config)


def serve(store: Store, port: int = 0, open_browser: bool = False) -> None:
    """Show a store until Ctrl+C.

    Raises:
        ConfigError: the port is taken or not allowed.
    """
    with listen(port) as connection, contextlib.suppress(KeyboardInterrupt):
        print(f"{address(connection)}  shows {store.folder}; Ctrl+C ends", flush=True)
        if open_browser:
            webbrowser.open(address(connection))
        server(store).run(sockets=[connection])
