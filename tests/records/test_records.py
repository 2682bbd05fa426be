from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from datasetdm.errors import DataError
from datasetdm.records import (
    ANNOTATIONS,
    IGNORE,
    Annotations,
    DepthMap,
    Instances,
    Keypoints,
    Labels,
    MaskStack,
    Prompt,
    Provenance,
    Quality,
    Sample,
    SemanticMap,
    Skeleton,
)
from datasetdm.records.edits import drop_depth, ignore_pixels, keep_objects, reject, relabel, score
from factory import LABELS, make_sample


@pytest.mark.parametrize(
    ("names", "what"),
    [((), "empty"), (("dog", "Dog"), "clash"), (("dog", " "), "blank")],
)
def test_labels_refuse(names: tuple[str, ...], what: str) -> None:
    with pytest.raises(DataError, match=what):
        Labels(names)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("two dogs on the grass", ("dog", "grass")),
        ("a PUPPY", ("dog",)),
        ("hotdogs and dogma", ()),
        ("the sky, nothing else", ("sky",)),
        ("cloudy skies", ("sky",)),
        ("two skys", ("sky",)),
    ],
)
def test_labels_named_in_text(text: str, found: tuple[str, ...]) -> None:
    assert LABELS.named_in(text) == found


def test_a_large_vocabulary_is_made_quickly() -> None:
    """20,000 labels, a third with synonyms; patterns are compiled when a text first needs them."""
    names = tuple(f"{a} thing {b}" if b % 2 else f"thing{a}x{b}" for a in range(100) for b in range(200))
    synonyms = tuple((f"word{i}",) if i % 3 == 0 else () for i in range(len(names)))
    start = time.process_time()
    labels = Labels(names, synonyms)
    found = labels.named_in("two thing3x4s, a word6 and nothing of thing3")
    assert time.process_time() - start < 1
    assert len(labels) == 20_000 and found == (names[6], "thing3x4") and labels.index["thing3x4"] == 604


def plainly_named(labels: Labels, text: str) -> tuple[str, ...]:
    """`Labels.named_in` without its index: the pattern of every label on every text."""

    def plural(word: str) -> str:
        stem = re.escape(word)
        return f"{stem[:-1]}(?:y|ys|ies)" if word.lower().endswith("y") else f"{stem}(?:s|es)?"

    words = [(n, *s) for n, s in zip(labels.names, labels.synonyms, strict=True)]
    patterns = [r"\b(?:" + "|".join(map(plural, w)) + r")\b" for w in words]
    return tuple(n for n, p in zip(labels.names, patterns, strict=True) if re.search(p, text, re.IGNORECASE))


PIECE = st.sampled_from(["dog", "Fly", "sky", "hot", "s", "es", "ies", "y", "C", "É", "ß", "7", "犬"])
GAP = st.sampled_from(["", "", " ", "  ", "-", "_", "'", "+", ".", "\n"])
PHRASE = st.lists(st.tuples(PIECE, GAP), min_size=1, max_size=4).map(lambda p: "".join(a + b for a, b in p))


@st.composite
def vocabularies(draw: st.DrawFn) -> Labels:
    names = draw(st.lists(PHRASE, min_size=1, max_size=6, unique_by=lambda n: n.strip().lower()))
    return Labels(tuple(names), tuple(tuple(draw(st.lists(PHRASE, max_size=2))) for _ in names))


@given(vocabularies(), st.lists(PHRASE, max_size=6), st.data())
def test_labels_are_named_as_by_a_pattern_for_each(labels: Labels, phrases: list[str], data: st.DataObject) -> None:
    words = [w for n, s in zip(labels.names, labels.synonyms, strict=True) for w in (n, *s)]
    own = data.draw(st.lists(st.sampled_from(words), max_size=3))
    text = data.draw(st.sampled_from(["", " ", ", "])).join(data.draw(st.permutations(phrases + own)))
    for t in (text, text.lower(), text.upper(), text + "s", text[:-1] + "ies"):
        assert labels.named_in(t) == plainly_named(labels, t)


