"""WebDataset: tar files `train-000000.tar` of samples whose files share a name, and `labels.json`.

`NAME.png` (or `.jpg`, as the source has it); `NAME.json`: key, caption, size, objects as COCO's annotations with label ids
as categories; `NAME.semantic.png`: label ids (ignored: 255, or 65535 with more than 255 labels); `NAME.depth.png`: 16 bits,
1/256 m per step, 0 unknown. Names have no dot, since WebDataset takes all behind the first one as the kind. The same samples
give the same bytes.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from datasetdm.exporters.coco_rows import object_rows
from datasetdm.exporters.maps import IGNORED, depth_steps, small_ids
from datasetdm.exporters.objects import caption_of
from datasetdm.exporters.target import ByPart, Target, image_bytes
from datasetdm.io.codecs import encode_png
from datasetdm.io.files import safe_name, write_json
from datasetdm.records import Sample

SHARD_SAMPLES, SHARD_BYTES = 10_000, 500_000_000


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write tar files as they fill."""
    with ExitStack() as files:
        tars = ByPart(lambda part: files.enter_context(_Tars(target.folder, part)), target.parts)
        for sample in samples:
            tars[sample.split or "train"].add(_name(sample.key), _members(sample))
            yield
        tars.at_least("train")
    write_json(target.folder / "labels.json", target.labels.to_json())


def _name(key: str) -> str:
    """A file name without dots; keys that differ give names that differ."""
    return safe_name(key) if "." not in key else safe_name(key + "/").replace(".", "_")


def _members(sample: Sample) -> dict[str, bytes]:
    """Kind -> content."""
    suffix, image = image_bytes(sample)
    ids = {i: i for i in range(len(sample.labels))}
    h, w = sample.size
    about = {"key": sample.key, "caption": caption_of(sample), "width": w, "height": h}
    about["objects"] = list(object_rows(sample, ids))
    members = {suffix[1:]: image, "json": json.dumps(about, ensure_ascii=False).encode()}
    semantic, steps = sample.semantic, depth_steps(sample)
    if semantic is not None:
        values = small_ids(semantic) if len(sample.labels) <= IGNORED else semantic.ids
        members["semantic.png"] = encode_png(values, 1)
    if steps is not None:
        members["depth.png"] = encode_png(steps, 1)
    return members


class _Tars:
    """The tar files of a split. Tar's own head (512 bytes) is made here, so that no list of members grows in memory."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self._count = self._samples = self._bytes = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Tars:
        self._open()
        return self

    def add(self, name: str, members: dict[str, bytes]) -> None:
        if self._samples == SHARD_SAMPLES or self._bytes >= SHARD_BYTES:
            self.__exit__()
            self._open()
        self._samples += 1
        for kind, data in members.items():
            info = tarfile.TarInfo(f"{name}.{kind}")
            info.size, info.mode = len(data), 0o644
            self._bytes += len(data)
            for part in (info.tobuf(tarfile.GNU_FORMAT), data, bytes(-len(data) % tarfile.BLOCKSIZE)):
                self._write(part)

    def __exit__(self, *_: object) -> None:
        if self._file:
            try:
                self._write(bytes(2 * tarfile.BLOCKSIZE))
            finally:
                self._file.close()
                self._file = None

    def _open(self) -> None:
        path = self.folder / f"{self.name}-{self._count:06d}.tar"
        self._count += 1
        self._samples = self._bytes = 0
        self._file = path.open("wb")

    def _write(self, data: bytes) -> None:
        if self._file:
            self._file.write(data)
