"""What every student promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from datasetdm.downstream import STUDENTS, Student
from datasetdm.downstream.files import TrainedModel, build_model
from datasetdm.downstream.mit import TINY_MIT
from datasetdm.errors import ConfigError
from datasetdm.pipelines.evaluate import evaluate_model
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.pipelines.train import iter_train, train
from datasetdm.records import IGNORE, Instances, Labels, Sample, Skeleton
from datasetdm.records.edits import relabel
from factory import LABELS as PLAIN
from factory import make_sample

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


SKELETONS = {"dog": Skeleton(("nose", "tail"))}
LABELS = Labels(PLAIN.names, PLAIN.synonyms, skeletons=SKELETONS)


class InMemoryReader:
    """Samples as a reader."""

    def __init__(self, samples: list[Sample]):
        self.samples, self.labels = samples, samples[0].labels

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Any:
        return iter(self.samples)


QUICK: dict[str, Any] = dict(size=32, batch=2, steps=4, warm_up=1, save_every=2, learning_rate=1e-3)


@pytest.fixture(params=sorted(STUDENTS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def two() -> InMemoryReader:
    return InMemoryReader([make_sample(f"s{i}", (32, 32), i, LABELS) for i in range(2)])


def settings(name: str, **changes: Any) -> TrainConfig:
    return TrainConfig(**{"student": name, **QUICK, **changes})


def losses(data: InMemoryReader, out: Path, config: TrainConfig, **more: Any) -> list[float]:
    return [p.loss for p in iter_train(data, out, config=config, device="cpu", **more)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
def test_the_loss_falls_on_two_images(name: str, two: InMemoryReader, tmp_path: Path) -> None:
    found = losses(two, tmp_path / "m", settings(name, steps=14, learning_rate=3e-3, augment=False))
    assert np.mean(found[-3:]) < 0.85 * np.mean(found[:3])


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_same(name: str, two: InMemoryReader, tmp_path: Path) -> None:
    config = settings(name)
    losses(two, tmp_path / "whole", config)
    for event in iter_train(two, tmp_path / "parts", config=config, device="cpu"):
        if event.done == 3:  # after a checkpoint, and one step more
            break
    assert not (tmp_path / "parts" / "config.json").exists()
    assert len(losses(two, tmp_path / "parts", config)) == 2
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    log = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert log == [4] and not (tmp_path / "parts" / "work").exists()


@pytest.mark.slow
def test_an_ordinary_folder_with_equal_outputs(name: str, two: InMemoryReader, tmp_path: Path) -> None:
    """What transformers opens gives what we measure; labels and sizes are in its own files."""
    trained = train(two, tmp_path / "m", **{"student": name, **QUICK, "steps": 1})
    student: Student[Any] = trained.student
    plain = student.classes()[1].from_pretrained(tmp_path / "m").eval()
    again = TrainedModel.load(tmp_path / "m", "cpu")
    image = torch.rand(1, 3, *student.frame(32))
    with torch.no_grad():
        outputs = [m(pixel_values=image) for m in (plain, again.model)]
    assert all(torch.equal(a, b) for a, b in zip(*(first_tensors(o) for o in outputs), strict=True))
    assert student.labels == LABELS and evaluate_model(again, two, LABELS).figures
    assert plain.config.model_type == student.model_type


@pytest.mark.slow
def test_an_onnx_file_with_equal_outputs(name: str, two: InMemoryReader, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    side = max(32, STUDENTS.load(name).smallest_onnx)
    asked = {"student": name, **QUICK, "steps": 1, "onnx": True, "size": side}
    if side > 32:
        with pytest.raises(ConfigError, match="cannot be written as an ONNX file"):
            train(two, tmp_path / "m", **{**asked, "size": 32})
    trained = train(two, tmp_path / "m", **asked)
    images = torch.rand(3, 3, *trained.student.frame(side))
    session = onnxruntime.InferenceSession(tmp_path / "m" / "model.onnx")
    with torch.no_grad():
        outputs = trained.model(pixel_values=images)
    found = session.run(None, {"pixel_values": images.numpy()})
    for own, other in zip(trained.student.outputs, found, strict=True):
        np.testing.assert_allclose(outputs[own].numpy(), other, atol=1e-4)


def first_tensors(outputs: Any) -> list[torch.Tensor]:
    return [v for v in outputs.values() if isinstance(v, torch.Tensor)]


@pytest.mark.slow
def test_label_order_does_not_matter(name: str, two: InMemoryReader, tmp_path: Path) -> None:
    """Labels are matched by name: data in another order teach the same."""
    order = Labels(tuple(reversed(LABELS.names)), tuple(reversed(LABELS.synonyms)), skeletons=SKELETONS)
    ids = [order.index[n] for n in LABELS.names]
    turned = InMemoryReader([relabel(s, order, ids) for s in two.samples])
    config = settings(name, steps=2, synthetic_fraction=1.0)
    assert losses(two, tmp_path / "a", config, synthetic=two) == losses(two, tmp_path / "b", config, synthetic=turned)


def test_what_is_unknown_teaches_nothing(name: str, two: InMemoryReader, tmp_path: Path) -> None:
    """Another image where the labels are unknown does not change the gradient's direction: its loss is 0."""
    student = STUDENTS.load(name)(LABELS)
    unknown = [hidden(s) for s in two.samples]
    for sample in two.samples:
        student.observe(sample)
    rng = np.random.default_rng(0)
    from datasetdm.downstream import Batch, normalise
    from datasetdm.downstream.files import build_model

    torch.manual_seed(0)
    model = build_model(student, student.variants["tiny"], 32)
    images, targets = zip(*(student.view(s, 32, rng) for s in unknown), strict=True)
    batch = Batch(torch.cat(images), student.collate(targets), torch.zeros(2, dtype=torch.bool))
    loss = student.loss(model, normalise(batch.images, student.processor(32)), batch)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def hidden(sample: Sample) -> Sample:
    """The sample with its labels unknown everywhere."""
    semantic, depth, instances = sample.semantic, sample.depth, sample.instances
    assert semantic is not None and depth is not None and instances is not None
    points = sample.keypoints
    assert points is not None
    return replace(
        sample,
        semantic=replace(semantic, ids=np.full_like(semantic.ids, IGNORE)),
        depth=replace(depth, valid=np.zeros_like(depth.valid)),
        instances=Instances.from_masks(
            np.ones((1, *sample.size), bool), instances.label_ids[:1], crowd=np.ones(1, bool)
        ),
        keypoints=replace(points, visibility=np.zeros_like(points.visibility)),
    )


