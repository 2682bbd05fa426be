"""Stores and decoders on the hub: pushed by one commit, with cards; read from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from datasetdm.decoder.config import read_config, write_config
from datasetdm.decoder.model import PDecoder, decoder_folder
from datasetdm.errors import ConfigError, OutputError, RemoteError
from datasetdm.io.files import locked
from datasetdm.io.hub import Repository
from datasetdm.recipe.push import push
from datasetdm.records import Quality
from datasetdm.store import Store, Writer, write_store
from datasetdm.store.quality import append_quality
from datasetdm.store.writer import LOCK
from factory import LABELS, make_sample
from hub_server import Hub
from sources import save_decoder

DATA = "hf://datasets/me/some-data"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = {"backbone": {"name": "some/model", "identity": "1" * 64, "licence": "openrail"}}
    with Writer(tmp_path / "store", LABELS, {"source": "samples"}, 2, made) as writer:
        for i in range(5):
            writer.add(make_sample(f"s{i}", seed=i))
    append_quality(tmp_path / "store", "s1", Quality({}, ("blurred",)))
    return tmp_path / "store"


def front(card: bytes) -> dict[str, object]:
    return yaml.safe_load(card.decode().split("---")[1])


def test_a_store_goes_to_the_hub_and_is_read_there(store: Path, hub: Hub) -> None:
    assert push(store, DATA, "cc-by-4.0") == f"{hub.url}/datasets/me/some-data"
    held = hub.repositories["datasets/me/some-data"]
    own = {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    assert {n: d for n, d in held.files.items() if n != "README.md"} == own and len(held.commits) == 1
    far = Store(DATA)
    assert [s.digest() for s in far] == [s.digest() for s in Store(store)] and far[3].key == "s3"
    assert dict(far.quality) == {"s1": Quality({}, ("blurred",))} and far.made["backbone"]["licence"] == "openrail"


def test_the_card_of_a_store(store: Path, hub: Hub) -> None:
    push(store, DATA, "cc-by-4.0")
    card = hub.repositories["datasets/me/some-data"].files["README.md"]
    head = front(card)
    assert head["license"] == "cc-by-4.0" and head["size_categories"] == ["n<1K"]
    assert head["configs"] == [{"config_name": "default", "data_files": "data/*.parquet"}]
    text = card.decode()
    assert "5 images" in text and "1 were rejected by filters" in text and "| dog | 5 | 5 |" in text
    assert "| backbone.licence | openrail |" in text and f"| backbone.identity | {'1' * 64} |" in text


def test_a_later_push_replaces_the_store_but_no_card_that_people_wrote(store: Path, hub: Hub, tmp_path: Path) -> None:
    push(store, DATA)
    write_store([make_sample("other")], tmp_path / "other", LABELS)
    push(tmp_path / "other", DATA)
    held = hub.repositories["datasets/me/some-data"]
    assert [n for n in held.files if n.startswith("data/")] == ["data/shard-000000.parquet", "data/shard-000000.json"]
    assert "1 images" in held.files["README.md"].decode()
    held.files["README.md"] = b"mine"
    push(tmp_path / "other", DATA)
    assert held.files["README.md"] == b"mine" and len(held.commits) == 3


def test_a_decoder_goes_to_the_hub_and_comes_back(hub: Hub, tmp_path: Path, tiny_folder: Path) -> None:
    folder = save_decoder(tmp_path / "decoder", tiny_folder)
    story = {"images": 90, "held_out_images": 10, "held_out_figures": {"semantic.miou": 0.5}, "data": "abc"}
    write_config(folder, replace(read_config(folder), fitted=story))
    push(folder, "hf://me/some-decoder", "apache-2.0", private=True)
    held = hub.repositories["models/me/some-decoder"]
    card = held.files["README.md"].decode()
    assert held.private and {*held.files} == {"README.md", "config.json", "model.safetensors"}
    assert "| semantic.miou | 0.5 |" in card and "| held-out images | 10 |" in card and str(tmp_path) not in card
    assert front(held.files["README.md"])["license"] == "apache-2.0"
    back = PDecoder.load("hf://me/some-decoder")
    assert back.fingerprint() == PDecoder.load(folder).fingerprint()


def test_what_is_refused(store: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="another kind of repository"):
        push(store, "hf://me/some-data")
    with pytest.raises(ConfigError, match="no repository of the hub"):
        push(store, "s3://me/some-data")
    with pytest.raises(ConfigError, match="neither a store nor a decoder"):
        push(tmp_path, DATA)
    with pytest.raises(OutputError, match="being written"), locked(store / LOCK, "store"):
        push(store, DATA)
    with pytest.raises(RemoteError, match="refuses"):
        decoder_folder("hf://me/nothing")
    assert not hub.repositories
    monkeypatch.setenv("HF_TOKEN", "bad")
    with pytest.raises(RemoteError, match="the hub"):
        push(store, DATA)
    assert not hub.repositories


def test_a_hub_that_fails_is_one_error(store: Path, hub: Hub) -> None:
    push(store, DATA)
    hub.failing = 10**6
    with pytest.raises(RemoteError, match="no good answer"):
        push(store, DATA)
    hub.failing = 0
    assert len(hub.repositories["datasets/me/some-data"].commits) == 1


@pytest.mark.parametrize("url", ["hf://datasets/a/b", "hf://a/b@v1", "hf://datasets/a/b@main"])
def test_urls(url: str) -> None:
    assert str(Repository.of(url)) == url
