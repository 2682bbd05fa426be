"""Packs rendered tars into Parquet: python -m miniworld.pack SOURCE OUT SPLIT.

SOURCE holds tars of `miniworld.render`, or folders with the same files in them. Each becomes one file
OUT/SPLIT-FIRST.parquet, whose metadata name the version of the world; finished ones are skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .recipe import SPLITS

ROW_GROUP_SIZE = 100
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("place", pa.string()),
        ("light", pa.string()),
        ("objects", pa.string()),
        ("keypoints", pa.string()),
        ("fov", pa.float32()),
        ("image", pa.binary()),
        ("classes", pa.binary()),
        ("instances", pa.binary()),
        ("depth", pa.binary()),
    ]
)

Files = dict[str, bytes]
"""A sample's files by what follows the key in their names."""


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m miniworld.pack", description="Pack rendered tars into Parquet.")
    parser.add_argument("source", type=Path, help="folder with tars, or with folders of their files")
    parser.add_argument("out", type=Path, help="folder for the Parquet files")
    parser.add_argument("split", choices=SPLITS)
    options = parser.parse_args(arguments)
    try:
        pack(options.source, options.out, options.split)
    except (ValueError, OSError, tarfile.TarError) as error:
        sys.exit(f"error: {error}")


def pack(source: Path, out: Path, split: str) -> None:
    """Packs every tar and folder SPLIT-* in `source`."""
    found = [path for path in source.glob(f"{split}-*") if path.is_dir() or path.suffix == ".tar"]
    if not found:
        raise ValueError(f"{source} holds no {split}-*.tar and no folder {split}-*")
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(found):
        target = out / f"{path.name.removesuffix('.tar')}.parquet"
        if not target.exists():
            _write(target, _read_folder(path) if path.is_dir() else _read_tar(path), path)


def _write(target: Path, samples: dict[str, Files], origin: Path) -> None:
    infos = {key: json.loads(files["json"]) for key, files in samples.items() if "json" in files}
    missing = sorted(samples.keys() - infos.keys())
    if missing or not infos:
        raise ValueError(f"{origin}: {f'{missing[0]} has no .json' if missing else 'no samples'}")
    versions = {info["world_version"] for info in infos.values()}
    if len(versions) > 1:
        raise ValueError(f"{origin} mixes versions of the world: {sorted(versions)}")
    schema = SCHEMA.with_metadata({"world_version": str(versions.pop())})
    rows = [_row(key, samples[key], infos[key]) for key in sorted(samples)]
    part = target.with_suffix(".parquet.part")
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, part, compression="zstd", row_group_size=ROW_GROUP_SIZE)
    part.rename(target)


def _row(key: str, files: Files, info: dict) -> dict:
    return {
        "key": key,
        "caption": info["caption"],
        "place": info["place"],
        "light": info["light"],
        "objects": json.dumps(info["objects"]),
        "keypoints": json.dumps(info["keypoints"]),
        "fov": float(info["fov"]),
        "image": files.get("webp") or files["jpg"],
        "classes": files["classes.png"],
        "instances": files["instances.png"],
        "depth": files.get("depth.png"),
    }


def _read_tar(path: Path) -> dict[str, Files]:
    with tarfile.open(path) as tar:
        files = ((entry.name, tar.extractfile(entry)) for entry in tar)  # None: no regular file
        return _by_key((name, file.read()) for name, file in files if file)


def _read_folder(path: Path) -> dict[str, Files]:
    return _by_key((file.name, file.read_bytes()) for file in path.iterdir() if file.is_file())


def _by_key(named: Iterator[tuple[str, bytes]]) -> dict[str, Files]:
    samples: dict[str, Files] = {}
    for name, data in named:
        key, kind = name.split(".", 1)
        samples.setdefault(key, {})[kind] = data
    return samples


if __name__ == "__main__":
    main()