@pytest.mark.slow
def test_a_pipeline_of_transformers_finds_the_same(two: InMemoryReader, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import pipeline

    trained = train(two, tmp_path / "m", **{**QUICK, "steps": 1})
    image = two.samples[0].image
    found = pipeline("image-segmentation", model=str(tmp_path / "m"), device="cpu")(Image.fromarray(image))
    ((_, own),) = trained.annotate(two.samples[:1])
    assert own.semantic is not None and found
    for part in found:
        assert np.array_equal(np.asarray(part["mask"]) > 0, own.semantic.ids == LABELS.index[part["label"]])


def pretrained(kind: str, folder: Path) -> Any:
    """A network of `transformers` that was pretrained for something else, saved into a folder."""
    import transformers

    sizes: dict[str, Any] = {
        "segformer": {**TINY_MIT, "hidden_sizes": (8, 16, 32, 64)},
        "swin": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 4},
    }
    classes = {"segformer": "SegformerForImageClassification", "swin": "SwinForImageClassification"}
    model = getattr(transformers, classes[kind])._from_config(transformers.AutoConfig.for_model(kind, **sizes[kind]))
    model.save_pretrained(folder)
    return model


def test_an_encoder_that_was_pretrained_alone(name: str, tmp_path: Path) -> None:
    """Its sizes and weights are the student's; other networks, and files that lack weights, are refused."""
    student = STUDENTS.load(name)(LABELS)
    kinds = {"segformer", "swin"}
    for kind in kinds - {student.encoder_type, student.model_type}:
        pretrained(kind, tmp_path / kind)
        with pytest.raises(ConfigError, match=f"the encoder is a {kind}"):
            build_model(student, student.variants["tiny"], 64, str(tmp_path / kind))
    if not student.encoder_type:
        return
    folder = tmp_path / "own"
    given = pretrained(student.encoder_type, folder).base_model
    model = build_model(student, student.variants["tiny"], 64, str(folder))
    found = list(model.get_submodule(student.encoder).parameters())
    for key, value in given.named_parameters():
        assert any(torch.equal(value, other) for other in found if other.shape == value.shape), key
    stored = load_file(folder / "model.safetensors")
    dropped = next(k for k in stored if k.endswith("weight") and "classifier" not in k)
    save_file({k: v for k, v in stored.items() if k != dropped}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="1 weights of the encoder are missing"):
        build_model(student, student.variants["tiny"], 64, str(folder))
