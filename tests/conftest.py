"""Fixtures. Every call into the package is checked against its shape annotations while the tests run."""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # third-party modules warn about each other while they are imported
    import diffusers  # noqa: F401
    import kornia.augmentation  # noqa: F401
    import transformers  # noqa: F401

MODULES = (
    "backbones codecs decoder evaluate exporters features fit generate images metrics model prompts readers store tasks"
)
install_import_hook([f"datasetdm.{m}" for m in [*MODULES.split(), "viewer"]], "beartype.beartype")

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from datasetdm.backbones import Backbone, load_backbone
from datasetdm.types import DepthMap, Instances, Keypoints, Labels, Prompt, Sample, SemanticMap
from pipelines import PIPELINES, save

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")  # other runs go on searching

LABELS = Labels(("sky", "dog", "grass"), ((), ("puppy",), ()))


def make_sample(key: str = "a", size: tuple[int, int] = (24, 32), seed: int = 0, labels: Labels = LABELS) -> Sample:
    """A picture of sky over grass with a dog, and everything known about it."""
    rng = np.random.default_rng(seed)
    h, w = size
    ids = np.zeros(size, np.uint16)
    ids[h // 2 :] = 2
    top, left = rng.integers(1, h // 2), rng.integers(1, w // 2)
    dog = np.zeros(size, bool)
    dog[top : top + h // 3, left : left + w // 3] = True
    ids[dog] = 1
    colours = np.array([[120, 170, 250], [120, 80, 40], [60, 150, 60]])
    image = np.clip(colours[ids] + rng.normal(0, 8, (h, w, 3)), 0, 255).astype(np.uint8)
    depth = np.where(ids == 0, 0, 2 + 8 * (h - np.arange(h)[:, None]) / h).astype(np.float32)
    bones = labels.skeletons.get(labels.names[1])
    points = bones.points[:2] if bones else ("nose", "tail")
    records = {
        "semantic": SemanticMap(ids, rng.random(size)),
        "depth": DepthMap(depth, ids != 0, confidence=rng.random(size)).quantised(),
        "instance": Instances(dog[None], np.array([1]), np.array([0.75])),
        "keypoints": Keypoints(np.array([[[left, top], [0, 0]]]), np.array([[2, 0]]), (points,)),
    }
    return Sample(key, image, labels, Prompt("a photo of a dog", ("dog",), 7), records, {"source": "test"})


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Twelve pictures of different sizes and aspects."""
    sizes = [(24, 32), (48, 24), (40, 40), (17, 64)]
    return [make_sample(f"s{i}", sizes[i % 4], i) for i in range(12)]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline folder of the real classes with random weights: 64x64 pictures, stride 4, no training."""
    return save("sd1", tmp_path_factory.mktemp("tiny-pipeline"))


@pytest.fixture(scope="session")
def pipeline_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pipeline of every family."""
    return {name: save(name, tmp_path_factory.mktemp(name)) for name in PIPELINES}


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Backbone:
    """The tiny pipeline, loaded."""
    return load_backbone(str(tiny_folder), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def mini() -> Backbone:
    """The embedded model."""
    return load_backbone("mini", device="cpu")
