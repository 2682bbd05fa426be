"""Teachers of both kinds, and what is held against them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from datasetdm.downstream import Variant, vitpose
from datasetdm.downstream.files import build_model, save_model
from datasetdm.errors import ConfigError
from datasetdm.pipelines.filter import make_filters
from datasetdm.pipelines.settings import FilterConfig
from datasetdm.pipelines.stream import Data, Stream
from datasetdm.pipelines.train import train
from datasetdm.quality import onnx_teachers, teachers
from datasetdm.quality.agreement import (
    OTHER,
    FilterByTeacher,
    MaskByLoss,
    box_agreement,
    box_ious,
    keypoint_agreement,
    map_agreement,
    own_ids,
)
from datasetdm.quality.onnx_teachers import MEAN, STD
from datasetdm.quality.seen import Boxes, Teacher
from datasetdm.quality.teachers import load_teacher
from datasetdm.records import IGNORE, Instances, Keypoints, Labels, Sample, SemanticMap, Skeleton
from datasetdm.store import write_store
from factory import LABELS, make_sample
from sources import InMemoryReader
from teachers import colour_teacher, dog_finder


def square(i: int = 0) -> Sample:
    return make_sample(f"s{i}", (24, 24), i)


def shifted(sample: Sample) -> Sample:
    """With the labels of sky, dog and grass exchanged."""
    return replace(sample, semantic=SemanticMap((sample.semantic.ids + 1) % 3))


# ---------------------------------------------------------------------- ONNX
@pytest.mark.parametrize("side", [24, 48, "s"])
def test_an_onnx_file_sees_images_of_any_size(tmp_path: Path, side: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_teachers, "SIDE", 96)
    teacher = load_teacher(colour_teacher(tmp_path / "t.onnx", side=side))
    assert isinstance(teacher, Teacher) and teacher.labels.names == ("Sky", "puppy", "grass")
    for sample in (square(), make_sample("b", (24, 32), 1)):
        seen = teacher.look(sample).probabilities
        assert seen.shape == (3, *sample.size) and np.allclose(seen.sum(0), 1, atol=1e-5)
        assert (seen.argmax(0) == sample.semantic.ids).mean() > 0.9


def test_names_and_preprocessing_may_lie_beside_the_file(tmp_path: Path) -> None:
    path = colour_teacher(tmp_path / "t.onnx", names="", side="s")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "sky", "10": "grass", "2": "dog"}}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "SegformerImageProcessor", "size": {"height": 24, "width": 24}, "do_resize": True,
        "do_rescale": True, "do_normalize": True, "image_mean": MEAN, "image_std": STD,
    }))  # fmt: skip
    teacher = load_teacher(path)
    assert teacher.labels.names == ("sky", "dog", "grass")
    assert (teacher.look(square()).probabilities.argmax(0) == square().semantic.ids).mean() > 0.95


@pytest.mark.parametrize("layout", ["rows", "softmax", "sigmoid"])
@pytest.mark.parametrize("size", [(24, 32), (50, 20)])
def test_an_onnx_file_finds_objects_in_images_of_any_size(tmp_path: Path, layout: str, size: tuple[int, int]) -> None:
    """In pixels of the image, whatever the file's own size; objects of a low score are left out."""
    teacher, sample = load_teacher(dog_finder(tmp_path / "t.onnx", layout)), make_sample(size=size)
    boxes = teacher.look(sample).boxes
    assert isinstance(teacher, Teacher) and boxes.label_ids.tolist() == [1]
    assert box_ious(boxes.xywh, sample.instances.boxes).item() > 0.8
    (judged,) = FilterByTeacher(teacher=str(tmp_path / "t.onnx"))([sample])
    assert judged.quality.scores == {"filter-by-teacher": 1.0}


def test_an_image_processor_beside_the_file_says_how_images_enter(tmp_path: Path) -> None:
    """Here both sides are scaled, so boxes are scaled back by both."""
    path, sample = dog_finder(tmp_path / "t.onnx", "rows"), make_sample(size=(50, 20))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "YolosImageProcessor", "size": {"height": 40, "width": 64}, "do_resize": True,
        "do_rescale": True, "do_normalize": False, "do_pad": False,
    }))  # fmt: skip
    assert box_ious(load_teacher(path).look(sample).boxes.xywh, sample.instances.boxes).item() > 0.8