@example("SKYes", ["SKY"])
@example("SKIES, SKYS", ["SKY"])
@given(
    st.text(),
    st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=3, unique_by=lambda n: n.strip().lower()),
)
def test_labels_of_any_text_are_named_as_by_a_pattern_for_each(text: str, names: list[str]) -> None:
    assume(len({n.strip().lower() for n in names}) == len(names))
    labels = Labels(tuple(names))
    for t in (text, text + names[0], f"{text} {names[-1]}s"):
        assert labels.named_in(t) == plainly_named(labels, t)


LONE = "dog\udce9"


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Sample(LONE, np.zeros((1, 1, 3), np.uint8), LABELS), "Sample.key"),
        (lambda: Prompt(LONE), "Prompt.text"),
        (lambda: Prompt("a dog", (LONE,)), "Prompt.text"),
        (lambda: Labels((LONE,)), "Labels.names"),
        (lambda: Labels(("dog",), ((LONE,),)), "Labels.names"),
        (lambda: Skeleton((LONE,)), "Skeleton.points"),
        (lambda: Keypoints(np.zeros((1, 1, 2)), [[2]], ((LONE,),)), "Keypoints.names"),
        (lambda: Quality(reasons=(LONE,)), "Quality"),
        (lambda: Provenance(LONE), "Provenance"),
        (lambda: Provenance(details={LONE: 1}), "Provenance.details"),
        (lambda: Provenance(details={"a": [{"b": (LONE,)}]}), "Provenance.details"),
    ],
)
def test_text_that_no_file_can_hold_is_refused(make: Callable[[], object], where: str) -> None:
    """A lone surrogate, as Python makes it of an undecodable file name."""
    with pytest.raises(DataError, match=r"udce9' cannot be written as UTF-8") as caught:
        make()
    assert caught.value.where == where
    str(caught.value).encode()


def test_any_other_text_is_kept() -> None:
    text = "犬 \U0001f415 \x00 \ufffd"
    assert Sample(text, np.zeros((1, 1, 3), np.uint8), Labels((text,)), Prompt(text)).caption == text


def test_unknown_origin_of_a_prompt() -> None:
    assert Prompt("a dog").origin == "user" and Prompt("a dog", origin="caption").origin == "caption"
    with pytest.raises(DataError, match="unknown origin 'nobody'"):
        Prompt("a dog", origin="nobody")


@pytest.mark.parametrize(
    "provenance",
    [
        Provenance(),
        Provenance("a/b.jpg"),
        Provenance(None, 0, "ab", "cd", {"x": [1, {"y": None}]}),
        Provenance(details={"": ""}),
    ],
)
def test_provenance_comes_back_from_json(provenance: Provenance) -> None:
    flat = json.loads(json.dumps(provenance.to_json()))
    assert Provenance.from_json(flat) == provenance and Provenance.from_json(flat).to_json() == flat
    assert None not in [flat.get(k, "") for k in ("file", "index", "backbone", "decoder")], (
        "what is unknown is left out"
    )


# ---------------------------------------------------------------------- confidence and depth
@given(arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32)))
def test_confidence_is_kept_on_its_grid(values: np.ndarray) -> None:
    record = SemanticMap(np.zeros((5, 7), np.uint16), values)
    assert record.confidence is not None
    steps = record.confidence.astype(np.float64) * 255
    assert np.abs(steps - values.astype(np.float64) * 255).max() < 0.5 + 0.15, "half a step, and float16"
    again = SemanticMap(record.ids, record.confidence)
    assert np.array_equal(again.confidence, record.confidence)


@given(arrays(np.float32, (4, 6), elements=st.floats(0, 4000, width=32)), arrays(np.bool_, (4, 6)))
def test_depth_quantises_once(depth: np.ndarray, valid: np.ndarray) -> None:
    once = DepthMap(depth, valid).quantised()
    twice = once.quantised()
    assert np.allclose(once.depth, twice.depth, rtol=1e-6)
    assert np.abs(once.depth - np.where(valid, depth, 0)).max() <= once.step * 1.001
    assert (once.depth[valid] > 0).all()


