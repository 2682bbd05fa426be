from __future__ import annotations

import io
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from datasetdm.errors import ConfigError, DataError, StoreError
from datasetdm.io.codecs import encode_png
from datasetdm.pipelines.filter import filter_store, make_filters
from datasetdm.pipelines.settings import FilterConfig
from datasetdm.records import Keypoints, Labels, Prompt, Sample, Skeleton
from datasetdm.store import Store, write_store
from datasetdm.store.reviews import Review, append_review, read_reviews
from datasetdm.viewer import detail, paint
from datasetdm.viewer.index import NO_REASON, SCORE_BINS
from datasetdm.viewer.payloads import Edge
from datasetdm.viewer.rows import Rows
from datasetdm.viewer.server import listen
from factory import LABELS, make_sample
from served import Client, serving


@pytest.fixture(scope="module")
def shown(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Twelve samples in shards of five; only looked at."""
    folder = tmp_path_factory.mktemp("shown") / "store"
    last = replace(
        samples[-1],
        prompt=Prompt("100% <b>Other</b>", (), 2**63),
    )
    write_store([*samples[:-1], last], folder, LABELS, shard_size=5)
    with serving(folder) as client:
        yield client


@pytest.fixture
def mine(samples: list[Sample], tmp_path: Path) -> Iterator[tuple[Client, Path]]:
    """A store of the test's own, to review."""
    write_store(samples, tmp_path / "store", LABELS, shard_size=5)
    with serving(tmp_path / "store") as client:
        yield client, tmp_path / "store"


def counts(rows: list[dict]) -> dict[str, int]:
    return {row["name"]: row["rows"] for row in rows}


# ---------------------------------------------------------------------- rows and filters
def test_pages(shown: Client) -> None:
    page = shown.get("/api/samples", offset=3, limit=4)
    assert page["total"] == 12 and [i["key"] for i in page["items"]] == ["s3", "s4", "s5", "s6"]
    assert [i["row"] for i in page["items"]] == [3, 4, 5, 6]
    first = page["items"][0]
    assert (
        first["labels"] == ["sky", "dog", "grass"] and first["objects"] == 1 and first["prompt"] == "a photo of a dog"
    )
    assert 0.4 < first["confidence"] < 0.6 and first["review"] is None
    assert shown.keys(offset=10) == ["s10", "s11"] and shown.keys(offset=99) == []


def test_filters(shown: Client) -> None:
    everything = [f"s{i}" for i in range(12)]
    scores = {i["key"]: i["confidence"] for i in shown.get("/api/samples")["items"]}
    assert shown.keys(**{"class": "dog"}) == everything and shown.keys(**{"class": "cat"}) == []
    assert shown.keys(prompt="OTHER") == ["s11"] and shown.keys(prompt="100%") == ["s11"]
    assert shown.keys(prompt="photo of") == everything[:-1] and shown.keys(prompt=".*") == []
    assert shown.keys(objects_min=1) == everything and shown.keys(objects_max=0) == []
    assert shown.keys(**{"class": "sky", "objects_min": 1}) == []
    assert shown.keys(**{"class": "sky", "objects_max": 0}) == everything
    assert shown.keys(verdict="open") == everything
    middle = sorted(scores.values())[6]
    above = shown.keys(score_min=middle - 0.0006)
    assert set(above) == {k for k, v in scores.items() if v >= middle} and 0 < len(above) < 12
    assert set(shown.keys(score_max=middle - 0.0006)) == set(scores) - set(above)
    rising = [scores[k] for k in shown.keys(order="score")]
    assert rising == sorted(rising) and [scores[k] for k in shown.keys(order="-score")] == rising[::-1]


def test_summary_counts_what_matches(shown: Client) -> None:
    found = shown.get("/api/summary")
    assert found["total"] == 12 and counts(found["labels"]) == {"sky": 12, "dog": 12, "grass": 12}
    score = found["score"]
    assert len(score["counts"]) == SCORE_BINS and sum(score["counts"]) == 12 and score["missing"] == 0
    assert score["names"] == ["confidence"] and (score["low"], score["high"]) == (0, 1)
    assert found["verdicts"] == {"open": 12, "accept": 0, "reject": 0, "fixed": 0, "filtered": 0}
    assert shown.get("/api/summary", prompt="other")["labels"][0] == {"name": "sky", "rows": 1}


def test_a_threshold_is_previewed(shown: Client) -> None:
    """Its count, the images on either side, and the command that sets it, which rejects the same ones."""
    scores = {i["key"]: i["confidence"] for i in shown.get("/api/samples")["items"]}
    rising = sorted(scores, key=scores.__getitem__)
    below = (scores[rising[5]] + scores[rising[6]]) / 2
    found = shown.get("/api/preview", below=below)
    low = [k for k in rising if scores[k] < below]
    assert found["accepted"] == 12 and found["dropped"] == len(low) and 0 < len(low) < 12
    assert {i["confidence"] for i in found["below"]} == {scores[k] for k in low[-4:]}
    assert {i["confidence"] for i in found["above"]} == {scores[k] for k in rising[len(low) :][:4]}
    command = shlex.split(found["command"])
    assert command[:2] == ["datasetdm", "filter"] and command[3:] == ["--min-confidence", f"{below:.6g}"]
    store = Store(command[2])
    judged = filter_store(store, make_filters(FilterConfig(min_confidence=float(command[4]))), dry_run=True)
    assert {s.key for s in judged if not s.accepted} == set(low)
    assert (
        shown.get("/api/preview", below=2)["command"] == shown.get("/api/preview", score="x", below=1)["command"] == ""
    )
    for wrong in ("", "below=", "below=nan", "below=1&colour=red"):
        assert shown.ask(f"/api/preview?{wrong}").status == 400


@pytest.mark.parametrize(
    "query",
    ["colour=red", "score_min=much", "objects_min=-1", "order=up", "limit=501", "limit=x", "offset=-1", "limit=²"],
)
def test_wrong_filters_are_refused(shown: Client, query: str) -> None:
    answer = shown.ask(f"/api/samples?{quote(query, safe='=')}")
    assert answer.status == 400 and query.split("=")[0] in answer.json["error"]


# ---------------------------------------------------------------------- detail samples
def test_one_sample(shown: Client, samples: list[Sample]) -> None:
    facts = shown.get("/api/sample/1")
    sample = samples[1]
    assert facts["key"] == "s1" and (facts["shapes"]["height"], facts["shapes"]["width"]) == sample.size
    assert (
        facts["prompt"]["seed"] == "7"
        and facts["prompt"]["labels"] == ["dog"]
        and facts["provenance"] == {"source": "test"}
    )
    assert {r["label"] for r in facts["regions"]} == {"sky", "dog", "grass"}
    assert abs(sum(r["fraction"] for r in facts["regions"]) - 1) < 1e-3
    assert facts["regions"] == sorted(facts["regions"], key=lambda r: -r["fraction"])
    assert facts["depth"]["unit"] == "metre" and facts["depth"]["ticks"] == sorted(facts["depth"]["ticks"])
    near, far = paint.depth_range(sample.depth)
    assert facts["depth"]["ticks"][0] == pytest.approx(near, rel=0.01)
    assert facts["depth"]["ticks"][-1] == pytest.approx(far, rel=0.01)
    assert shown.get("/api/sample/11")["prompt"]["seed"] == str(2**63), "more than a browser's numbers hold"
    assert shown.ask("/api/sample/12").status == 404 and shown.ask("/image/12/image").status == 404


def test_outlines_are_the_masks(shown: Client, samples: list[Sample]) -> None:
    """Filled by Pillow, pixel for pixel (a rectangle, so that its rule for edges does not matter)."""
    for row, sample in enumerate(samples[:4]):
        (entry,) = shown.get(f"/api/sample/{row}/shapes")["objects"]
        corners = [tuple(map(int, p.split())) for p in entry["outline"].strip("MZ").split("L")]
        (left, top), (right, bottom) = map(min, zip(*corners, strict=True)), map(max, zip(*corners, strict=True))
        filled = np.zeros(sample.size, bool)
        filled[top:bottom, left:right] = True
        assert np.array_equal(filled, sample.instances.masks[0])
        assert entry["label"] == "dog" and entry["score"] == 0.75


def test_skeletons() -> None:
    labels = Labels(LABELS.names, skeletons={"dog": Skeleton(("nose", "neck", "tail"), ((0, 1), (1, 2)))})
    points = Keypoints([[[5, 6], [7, 8], [9, 9]]], [[2, 1, 0]], (("nose", "neck", "tail"),))
    sample = replace(make_sample(labels=labels), keypoints=points)
    shapes = detail.shapes(sample, sample)
    assert shapes.edges == [Edge(0, 5.0, 6.0, 7.0, 8.0)]
    assert [(p.name, p.hidden) for p in shapes.points] == [("nose", False), ("neck", True)]


def test_images(shown: Client, samples: list[Sample]) -> None:
    answer = shown.ask("/image/0/image")
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.body))), samples[0].image)
    overlay = np.asarray(Image.open(io.BytesIO(shown.ask("/image/0/semantic").body)))
    ids = samples[0].semantic.ids
    assert np.array_equal(overlay[..., :3], paint.label_colours(LABELS)[ids])
    for layer in detail.IMAGE_LAYERS:
        assert Image.open(io.BytesIO(shown.ask(f"/image/3/{layer}").body)).size == (64, 17)
    small = Image.open(io.BytesIO(shown.ask("/image/3/image?side=32").body))
    assert small.size == (32, 8) and Image.open(io.BytesIO(shown.ask("/image/3/depth?side=32").body)).size == (32, 8)
    assert shown.ask("/image/0/nothing").status == 404 and shown.ask("/image/0/image?side=x").status == 400


