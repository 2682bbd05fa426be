"""Where an exporter writes: the folder, the vocabulary, the parts (splits), and how pictures get there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasetdm.io.codecs import copyable_suffix, encode_png
from datasetdm.io.files import claim_name, write_bytes, writing
from datasetdm.records import Labels, Sample


@dataclass(frozen=True)
class Target:
    """What every exporter is given beside the samples.

    splits: (name, share) of every part, shares summing to 1; empty: nothing is split.
    link: pictures that are files become hard links (symbolic ones on another disk) instead of copies.
    licence: of the data, for formats that say so.
    """

    folder: Path
    labels: Labels
    splits: tuple[tuple[str, float], ...] = ()
    link: bool = False
    licence: str = "unknown"

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the splits, or one empty name."""
        return tuple(name for name, _ in self.splits) or ("",)

    def part(self, sample: Sample) -> str:
        """The split of a sample: by a hash of its key, so that it is the same in every export and every order."""
        place = int.from_bytes(hashlib.sha256(sample.key.encode()).digest()[:8], "big") / 2**64
        for name, share in self.splits:
            place -= share
            if place < 0:
                return name
        return self.parts[-1]

    def picture(self, sample: Sample, *folders: str, name: Callable[[str], str] = str) -> str:
        """Write a sample's picture into a folder below the target's; the file's name.

        An encoded source is copied as it is. name: makes the file's name of the safe one.
        """
        folder = self.folder.joinpath(*folders)
        suffix, data = encoded_picture(sample)
        file = folder / name(claim_name(folder, sample.key, suffix))
        if isinstance(data, bytes):
            write_bytes(file, data)
        else:
            with writing(file):
                folder.mkdir(parents=True, exist_ok=True)
                _link(data, file) if self.link else shutil.copyfile(data, file)
        return file.name


def encoded_picture(sample: Sample) -> tuple[str, Path | bytes]:
    """The suffix and the file or bytes of a sample's picture, as its source has it where that is possible."""
    if sample.encoded is not None and (suffix := copyable_suffix(sample.encoded)):
        return suffix, sample.encoded
    return ".png", encode_png(sample.image, 1)


def picture_bytes(sample: Sample) -> tuple[str, bytes]:
    """`encoded_picture` for formats that hold pictures inside other files."""
    suffix, data = encoded_picture(sample)
    if isinstance(data, Path):
        with writing(data):
            return suffix, data.read_bytes()
    return suffix, data


def _link(source: Path, file: Path) -> None:
    source = source.resolve()
    try:
        os.link(source, file)
    except OSError:
        file.symlink_to(source)


def xml_text(text: str) -> str:
    """The text without the characters that XML 1.0 cannot hold, escaped or not."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
