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
from datasetdm.io.settings import Fractions
from datasetdm.records import Sample
from datasetdm.transforms import Transform


class Split(Transform):
    """Every sample's part follows from a hash of its key, so it is the same in every export and every order.

    The order of the parts means nothing: they are taken by name. A part that alone grows keeps its samples.

    Args:
        parts: name of every part -> its fraction; the fractions sum to 1.

    Raises:
        ConfigError: names that are no file names, or fractions that do not sum to 1.
    """

    name: ClassVar[str] = "split"
    parts: Fractions

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
        return dict(sorted(parts.items()))

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return (replace(s, split=self.part_of(s.key)) for s in samples)

    def part_of(self, key: str) -> str:
        """The name of the part of the sample with this key."""
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        for name, fraction in self.parts.items():
            place -= fraction
            if place < 0:
                return name
        return [*self.parts][-1]