MISTAKES = {
    "nothing": (lambda p: str(p / "nowhere"), "there is no teacher"),
    "no model": (lambda p: str((p / "t.onnx").write_bytes(b"x") and p / "t.onnx"), "cannot be loaded"),
    "no names": (lambda p: colour_teacher(p / "t.onnx", names=""), "have no names"),
    "names of nothing": (lambda p: colour_teacher(p / "t.onnx", names="import os"), "have no names"),
    "too few names": (lambda p: colour_teacher(p / "t.onnx", names="['a']"), "logits of 1 labels"),
    "too few names of objects": (
        lambda p: looked(dog_finder(p / "t.onnx", "softmax", "['a']")),
        "`logits` is of 3 labels",
    ),
    "objects as anchors": (lambda p: anchors(p / "t.onnx"), "export with nms=True"),
    "a name twice": (lambda p: colour_teacher(p / "t.onnx", names="['a', 'A', 'b']"), "one name"),
    "another task": (lambda p: folder(p, {"architectures": ["BertForMaskedLM"]}), "BertForMaskedLM is no teacher"),
    "no weights": (
        lambda p: folder(p, {"architectures": ["SegformerForSemanticSegmentation"], "model_type": "segformer"}),
        "cannot be loaded",
    ),
    "no JSON": (lambda p: folder(p, "{"), "cannot be read"),
}


def looked(path: str) -> str:
    load_teacher(path).look(square())
    return path


def anchors(path: Path) -> str:
    """As Ultralytics exports without nms=True."""
    shape = helper.make_tensor_value_info
    images, rows = shape("x", TensorProto.FLOAT, [1, 84, 99]), shape("y", TensorProto.FLOAT, [1, 84, 99])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "anchors", [images], [rows])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return str(path)


def folder(path: Path, config: Any) -> str:
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


@pytest.mark.parametrize("case", sorted(MISTAKES))
def test_what_is_no_teacher_is_one_clear_error(case: str, tmp_path: Path) -> None:
    make, expected = MISTAKES[case]
    with pytest.raises(ConfigError, match=expected):
        load_teacher(make(tmp_path))


# ---------------------------------------------------------------------- transformers
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_trained_student_is_a_teacher(tmp_path: Path) -> None:
    """Its folder and its ONNX file see the same; it confirms right labels and rejects wrong ones."""
    settings: dict[str, Any] = dict(size=32, steps=30, batch=4, warm_up=5, save_every=50, augment=False, onnx=True)
    labelled = [replace(square(i), key=f"l{i}") for i in range(8)]
    train(InMemoryReader(labelled), tmp_path / "m", **settings)
    sample = square(20)
    one, other = (load_teacher(str(tmp_path / "m" / name)).look(sample).probabilities for name in ("", "model.onnx"))
    assert one.shape == (3, 24, 24) and np.allclose(one, other, atol=0.05)
    right, wrong = FilterByTeacher(teacher=str(tmp_path / "m"), device="cpu")([sample, shifted(sample)])
    assert right.accepted and right.quality.scores["filter-by-teacher"] > 0.6
    assert wrong.quality.reasons == ("filter-by-teacher: the teacher disagrees",)


@pytest.mark.slow
def test_models_of_detection_and_universal_segmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights: what they see has the right form."""
    from transformers import (
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessorPil,
        YolosConfig,
        YolosForObjectDetection,
        YolosImageProcessorPil,
    )

    from datasetdm.downstream.files import build_model
    from datasetdm.downstream.mask2former import Mask2Former

    names = {"id2label": {0: "sky", 1: "dog"}, "label2id": {"sky": 0, "dog": 1}}
    small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32])
    YolosForObjectDetection(YolosConfig(**small, num_detection_tokens=5, **names)).save_pretrained(tmp_path / "d")
    YolosImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 32}).save_pretrained(tmp_path / "d")
    monkeypatch.setattr(teachers, "LEAST_SCORE", 0.0)
    boxes = load_teacher(str(tmp_path / "d"), "cpu").look(square()).boxes
    assert boxes.xywh.shape == (5, 4) and set(boxes.label_ids.tolist()) <= {0, 1}

    student = Mask2Former(LABELS)
    model = build_model(student, student.variants["tiny"], 64)
    assert isinstance(model, Mask2FormerForUniversalSegmentation)
    model.save_pretrained(tmp_path / "u")
    Mask2FormerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "u")
    seen = load_teacher(str(tmp_path / "u"), "cpu").look(square()).probabilities
    assert seen.shape == (3, 24, 24) and seen.min() >= 0 and seen.sum(0).max() <= 1.001


@pytest.mark.parametrize("experts", [1, 2])
def test_a_model_of_poses_looks_at_the_samples_own_objects(
    experts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights: it confirms the points that it finds itself, wherever its label stands, and no others."""
    monkeypatch.setattr(vitpose, "SEEN", 0.0)
    student = vitpose.Vitpose(Labels(("car", "dog"), skeletons={"dog": Skeleton(("nose", "l_ear"))}))
    settings = student.variants["tiny"].settings
    backbone = {**settings["backbone_config"], "num_experts": experts, "part_features": 32}
    model = build_model(student, Variant(64, {**settings, "backbone_config": backbone}), 64)
    save_model(tmp_path / "p", model, student.processor(64), {"labels": student.labels.to_json()})

    points = Keypoints(np.ones((1, 2, 2)), np.full((1, 2), 2), (("nose", "left_ear"),))
    given = replace(
        square(), labels=Labels(("sky", "puppy"), ((), ("dog",))), prompt=None, semantic=None, keypoints=points
    )
    dog = replace(square(), labels=student.labels, prompt=None, semantic=None, keypoints=None)
    seen = load_teacher(str(tmp_path / "p"), "cpu").look(dog).keypoints
    assert seen.names == (("nose", "l_ear"),) and seen.xy.shape == (1, 2, 2)

    confirmed = replace(given, keypoints=replace(points, xy=seen.xy))
    moved = replace(given, keypoints=replace(points, xy=(seen.xy + 12) % 24))
    right, wrong = FilterByTeacher(teacher=str(tmp_path / "p"), device="cpu")([confirmed, moved])
    assert right.quality.scores == {"filter-by-teacher": 1.0} and right.accepted and not wrong.accepted


