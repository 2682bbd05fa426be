"""What every transform promises; a new one is in the table and so in these tests."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasetdm.errors import ConfigError
from datasetdm.quality.agreement import FilterByTeacher, MaskByLoss
from datasetdm.quality.copies import FilterCopies
from datasetdm.quality.limbs import FilterByLimbs
from datasetdm.records import Instances, Keypoints, Labels, Sample, Skeleton
from datasetdm.store import write_store
from datasetdm.store.reviews import Review, append_review
from datasetdm.transforms import TRANSFORMS, Transform, accepted, apply, transform_from_json
from datasetdm.transforms.choose import Choose
from datasetdm.transforms.duplicates import FilterDuplicates
from datasetdm.transforms.images import FilterByClipping, FilterByContrast
from datasetdm.transforms.objects import FilterByArea, FilterByBoundary, FilterFragments
from datasetdm.transforms.outlines import MaskOutlines
from datasetdm.transforms.paste import PasteObjects
from datasetdm.transforms.prompted import FilterByPrompt
from datasetdm.transforms.remap import RemapLabels
from datasetdm.transforms.reviews import ApplyReviews
from datasetdm.transforms.splice import Splice
from datasetdm.transforms.split import Split
from datasetdm.transforms.threshold import FilterByConfidence, FilterByScore, MaskByConfidence
from factory import make_sample
from teachers import colour_teacher

LABELS = Labels(("sky", "dog", "grass"), ((), ("puppy",), ()), (), {"dog": Skeleton(("nose", "tail"), ((0, 1),))})


def with_dogs(key: str, seed: int = 0) -> Sample:
    """Four dogs one above the other; dog `i` scores `(i + 1) / 5`, and its nose is scored alike."""
    sample = make_sample(key, (24, 32), seed, LABELS)
    masks = np.zeros((4, 24, 32), bool)
    for i in range(4):
        masks[i, 6 * i : 6 * i + 5, 4:20] = True
    scores = np.arange(1, 5) / 5
    points = np.stack([[[5, 6 * i + 1], [0, 0]] for i in range(4)])
    return replace(
        sample,
        instances=Instances.from_masks(masks, np.ones(4), scores),
        keypoints=Keypoints(points, np.tile([2, 0], (4, 1)), (("nose", "tail"),) * 4, np.stack([scores, scores], 1)),
    )


def reviewed_store(folder: Path) -> ApplyReviews:
    write_store([with_dogs("s0")], folder / "store", LABELS)
    append_review(folder / "store", Review("s3", "reject", "wrong mask"))
    append_review(folder / "store", Review("s4", "accept", labels={"sky": "grass"}, objects={1: "sky"}))
    return ApplyReviews(store=folder / "store")


def labelled_store(folder: Path) -> str:
    write_store([with_dogs(f"l{i}", i) for i in range(9)], folder / "labelled", LABELS)
    return f"store:{folder / 'labelled'}"


MAKERS: dict[str, Callable[[Path], Transform]] = {
    "apply-reviews": reviewed_store,
    "choose": lambda _: Choose(limit=4, balance=True, seed=3),
    "filter-by-area": lambda _: FilterByArea(minimum=0.05),
    "filter-by-boundary": lambda _: FilterByBoundary(minimum=0.4),
    "filter-by-clipping": lambda _: FilterByClipping(minimum=0.9),
    "filter-by-confidence": lambda _: FilterByConfidence(minimum=0.5),
    "filter-by-contrast": lambda _: FilterByContrast(minimum=0.1),
    "filter-by-limbs": lambda folder: FilterByLimbs(data=labelled_store(folder)),
    "filter-by-prompt": lambda _: FilterByPrompt(area=0.05),
    "filter-copies": lambda folder: FilterCopies(data=labelled_store(folder), distance=0.05),
    "filter-duplicates": lambda _: FilterDuplicates(distance=0.05),
    "filter-fragments": lambda _: FilterFragments(),
    "filter-by-teacher": lambda folder: FilterByTeacher(teacher=colour_teacher(folder / "t.onnx"), minimum=0.9),
    "filter-by-score": lambda _: FilterByScore(minimum=0.5),
    "mask-by-confidence": lambda _: MaskByConfidence(minimum=0.5),
    "mask-by-loss": lambda folder: MaskByLoss(teacher=colour_teacher(folder / "t.onnx")),
    "mask-outlines": lambda _: MaskOutlines(),
    "paste-objects": lambda _: PasteObjects(without_depth=True, fraction=1, most_area=1, hidden=0.9),
    "remap-labels": lambda _: RemapLabels(mapping={"dog": "animal", "grass": None}),
    "splice": lambda _: Splice(without_depth=True, fraction=1, grids=((1, 2), (2, 2))),
    "split": lambda _: Split(parts={"train": 0.5, "val": 0.5}),
}


@pytest.fixture(params=list(TRANSFORMS))
def transform(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Transform:
    if request.param not in MAKERS:
        pytest.skip("of an installed package, which tests its own")
    monkeypatch.chdir(tmp_path)
    return MAKERS[request.param](tmp_path)


def test_keys_and_order_stay(transform: Transform) -> None:
    given = [with_dogs(f"s{i}", i) for i in range(8)]
    keys, found = [s.key for s in given], [s.key for s in transform(given)]
    assert found == ([k for k in keys if k in found] if transform.selects else keys) and found


def test_settings_are_json(transform: Transform) -> None:
    value = transform.to_json()
    again = transform_from_json(json.loads(json.dumps(value)))
    assert type(again) is type(transform) and again.to_json() == value and value["name"] == transform.name
    with pytest.raises(ConfigError, match="unknown setting 'colour'"):
        transform_from_json(value | {"colour": "red"})


def test_it_is_known_by_its_name(transform: Transform) -> None:
    assert TRANSFORMS.load(transform.name) is type(transform)


def test_vocabulary_is_that_of_the_samples(transform: Transform) -> None:
    given = [with_dogs(f"s{i}", i) for i in range(8)]
    assert {s.labels.names for s in transform(given)} == {transform.vocabulary(LABELS).names}
    assert all(s.labels == transform.vocabulary(LABELS) for s in transform(given))


def test_points_stay_with_their_objects(transform: Transform) -> None:
    """A dog's nose lies where the dog is, and has its score."""
    found = list(transform([with_dogs(f"s{i}", i) for i in range(8)]))
    assert sum(len(s.instances) for s in found) > 0
    for sample in found:
        objects, points = sample.instances, sample.keypoints
        assert len(points) == len(objects) and points.scores is not None
        assert np.allclose(points.scores[:, 0], objects.scores)
        assert all(m[int(y), int(x)] for m, (x, y) in zip(objects.masks, points.xy[:, 0], strict=True))


