"""Cards of stores and decoders on the hub: what is in them, what made them, under which licence, how good they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from datasetdm.backbones.hub import shared_name
from datasetdm.decoder.config import DecoderConfig
from datasetdm.exporters.card import SIZES, TASKS
from datasetdm.store.quality import QUALITY
from datasetdm.store.reviews import read_reviews
from datasetdm.store.store import Store


def store_card(store: Store, url: str, licence: str) -> str:
    """The card of a store."""
    total, rejected = len(store), 0
    images: Counter[str] = Counter()
    objects: Counter[str] = Counter()
    for row in _rows(store):
        rejected += bool(row["quality_reasons"])
        images.update(row["found"])
        objects.update(row["objects"])
    kinds = [c for c in TASKS if c in store.filled()]
    reviews = read_reviews(store.folder).values()
    head = {
        "license": licence,
        "task_categories": sorted({TASKS[k] for k in kinds}),
        "tags": ["synthetic", "datasetdm"],
        "size_categories": [next((s for n, s in SIZES if total < n), "n>10M")],
        "configs": [{"config_name": "default", "data_files": "data/*.parquet"}],
    }
    labels = _table(("label", "images", "objects"), ((n, images[n], objects[n]) for n in store.labels.names))
    return _page(
        head, "Annotated images",
        f"{total} images with annotations ({', '.join(kinds) or 'none'}), a store of datasetdm.",
        f"{rejected} were rejected by filters (`{QUALITY}`), {sum(r.verdict == 'reject' for r in reviews)} by people.",
        f"```sh\ndatasetdm view {url}\ndatasetdm export --data {url} --format coco --out my-coco\n```",
        "## Labels", labels, "## Provenance", _facts({**_flat(store.made), **_flat(store.stream)}),
    )  # fmt: skip


def decoder_card(config: DecoderConfig, url: str, licence: str) -> str:
    """The card of a decoder."""
    story: dict[str, Any] = {**(config.fitted or {})}
    figures: Mapping[str, Any] = story.get("held_out_figures", {})
    made: Mapping[str, Any] = story.get("made", {})
    head = {"license": licence, "library_name": "datasetdm", "tags": ["datasetdm", *config.tasks]}
    if "/" in config.backbone and not config.backbone.startswith("/"):
        head["base_model"] = config.backbone
    facts = {
        "backbone": shared_name(config.backbone), "backbone's weights": config.identity, "tasks": ", ".join(config.tasks),
        "labels": ", ".join(config.labels.names), **_flat(made), "data": story.get("data", "not recorded"),
        "images": story.get("images", "not recorded"),
        "held-out images": story.get("held_out_images", "not recorded"),
    }  # fmt: skip
    measured = (
        _table(("figure", "held-out images"), figures.items()) if figures else "Not measured: no image was held out."
    )
    return _page(
        head, "P-Decoder",
        "It reads annotations from the features of a frozen diffusion model. It belongs to that model's weights and to no others.",
        f"```sh\ndatasetdm generate --decoder {url} --prompts prompts.txt --count 100 --out my-data\n```",
        "## Provenance", _facts(facts), "## Figures", measured,
    )  # fmt: skip


def _rows(store: Store) -> Iterable[Mapping[str, Any]]:
    """Some columns of all rows, shard by shard."""
    for shard in store.shards:
        stop = shard.start + shard.rows
        yield from store.table(["key", "found", "objects", "quality_reasons"], shard.start, stop).to_pylist()


def _page(head: Mapping[str, Any], title: str, *parts: str) -> str:
    front = yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True)
    return "\n\n".join([f"---\n{front}---", f"# {title}", *parts]) + "\n"


def _flat(value: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Nested facts by their dotted names."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        own = f"{name}.{key}" if name else key
        found |= _flat(inner, own) if isinstance(inner, Mapping) else {own: inner}
    return found


def _facts(facts: Mapping[str, Any]) -> str:
    return _table(("what", "value"), facts.items())


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")[:300]