def test_records_are_read_only() -> None:
    sample = make_sample()
    with pytest.raises(ValueError, match="read-only"):
        sample.image[0, 0] = 0


def test_sample_refuses_wrong_sizes_and_unknown_labels() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(DataError, match="4x4 pixels"):
        Sample("k", image, LABELS, semantic=SemanticMap(np.zeros((4, 4), np.uint16)))
    ids = np.full((4, 5), 3, np.uint16)
    with pytest.raises(DataError, match="unknown"):
        Sample("k", image, LABELS, semantic=SemanticMap(ids))
    Sample("k", image, LABELS, semantic=SemanticMap(np.full((4, 5), IGNORE, np.uint16)))


def test_refusals() -> None:
    with pytest.raises(DataError, match="empty mask"):
        Instances.from_masks(np.zeros((1, 3, 3), bool), np.array([0]))
    with pytest.raises(DataError, match="not finite"):
        DepthMap(np.array([[np.nan]]), np.array([[True]]))
    assert DepthMap(np.array([[np.nan]]), np.array([[False]])).depth[0, 0] == 0
    with pytest.raises(DataError, match="not finite"):
        Keypoints(np.array([[[np.nan, 0]]]), np.array([[2]]), (("nose",),))
    with pytest.raises(DataError, match=r"0\.\.1"):
        SemanticMap(np.zeros((1, 1), np.uint16), np.array([[1.5]]))


def test_digest_sees_every_pixel_and_label() -> None:
    a, b = make_sample(), make_sample()
    assert a.digest() == b.digest()
    image = a.image.copy()
    image[0, 0, 0] ^= 1
    ids = a.semantic.ids.copy()
    ids[0, 0] = 1
    assert Sample(a.key, image, a.labels, a.prompt, **a.annotations.fields()).digest() != a.digest()
    assert replace(a, semantic=SemanticMap(ids)).digest() != a.digest()


def test_labels_come_back_from_json() -> None:
    skeleton = Skeleton(("nose", "tail"), ((0, 1),))
    labels = Labels(("sky", "dog"), ((), ("puppy",)), ("sky",), {"dog": skeleton})
    assert Labels.from_json(json.loads(json.dumps(labels.to_json()))) == labels
    assert hash(labels) == hash(Labels.from_json(labels.to_json()))
    with pytest.raises(DataError, match="no such label: cat"):
        Labels(("dog",), stuff=("cat",))
    with pytest.raises(DataError, match="an edge joins a point that is not there"):
        Skeleton(("nose",), ((0, 1),))


def test_boxes_and_kept_rows() -> None:
    masks = np.zeros((2, 6, 8), bool)
    masks[0, 1:3, 2:7] = masks[1, 5, 0] = True
    assert Instances.from_masks(masks, [0, 0]).boxes.tolist() == [[2, 1, 5, 2], [0, 5, 1, 1]]
    points = Keypoints(np.zeros((1, 1, 2)), [[2]], (("nose",),))
    with pytest.raises(DataError, match="1 rows of keypoints"):
        Sample("k", np.zeros((6, 8, 3)), LABELS, instances=Instances.from_masks(masks, [0, 0]), keypoints=points)


# ---------------------------------------------------------------------- masks
STACKS = st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)).flatmap(lambda s: arrays(np.bool_, s))


@given(STACKS, st.data())
def test_masks_are_the_dense_ones(dense: np.ndarray, data: st.DataObject) -> None:
    masks, n = MaskStack.from_dense(dense), len(dense)
    assert masks.shape == dense.shape and masks.size == dense.shape[1:] and len(masks) == n
    assert masks.dense().dtype == bool and np.array_equal(masks.dense(), dense)
    assert [m.tolist() for m in masks] == dense.tolist() == [masks[i].tolist() for i in range(n)]
    assert np.array_equal(masks.union(), dense.any(0))
    assert masks.areas.tolist() == dense.sum((1, 2)).tolist()
    for box, mask in zip(masks.boxes.tolist(), dense, strict=True):
        y, x = np.nonzero(mask)
        assert box == ([x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1] if len(x) else [0, 0, 0, 0])
    keep = data.draw(arrays(np.bool_, n))
    order = data.draw(st.lists(st.integers(0, n - 1), max_size=5)) if n else []
    for chosen in (keep, np.array(order, int), slice(None, None, -1), slice(1, 3)):
        assert np.array_equal(masks[chosen].dense(), dense[chosen])
        assert masks[chosen] == MaskStack.from_dense(dense[chosen])


