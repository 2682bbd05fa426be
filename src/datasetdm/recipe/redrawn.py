"""Samples whose shapes were redrawn in a label tool: which shape is which object, and the sample with the new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from datasetdm.errors import DataError, unknown_name
from datasetdm.exporters.objects import objects_of
from datasetdm.readers.regions import box_runs, covers
from datasetdm.recipe.shapes import UNKNOWN, Number, Shape, Size
from datasetdm.records import BACKGROUND, Instances, Keypoints, MaskStack, Sample
from datasetdm.records.edits import repaint
from datasetdm.records.objects import Runs, decode_runs
from datasetdm.store.reviews import Review

PointRow = tuple[Number, Number, Number, Number]
"""x, y, visibility and score of a point."""

CORRECTED = "corrected_by_hand"
"""What a sample's provenance calls the tool in which its shapes were corrected."""


class NotHeld(DataError):
    """What came back cannot be held by the sample's annotations: nothing of the image can be used. `what` is the reason."""


@dataclass
class _Object:
    """An object as it is now.

    old: its number among the sample's objects; None for a new one. shape: what came back; None if it was not exported.
    moved: its geometry is new. points: what came back of its points by name; None for those that are where they were.
    """

    old: int | None
    shape: Shape | None
    moved: bool = False
    points: dict[str, Shape | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Redrawn:
    """A change of one sample: its objects, their points and its semantic map as they came back.

    Args:
        earlier: what was said of the sample before it was exported.
        given: the shapes that were exported, every object before its points.
        found: those that came back.
        tool: where they were corrected.
    """

    earlier: Review
    given: Sequence[Shape]
    found: Sequence[Shape]
    tool: str

    def __call__(self, sample: Sample) -> Sample:
        """The sample with the shapes that came back.

        Raises:
            NotHeld: a shape that the annotations of this sample cannot hold.
            ConfigError: an unknown label or point.
        """
        sample = self.earlier.apply(sample)
        old = sample.instances or objects_of(sample)
        now = list(self._objects(sample, old))
        self._give_points(now, sample, old)
        label_ids = [_label_id(o, sample, old) for o in now]
        there = Instances(MaskStack([_runs(o, old) for o in now], sample.size), np.array(label_ids, np.int64))
        same = {o.old for o, i in zip(now, label_ids, strict=True) if not o.moved and i == old.label_ids[o.old]}
        gone = old.take([n for n in range(len(old)) if n not in same])
        details = {**sample.provenance.details, CORRECTED: self.tool}
        fresh = replace(sample, provenance=replace(sample.provenance, details=details))
        fresh = repaint(fresh, gone, there, [o.old not in same for o in now])
        if sample.instances is None:
            return fresh
        objects = replace(
            there,
            scores=np.array([1 if o.moved else old.scores[o.old] for o in now], np.float32),
            boxes=np.array([_box(o, old, b) for o, b in zip(now, there.boxes, strict=True)]).reshape(-1, 4),
            crowd=np.array([not o.moved and old.crowd[o.old] for o in now], bool),
            boxed=old.boxed,
        )
        return replace(fresh, instances=objects, keypoints=_keypoints(now, sample, objects))

    def _objects(self, sample: Sample, old: Instances) -> Iterator[_Object]:
        """The objects that were not exported or came back, in their old order; then the new ones."""
        given, found = ([s for s in shapes if s.region] for shapes in (self.given, self.found))
        before = _paired(given, found, sample.size)
        for shape in self.found:
            self._check(shape, old.boxed)
        exported = iter(range(len(given)))
        for n, label in enumerate(old.label_ids.tolist()):
            if old.crowd[n] or sample.labels.names[label] == BACKGROUND:
                yield _Object(n, None)
            elif (shape := before.get(number := next(exported))) is not None:
                moved = not given[number].same_place(shape)
                if not moved or covers(_runs_of(shape, sample.size)):
                    yield _Object(n, shape, moved)
        new = [s for s in found if not any(s is b for b in before.values())]
        yield from (_Object(None, s, moved=True) for s in new if covers(_runs_of(s, sample.size)))

    def _check(self, shape: Shape, boxed: bool) -> None:
        """Refuse what no annotation can say."""
        if shape.kind == "other":
            raise NotHeld(f"a shape of the kind {shape.point}")
        if not shape.label or (shape.kind == "point" and not shape.point):
            raise NotHeld("a shape without a label")
        if shape.kind == "box" and not boxed:
            raise NotHeld("a box among outlines")

    def _give_points(self, now: Sequence[_Object], sample: Sample, old: Instances) -> None:
        """Give every object its points."""
        shown = [n for n in range(len(old)) if not old.crowd[n] and sample.labels.names[old.label_ids[n]] != BACKGROUND]
        regions = np.cumsum([s.region for s in self.given]) - 1
        own = [(shown[r], s) for r, s in zip(regions.tolist(), self.given, strict=True) if s.kind == "point"]
        for point in (s for s in self.found if s.kind == "point"):
            places = [n for n, s in own if (s.label, s.point) == (point.label, point.point) and s.same_place(point)]
            owner = _owner(point, now, places, sample.size)
            owner.points[point.point] = None if owner.old in places else point


def _paired(given: Sequence[Shape], found: Sequence[Shape], size: Size) -> dict[int, Shape]:
    """Number of a given shape -> the one that it has become: by its place, by its group, or by the overlap."""
    pairs, left = dict[int, Shape](), list(found)

    def pair(number: int, shape: Shape) -> None:
        pairs[number] = shape
        left[:] = [s for s in left if s is not shape]

    for number, own in enumerate(given):
        if places := [s for s in left if own.same_place(s)]:
            pair(number, next((s for s in places if s.label == own.label), places[0]))
    for number, own in enumerate(given):
        group = [s for s in left if own.group and s.group == own.group]
        if number not in pairs and len(group) == 1 and sum(g.group == own.group for g in given) == 1:
            pair(number, group[0])
    lost = [n for n in range(len(given)) if n not in pairs]
    masks = {n: decode_runs(_runs_of(given[n], size), size) for n in lost}
    overlaps = []
    for shape in left:
        mask = decode_runs(_runs_of(shape, size), size)
        overlaps += [
            (float((mask & m).sum() / (mask | m).sum()), n, shape) for n, m in masks.items() if (mask & m).any()
        ]
    for _, number, shape in sorted(overlaps, key=lambda o: -o[0]):
        if number not in pairs and any(s is shape for s in left):
            pair(number, shape)
    return pairs


def _runs_of(shape: Shape, size: Size) -> Runs:
    """Run lengths of an object's shape."""
    if shape.kind == "box":
        left, top, right, bottom = shape.numbers
        return box_runs(left, top, right, bottom, size)
    return np.array(shape.numbers, np.int64)


def _owner(point: Shape, now: Sequence[_Object], places: Sequence[int], size: Size) -> _Object:
    """Whose point it is: of its group, or of the object that had it there, or of the nearest object without one.

    Raises:
        NotHeld: there is no such object.
    """
    back = [o for o in now if o.shape is not None]
    group = [o for o in back if o.shape and point.group and o.shape.group == point.group]
    if len(group) == 1:
        return group[0]
    for o in back:
        if o.old in places and point.point not in o.points:
            return o
    lacking = [o for o in back if o.shape and o.shape.label == point.label and point.point not in o.points]
    if not lacking:
        raise NotHeld("a point that belongs to no object")
    return min(lacking, key=lambda o: _distance(point, o.shape, size))


def _distance(point: Shape, shape: Shape | None, size: Size) -> float:
    """Pixels from a point to the box of a shape."""
    if shape is None:
        return np.inf
    x, y, w, h = MaskStack([_runs_of(shape, size)], size).boxes[0].tolist()
    px, py, _ = point.numbers
    return float(np.hypot(px - np.clip(px, x, x + w), py - np.clip(py, y, y + h)))


# ---------------------------------------------------------------------- columns of the new records
def _label_id(o: _Object, sample: Sample, old: Instances) -> int:
    if o.shape is None:
        return int(old.label_ids[o.old])
    if o.shape.label not in sample.labels.index:
        raise unknown_name("label", o.shape.label, sample.labels.names)
    return sample.labels.index[o.shape.label]


def _runs(o: _Object, old: Instances) -> Runs:
    """Of a sample whose objects are boxes, the filled box of any shape."""
    if o.old is not None and not o.moved:
        return old.masks.runs[o.old]
    assert o.shape is not None
    runs = _runs_of(o.shape, old.size)
    if old.boxed and o.shape.kind != "box":
        x, y, w, h = MaskStack([runs], old.size).boxes[0].tolist()
        return box_runs(x, y, x + w, y + h, old.size)
    return runs


def _box(o: _Object, old: Instances, tight: np.ndarray) -> Sequence[Number]:
    if not o.moved or o.shape is None:
        return old.boxes[o.old].tolist()
    if o.shape.kind == "box":
        left, top, right, bottom = o.shape.numbers
        return left, top, right - left, bottom - top
    return tight.tolist()


def _keypoints(now: Sequence[_Object], sample: Sample, objects: Instances) -> Keypoints | None:
    """The points of all objects; what was not exported stays as it is."""
    old = sample.keypoints
    if old is None and not any(o.points for o in now):
        return None
    rows = [_points(o, sample, int(label)) for o, label in zip(now, objects.label_ids, strict=True)]
    width = max((len(row) for row in rows), default=0)
    values = np.zeros((len(rows), width, 4), np.float32)  # x, y, visibility, score
    for value, row in zip(values, rows, strict=True):
        value[: len(row)] = np.array(list(row.values()), np.float32).reshape(-1, 4)
    scores = None if old is None or old.scores is None else values[..., 3]
    return Keypoints(values[..., :2], values[..., 2].astype(np.uint8), tuple(tuple(row) for row in rows), scores)


def _points(o: _Object, sample: Sample, label: int) -> dict[str, PointRow]:
    """The points of an object by name."""
    old, labels, (h, w) = sample.keypoints, sample.labels, sample.size
    row: dict[str, PointRow] = {}
    if old is not None and o.old is not None:
        scores = np.ones(old.visibility.shape) if old.scores is None else old.scores
        for k, name in enumerate(old.names[o.old]):
            row[name] = (*old.xy[o.old, k].tolist(), int(old.visibility[o.old, k]), float(scores[o.old, k]))
    if o.shape is None or sample.instances is None:
        return row
    before = None if o.old is None else labels.skeleton_of(int(sample.instances.label_ids[o.old]))
    for name in before.points if before and row else ():  # those that were exported
        if name in row and name not in o.points:
            row[name] = (*row[name][:2], 0, row[name][3])
    skeleton = labels.skeleton_of(label)
    if skeleton and (o.points or {*row} - {*skeleton.points}):
        row = {name: row.get(name, (0, 0, 0, 1)) for name in skeleton.points}
    for name, point in o.points.items():
        if point is None:
            continue
        if name not in row:
            raise unknown_name("point", name, skeleton.points if skeleton else [*row])
        x, y, seen = point.numbers
        if seen == UNKNOWN:
            seen = row[name][2] or 2
        row[name] = (min(max(x, 0), w), min(max(y, 0), h), seen, 1)
    return row
