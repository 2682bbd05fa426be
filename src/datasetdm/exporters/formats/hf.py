"""A dataset for Hugging Face `datasets`: `data/train-00000-of-00002.parquet` with the pictures inside, a card `README.md`, and
`classes.json` with the value of every label in `semantic`.

Columns: `key`, `image`, `caption`; `semantic`, a PNG of label ids (ignored: 255, or 65535 with more than 255 labels);
`depth`, a PNG of 16 bits, 1/256 m a step, 0 unknown; `objects`, lists of `bbox` (x, y, width, height), `category`, `score`,
`area`, `segmentation` (COCO's compressed run lengths) and `keypoints` (x, y, visibility of every point of the label).
Categories are label ids; objects known as boxes only have an empty segmentation. Without splits all is `train`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasetdm.errors import ConfigError, OutputError
from datasetdm.exporters.card import Card
from datasetdm.exporters.formats.depth import depth_steps
from datasetdm.exporters.formats.masks import IGNORED, small_ids, write_legend
from datasetdm.exporters.objects import object_rows
from datasetdm.exporters.target import Target, picture_bytes
from datasetdm.io.codecs import encode_png
from datasetdm.io.files import write_text, writing
from datasetdm.records import Labels, Sample

SHARD_BYTES, GROUP_ROWS = 300_000_000, 64
"""Pictures' bytes in a file, and rows that are held in memory."""

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_OBJECTS: dict[str, pa.DataType] = {
    "bbox": pa.list_(pa.list_(pa.float32())),
    "category": pa.list_(pa.int64()),
    "score": pa.list_(pa.float32()),
    "area": pa.list_(pa.float32()),
    "segmentation": pa.list_(pa.string()),
    "keypoints": pa.list_(pa.list_(pa.float32())),
}


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write shards as they fill, then the card."""
    write_legend(target)
    small, card = len(target.labels) <= IGNORED, Card(target.labels)
    with ExitStack() as files:
        parts = [
            files.enter_context(_Shards(target.folder / "data", p or "train", target.labels)) for p in target.parts
        ]
        by_name = dict(zip(target.parts, parts, strict=True))
        for sample in samples:
            row, objects = _row(sample, small)
            by_name[target.part(sample)].add(row)
            card.count(sample, objects)
            yield
    counts = {p.name: p.rows for p in parts}
    write_text(target.folder / "README.md", card.text(counts, target.licence))


def _row(sample: Sample, small: bool) -> tuple[dict[str, Any], list[int]]:
    """A row, and the label ids of its objects."""
    suffix, picture = picture_bytes(sample)
    semantic, steps = sample.semantic, depth_steps(sample)
    rows = list(object_rows(sample, {i: i for i in range(len(sample.labels))}))
    ids = None if semantic is None else small_ids(semantic) if small else semantic.ids
    objects = {
        "bbox": [r["bbox"] for r in rows],
        "category": [r["category_id"] for r in rows],
        "score": [r["score"] for r in rows],
        "area": [r["area"] for r in rows],
        "segmentation": [r["segmentation"]["counts"] if r["segmentation"] else "" for r in rows],
        "keypoints": [r.get("keypoints", []) for r in rows],
    }
    return {
        "key": sample.key,
        "image": {"bytes": picture, "path": f"image{suffix}"},
        "caption": sample.prompt.text if sample.prompt else None,
        "semantic": None if ids is None else {"bytes": encode_png(ids, 1), "path": None},
        "depth": None if steps is None else {"bytes": encode_png(steps, 1), "path": None},
        "objects": objects,
    }, objects["category"]


def _schema(labels: Labels) -> pa.Schema:
    """Columns with the metadata from which `datasets` takes its features."""
    columns = {"key": pa.string(), "image": _PICTURE, "caption": pa.string(), "semantic": _PICTURE, "depth": _PICTURE}
    number, text = {"dtype": "float32", "_type": "Value"}, {"dtype": "string", "_type": "Value"}
    lists = {
        "bbox": _list(_list(number)),
        "category": _list({"names": list(labels.names), "_type": "ClassLabel"}),
        "score": _list(number),
        "area": _list(number),
        "segmentation": _list(text),
        "keypoints": _list(_list(number)),
    }
    features: dict[str, Any] = {n: {"_type": "Image"} if t == _PICTURE else text for n, t in columns.items()}
    info = json.dumps({"info": {"features": features | {"objects": lists}}})
    fields = [*columns.items(), ("objects", pa.struct(list(_OBJECTS.items())))]
    return pa.schema(fields, metadata={"huggingface": info})


def _list(feature: dict[str, Any]) -> dict[str, Any]:
    return {"feature": feature, "_type": "List"}


@dataclass
class _Shards:
    """The Parquet files of a split; their number is in their names, which they get at the end."""

    folder: Path
    name: str
    labels: Labels
    rows: int = 0
    _held: list[dict[str, Any]] = field(default_factory=list)
    _files: list[Path] = field(default_factory=list)
    _bytes: int = 0
    _writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _Shards:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open()
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self._held.append(row)
        self.rows += 1
        self._bytes += sum(len(row[k]["bytes"]) for k in ("image", "semantic", "depth") if row[k])
        if len(self._held) == GROUP_ROWS:
            self._flush()
            if self._bytes >= SHARD_BYTES:
                self._close()
                self._open()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._close()
        if kind is None and not self.rows:
            self._files.pop().unlink()  # `datasets` refuses a split without rows
        if kind is None:
            for n, path in enumerate(self._files):
                path.rename(self.folder / f"{self.name}-{n:05d}-of-{len(self._files):05d}.parquet")

    def _open(self) -> None:
        self._files.append(self.folder / f"{self.name}-{len(self._files):05d}.tmp")
        self._bytes = 0
        with writing(self._files[-1]):
            self._writer = pq.ParquetWriter(self._files[-1], _schema(self.labels), compression="zstd")

    def _flush(self) -> None:
        if self._held and self._writer:
            with writing(self._files[-1]):
                self._writer.write_table(pa.Table.from_pylist(self._held, schema=self._writer.schema))
            self._held = []

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None


def push_to_hub(folder: Path | str, repository: str, private: bool = True) -> str:
    """Upload a folder that `export` wrote as the dataset OWNER/NAME; its address.

    Raises:
        ConfigError: no OWNER/NAME. OutputError: no network, no account, no right to write there.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if repository.count("/") != 1:
        raise ConfigError(f"dataset {repository!r}", expected="OWNER/NAME, as on the hub")
    if not (Path(folder) / "README.md").is_file():
        raise ConfigError("there is no dataset to upload", where=folder, expected="a folder of `export --format hf`")
    if constants.HF_HUB_OFFLINE:
        raise OutputError("the hub is switched off", where="HF_HUB_OFFLINE", expected="a network", remedy="unset it")
    try:
        api = HfApi()
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder)
    except HFValidationError as e:
        raise ConfigError(f"dataset {repository!r}: {e}", expected="OWNER/NAME, as on the hub") from e
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, RuntimeError) as e:
        raise OutputError(
            f"the upload failed: {(str(e) or repr(e)).splitlines()[0]}", where=repository,
            expected="a network, and an account that may write there", remedy="run `hf auth login`, then upload again",
        ) from e  # fmt: skip
    return f"https://huggingface.co/datasets/{repository}"