@given(STACKS, STACKS)
def test_masks_are_equal_exactly_when_the_dense_ones_are(a: np.ndarray, b: np.ndarray) -> None:
    one, other = MaskStack.from_dense(a), MaskStack.from_dense(b)
    assert (one == other) == np.array_equal(a, b)
    again = MaskStack.from_dense(a.copy())
    assert one == again and hash(one) == hash(again) and one != a.tolist()
    assert MaskStack.from_dense(one) is one and MaskStack(one.runs, one.size) == one


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_runs_are_cocos(h: int, w: int, data: st.DataObject) -> None:
    """pycocotools fills and compresses the same runs, also ones that are not in their shortest form."""
    cuts = data.draw(st.lists(st.integers(0, h * w), max_size=6).map(sorted))
    runs = np.diff([0, *cuts, h * w])
    masks = MaskStack([runs], (h, w))
    rle = coco_mask.frPyObjects({"size": [h, w], "counts": runs.tolist()}, h, w)
    assert np.array_equal(masks[0], coco_mask.decode(rle).astype(bool)) and masks.areas[0] == coco_mask.area(rle)
    shortest = MaskStack.from_dense(masks.dense())
    assert masks.boxes.tolist() == shortest.boxes.tolist() and (shortest.runs[0][1:] > 0).all()


def test_runs_that_are_no_mask() -> None:
    for runs in ([5], [7], [-1, 7], []):
        with pytest.raises(DataError, match="run lengths of mask 1 do not fill the image"):
            MaskStack([[6], runs], (2, 3))
    with pytest.raises(DataError, match="shape"):
        MaskStack.from_dense(np.zeros((2, 3), bool))
    with pytest.raises(ValueError, match="read-only"):
        MaskStack.from_dense(np.ones((1, 2, 3), bool)).runs[0][0] = 3


# ---------------------------------------------------------------------- objects
def test_what_objects_are_without_more_said() -> None:
    objects = Instances.from_masks(np.eye(4, dtype=bool).reshape(2, 2, 4), [0, 1])
    assert objects.scores.tolist() == [1, 1] and objects.crowd.tolist() == [False, False] and not objects.boxed
    assert objects.boxes.dtype == np.float64 and objects.boxes.tolist() == objects.masks.boxes.tolist()
    assert len(Instances.none((3, 5))) == 0 and Instances.none((3, 5)).size == (3, 5)
    assert Instances.none((3, 5)).boxes.shape == (0, 4)


def test_boxes_may_have_fractions() -> None:
    objects = Instances.from_masks(np.ones((1, 4, 4), bool), [0], boxes=[[0.25, 0.1, 3.5, 3.75]], boxed=True)
    assert objects.boxes.tolist() == [[0.25, 0.1, 3.5, 3.75]] == objects.take([0]).boxes.tolist()
    for box in ([0, 0, 0, 1], [0, 0, 1, -1], [0, np.nan, 1, 1]):
        with pytest.raises(DataError, match="a box is empty or not finite"):
            Instances.from_masks(np.ones((1, 4, 4), bool), [0], boxes=[box])
    with pytest.raises(DataError, match=r"Instances\.crowd has shape"):
        Instances.from_masks(np.ones((1, 4, 4), bool), [0], crowd=[True, False])


