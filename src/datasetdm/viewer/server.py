"""The page's server, on this machine only: Starlette answers, uvicorn serves (small, typed, long kept, no build step).

    GET  /                       the page; its files are in `static/`
    GET  /api/store              payloads.About
    GET  /api/samples?...        payloads.Page; parameters: `index.Query`, offset, limit
    GET  /api/summary?...        payloads.Summary of the rows that match
    GET  /api/preview?score,below payloads.Preview of a threshold: `index.Limit`
    GET  /api/edit?old,new       payloads.Command that edits
    GET  /api/sample/ROW?side    payloads.Detail;  .../shapes?side gives payloads.Shapes alone
    GET  /image/ROW/LAYER?side   an image, what it was before an edit, or a layer of it, at most about `side` pixels wide and high
    POST /api/review/ROW         stores a review; payloads.Reviewed, or payloads.Conflict with status 409

Requests that are not understood are answered by payloads.Problem and a status of 400 to 499. Other users of the machine cannot
ask anything (`guard`: a token), nor can other sites: the Host header must name this machine (DNS rebinding), and a review must
come from the page itself.
"""

from __future__ import annotations

import mimetypes
import socket
import webbrowser
from asyncio import wrap_future
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from html import escape
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import uvicorn
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from datasetdm.errors import ConfigError, DatasetDMError
from datasetdm.io.settings import validated
from datasetdm.store.store import Store
from datasetdm.viewer import detail
from datasetdm.viewer.browse import Browser, ReviewedMeanwhile
from datasetdm.viewer.edits import edit_command
from datasetdm.viewer.guard import LOCAL, TOKEN, Guard, address, new_token, problem
from datasetdm.viewer.index import Limit, Query
from datasetdm.viewer.payloads import Command, Conflict, LayerName, Problem

STATIC = Path(__file__).parent / "static"
MAX_BODY = 1_000_000
"""Bytes that a review may have."""

MAX_SIDE = 4096
PAGE, MAX_PAGE = 48, 500
"""Samples per page, unless the request says otherwise, and at most."""

LAYERS_AT_ONCE = 128
"""Requests of layers that wait or work at a time: those whose annotations are stored together are read together."""

WAITING = 2048
"""Connections that wait to be accepted; the system drops more, and their browsers try again after a second."""

SEND_BYTES = 1 << 22
"""Of an answer that the system takes at once, if it allows so many: the rest is copied once more, and sent in many turns."""

LARGEST_NUMBER = 2**53
"""JavaScript's integers end here."""


class JSON(Response):
    """A dataclass of `payloads` as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)


def application(browser: Browser, token: str) -> Starlette:
    """The server's routes over an opened store, for those who know the token."""

    def page(_: Request) -> Response:
        return _static("index.html")

    def static(request: Request) -> Response:
        return _static(request.path_params["name"])

    def store(_: Request) -> Response:
        return JSON(browser.about())

    def samples(request: Request) -> Response:
        query, others = _query(request)
        offset = _number(others, "offset", 0)
        return JSON(browser.page(query, offset, _number(others, "limit", PAGE, MAX_PAGE)))

    def summary(request: Request) -> Response:
        return JSON(browser.summary(_query(request)[0]))

    def preview(request: Request) -> Response:
        values = {k: v for k, v in request.query_params.items() if k != TOKEN}
        return JSON(browser.preview(validated(Limit, **values)))

    def sample(request: Request) -> Response:
        return JSON(browser.detail(_row(request), _side(request)))

    def shapes(request: Request) -> Response:
        return JSON(browser.shapes(_row(request), _side(request)))

    async def image(request: Request) -> Response:
        row, side = _row(request), _side(request)
        coming = await run_in_threadpool(browser.image, row, side)
        return _image(*await wrap_future(coming))

    def layer(request: Request) -> Response:
        row, name, side = _row(request), request.path_params["layer"], _side(request)
        if name == "before":
            return _image(*browser.parent_image(row, side))
        if name in detail.IMAGE_LAYERS:
            return _image(browser.layer(row, LayerName(name), side), "image/png")
        return problem(HTTPStatus.NOT_FOUND, f"no layer {name!r}")

    def edit(request: Request) -> Response:
        values = request.query_params
        return JSON(Command(edit_command(browser.store, values.get("old", ""), values.get("new", ""))))

    async def review(request: Request) -> Response:
        row = _row(request)
        if request.headers.get("origin") != f"http://{request.headers['host']}":
            return problem(HTTPStatus.FORBIDDEN, "a review must come from the page itself")
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a review is application/json")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a review has at most {MAX_BODY} bytes")
        try:
            value = orjson.loads(body)
        except ValueError as e:
            return problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {e}")
        return JSON(await run_in_threadpool(browser.review, row, value))

    routes = [
        Route("/", page),
        Route("/static/{name}", static),
        Route("/api/store", store),
        Route("/api/samples", samples),
        Route("/api/summary", summary),
        Route("/api/preview", preview),
        Route("/api/edit", edit),
        Route("/api/sample/{row}", sample),
        Route("/api/sample/{row}/shapes", shapes),
        Route("/image/{row}/image", image),
        Route("/image/{row}/{layer}", _threaded(layer, LAYERS_AT_ONCE)),
        Route("/api/review/{row}", review, methods=["POST"]),
    ]
    handlers = {ReviewedMeanwhile: _conflict, DatasetDMError: _refused, IndexError: _missing, HTTPException: _unknown}
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token)], exception_handlers=handlers)