# ---------------------------------------------------------------------- agreement
def test_agreement_of_maps_is_the_mean_iou_of_what_either_shows() -> None:
    sample = square()
    ids = sample.semantic.ids.astype(np.int64)
    assert map_agreement(sample, ids, {0, 1, 2}) == 1
    assert map_agreement(sample, (ids + 1) % 3, {0, 1, 2}) == pytest.approx(0, abs=0.2)
    other = ids.copy()
    other[ids == 1] = OTHER
    assert map_agreement(sample, other, {0, 1, 2}) == pytest.approx(2 / 3), "a dog is missing"
    assert map_agreement(sample, other, {0, 2}) == 1, "labels that the teacher does not know are not compared"
    half = replace(sample, semantic=SemanticMap(np.where(ids == 1, IGNORE, ids).astype(np.uint16)))
    assert map_agreement(half, ids, {0, 1, 2}) == 1, "ignored pixels are not compared"
    assert map_agreement(sample, ids, {7}) is None and map_agreement(replace(sample, semantic=None), ids, {0}) is None


def test_agreement_of_boxes_counts_matches() -> None:
    masks = np.zeros((3, 20, 40), bool)
    masks[0, :10, :10] = masks[1, :10, 20:30] = masks[2, 12:, :5] = True
    objects = Instances.from_masks(masks, np.array([1, 1, 2]), crowd=np.array([False, False, True]))
    sample = Sample("a", np.zeros((20, 40, 3), np.uint8), LABELS, instances=objects)
    near = np.array([[1.0, 0, 10, 10], [20, 0, 10, 10], [0, 10, 4, 4]])
    assert np.allclose(box_ious(near[:1], np.array([[0.0, 0, 10, 10], [5, 5, 1, 1]])), [[90 / 110, 1 / 100]])
    assert box_agreement(sample, Boxes(near, np.array([1, 1, OTHER])), {1, 2}) == 1
    assert box_agreement(sample, Boxes(near, np.array([1, 2, 1])), {1, 2}) == pytest.approx(2 / 5)
    assert box_agreement(sample, Boxes(near[:0], np.zeros(0, np.int64)), {0}) is None, "nothing of it is there"
    assert box_agreement(replace(sample, instances=None), Boxes(near, np.array([1, 1, 1])), {1}) is None


def test_agreement_of_keypoints_is_the_mean_similarity_of_objects() -> None:
    masks = np.zeros((3, 20, 40), bool)
    masks[0, :10, :10] = masks[1, :10, 20:30] = masks[2, 12:, :5] = True
    objects = Instances.from_masks(masks, np.array([1, 1, 1]), crowd=np.array([False, False, True]))
    xy = np.array([[[2, 2], [8, 8], [5, 5]], [[22, 2], [28, 8], [0, 0]], [[1, 13], [1, 15], [0, 0]]], np.float32)
    names = (("nose", "l_ear", "hat"), ("nose", "l_ear"), ("nose", "l_ear"))
    points = Keypoints(xy, np.array([[2, 1, 2], [2, 0, 0], [2, 2, 0]]), names)
    sample = Sample("a", np.zeros((20, 40, 3), np.uint8), LABELS, instances=objects, keypoints=points)
    theirs = Keypoints(xy[:, 1::-1], np.full((3, 2), 2), (("left ear", "Nose"),) * 3)
    assert keypoint_agreement(sample, theirs) == 1, "by the words of names; a hat is unknown, crowds do not count"
    far = replace(theirs, xy=theirs.xy + np.array([0, 2 * 0.08 * 10 * 2**0.5], np.float32))
    assert keypoint_agreement(sample, far) == pytest.approx(np.exp(-1), abs=1e-5), "COCO's similarity"
    unseen = replace(theirs, visibility=np.array([[0, 2], [2, 2], [2, 2]]))
    assert keypoint_agreement(sample, unseen) == pytest.approx(0.75), "half of the first object's points"
    assert keypoint_agreement(replace(sample, keypoints=None), theirs) is None
    hidden = replace(sample, keypoints=replace(points, visibility=points.visibility * 0))
    assert keypoint_agreement(hidden, theirs) is None