@pytest.mark.parametrize("content", [b"", b"no image", encode_png(np.zeros((64, 64, 3), np.uint8))[:-30]])
def test_a_image_that_is_none(content: bytes) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        detail.thumbnail(pa.py_buffer(content), 8)


def test_a_missing_layer_is_clear(tmp_path: Path) -> None:
    bare = Sample("k", np.zeros((4, 5, 3), np.uint8), LABELS)
    write_store([bare], tmp_path / "s", LABELS)
    with serving(tmp_path / "s") as client:
        assert client.get("/api/store")["layers"] == []
        assert np.asarray(Image.open(io.BytesIO(client.ask("/image/0/depth").body)))[0, 0, 3] == 0
        facts = client.get("/api/sample/0")
        assert facts["regions"] == facts["shapes"]["objects"] == [] and facts["depth"] is None
        assert client.get("/api/samples")["items"][0]["confidence"] is None
        assert client.get("/api/summary")["score"]["missing"] == 1


def test_layers_are_those_of_the_store(shown: Client) -> None:
    about = shown.get("/api/store")
    layers = [layer["name"] for layer in about["layers"]]
    assert layers == ["semantic", "uncertainty", "instance", "depth", "depth-uncertainty", "keypoints"]
    assert about["count"] == 12 and [label["name"] for label in about["labels"]] == list(LABELS.names)