def _image(content: bytes, kind: str) -> Response:
    """An image that stays: its address names this server's start and the review, so that what it shows never changes."""
    return Response(content, media_type=kind, headers={"cache-control": "private, max-age=86400, immutable"})


def _threaded(answer: Callable[[Request], Response], threads: int) -> Callable[[Request], Awaitable[Response]]:
    """In threads of its own, so that other requests do not wait for these."""
    limiter = CapacityLimiter(threads)

    async def answered(request: Request) -> Response:
        return await to_thread.run_sync(answer, request, limiter=limiter)

    return answered


def _refused(_: Request, error: Exception) -> Response:
    return problem(HTTPStatus.BAD_REQUEST, str(error))


def _conflict(_: Request, error: Exception) -> Response:
    assert isinstance(error, ReviewedMeanwhile)
    return JSON(Conflict(str(error), error.now), HTTPStatus.CONFLICT)


def _missing(_: Request, error: Exception) -> Response:
    return problem(HTTPStatus.NOT_FOUND, f"no sample {error}")


def _unknown(_: Request, error: Exception) -> Response:
    """No such address, or not by this method."""
    assert isinstance(error, HTTPException)
    return JSON(Problem(error.detail), error.status_code, error.headers)


def _static(name: str) -> Response:
    """A file of the page, by its name in the folder."""
    path = next((p for p in STATIC.iterdir() if p.name == name), None)
    if path is None:
        return problem(HTTPStatus.NOT_FOUND, "no such file")
    kind, _ = mimetypes.guess_type(name)
    return Response(path.read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})


def _row(request: Request) -> int:
    """The row's number in the address; IndexError if it is no number of a row."""
    text = request.path_params["row"]
    if not _is_number(text):
        raise IndexError(text[:20])
    return int(text)


def _side(request: Request) -> int:
    return _number(request.query_params, "side", 0, MAX_SIDE)


def _query(request: Request) -> tuple[Query, dict[str, str]]:
    """The filter, and the parameters that are none."""
    values = dict(request.query_params)
    others = {k: values.pop(k) for k in ("offset", "limit", TOKEN) if k in values}
    return validated(Query, **{k: v for k, v in values.items() if v != ""}), others


def _number(values: Mapping[str, str], name: str, default: int, most: int = LARGEST_NUMBER) -> int:
    text = values.get(name, str(default))
    if not (_is_number(text) and int(text) <= most):
        raise ConfigError(f"{name} = {text[:40]!r}", expected=f"a whole number of at most {most}")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST_NUMBER))


def listen(port: int = 0) -> socket.socket:
    """A listening socket that only this machine reaches; port 0 takes a free one.

    Raises:
        ConfigError: the port is taken or not allowed.
    """
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        connection.bind((LOCAL, port))
        connection.listen(WAITING)
    except (OSError, OverflowError) as e:
        connection.close()
        raise ConfigError(f"--port {port}: {e}", expected="a free port", remedy="leave it out") from e
    return connection


def server(store: Store, token: str, before: Store | None = None) -> uvicorn.Server:
    """Ready to `run(sockets=[listen()])` until it is interrupted."""
    app = application(Browser(store, before), token)
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False, lifespan="off", ws="none"))


def serve(store: Store, port: int = 0, open_browser: bool = False, before: Store | None = None) -> None:
    """Show a store until Ctrl+C.

    Args:
        before: the store that an edited one was made from.

    Raises:
        ConfigError: the port is taken or not allowed.
    """
    token = new_token()
    with listen(port) as connection, TemporaryDirectory(prefix="datasetdm-") as folder, suppress(KeyboardInterrupt):
        url = address(connection.getsockname()[1], token)
        print(f"{url}  shows {store.folder}; Ctrl+C ends", flush=True)
        if open_browser:
            webbrowser.open(leading_to(url, Path(folder)))
        server(store, token, before).run(sockets=[connection])


def leading_to(url: str, folder: Path) -> str:
    """The address of a file in a folder of this user alone that leads there. All users see the arguments of a browser's command,
    so the token must not be among them."""
    file = folder / "open.html"
    file.write_text(
        f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(url)}"><title>DatasetDM</title>'
    )
    return file.as_uri()
