"""Parts of a data set, for training, validation and test."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import ClassVar

from pydantic import field_validator

from datasetdm.errors import ConfigError
from datasetdm.records import Sample
from datasetdm.transforms import Transform, parse_pairs


class Split(Transform):
    """Every sample's part follows from a hash of its key, so it is the same in every export and every order.

    Args:
        parts: name of every part -> its fraction; the fractions sum to 1.

    Raises:
        ConfigError: names that are no file names, or fractions that do not sum to 1.
    """

    name: ClassVar[str] = "split"
    parts: dict[str, float]

    @field_validator("parts")
    @classmethod
    def _whole(cls, parts: dict[str, float]) -> dict[str, float]:
        for name, fraction in parts.items():
            if not re.fullmatch(r"[A-Za-z0-9_]+", name) or not 0 < fraction <= 1:
                raise ConfigError(
                    f"split {name}={fraction}", expected="names of letters, digits and _, fractions above 0 up to 1"
                )
        if not math.isclose(sum(parts.values()), 1, abs_tol=1e-6):
            raise ConfigError(f"the fractions of the split sum to {sum(parts.values()):g}", expected="1")
        return parts

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return (replace(s, split=self.part_of(s.key)) for s in samples)

    def part_of(self, key: str) -> str:
        """The name of the part of the sample with this key. A part that grows keeps its samples."""
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        for name, fraction in self.parts.items():
            place -= fraction
            if place < 0:
                return name
        return [*self.parts][-1]


def parse_splits(text: str) -> dict[str, float]:
    """`train=0.8,val=0.1,test=0.1`. Raises ConfigError for text that is no such list."""
    example = "train=0.8,val=0.2"
    pairs = parse_pairs(text, "split", example)
    if len(dict(pairs)) < len(pairs):
        raise ConfigError(f"--split {text!r} names a part twice", expected=f"every name once, for instance {example}")
    try:
        return {name: float(fraction) for name, fraction in pairs}
    except ValueError as e:
        raise ConfigError(f"--split {text!r}: a fraction is no number", expected=f"for instance {example}") from e