# ---------------------------------------------------------------------- reviews
def test_a_review_is_kept_shown_and_found(mine: tuple[Client, Path]) -> None:
    client, folder = mine
    unfixed = client.ask("/image/2/semantic").body
    revision = client.get("/api/samples")["items"][2]["revision"]
    assert client.get("/api/summary")["verdicts"]["open"] == 12
    answer = client.review(
        2, {"verdict": "reject", "reason": "mask", "labels": {"sky": "grass"}, "objects": {"0": "sky"}}
    )
    assert (
        answer.status == 200
        and answer.json["review"]["objects"] == {"0": "sky"}
        and answer.json["revision"] != revision
    )
    assert read_reviews(folder) == {"s2": Review("s2", "reject", "mask", {"sky": "grass"}, {0: "sky"})}
    assert client.keys(verdict="reject") == client.keys(reason="mask") == client.keys(verdict="fixed") == ["s2"]
    assert client.get("/api/summary")["verdicts"] == {"open": 11, "accept": 0, "reject": 1, "fixed": 1, "filtered": 0}
    facts = client.get("/api/sample/2")
    assert facts["shapes"]["objects"][0]["label"] == "sky" and facts["shapes"]["objects"][0]["stored"] == "dog"
    assert {r["label"] for r in facts["regions"]} == {"sky", "dog", "grass"}, "as the store has them"
    assert client.ask("/image/2/semantic").body != unfixed
    assert client.get("/api/samples")["items"][2]["labels"] == ["sky", "grass"], (
        "the object took the dog's pixels along"
    )
    assert client.keys(**{"class": "sky", "objects_min": 1}) == ["s2"] and "s2" not in client.keys(**{"class": "dog"})
    assert counts(client.get("/api/summary")["labels"]) == {"sky": 12, "dog": 11, "grass": 12}
    assert client.review(2, {}).status == 200
    assert counts(client.get("/api/summary")["labels"]) == {"sky": 12, "dog": 12, "grass": 12}
    assert client.keys(verdict="reject") == [] and client.ask("/image/2/semantic").body == unfixed


