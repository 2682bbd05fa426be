"""Who knows the token of the address may ask, nobody else."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from datasetdm.records import Sample
from datasetdm.store import Store, write_store
from datasetdm.store.reviews import read_reviews
from datasetdm.viewer import guard
from datasetdm.viewer import server as viewer
from factory import LABELS
from served import Client, serving

PATHS = ["/", "/static/app.js", "/api/store", "/api/samples", "/api/summary", "/api/sample/0", "/image/0/image", "/no"]


@pytest.fixture(scope="module")
def client(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("guarded") / "store"
    write_store(samples[:2], folder, LABELS)
    with serving(folder) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_without_the_token(client: Client, path: str) -> None:
    name, token = client.cookie.split("=")
    for cookie in ("", f"{name}=", f"{name}={token[:-1]}", f"{name}={token}x", f"{name}={token.swapcase()}"):
        answer = client.ask(path, Cookie=cookie)
        assert answer.status == 403 and list(answer.json) == ["error"] and "datasetdm view" in answer.json["error"]
        assert answer.headers["content-security-policy"] and "set-cookie" not in answer.headers
    for query in ("token=", f"token={token[:-1]}", f"Token={token}", "token=%ff%00"):
        assert client.ask(f"{path}?{query}", Cookie="").status == 403
    assert client.ask(path).status in (200, 404)


def test_nobody_reviews_without_the_token(client: Client, tmp_path: Path, samples: list[Sample]) -> None:
    write_store(samples[:1], tmp_path / "s", LABELS)
    with serving(tmp_path / "s") as other:
        assert other.review(0, {"verdict": "reject"}, Cookie="").status == 403
        assert other.review(0, {"verdict": "reject"}, Cookie=client.cookie).status == 403, "the other start's token"
        assert not read_reviews(tmp_path / "s")
        assert other.review(0, {"verdict": "reject"}).status == 200


def test_the_first_visit_gives_a_cookie(client: Client) -> None:
    address = urlsplit(client.url)
    answer = client.ask(f"{address.path}?{address.query}", Cookie="")
    assert answer.status == 200 and answer.body.startswith(b"<!doctype html>")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie == client.cookie and set(attributes) == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert client.ask("/", Cookie=f"a=b; {cookie}").status == 200
    assert "set-cookie" not in client.ask("/").headers
    assert client.ask(f"/api/samples?limit=1&{address.query}", Cookie="").json["total"] == 2


def test_the_host_counts_even_with_the_token(client: Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.:1", "", "[::1]"):
        assert client.ask(f"/?{urlsplit(client.url).query}", Host=host).status == 400


def test_a_forwarded_port_has_a_cookie_of_its_own(client: Client) -> None:
    """As by `ssh -L`: the browser sees another port than the server."""
    token = client.cookie.split("=")[1]
    answer = client.ask(f"/?token={token}", Host="localhost:9", Cookie="")
    assert answer.headers["set-cookie"].startswith(f"datasetdm-9={token};")
    assert client.ask("/api/store", Host="localhost:9", Cookie=f"datasetdm-9={token}").status == 200
    assert client.ask("/api/store", Host="localhost:9").status == 403


def test_tokens_are_long_and_compared_in_constant_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = {guard.new_token() for _ in range(50)}
    assert len(tokens) == 50 and min(map(len, tokens)) >= 22, "128 bits, six per character"
    compared: list[bytes] = []
    monkeypatch.setattr(guard.secrets, "compare_digest", lambda a, b: compared.append(a) or a == b)
    assert client.ask("/", Cookie="").status == 403 and client.ask("/").status == 200
    assert client.cookie.split("=")[1].encode() in compared


def test_the_command_prints_the_address_and_hides_it_from_process_lists(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(samples[:1], tmp_path / "s", LABELS)
    opened: list[Path] = []

    def look(url: str) -> None:
        file = Path(unquote(urlsplit(url).path))
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        opened.append(file)
        assert capsys.readouterr().out.split()[0] in file.read_text()
        assert guard.TOKEN not in url

    class Stopped:
        def run(self, sockets: list) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(viewer.webbrowser, "open", look)
    monkeypatch.setattr(viewer, "server", lambda *_: Stopped())
    viewer.serve(Store(tmp_path / "s"), open_browser=True)
    assert len(opened) == 1 and not opened[0].parent.exists()
