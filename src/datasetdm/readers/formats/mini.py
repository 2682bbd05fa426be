"""The mini world's labelled renders: Parquet rows with image, class ids, object ids, depth and keypoints.

`mini:train` and `mini:test` are the 100 + 100 that come with the package; `mini:DIR/SPLIT` reads a split's files
`DIR/SPLIT-*.parquet`, for instance `mini:data/miniworld/test`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, Json, ValidationError

from datasetdm.errors import DataError
from datasetdm.io.codecs import read_image
from datasetdm.io.files import require_regular
from datasetdm.readers.maps import read_map
from datasetdm.readers.regions import value_runs
from datasetdm.readers.source import Source
from datasetdm.readers.tables import Rows
from datasetdm.records import (
    IGNORE,
    Annotations,
    DepthMap,
    Instances,
    Keypoints,
    Labels,
    MaskStack,
    Prompt,
    Provenance,
    Sample,
    SemanticMap,
    Skeleton,
)

LAYOUT = """\
mini:train, mini:test            the 100 + 100 labelled renders of the package

DIR/
  SPLIT-000000.parquet, ...      mini:DIR/SPLIT
"""

PACKAGED = Path(__file__).parent.parent.parent / "assets" / "labelled"

CLASSES = {
    1: "airplane", 2: "bicycle", 3: "bird", 4: "boat", 5: "bottle", 6: "bus", 7: "car", 8: "cat", 9: "chair", 10: "cow",
    11: "table", 12: "dog", 13: "horse", 15: "person", 16: "potted plant", 17: "sheep", 18: "sofa", 20: "television",
    21: "sky", 22: "grass", 23: "sand", 24: "road", 25: "snow", 26: "water", 27: "floor", 28: "wall", 29: "building",
    30: "tree", 31: "hill", 32: "other",
}  # fmt: skip
"""Class id in the files -> label. Ids up to 20 are Pascal VOC's."""

SYNONYMS = {
    "car": ("suv", "van", "sedan", "hatchback", "pickup", "taxi", "truck"),
    "boat": ("sailboat", "motorboat", "fishing boat"),
    "person": ("people",),
    "grass": ("meadow", "park"),
    "sand": ("beach", "desert", "dry ground"),
    "road": ("street", "runway", "airport"),
    "water": ("sea", "lake"),
    "snow": ("snowy",),
}

_WHEELS = Skeleton(("l_wheel_f", "l_wheel_b", "r_wheel_f", "r_wheel_b"), ((0, 1), (2, 3), (0, 2), (1, 3)))
_ANIMAL = Skeleton(
    ("l_ear", "r_ear", "lf_knee", "lf_paw", "lh_knee", "lh_paw", "rf_knee", "rf_paw", "rh_knee", "rh_paw", "nose",
     "throat", "withers", "tail_base"),
    ((0, 10), (1, 10), (10, 11), (11, 12), (12, 13), (12, 2), (2, 3), (12, 6), (6, 7), (13, 4), (4, 5), (13, 8), (8, 9)),
)  # fmt: skip
_PERSON = Skeleton(
    ("l_shoulder", "l_elbow", "l_wrist", "l_hip", "l_knee", "l_ankle", "r_shoulder", "r_elbow", "r_wrist", "r_hip",
     "r_knee", "r_ankle", "head", "neck"),
    ((12, 13), (13, 0), (0, 1), (1, 2), (13, 6), (6, 7), (7, 8), (0, 3), (6, 9), (3, 9), (3, 4), (4, 5), (9, 10), (10, 11)),
)  # fmt: skip
_BIRD = Skeleton(
    ("beak", "crown", "throat", "back", "tail", "l_foot", "l_wing", "r_foot", "r_wing"),
    ((0, 1), (0, 2), (1, 3), (3, 4), (3, 6), (3, 8), (2, 5), (2, 7)),
)
SKELETONS = {
    "airplane": Skeleton(("nose", "tail", "l_wingtip", "r_wingtip"), ((0, 1), (2, 3))),
    "bicycle": Skeleton(("f_wheel", "b_wheel", "seat", "handlebar"), ((0, 1), (1, 2), (2, 3), (3, 0))),
    "bird": _BIRD,
    "boat": Skeleton(("bow", "stern", "mast"), ((0, 1),)),
    "bottle": Skeleton(("base", "shoulder", "top"), ((0, 1), (1, 2))),
    "chair": Skeleton(("seat", "top", "leg0", "leg1", "leg2", "leg3"), ((0, 1), (0, 2), (0, 3), (0, 4), (0, 5))),
    "table": Skeleton(("top",)),
    "person": _PERSON,
    "potted plant": Skeleton(("base", "rim", "top"), ((0, 1), (1, 2))),
    "sofa": Skeleton(("l_arm", "r_arm", "back"), ((0, 2), (1, 2))),
    "television": Skeleton(("tl", "tr", "bl", "br"), ((0, 1), (1, 3), (3, 2), (2, 0))),
    **dict.fromkeys(("bus", "car"), _WHEELS),
    **dict.fromkeys(("cat", "cow", "dog", "horse", "sheep"), _ANIMAL),
}
"""The renderer's keypoints by label."""