def test_reviews_of_an_earlier_day(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples, tmp_path / "s", LABELS, shard_size=5)
    for key, review in {"s7": Review("s7", "reject"), "gone": Review("gone", "reject")}.items():
        append_review(tmp_path / "s", replace(review, key=key))
    append_review(tmp_path / "s", Review("s9", labels={"dog": "sky"}))
    with serving(tmp_path / "s") as client:
        assert client.keys(verdict="reject") == client.keys(reason=NO_REASON) == ["s7"]
        items = client.get("/api/samples")["items"]
        assert items[7]["review"]["verdict"] == "reject" and items[9]["labels"] == ["sky", "grass"]
        assert client.keys(verdict="fixed") == ["s9"] and "s9" not in client.keys(**{"class": "dog"})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "no review"),
        ({"verdict": "maybe"}, "no review"),
        ({"reason": 5}, "no review"),
        ({"labels": {"dog": "dig"}}, "did you mean 'dog'"),
        ({"objects": {"7": "dog"}}, "object 7"),
        ({"objects": {"-1": "dog"}}, "object -1"),
    ],
)
def test_what_is_no_review_is_not_kept(mine: tuple[Client, Path], value: object, words: str) -> None:
    client, folder = mine
    answer = client.review(0, value)
    assert answer.status == 400 and words in answer.json["error"]
    assert not read_reviews(folder) and client.review(12, {}).status == 404


