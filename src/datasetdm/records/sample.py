"""One image and what is known about it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import UInt8

from datasetdm.records.checks import checked_array, require, require_json, require_text
from datasetdm.records.labels import IGNORE, Labels
from datasetdm.records.maps import DepthMap, SemanticMap
from datasetdm.records.objects import Instances, Keypoints, MaskStack, spans

Origin = Literal["user", "grammar", "language-model", "caption", "labels", "unknown"]
"""Who wrote a prompt: a user, a grammar, a language model; the data's own caption; composed from the image's true labels
(so it says what evaluation should find out); or nobody knows (stores of format 2)."""

PROMPTED = ("user", "grammar", "language-model")
"""Origins of the prompts that images were generated from."""


@dataclass(frozen=True)
class Prompt:
    """A text that an image was made from, or that describes it.

    Args:
        text: what the text encoder reads.
        labels: the labels that it asks for.
        seed: of the image's noise, in 0..2**64 - 1.
        origin: who wrote it.
    """

    text: str
    labels: tuple[str, ...] = ()
    seed: int = 0
    origin: Origin = "user"

    @property
    def composed(self) -> bool:
        """Whether it was composed from the true labels of its image, which so has no caption of its own."""
        return self.origin == "labels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        require_text((self.text, *self.labels), "Prompt.text")
        known = get_args(Origin)
        require(self.origin in known, f"unknown origin {self.origin!r}", " | ".join(known), "Prompt.origin")
        fits = isinstance(self.seed, int | np.integer) and 0 <= self.seed < 2**64
        require(fits, f"the seed {self.seed!r} does not fit", "a whole number in 0..2**64 - 1", "Prompt.seed")


@dataclass(frozen=True)
class Provenance:
    """Where a sample comes from.

    Args:
        file: the source file, as the data name it, without the folders above the data.
        index: number of the sample in its stream.
        backbone, decoder: the first digits of their hashes, for generated or annotated samples.
        details: what else the source says, JSON-ready.
    """

    file: str | None = None
    index: int | None = None
    backbone: str | None = None
    decoder: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_text((v for v in (self.file, self.backbone, self.decoder) if v is not None), "Provenance")
        require_text(_texts(dict(self.details)), "Provenance.details")
        require_json(self.to_json(), "Provenance.details")

    def to_json(self) -> dict[str, Any]:
        """One flat mapping without what is unknown."""
        own = {name: getattr(self, name) for name in ("file", "index", "backbone", "decoder")}
        return {**self.details, **{k: v for k, v in own.items() if v is not None}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Provenance:
        """What `to_json` gave."""
        rest = dict(value)
        own = {name: rest.pop(name, None) for name in ("file", "index", "backbone", "decoder")}
        return cls(**own, details=rest)


@dataclass(frozen=True)
class Quality:
    """What filters found out about a sample. A filter never deletes: a sample with a reason is skipped by those who use it.

    Args:
        scores: by name of the filter.
        reasons: why the sample is rejected; none if it is accepted.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = all(isinstance(v, int | float | np.number) and math.isfinite(v) for v in self.scores.values())
        require(numbers, f"scores {dict(self.scores)!r}", "finite numbers", "Quality.scores")
        object.__setattr__(self, "scores", {str(k): float(v) for k, v in self.scores.items()})
        object.__setattr__(self, "reasons", tuple(self.reasons))
        require(all(isinstance(r, str) for r in self.reasons), f"reasons {self.reasons!r}", "texts", "Quality.reasons")
        require_text((*self.scores, *self.reasons), "Quality")


AnnotationName = Literal["semantic", "instances", "depth", "keypoints"]
"""A field of `Sample` that holds an annotation."""

ANNOTATIONS: tuple[AnnotationName, ...] = get_args(AnnotationName)