THINGS = 18
"""The first 18 labels are things, the other 12 surroundings."""

_NAMES = tuple(CLASSES.values())
LABELS = Labels(_NAMES, tuple(SYNONYMS.get(n, ()) for n in _NAMES), _NAMES[THINGS:], SKELETONS)

DEPTH_STEP = 1 / 256
COLUMNS = {"key", "caption", "place", "light", "fov", "image", "classes", "instances", "depth", "keypoints"}

_TO_LABEL = np.full(256, IGNORE, np.uint16)
_TO_LABEL[list(CLASSES)] = range(len(CLASSES))


class MiniSource(Source):
    """See the module."""

    labels = LABELS

    def __init__(self, path: str, images: Path | None = None):
        prefix = PACKAGED / path if path in ("train", "test") else Path(path)
        self._files = sorted(prefix.parent.glob(f"{prefix.name}-*.parquet"))
        if not self._files:
            raise DataError(
                f"there are no mini-world files {prefix.name}-*.parquet",
                where=prefix.parent.resolve(),
                expected="mini:train, mini:test or mini:DIR/SPLIT",
                remedy="for the packaged images use mini:train or mini:test",
            )
        try:
            for file in self._files:
                require_regular(file)
            found = [pq.ParquetFile(f) for f in self._files]
            self._rows = Rows(self._files, [f.metadata.num_rows for f in found])
            missing = COLUMNS - set.intersection(*(set(f.schema_arrow.names) for f in found))
        except (OSError, ValueError, pa.ArrowException) as e:  # ValueError: names that are not UTF-8
            raise DataError(f"a file cannot be read: {e}", where=prefix.parent, expected="whole Parquet files") from e
        if missing:
            raise DataError(f"these are no labelled renders: no {', '.join(sorted(missing))}", where=prefix.parent)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        content, path = self._rows[index]
        where = f"{path}, row {content.get('key', index)}"
        try:
            row = _Row.model_validate(content)
        except ValidationError as e:
            first = e.errors(include_url=False, include_input=False)[0]
            name = ".".join(map(str, first["loc"]))
            raise DataError(f"{name} cannot be read: {first['msg']}", where=where, expected="a labelled render") from e
        return _sample(row, where)


class _Row(BaseModel):
    """One render; maps are PNGs."""

    model_config = ConfigDict(strict=True)

    key: str
    caption: str
    place: Any
    light: Any
    fov: Any
    image: bytes
    classes: bytes
    instances: bytes
    depth: bytes
    keypoints: Json[dict[str, dict[str, tuple[FiniteFloat, FiniteFloat, Annotated[float, Field(ge=0, le=2)]]]]]
    """By object and point: x, y, visibility."""


def _sample(row: _Row, where: str) -> Sample:
    image = read_image(row.image, where)
    classes, numbers, depth = (_map(data, where, image.shape[:2]) for data in (row.classes, row.instances, row.depth))
    if classes.max(initial=0) >= len(_TO_LABEL) or classes.min(initial=0) < 0:
        raise DataError(f"class {classes.max()} has no name", where=where, expected=f"0..{len(_TO_LABEL) - 1}")
    objects, points = _objects(row, classes, numbers, where)
    records = Annotations(
        SemanticMap(_TO_LABEL[classes]),
        objects,
        DepthMap(depth.astype(np.float32) * DEPTH_STEP, depth > 0),
        points,
    )
    prompt = Prompt(row.caption, LABELS.named_in(row.caption), origin="caption")
    provenance = Provenance(details={name: getattr(row, name) for name in ("place", "light", "fov")})
    return Sample(row.key, image, LABELS, prompt, **records.fields(), provenance=provenance)


def _objects(row: _Row, classes: np.ndarray, numbers: np.ndarray, where: str) -> tuple[Instances, Keypoints]:
    """Instances, and keypoints in the same order; an object that is wholly hidden has no instance."""
    found = value_runs(numbers)
    found.pop(0, None)
    masks = MaskStack(found.values(), classes.shape)
    label_ids = [int(np.bincount(_TO_LABEL[classes[m]]).argmax()) for m in masks]
    if IGNORE in label_ids:
        raise DataError("an object has no class", where=where, expected="pixels of one of the classes")
    own = [row.keypoints.get(str(i), {}) for i in found]
    width = max([len(p) for p in own], default=0)
    values = np.zeros((len(found), width, 3), np.float32)
    for i, named in enumerate(own):
        values[i, : len(named)] = np.array(list(named.values())).reshape(-1, 3)
    names = tuple(tuple(p) for p in own)
    return Instances(masks, np.array(label_ids, np.int64)), Keypoints(values[..., :2], values[..., 2], names)


def _map(data: bytes, where: str, size: tuple[int, int]) -> np.ndarray:
    values = read_map(data, where, size)
    if values.ndim != 2:
        raise DataError("a label map has colours", where=where, expected="a PNG of one channel")
    return values
