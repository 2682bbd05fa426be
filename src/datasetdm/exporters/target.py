"""Where an exporter writes: the folder, the vocabulary, the parts of the data, and how images get there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from datasetdm.io.codecs import copyable_suffix, encode_png
from datasetdm.io.files import safe_name, write_bytes
from datasetdm.records import Labels, Sample

T = TypeVar("T")

SUFFIXES = (".png", ".jpg", ".webp")
"""Of the images that are written: those that `copyable_suffix` names."""


@dataclass(frozen=True)
class Target:
    """What every exporter is given beside the samples.

    Args:
        folder: an empty folder to write into.
        labels: the samples' vocabulary.
        parts: names of the parts (splits) that are there even if they stay empty; samples may name others.
        link: images that are files become hard links (symbolic ones on another disk) instead of copies.
        licence: of the data, for formats that say so.
    """

    folder: Path
    labels: Labels
    parts: tuple[str, ...] = ()
    link: bool = False
    licence: str = "unknown"

    def write_image(self, sample: Sample, *folders: str) -> str:
        """Write a sample's image into a folder below the target's; the file's name. An encoded source is copied as it is.

        The name is the key, without the suffix of an image that it may end with. Where another image has that name
        already, whatever its suffix, the key's suffix or a hash makes it another one.
        """
        folder = self.folder.joinpath(*folders)
        suffix, data = encoded_image(sample)
        short = re.sub(r"(?<=.)\.(png|jpe?g|webp|bmp|gif|tiff?)$", "", sample.key, flags=re.IGNORECASE)
        stems = [safe_name(name) for name in (short, sample.key, sample.key + "/")]
        stem = next(n for n in stems if not any((folder / (n + s)).exists() for s in SUFFIXES))
        file = folder / (stem + suffix)
        if isinstance(data, bytes):
            write_bytes(file, data)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            _link(data, file) if self.link else shutil.copyfile(data, file)
        return file.name


class ByPart(dict[str, T]):
    """What an exporter opens once per part of the data: known parts at once, others when a sample of theirs comes.

    Args:
        open: makes what belongs to a part, from its name.
        parts: the known ones.
    """

    def __init__(self, open: Callable[[str], T], parts: tuple[str, ...]):
        super().__init__()
        self.open = open
        for part in parts:
            self[part] = open(part)

    def __missing__(self, part: str) -> T:
        self[part] = value = self.open(part)
        return value

    def at_least(self, part: str) -> None:
        """Open this part if there is none at all."""
        if not self:
            self[part] = self.open(part)


def encoded_image(sample: Sample) -> tuple[str, Path | bytes]:
    """The suffix and the file or bytes of a sample's image, as its source has it where that is possible."""
    if sample.encoded is not None and (suffix := copyable_suffix(sample.encoded)):
        return suffix, sample.encoded
    return ".png", encode_png(sample.image, 1)


def image_bytes(sample: Sample) -> tuple[str, bytes]:
    """`encoded_image` for formats that hold images inside other files."""
    suffix, data = encoded_image(sample)
    return suffix, data.read_bytes() if isinstance(data, Path) else data


def _link(source: Path, file: Path) -> None:
    source = source.resolve()
    try:
        os.link(source, file)
    except OSError:
        file.symlink_to(source)


def xml_text(text: str) -> str:
    """The text without the characters that XML 1.0 cannot hold, escaped or not."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def decimal(value: float, digits: int) -> str:
    """A number with at most so many digits after the point, never in powers of ten."""
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")