def test_vocabularies_meet_by_name_and_synonym() -> None:
    assert own_ids(Labels(("Puppy", "car", "sky")), LABELS, "t").tolist() == [1, OTHER, 0]
    with pytest.raises(ConfigError, match="knows none of the labels"):
        own_ids(Labels(("car",)), LABELS, "t")


def test_samples_that_the_teacher_does_not_confirm_are_rejected(tmp_path: Path) -> None:
    path = colour_teacher(tmp_path / "t.onnx")
    (chosen,) = make_filters(FilterConfig(teacher=path, teacher_agreement=0.7))
    right, wrong, bare = chosen([square(), shifted(square()), replace(square(), semantic=None)])
    assert right.accepted and right.quality.scores["filter-by-teacher"] > 0.9
    assert wrong.quality.reasons == ("filter-by-teacher: the teacher disagrees",)
    assert bare.accepted and not bare.quality.scores, "nothing to compare"


def test_another_teacher_is_another_stream(tmp_path: Path) -> None:
    data = Data(InMemoryReader([square()]))
    path = colour_teacher(tmp_path / "t.onnx")
    before = Stream(data, [FilterByTeacher(teacher=path, device="cpu")]).origin()
    assert before == Stream(data, [FilterByTeacher(teacher=path)]).origin(), "the device changes nothing"
    colour_teacher(tmp_path / "t.onnx", side=48)
    assert before != Stream(data, [FilterByTeacher(teacher=path)]).origin()


# ---------------------------------------------------------------------- loss
def wrong_corner(i: int) -> Sample:
    """The sky at the lower left corner, which the image does not show."""
    sample = square(i)
    ids = sample.semantic.ids.copy()
    ids[-6:, :6] = 0
    return replace(sample, semantic=SemanticMap(ids))


@pytest.mark.parametrize("once", [False, True])
def test_pixels_of_a_high_loss_are_ignored(tmp_path: Path, once: bool) -> None:
    """Those of wrong labels, of an iterator as of a list; the others stay."""
    given = [wrong_corner(i) for i in range(3)]
    masked = MaskByLoss(teacher=colour_teacher(tmp_path / "t.onnx"))
    for before, after in zip(given, masked(iter(given) if once else given), strict=True):
        ignored = after.semantic.ids == IGNORE
        assert ignored[-6:, :6].mean() > 0.9 and np.array_equal(
            after.semantic.ids[~ignored], before.semantic.ids[~ignored]
        )
        assert (ignored & (before.semantic.ids == 0))[:12].sum() == 0, "right pixels of the same label"


def test_means_are_those_of_the_whole_set_or_of_other_data(tmp_path: Path) -> None:
    teacher = colour_teacher(tmp_path / "t.onnx")
    given = [wrong_corner(0), square(1)]
    loss, ids = MaskByLoss(teacher=teacher)._losses(given[0])
    assert np.allclose(loss[-6:, :6].min(), loss[ids == 0].max(), atol=20) and (ids == given[0].semantic.ids).all()
    both = [MaskByLoss(teacher=teacher)._losses(s) for s in given]
    mean = np.concatenate([x[i == 0] for x, i in both]).mean()
    (first, _) = MaskByLoss(teacher=teacher, factor=2)(given)
    sky = ids == 0
    assert np.array_equal((first.semantic.ids == IGNORE)[sky], (loss > 2 * mean)[sky])

    write_store([square(i) for i in range(2)], tmp_path / "labelled", LABELS)
    streamed = MaskByLoss(teacher=teacher, data=f"store:{tmp_path / 'labelled'}")
    assert not streamed.compares and MaskByLoss(teacher=teacher).compares
    seen: list[int] = []

    def stream() -> Iterator[Sample]:
        for i in range(3):
            seen.append(i)
            yield wrong_corner(i)

    found = streamed(stream())
    assert (next(found).semantic.ids[-6:, :6] == IGNORE).mean() > 0.9 and seen == [0], "one sample after the other"
    assert set(streamed.origin()["means"]) == {"0", "1", "2"}


def test_labels_without_a_teacher_stay(tmp_path: Path) -> None:
    path = colour_teacher(tmp_path / "t.onnx", names="['sky', 'car', 'bus']")
    (found,) = MaskByLoss(teacher=path, factor=0.01)([square()])
    assert ((found.semantic.ids == IGNORE) <= (square().semantic.ids == 0)).all() and (found.semantic.ids == 1).any()
    (bare,) = MaskByLoss(teacher=path)([replace(square(), semantic=None)])
    assert bare.semantic is None