def test_many_reviews_at_once(mine: tuple[Client, Path]) -> None:
    client, folder = mine
    work = [
        threading.Thread(target=client.review, args=(i, {"verdict": "accept", "reason": "x" * 5000})) for i in range(12)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(read_reviews(folder)) == sorted(f"s{i}" for i in range(12))


@pytest.mark.slow
def test_two_viewers_of_one_store(mine: tuple[Client, Path]) -> None:
    """In processes of their own: each sees the other's reviews, neither loses any, and none replaces one that it had not seen."""
    one, folder = mine
    command = [sys.executable, "-m", "datasetdm.cli", "view", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            other = Client(process.stdout.readline().split()[0])
            for client in (one, other):
                assert client.get("/api/summary")["verdicts"]["open"] == 12
            one.review(1, {"verdict": "accept"})
            other.review(2, {"verdict": "reject", "reason": "mask"})
            for client in (one, other):
                assert client.keys(verdict="accept") == ["s1"] and client.keys(reason="mask") == ["s2"]
                assert client.get("/api/sample/2")["review"]["verdict"] == "reject"
            late = one.review(2, {"verdict": "accept", "seen": None})
            assert late.status == 409 and "another viewer" in late.json["error"]
            assert late.json["now"]["review"]["reason"] == "mask"
            assert one.review(2, {"verdict": "accept", "seen": late.json["now"]["review"]}).status == 200
            assert other.review(2, {"seen": late.json["now"]["review"]}).status == 409
            assert other.keys(verdict="accept") == ["s1", "s2"]
            work = [
                threading.Thread(target=client.review, args=(i, {"verdict": verdict, "seen": None}))
                for i in range(3, 12)
                for client, verdict in ((one, "accept"), (other, "reject"))
            ]
            for thread in work:
                thread.start()
            for thread in work:
                thread.join()
            assert one.get("/api/samples")["total"] == 12
            said = {key: review.verdict for key, review in read_reviews(folder).items()}
            for client in (one, other):
                assert {
                    i["key"]: i["review"]["verdict"] for i in client.get("/api/samples")["items"] if i["review"]
                } == said
        finally:
            process.terminate()
    lines = (folder / "reviews.jsonl").read_text().splitlines()
    assert len(lines) == 12 and len(said) == 11, "of two reviews of one image at once the first one counts"


# ---------------------------------------------------------------------- who may ask
def test_other_sites_cannot_review(mine: tuple[Client, Path]) -> None:
    client, folder = mine
    for origin in ("http://evil.example", "null", "http://127.0.0.1", client.url):
        assert client.review(0, {"verdict": "reject"}, Origin=origin).status == 403
    plain = client.ask("/api/review/0", "POST", b"{}", Content_Type="application/json")
    assert plain.status == 403, "no origin at all"
    simple = client.review(0, {"verdict": "reject"}, Content_Type="text/plain")
    assert simple.status == 415
    assert client.ask("/api/review/0").status == 405
    broken = client.ask("/api/review/0", "POST", b"{", Content_Type="application/json", Origin=f"http://{client.host}")
    assert broken.status == 400
    assert client.review(0, {"reason": "x" * 2_000_000}).status == 413
    assert not read_reviews(folder)


@pytest.mark.parametrize("path", ["/", "/api/samples", "/image/0/image", "/static/app.js"])
def test_other_names_for_this_machine_are_refused(shown: Client, path: str) -> None:
    assert shown.ask(path, Host="evil.example").status == 400
    assert shown.ask(path, Host=f"evil.example:{shown.host.split(':')[1]}").status == 400
    port = shown.host.split(":")[1]
    assert shown.ask(path, Host=f"localhost:{port}").status == 200


@pytest.mark.parametrize(
    "path", ["/", "/api/samples", "/image/0/image", "/static/style.css", "/nothing", "/api/sample/99"]
)
def test_every_answer_is_guarded(shown: Client, path: str) -> None:
    answer = shown.ask(path)
    policy = dict(p.strip().split(" ", 1) for p in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("name", ["../server.py", "%2e%2e/server.py", "..%2fserver.py", "/etc/passwd"])
def test_no_path_leaves_the_folder(shown: Client, name: str) -> None:
    assert shown.ask(f"/static/{name}").status == 404


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    """Nor does any file of it make elements from text, or name another host."""
    static = Path(detail.__file__).parent / "static"
    page = (static / "index.html").read_text()
    assert (
        "style=" not in page
        and "<style" not in page
        and " on" not in page.replace(" one", "")
        and "<script>" not in page
    )
    for path in static.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text, path
        assert not any(
            word in text for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(")
        ), path


# ---------------------------------------------------------------------- reading
def test_a_damaged_shard_is_an_answer(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples, tmp_path / "s", LABELS, shard_size=5)
    with serving(tmp_path / "s") as client:
        (tmp_path / "s" / "data" / "shard-000001.parquet").write_bytes(b"PAR1 and no more")
        answer = client.ask("/image/5/image")
        assert answer.status == 400 and "damaged" in answer.json["error"]
        assert client.ask("/image/4/image").status == 200
    with pytest.raises(StoreError):
        Rows(Store(tmp_path / "s"))


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples, tmp_path / "s", LABELS)
    command = [sys.executable, "-m", "datasetdm.cli", "view", str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        url = process.stdout.readline().split()[0]
        assert Client(url).get("/api/store")["count"] == 12
        assert Client(url).ask("/").body.startswith(b"<!doctype html>")
        process.send_signal(2)
        process.wait(20)
        assert process.returncode == 0 and "Traceback" not in process.stderr.read()


def test_a_port_that_is_taken(shown: Client) -> None:
    for port in (int(shown.host.split(":")[1]), 70_000):
        with pytest.raises(ConfigError, match=f"--port {port}"):
            listen(port)


@pytest.mark.slow
def test_a_large_store_opens_and_filters_fast(tmp_path: Path) -> None:
    """A loose bound for a busy machine; benchmarks/viewer_speed.py measures."""
    from benchmarks.viewer_speed import make_store

    make_store(tmp_path, 5_000, side=4)
    with serving(tmp_path) as client:
        assert client.get("/api/samples", limit=48)["total"] == 5_000
        client.get("/api/summary")
        start = time.perf_counter()
        assert 0 < client.get("/api/samples", prompt="number 49", **{"class": "label 3"})["total"] < 5_000
        assert time.perf_counter() - start < 2
