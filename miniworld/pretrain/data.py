"""Images and captions: from Parquet files of `miniworld.pack`, or from one small packed file.

Only the split `captioned` is read: labelled splits are for those who judge the model.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasetdm.decoder.tensor_files import load_numbers, load_tensors, save_tensors
from PIL import Image
from torch import Tensor

from . import PretrainError
from .config import IMAGE_SIDE

UNLABELLED_SPLIT = "captioned"  # as in ..recipe, which would bring the renderer's libraries in
PACKED = ".safetensors"


@dataclass
class Captioned:
    """Images as files (WebP or JPEG) with their captions. versions: of the world they show."""

    files: list[bytes]
    captions: list[str]
    versions: set[str]

    def __len__(self) -> int:
        return len(self.files)

    def __str__(self) -> str:
        versions = " and ".join(sorted(self.versions))
        return f"{len(self)} captioned renders of world version {versions}, with mirrors"

    @property
    def identity(self) -> str:
        """A name that other images or captions do not have."""
        digest = hashlib.sha256(json.dumps(self.captions).encode())
        for file in self.files:
            digest.update(hashlib.sha256(file).digest())
        return digest.hexdigest()[:16]

    def images(self) -> Tensor:
        """-> u8[n 3 128 128]: 49 KB each, so that 14,400 take 0.7 GB."""
        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(_decode, self.files))
        return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def _decode(file: bytes) -> np.ndarray:
    image = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    if image.shape != (IMAGE_SIDE, IMAGE_SIDE, 3):
        raise PretrainError(f"an image measures {image.shape[1]} x {image.shape[0]}, not {IMAGE_SIDE} x {IMAGE_SIDE}")
    return image


def read(paths: Sequence[Path], part: str = "0/1") -> Captioned:
    """All images of folders (their captioned-*.parquet), Parquet files and packed files.

    part: `i/n` takes every n-th file from the i-th on.
    """
    index, count = _part(part)
    data = Captioned([], [], set())
    for path in _files(paths)[index::count]:
        one = _read_packed(path) if path.suffix == PACKED else _read_parquet(path)
        data.files += one.files
        data.captions += one.captions
        data.versions |= one.versions
    if not data.files:
        raise PretrainError(f"no images in {', '.join(map(str, paths))}")
    return data


def pack(data: Captioned, out: Path) -> None:
    """Writes one file with nothing but images and captions: easy to carry to another machine."""
    offsets = np.cumsum([0] + [len(file) for file in data.files])
    tensors = {
        "bytes": torch.frombuffer(bytearray(b"".join(data.files)), dtype=torch.uint8),
        "offsets": torch.from_numpy(offsets.astype(np.int64)),
        "captions": torch.frombuffer(bytearray(json.dumps(data.captions).encode()), dtype=torch.uint8),
    }
    save_tensors(out, tensors, {"versions": sorted(data.versions)})


def mirrored(caption: str) -> str:
    """The caption of the mirrored image."""
    sides = ("to the left of", "to the right of")
    return caption.replace(sides[0], "\0").replace(sides[1], sides[0]).replace("\0", sides[1])


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise PretrainError(f"--part {text}: expected i/n with i < n, for instance 0/2")
    return int(index), int(count)


def _files(paths: Sequence[Path]) -> list[Path]:
    found = []
    for path in paths:
        inside = sorted(path.glob(f"{UNLABELLED_SPLIT}-*.parquet")) if path.is_dir() else [path]
        if not inside or not path.exists():
            raise PretrainError(f"no data: {path} is no folder with {UNLABELLED_SPLIT}-*.parquet and no such file")
        found += inside
    return found


def _read_parquet(path: Path) -> Captioned:
    try:
        table = pq.read_table(path, columns=["key", "image", "caption"])
    except (pa.ArrowException, OSError) as error:
        raise PretrainError(f"{path} is no Parquet file of miniworld.pack: {error}") from error
    columns = table.to_pydict()
    other = {key.split("-")[0] for key in columns["key"]} - {UNLABELLED_SPLIT}
    if other:
        raise PretrainError(f"{path} holds the split {other.pop()}: the model may learn from {UNLABELLED_SPLIT} only")
    version = (table.schema.metadata or {}).get(b"world_version", b"1").decode()
    return Captioned(columns["image"], columns["caption"], {version})


def _read_packed(path: Path) -> Captioned:
    tensors = load_tensors(path)
    if tensors.keys() != {"bytes", "offsets", "captions"}:
        raise PretrainError(f"{path} is no file of `pack`")
    everything, offsets = tensors["bytes"].numpy().tobytes(), tensors["offsets"].tolist()
    files = [everything[a:b] for a, b in pairwise(offsets)]
    captions = json.loads(tensors["captions"].numpy().tobytes())
    return Captioned(files, captions, set(load_numbers(path)["versions"]))
