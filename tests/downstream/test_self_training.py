"""Images without labels: who teaches whom, and at which pixels."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from datasetdm.downstream import self_training
from datasetdm.downstream.segformer import Segformer
from datasetdm.downstream.self_training import paste_boxes, self_training_loss, sure_cross_entropy
from datasetdm.errors import ConfigError
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.pipelines.train import iter_train
from datasetdm.records import Labels, Sample
from factory import LABELS, make_sample
from sources import InMemoryReader


class Toy(Segformer):
    """A student whose model gives logits itself."""

    def logits(self, model: Any, images: torch.Tensor) -> torch.Tensor:
        return model(images)


TOY = Toy(LABELS)
PLAIN = SimpleNamespace(image_mean=[0.0, 0.0, 0.0], image_std=[1.0, 1.0, 1.0])
IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(scale: float = 1.0) -> nn.Module:
    """Three labels from three colours; the larger the scale, the surer."""
    own = nn.Conv2d(3, 3, 1)
    nn.init.eye_(own.weight.data[..., 0, 0])
    own.weight.data *= scale
    nn.init.zeros_(own.bias)
    return own


def test_pixels_below_the_threshold_teach_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    ids, confidence = torch.randint(3, (2, 4, 4)), torch.full((2, 4, 4), 0.9)
    confidence[0] = 0.5
    none = sure_cross_entropy(logits, ids, confidence, 0.95)
    (gradient,) = torch.autograd.grad(none, logits)
    assert float(none.detach()) == 0 and not gradient.any()
    some = sure_cross_entropy(logits, ids, confidence, 0.9)
    (gradient,) = torch.autograd.grad(some, logits, retain_graph=True)
    assert not gradient[0].any() and gradient[1].all()
    half = nn.functional.cross_entropy(logits[1:], ids[1:]) / 2
    assert float(some.detach()) == pytest.approx(float(half.detach())), "a mean over all pixels"


def test_the_teacher_teaches_the_student_alone() -> None:
    """A sure teacher's gradient reaches the student's weights and not its own; an unsure one teaches nothing."""
    student, sure = network(0.1), network(200.0)
    before = copy.deepcopy(sure.state_dict())
    self_training_loss(TOY, student, sure, PLAIN, IMAGES, 0.95, 0).backward()
    assert all(p.grad is not None and p.grad.any() for p in student.parameters())
    assert all(p.grad is None for p in sure.parameters())
    assert all(torch.equal(v, before[k]) for k, v in sure.state_dict().items())
    student, unsure = network(0.1), network(0.0)
    loss = self_training_loss(TOY, student, unsure, PLAIN, IMAGES, 0.95, 0)
    loss.backward()
    assert float(loss.detach()) == 0 and not any(p.grad.any() for p in student.parameters() if p.grad is not None)


def test_pasted_boxes_bring_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of one colour each: if any pixel kept the label of what is under a box, the loss would be large."""
    monkeypatch.setattr(self_training, "strong_batch", lambda images, seed: images)
    images = torch.zeros(6, 3, 16, 16)
    for i in range(6):
        images[i, i % 3] = 1
    boxes, other = paste_boxes(6, (16, 16), 0)
    assert (boxes.flatten(1).any(1) & (other % 3 != torch.arange(6) % 3)).any(), "something is pasted"
    model = network(40.0)
    assert float(self_training_loss(TOY, model, model, PLAIN, images, 0.9, 0).detach()) < 1e-6


def test_boxes_are_inside_and_of_the_sizes_asked_for() -> None:
    boxes, other = paste_boxes(400, (40, 60), 0)
    areas = boxes.float().mean((1, 2))
    assert 0.4 < float((areas > 0).float().mean()) < 0.6 and float(areas.max()) <= 0.4
    assert sorted(other.tolist()) == list(range(400))
    assert torch.equal(boxes, paste_boxes(400, (40, 60), 0)[0])


def test_strong_views_do_not_move() -> None:
    """A white square stays lighter than its black surroundings, where it was."""
    images = torch.zeros(12, 3, 32, 32)
    images[:, :, 8:16, 20:28] = 1
    seen = self_training.strong_batch(images, 0)
    assert not torch.equal(seen, images)
    assert (seen[:, :, 11:13, 23:25].mean((1, 2, 3)) > seen[:, :, 20:, :12].mean((1, 2, 3)) + 0.2).all()


@pytest.mark.slow
def test_a_training_with_images_without_labels(tmp_path: Path) -> None:
    """Labels that the images have are ignored; what they teach changes the weights; resuming gives the same ones."""
    two = InMemoryReader([make_sample(f"s{i}", (32, 32), i) for i in range(2)])
    others = [make_sample(f"u{i}", (40, 32), 9 + i, Labels(("a", "b", "c"))) for i in range(3)]
    bare = [replace(s, semantic=None, instances=None, keypoints=None, depth=None) for s in others]

    def trained(name: str, more: list[Sample] | None, stop: int = 9, **changes: Any) -> dict[str, torch.Tensor]:
        settings = {"size": 32, "batch": 2, "steps": 4, "save_every": 2, "self_training_confidence": 0.0, **changes}
        own = None if more is None else InMemoryReader(more)
        config = TrainConfig(**settings)
        for event in iter_train(two, tmp_path / name, self_training=own, config=config, device="cpu"):
            if event.done == stop:
                return {}
        return load_file(tmp_path / name / "model.safetensors")

    labelled, alone = trained("labelled", others), trained("alone", None)
    trained("bare", bare, stop=3)
    found = trained("bare", bare)
    assert all(torch.equal(found[k], labelled[k]) for k in found)
    assert any(not torch.equal(found[k], alone[k]) for k in found)
    story = json.loads((tmp_path / "bare" / "datasetdm.json").read_text())["trained"]
    assert story["unlabelled_images"] == 3 and story["images"] == 2
    with pytest.raises(ConfigError, match="a glpn cannot learn from images without labels"):
        trained("depth", bare, student="glpn")
    assert LABELS.names != others[0].labels.names
