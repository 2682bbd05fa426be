"""A store or a decoder on its way to the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from datasetdm.backbones.hub import shared_name
from datasetdm.decoder.config import CONFIG, read_config, write_config
from datasetdm.decoder.model import WEIGHTS
from datasetdm.errors import ConfigError
from datasetdm.io.files import locked
from datasetdm.io.hub import Repository
from datasetdm.io.remote import Place
from datasetdm.recipe.cards import decoder_card, store_card
from datasetdm.store.manifest import META
from datasetdm.store.quality import QUALITY
from datasetdm.store.reviews import REVIEWS
from datasetdm.store.store import Store
from datasetdm.store.writer import LOCK


def push(place: Place, url: str, licence: str = "unknown", private: bool = False) -> str:
    """Send a store (to `hf://datasets/ORG/NAME`) or a decoder (to `hf://ORG/NAME`) with its card; returns the page's address.

    Everything arrives by one commit. What an earlier push of the store had and this one lacks is deleted; a card that people
    wrote stays. A store that is being written is refused.

    Raises:
        ConfigError: neither a store nor a decoder, or the other kind's URL.
        OutputError: the store is being written. RemoteError: the hub refuses or fails.
    """
    repository = Repository.of(url)
    if not isinstance(place, Path):
        raise ConfigError(
            "what is sent to the hub must lie on this machine", where=place, expected="a folder",
            remedy=f"`datasetdm merge {place} --out DIR` copies a store",
        )  # fmt: skip
    if (place / META).exists():
        _require(repository, "dataset", "a store", f"hf://datasets/{repository.id}")
        with locked(place / LOCK, "store"):
            return _push_store(Store(place), place, repository, licence, private)
    if (place / CONFIG).exists():
        config = read_config(place)
        _require(repository, "model", "a decoder", f"hf://{repository.id}")
        card = decoder_card(config, str(repository), licence)
        with TemporaryDirectory() as folder:  # what is sent names no folder of this machine
            write_config(Path(folder), replace(config, backbone=shared_name(config.backbone)))
            files = {CONFIG: Path(folder) / CONFIG, WEIGHTS: place / WEIGHTS}
            return repository.upload(files, card, "A decoder of datasetdm", private)
    raise ConfigError("neither a store nor a decoder", where=place, expected="a folder that generate or fit wrote")


def _push_store(store: Store, folder: Path, repository: Repository, licence: str, private: bool) -> str:
    paths = [
        folder / META,
        *(p for s in store.shards if isinstance(s.path, Path) for p in (s.path, s.path.with_suffix(".json"))),
    ]
    paths += [p for p in (folder / QUALITY, folder / REVIEWS) if p.exists()]
    files = {str(p.relative_to(folder)): p for p in paths}
    card = store_card(store, str(repository), licence)
    return repository.upload(files, card, f"A store of datasetdm, {len(store)} samples", private, below=("data",))


def _require(repository: Repository, kind: str, what: str, url: str) -> None:
    if repository.kind != kind:
        raise ConfigError(f"{what} belongs into another kind of repository", where=repository, expected=url)
