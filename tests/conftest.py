"""Fixtures. Every call into the package is checked against its shape annotations while the tests run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from jaxtyping import install_import_hook

CHECKED = (
    "io", "metrics", "prompts", "store", "readers", "transforms", "exporters", "viewer",
    "backbones", "decoder", "training", "downstream", "quality", "pipelines", "engines", "recipe",
)  # fmt: skip
install_import_hook([f"datasetdm.{part}" for part in CHECKED], "beartype.beartype")

from datasetdm.records import Sample
from factory import make_sample
from hub_server import Hub

if TYPE_CHECKING:
    from datasetdm.backbones import Backbone

os.environ.setdefault("HF_HUB_OFFLINE", "1")
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")  # other runs go on searching


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import the libraries that warn about each other, unless this process only hands out tests to workers."""
    if not session.config.getoption("numprocesses", None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import diffusers  # noqa: F401
            import kornia.augmentation  # noqa: F401
            import transformers  # noqa: F401


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Twelve pictures of different sizes and aspects."""
    sizes = [(24, 32), (48, 24), (40, 40), (17, 64)]
    return [make_sample(f"s{i}", sizes[i % 4], i) for i in range(12)]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline folder of the real classes with random weights: 64x64 pictures, stride 4, no training."""
    from pipelines import save

    return save("sd1", tmp_path_factory.mktemp("tiny-pipeline"))


@pytest.fixture(scope="session")
def pipeline_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pipeline of every family."""
    from pipelines import PIPELINES, save

    return {name: save(name, tmp_path_factory.mktemp(name)) for name in PIPELINES}


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Backbone:
    """The tiny pipeline, loaded."""
    import torch

    from datasetdm.backbones import load_backbone

    return load_backbone(str(tiny_folder), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def mini() -> Backbone:
    """The embedded model."""
    from datasetdm.backbones import load_backbone

    return load_backbone("mini", device="cpu")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Hub]:
    """A hub of its own, for this test."""
    import huggingface_hub
    from huggingface_hub import constants

    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "good")
    huggingface_hub.HfFileSystem.clear_instance_cache()
    yield server
    server.close()
    huggingface_hub.HfFileSystem.clear_instance_cache()