@dataclass(frozen=True)
class Annotations:
    """The annotations of one image, as a reader or a decoder finds them; None is not known. See `Sample` for the fields."""

    semantic: SemanticMap | None = None
    instances: Instances | None = None
    depth: DepthMap | None = None
    keypoints: Keypoints | None = None

    def fields(self) -> dict[str, Any]:
        """By name, as keywords of `Sample`."""
        return {name: getattr(self, name) for name in ANNOTATIONS}

    def labels_in(self) -> set[int]:
        """The ids of labels that have a pixel or an object that is no crowd."""
        ids: set[int] = set()
        if self.semantic is not None:
            flat = self.semantic.ids.reshape(-1)
            ids |= set(np.unique(flat[spans(flat)[0]]).tolist()) - {IGNORE}
        if self.instances is not None:
            ids |= set(self.instances.label_ids[~self.instances.crowd].tolist())
        return ids


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it. An annotation that is None is not known; that is not the same as empty.

    One rule keeps objects and points aligned: row `i` of `keypoints` belongs to object `i` of `instances`, so keypoints come
    with instances, and `records.edits` changes both together.

    Args:
        key: its name in its data set.
        image: RGB, 8 bits.
        labels: the vocabulary that all ids refer to.
        prompt: what it was made from, or describes it.
        quality: what filters found out.
        split: the part of the data set that it belongs to, for instance "train"; empty if it is not split.
        encoded: the image as its source holds it, a file or its bytes with exactly these pixels, where there is one: exporters
            copy it instead of encoding it again. Whoever changes `image` leaves it out.

    Raises:
        DataError: annotations of another size than the image, ids outside the vocabulary, keypoints without their objects.
    """

    key: str
    image: UInt8[np.ndarray, "h w 3"]
    labels: Labels
    prompt: Prompt | None = None
    _: KW_ONLY
    semantic: SemanticMap | None = None
    instances: Instances | None = None
    depth: DepthMap | None = None
    keypoints: Keypoints | None = None
    provenance: Provenance = field(default_factory=Provenance)
    quality: Quality = field(default_factory=Quality)
    split: str = ""
    encoded: Path | bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_text((self.key,), "Sample.key")
        object.__setattr__(
            self, "image", checked_array(self.image, np.uint8, (None, None, 3), f"image of {self.key!r}")
        )
        for name, record in (("semantic", self.semantic), ("instances", self.instances), ("depth", self.depth)):
            if record is not None and record.size != self.size:
                h, w = record.size
                require(False, f"{name} is {h}x{w} pixels", f"the image's {self.size}", self._where(name))
        if self.semantic is not None:
            ids = self.semantic.ids
            known = bool(((ids < len(self.labels)) | (ids == IGNORE)).all())
            require(known, "a label id is unknown", f"0..{len(self.labels) - 1} or {IGNORE}", self._where("semantic"))
        if self.instances is not None:
            ids = self.instances.label_ids
            known = bool(((ids >= 0) & (ids < len(self.labels))).all())
            require(known, "a label id is unknown", f"0..{len(self.labels) - 1}", self._where("instances"))
        if self.keypoints is not None:
            self._check_keypoints(self.keypoints)

    def _where(self, name: str) -> str:
        return f"{name} of sample {self.key!r}"

    def _check_keypoints(self, record: Keypoints) -> None:
        where = self._where("keypoints")
        h, w = self.size
        outside = ((record.xy < 0) | (record.xy > (w, h))).any(-1) & (record.visibility > 0)
        lost = [f"({x:g}, {y:g})" for x, y in record.xy[outside].tolist()]
        require(not lost, f"keypoints outside the image: {', '.join(lost[:3])}", f"0..{w}, 0..{h}", where)
        n, objects = len(record), self.instances
        if objects is None:
            require(False, "keypoints without objects", "instances, one per row of keypoints", where)
            return
        require(n == len(objects), f"{n} rows of keypoints", f"{len(objects)}, one per instance", where)
        for i, (points, label) in enumerate(zip(record.names, objects.label_ids.tolist(), strict=True)):
            skeleton = self.labels.skeleton_of(label)
            odd = sorted(set(points) - set(skeleton.points)) if skeleton else []
            if skeleton and odd:
                what = f"object {i} has points that are not of its skeleton: {', '.join(odd)}"
                require(False, what, ", ".join(skeleton.points), where)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def caption(self) -> str:
        """The text under which the image is read: its prompt's, or an empty one."""
        return self.prompt.text if self.prompt else ""

    @property
    def accepted(self) -> bool:
        """Whether no filter gave a reason against it."""
        return not self.quality.reasons

    @property
    def annotations(self) -> Annotations:
        """Its annotations alone."""
        return Annotations(self.semantic, self.instances, self.depth, self.keypoints)

    @property
    def annotated(self) -> bool:
        """Whether it has any annotation."""
        return any(getattr(self, name) is not None for name in ANNOTATIONS)

    def digest(self) -> str:
        """SHA-256 of image and annotations: equal exactly when every pixel and label is."""
        h = hashlib.sha256(self.image.tobytes())
        for name in ANNOTATIONS:
            record = getattr(self, name)
            if record is None:
                continue
            h.update(name.encode())
            for part in sorted(f.name for f in fields(record)):
                h.update(part.encode() + _bytes(getattr(record, part)))
        return h.hexdigest()


def _bytes(value: object) -> bytes:
    if isinstance(value, MaskStack):
        return repr(value.size).encode() + b"".join(r.tobytes() for r in value.runs)
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()


def _texts(value: Any) -> Iterator[str]:
    """Every string of a JSON-ready value."""
    match value:
        case str():
            yield value
        case Mapping():
            for k, v in value.items():
                yield from _texts(str(k))
                yield from _texts(v)
        case list() | tuple():
            for v in value:
                yield from _texts(v)
