"""ViTPose: crops, places and heatmaps agree with the image processor of transformers; labels are respected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from datasetdm.decoder.tasks.keypoints import KeypointTask
from datasetdm.downstream import Batch
from datasetdm.downstream.files import TrainedModel, build_model, save_model
from datasetdm.downstream.vitpose import PointTargets, Vitpose, gaussians
from datasetdm.errors import ConfigError
from datasetdm.pipelines.evaluate import evaluate_model
from datasetdm.records import Instances, Keypoints, Labels, Sample, Skeleton
from datasetdm.records.point_names import mirror
from datasetdm.training.augment import turn_batch

LABELS = Labels(
    ("dog", "car", "sky"),
    skeletons={"dog": Skeleton(("nose", "l_ear", "r_ear")), "car": Skeleton(("nose", "l_wheel", "r_wheel"))},
)
SIDE = 64


def posed(visibility: Any = ((2, 1, 2), (2, 0, 2), (2, 2, 2), (2, 2, 2)), size: tuple[int, int] = (60, 80)) -> Sample:
    """Two dogs (one a crowd), a car and a piece of sky, all with points."""
    rng = np.random.default_rng(0)
    boxes = np.array([[5, 8, 30, 20], [40, 20, 12, 30], [1, 30, 20, 15], [50, 2, 20, 10]], float)
    masks = np.zeros((4, *size), bool)
    for mask, (x, y, w, h) in zip(masks, boxes.astype(int), strict=True):
        mask[y : y + h, x : x + w] = True
    xy = boxes[:, None, :2] + boxes[:, None, 2:] * rng.random((4, 3, 2))
    names = [LABELS.skeletons[n].points for n in ("dog", "car", "dog")] + [("top", "left", "right")]
    return Sample(
        "a",
        rng.integers(0, 256, (*size, 3), np.uint8),
        LABELS,
        instances=Instances.from_masks(masks, [0, 1, 0, 2], boxes=boxes, crowd=[False, False, True, False]),
        keypoints=Keypoints(xy.astype(np.float32), np.array(visibility, np.uint8), tuple(names)),
    )


def batch_of(student: Vitpose, sample: Sample) -> Batch[PointTargets]:
    rng = np.random.default_rng(0)
    images, targets = zip(*(student.view(e, SIDE, rng) for e in student.examples(sample)), strict=True)
    return Batch(torch.cat(images), student.collate(targets), torch.zeros(len(images), dtype=torch.bool))


def test_objects_with_labelled_points_are_the_examples() -> None:
    """No crowd, no label without a skeleton, no object without a labelled point; the pixels of a crop are all there."""
    student, sample = Vitpose(LABELS), posed()
    assert student.points == ("nose", "l_ear", "r_ear", "l_wheel", "r_wheel")
    assert [e.key for e in student.examples(sample)] == ["a#0", "a#1"]
    assert [e.key for e in student.examples(posed(np.zeros((4, 3))))] == []
    assert student.examples(replace(sample, keypoints=None)) == []
    objects = sample.instances
    assert objects is not None
    for example, box in zip(student.examples(sample), objects.boxes, strict=False):
        whole = student.processor(SIDE)(
            images=[sample.image], boxes=[[box.tolist()]], input_data_format="channels_last", do_normalize=False
        )
        seen, _ = student.view(example, SIDE, np.random.default_rng(0))
        assert seen.shape[-2:] == student.frame(SIDE) == (64, 48)
        np.testing.assert_allclose(seen[0], whole["pixel_values"][0], atol=1.01 / 255)  # rounded to whole colours
        assert example.image.size < sample.image.size


def test_heatmaps_are_read_as_the_places_that_they_were_made_of() -> None:
    """The image processor of transformers finds labelled points of examples again, in pixels of the whole image."""
    student, sample = Vitpose(LABELS), posed()
    batch, record, objects = batch_of(student, sample), sample.keypoints, sample.instances
    assert record is not None and objects is not None
    assert batch.targets.known.tolist() == [[True, True, True, False, False], [True, False, False, False, True]]
    heatmaps = gaussians(batch.targets.xy, student.frame(SIDE), (32, 24))

    def model(pixel_values: torch.Tensor) -> Any:
        return SimpleNamespace(heatmaps=heatmaps)

    model.device, model.config = "cpu", SimpleNamespace(backbone_config=None)  # ty: ignore[missing-attribute]
    only = replace(sample, instances=objects.take([0, 1]), keypoints=None)
    (found,) = student.annotate(model, student.processor(SIDE), [only])
    points = found.keypoints
    assert points is not None and points.scores is not None and found.instances is not None
    assert points.names == record.names[:2] and points.names[1] == ("nose", "l_wheel", "r_wheel")
    labelled = record.visibility[:2] > 0
    np.testing.assert_allclose(points.xy[labelled], record.xy[:2][labelled], atol=0.15)
    assert (points.scores[labelled] > 0.8).all() and (points.visibility[labelled] == 2).all()


def test_images_without_known_objects_and_labels_without_points_stay_bare() -> None:
    student, sample = Vitpose(LABELS), posed()
    model: Any = SimpleNamespace(device="cpu")
    bare = replace(sample, instances=None, keypoints=None)
    objects = sample.instances
    assert objects is not None
    sky = replace(sample, instances=objects.take([3]), keypoints=None)
    first, second = student.annotate(model, student.processor(SIDE), [bare, sky])
    assert first.instances is None and first.keypoints is None
    assert second.keypoints is not None and second.keypoints.names == ((),) and len(second.instances or ()) == 1


def test_a_mirrored_crop_exchanges_left_and_right_and_points_follow_the_image() -> None:
    """Every point lies on a light square before; after it, too, under the name of the other side if mirrored."""
    student = Vitpose(LABELS)
    count, height, width = 24, *student.frame(SIDE)
    images, xy = torch.zeros(count, 3, height, width), torch.tensor([[10.0, 20], [30, 20], [20, 50]])
    for x, y in xy.long().tolist():
        images[..., y - 2 : y + 3, x - 2 : x + 3] = 0.9
    targets = PointTargets(
        torch.cat([xy, torch.zeros(2, 2)]).expand(count, 5, 2).clone(),
        torch.tensor([True] * 3 + [False] * 2).expand(count, 5).clone(),
    )
    seen = student.augment(Batch(images, targets, torch.zeros(count, dtype=torch.bool)), 3)
    again = student.augment(Batch(images, targets, torch.zeros(count, dtype=torch.bool)), 3)
    assert torch.equal(seen.images, again.images) and torch.equal(seen.targets.xy, again.targets.xy)
    assert not seen.targets.known[:, 3:].any() and seen.targets.known[:, :3].float().mean() > 0.8
    matrices = turn_batch(images, 3)[1]
    assert {bool(d < 0) for d in torch.linalg.det(matrices)} == {True, False} and seen.images.median() < 0.2
    for image, own, known in zip(seen.images, seen.targets.xy, seen.targets.known, strict=True):
        for (x, y), there in zip(own[:3].round().long().tolist(), known[:3].tolist(), strict=True):
            assert not there or image[:, y, x].max() > 0.3
        left, right = own[1] - own[0], own[2] - own[0]
        assert left[0] * right[1] - left[1] * right[0] > 0, (
            "from the nose, the right ear is clockwise of the left one, as before"
        )
    assert mirror(student.points) == student.mirrored.tolist() == [0, 2, 1, 4, 3]


def test_points_without_a_label_teach_nothing() -> None:
    """The gradient reaches the heatmaps of labelled points alone, and is 0 for a crop without any."""
    student, sample = Vitpose(LABELS), posed()
    batch = batch_of(student, sample)
    heatmaps = torch.zeros(2, 5, 32, 24, requires_grad=True)
    model: Any = lambda pixel_values: SimpleNamespace(heatmaps=heatmaps)  # noqa: E731
    loss = student.loss(model, batch.images, batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0), "in units of the loss of empty heatmaps"
    assert heatmaps.grad is not None
    assert torch.equal(heatmaps.grad.flatten(2).any(2), batch.targets.known)


def test_published_models_have_names_of_coco_and_a_size() -> None:
    config = SimpleNamespace(id2label={0: "Nose", 1: "L_Eye", 2: "R_Shoulder"})
    assert Vitpose.labels_of(config).skeletons["person"].points == ("nose", "left_eye", "right_shoulder")
    student = Vitpose(LABELS)
    for size, name, pixels in ((40, "tiny", 32), (96, "b", 64)):
        with pytest.raises(ConfigError, match="no whole number of patches") as caught:
            build_model(student, student.variants[name], size)
        assert caught.value.expected == f"a --size that is a multiple of {pixels}"
    own = student.sized(student.variants["tiny"].settings, 64)
    with pytest.raises(ConfigError, match="does not see crops of 96x72 pixels") as caught:
        student.sized(own, 96)
    assert caught.value.expected == "--size 64"


def test_a_model_that_train_did_not_write_is_measured(tmp_path: Path) -> None:
    """Its points are found in the data by the names of COCO; other labels of the data have none."""
    student = Vitpose(Labels(("person",), skeletons={"person": Skeleton(("Nose", "L_Ear", "R_Ear"))}))
    save_model(tmp_path, build_model(student, student.variants["tiny"], SIDE), student.processor(SIDE), {})
    (tmp_path / "datasetdm.json").unlink()
    names = Labels(("sky", "person"), skeletons={"person": Skeleton(("nose", "right_ear", "left_ear"))})
    sample = posed()
    objects, points = sample.instances, sample.keypoints
    assert objects is not None and points is not None
    data = Sample(
        "a", sample.image, names, instances=replace(objects.take([0, 1]), label_ids=np.array([1, 1])),
        keypoints=replace(points.take([0, 1]), names=(names.skeletons["person"].points,) * 2),
    )  # fmt: skip
    figures = evaluate_model(TrainedModel.load(tmp_path, "cpu"), [data], names).figures
    assert figures.keys() == {KeypointTask.name} and 0 <= figures[KeypointTask.name]["pck"] <= 1
