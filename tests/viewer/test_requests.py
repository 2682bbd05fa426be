"""Whatever is asked, the server answers with JSON and a status below 500, and lives on."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datasetdm.records import Sample
from datasetdm.store import write_store
from factory import LABELS
from served import Answer, Client, serving

BOUNDED = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

HUGE = "9" * 5000
ROWS = st.sampled_from(
    ["0", "1", "-1", "2", "1.0", "1e3", "0x1", "٣", "²", "", " 0", "+1", "nan", "00", HUGE]
) | st.text(max_size=8)
WORDS = st.sampled_from(["", "0", "-1", "1e400", "nan", "inf", "true", "[]", "dog", "\x00", "٣", HUGE[:400]]) | st.text(
    max_size=8
)
PATHS = st.one_of(
    st.builds("/{}".format, st.text(max_size=30).map(lambda t: quote(t, safe="/%"))),
    st.builds("/api/sample/{}".format, ROWS.map(quote)),
    st.builds("/api/sample/{}/shapes".format, ROWS.map(quote)),
    st.builds(
        "/image/{}/{}".format, ROWS.map(quote), WORDS.map(quote) | st.sampled_from(["image", "semantic", "depth"])
    ),
    st.builds(
        "/static/{}".format, WORDS.map(quote) | st.sampled_from(["%00", "..%2f..", "%2e%2e", "a" * 300, "app.js%00"])
    ),
    st.sampled_from(
        [
            "/",
            "/api",
            "/api/store",
            "/api/samples",
            "/api/summary",
            "/api/preview",
            "/api/edit",
            "/image/0/before",
            "/api/review/0",
        ]
    ),
)
NAMES = [
    "class",
    "objects_min",
    "objects_max",
    "score",
    "score_min",
    "score_max",
    "prompt",
    "reason",
    "verdict",
    "order",
    "below",
    "token",
]
QUERIES = st.lists(
    st.tuples(st.sampled_from([*NAMES, "offset", "limit", "side", "cls"]) | st.text(max_size=5), WORDS), max_size=4
)
METHODS = st.sampled_from(["GET", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["accept", "dog", "\ud800", "0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["key", "0", "dog", HUGE]) | st.text(max_size=3), inner)
    ),
    max_leaves=6,
)
FIELDS = ["verdict", "reason", "labels", "objects", "key", "seen"]
BODIES = st.one_of(
    st.binary(max_size=30),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(FIELDS), VALUES).map(lambda value: json.dumps(value).encode()),
)


@pytest.fixture(scope="module")
def client(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("asked") / "store"
    write_store(samples[:2], folder, LABELS)
    with serving(folder) as client:
        yield client


def is_good(answer: Answer) -> None:
    """No fault of the server's, and a refusal says why."""
    assert answer.status < 500, answer.body
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/json" and answer.json["error"]
        assert answer.headers["content-security-policy"]


@pytest.mark.slow
@BOUNDED
@given(METHODS, PATHS, QUERIES)
@example("GET", f"/api/sample/{HUGE}", [])
@example("GET", "/api/samples", [("offset", HUGE)])
@example("GET", "/static/%00", [])
@example("GET", "/api/preview", [("below", "1e400")])
@example("GET", "/api/samples", [("objects_max", HUGE[:100])])
@example("GET", "/api/summary", [("score_min", "nan"), ("order", "score")])
def test_any_address(client: Client, method: str, path: str, query: list[tuple[str, str]]) -> None:
    is_good(client.ask(f"{path}?{urlencode(query)}" if query else path, method))


@pytest.mark.slow
@BOUNDED
@given(PATHS, QUERIES, st.text(max_size=30))
def test_without_the_token_any_address_is_refused(
    client: Client, path: str, query: list[tuple[str, str]], cookie: str
) -> None:
    cookie = "".join(c for c in cookie if c.isprintable()).encode("utf-8", "replace").decode("latin-1").strip()
    answer = client.ask(f"{path}?{urlencode(query)}" if query else path, Cookie=cookie)
    assert answer.status == 403 and list(answer.json) == ["error"]


OUTSIDE = ["server.py", "dataset.json", "reviews.jsonl", "passwd", "index.html.j2", "gallery.html.j2"]
STEPS = st.lists(
    st.sampled_from(["..", ".", "%2e%2e", "..%2f", "%2f", "%5c..", "....", "static", "etc", "data", ""]), max_size=6
)


@pytest.mark.slow
@BOUNDED
@given(STEPS, st.sampled_from(OUTSIDE))
def test_no_address_leaves_the_folder_of_the_page(client: Client, steps: list[str], name: str) -> None:
    """What is not a file of the page is not found, whatever the way to it."""
    assert client.ask("/static/" + "/".join([*steps, name])).status == 404


@pytest.mark.slow
@BOUNDED
@given(BODIES, ROWS)
@example(b"[" * 100_000, "1")
@example(rb'{"verdict":"reject","reason":"\ud800"}', "1")
@example(b'{"objects":{"' + HUGE.encode() + b'":"dog"}}', "1")
@example(b'{"labels":{"dog":' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}}", "1")
@example(b"", "0")
def test_any_review(client: Client, body: bytes, row: str) -> None:
    headers = {"Content_Type": "application/json", "Origin": f"http://{client.host}"}
    is_good(client.ask(f"/api/review/{quote(row)}", "POST", body, **headers))


@pytest.mark.slow
@BOUNDED
@given(
    st.sampled_from(["Host", "Cookie", "Origin", "Content-Type", "Range", "If-None-Match", "Accept"]),
    st.text(max_size=20),
)
def test_any_header(client: Client, name: str, value: str) -> None:
    value = "".join(c for c in value if c.isprintable()).encode("utf-8", "replace").decode("latin-1").strip()
    for path, method in (("/", "GET"), ("/image/0/image", "GET"), ("/api/review/0", "POST")):
        is_good(client.ask(path, method, b"{}" if method == "POST" else None, **{name.replace("-", "_"): value}))


@pytest.mark.parametrize(
    "lines", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_no_request(client: Client, lines: bytes) -> None:
    name, port = client.host.split(":")
    with socket.create_connection((name, int(port)), timeout=20) as connection:
        connection.sendall(lines)
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        assert 400 <= reply.status < 500
    assert client.get("/api/store")["count"] == 2