def test_it_is_the_same_every_time(transform: Transform) -> None:
    given = [with_dogs(f"s{i}", i) for i in range(8)]
    first, second = ([(s.key, s.digest(), s.split, s.quality) for s in transform(given)] for _ in range(2))
    assert first == second
    once = [(s.key, s.digest(), s.split, s.quality) for s in transform(iter(given))]
    assert once == first, "of an iterator as of a list"


def test_one_sample_at_a_time(transform: Transform) -> None:
    """Nothing that was passed on is kept, nothing is read ahead, and the input is not changed."""
    alive: list[weakref.ref[Sample]] = []

    class Stream:
        def __iter__(self) -> Iterator[Sample]:
            for i in range(40):
                sample = with_dogs(f"s{i}", i)
                alive.append(weakref.ref(sample))
                yield sample
                del sample

    for _ in transform(Stream()):
        assert sum(ref() is not None for ref in alive) <= 3


def test_no_samples(transform: Transform) -> None:
    assert list(transform([])) == []


def test_they_run_in_their_order(tmp_path: Path) -> None:
    given = [with_dogs(f"s{i}", i) for i in range(8)]
    steps = [reviewed_store(tmp_path), RemapLabels(mapping={"dog": "animal"}), Choose(limit=6), Split(parts={"all": 1})]
    stream, labels = apply(given, LABELS, steps)
    found = list(stream)
    assert len(found) == 6 and labels.names == ("sky", "animal", "grass")
    assert {s.split for s in found} == {"all"} and {s.labels.names for s in found} == {labels.names}
    assert [s.key for s in accepted(found)] == [s.key for s in found if s.key != "s3"]
    assert [s.key for s in stream] == [s.key for s in found], "a stream of what can be read again can be read again"
    once, _ = apply(iter(given), LABELS, steps)
    assert [s.digest() for s in once] == [s.digest() for s in found]


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="unknown transform 'splt'"):
        transform_from_json({"name": "splt"})