def test_chosen_objects_keep_all_they_have() -> None:
    boxes = [[0, 0, 1.5, 1], [1, 1, 1, 2.5], [2, 0, 1, 1]]
    masks = np.eye(12, dtype=bool)[:3].reshape(3, 3, 4)
    objects = Instances.from_masks(masks, [0, 1, 2], [0.25, 0.5, 0.75], boxes=boxes, crowd=[1, 0, 1], boxed=True)
    choices: list[Any] = [[2, 0], np.array([2, 0]), np.array([True, False, True]), slice(1, 3), []]
    for rows in choices:
        part, chosen = objects.take(rows), np.arange(3)[rows if len(np.shape(rows)) == 0 or len(rows) else slice(0, 0)]
        assert part.label_ids.tolist() == chosen.tolist() and part.boxed and part.size == (3, 4)
        assert part.boxes.tolist() == [boxes[i] for i in chosen] and np.array_equal(part.masks.dense(), masks[chosen])
        assert part.scores.tolist() == objects.scores[chosen].tolist()
        assert part.crowd.tolist() == objects.crowd[chosen].tolist()


def test_crowds_boxes_and_outlines_are_in_the_digest() -> None:
    sample = make_sample()
    for change in ({"crowd": [True]}, {"boxes": sample.instances.boxes + 0.5}, {"boxed": True}, {"scores": [0.5]}):
        assert replace(sample, instances=replace(sample.instances, **change)).digest() != sample.digest()


def test_points_need_their_objects() -> None:
    sample = make_sample()
    with pytest.raises(DataError, match="keypoints without objects"):
        replace(sample, instances=None)
    assert replace(sample, instances=None, keypoints=None).annotations.fields().keys() == set(ANNOTATIONS)


def test_labels_in_annotations() -> None:
    sample = make_sample()
    assert sample.annotations.labels_in() == {0, 1, 2} and Annotations().labels_in() == set()
    assert Annotations(instances=sample.instances).labels_in() == {1}
    assert Annotations(semantic=SemanticMap(np.array([[IGNORE, 2]], np.uint16))).labels_in() == {2}


# ---------------------------------------------------------------------- edits
def three_objects() -> Sample:
    """Two dogs and a piece of grass in a row, one point each, over a map that says the same; the last row is sky."""
    masks = np.zeros((3, 4, 6), bool)
    masks[0, :3, :2] = masks[1, :3, 2:4] = masks[2, :3, 4:] = True
    ids = np.array([[1, 1, 1, 1, 2, 2]] * 3 + [[0] * 6], np.uint16)
    xy, scores = np.array([[[0, 1]], [[2, 1]], [[4, 1]]]), np.array([[0.25], [0.5], [0.75]])
    return Sample(
        "k",
        np.zeros((4, 6, 3), np.uint8),
        LABELS,
        semantic=SemanticMap(ids, np.full((4, 6), 0.5)),
        instances=Instances.from_masks(masks, [1, 1, 2], [0.1, 0.2, 0.3], crowd=[False, True, False]),
        depth=DepthMap(np.full((4, 6), 2.0), np.ones((4, 6), bool), confidence=np.full((4, 6), 0.4)),
        keypoints=Keypoints(xy, [[2], [1], [0]], (("nose",), ("tail",), ("tip",)), scores),
    )


def test_kept_objects_keep_their_points_and_scores() -> None:
    sample = three_objects()
    kept = keep_objects(sample, np.array([True, False, True]))
    objects, points = kept.instances, kept.keypoints
    assert objects.masks == sample.instances.masks[[0, 2]] and objects.label_ids.tolist() == [1, 2]
    assert points.names == (("nose",), ("tip",)) and points.xy[:, 0, 0].tolist() == [0, 4]
    assert points.visibility.tolist() == [[2], [0]] and points.scores.tolist() == [[0.25], [0.75]]
    assert kept.semantic is sample.semantic and kept.depth is sample.depth
    none = keep_objects(sample, np.zeros(3, bool))
    assert len(none.instances) == len(none.keypoints) == 0 and none.instances.size == (4, 6)
    bare = Sample("k", sample.image, LABELS)
    assert keep_objects(bare, np.zeros(0, bool)) is bare


