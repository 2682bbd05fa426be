from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import LABELS, make_sample
from datasetdm.errors import DataError
from datasetdm.types import IGNORE, DepthMap, Instances, Keypoints, Labels, Sample, SemanticMap, Skeleton


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
        Sample("k", image, LABELS, annotations={"semantic": SemanticMap(np.zeros((4, 4), np.uint16))})
    ids = np.full((4, 5), 3, np.uint16)
    with pytest.raises(DataError, match="unknown"):
        Sample("k", image, LABELS, annotations={"semantic": SemanticMap(ids)})
    Sample("k", image, LABELS, annotations={"semantic": SemanticMap(np.full((4, 5), IGNORE, np.uint16))})


def test_refusals() -> None:
    with pytest.raises(DataError, match="empty mask"):
        Instances(np.zeros((1, 3, 3), bool), np.array([0]))
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
    ids = a.annotations["semantic"].ids.copy()
    ids[0, 0] = 1
    assert Sample(a.key, image, a.labels, a.prompt, a.annotations).digest() != a.digest()
    assert a.with_annotations(semantic=SemanticMap(ids)).digest() != a.digest()


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
    assert Instances(masks, [0, 0]).boxes.tolist() == [[2, 1, 5, 2], [0, 5, 1, 1]]
    points = Keypoints(np.zeros((1, 1, 2)), [[2]], (("nose",),))
    with pytest.raises(DataError, match="1 rows of keypoints"):
        Sample("k", np.zeros((6, 8, 3)), LABELS, None, {"instance": Instances(masks, [0, 0]), "keypoints": points})