def test_objects_without_a_label_go_with_their_points() -> None:
    labels = Labels(("animal", "sky"))
    sample = three_objects()
    new = relabel(sample, labels, [1, 0, IGNORE])
    assert new.labels == labels and new.semantic.ids.tolist() == [[0] * 4 + [IGNORE] * 2] * 3 + [[1] * 6]
    assert (
        new.semantic.confidence is not None and new.semantic.confidence.tolist() == sample.semantic.confidence.tolist()
    )
    assert new.instances.label_ids.tolist() == [0, 0] and new.instances.crowd.tolist() == [False, True]
    assert new.instances.scores.tolist() == sample.instances.scores[:2].tolist()
    assert new.keypoints.names == (("nose",), ("tail",)) and new.keypoints.scores.tolist() == [[0.25], [0.5]]
    assert relabel(sample, LABELS, range(3)).digest() == sample.digest()
    ignored = replace(sample, semantic=SemanticMap(np.full((4, 6), IGNORE, np.uint16)))
    assert (relabel(ignored, labels, [0, 0, 0]).semantic.ids == IGNORE).all()
    bare = relabel(Sample("k", sample.image, LABELS), labels, [0, 0, 0])
    assert bare.labels == labels and not bare.annotated


def test_another_label_for_one_object() -> None:
    sample = three_objects()
    new = relabel(sample, LABELS, range(3), {1: 0})
    assert new.instances.label_ids.tolist() == [1, 0, 2] and sample.instances.label_ids.tolist() == [1, 1, 2]
    assert new.semantic.ids.tolist() == [[1, 1, 0, 0, 2, 2]] * 3 + [[0] * 6]
    other = replace(sample, semantic=SemanticMap(np.full((4, 6), 2, np.uint16)))
    assert (relabel(other, LABELS, range(3), {1: 0}).semantic.ids == 2).all(), "pixels of another label stay"


def test_pixels_are_ignored_and_depth_is_dropped() -> None:
    sample, pixels = three_objects(), np.zeros((4, 6), bool)
    pixels[1:, 3] = True
    ignored, shallow = ignore_pixels(sample, pixels), drop_depth(sample, pixels)
    assert np.array_equal(ignored.semantic.ids, np.where(pixels, IGNORE, sample.semantic.ids))
    assert np.array_equal(ignored.semantic.confidence, sample.semantic.confidence)
    assert np.array_equal(shallow.depth.valid, ~pixels) and np.array_equal(
        shallow.depth.depth, np.where(pixels, 0, 2.0)
    )
    sure = shallow.depth.confidence
    assert sure is not None and not sure[pixels].any() and sure[~pixels].all()
    assert ignored.depth is sample.depth and shallow.semantic is sample.semantic
    bare = Sample("k", sample.image, LABELS)
    assert ignore_pixels(bare, pixels) is bare and drop_depth(bare, pixels) is bare


def test_rejected_samples_keep_their_row() -> None:
    sample = three_objects()
    rejected = reject(reject(score(sample, "sharpness", 0.125), "blurred"), "dark")
    assert sample.accepted and not rejected.accepted and rejected.quality.reasons == ("blurred", "dark")
    assert rejected.quality.scores == {"sharpness": 0.125} and rejected.digest() == sample.digest()
    assert reject(rejected, "dark") is rejected
    assert score(rejected, "sharpness", 1).quality == Quality({"sharpness": 1.0}, ("blurred", "dark"))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1"])
def test_a_seed_is_a_number_of_64_bits(seed: Any) -> None:
    assert Prompt("a dog", seed=2**64 - 1).seed == 2**64 - 1
    with pytest.raises(DataError, match="does not fit"):
        Prompt("a dog", seed=seed)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), np.zeros(1), b"x"])
def test_details_are_ready_for_json(value: Any) -> None:
    with pytest.raises(DataError, match="not JSON-ready"):
        Provenance(details={"x": [value]})


@pytest.mark.parametrize("quality", [{"scores": {"x": float("inf")}}, {"scores": {"x": "high"}}, {"reasons": (1,)}])
def test_scores_are_finite_and_reasons_texts(quality: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="scores|reasons"):
        Quality(**quality)
