"""Which engine does the work, and what is said of GPUs that do nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datasetdm.recipe import on_ray
from datasetdm.recipe.schema import AnnotateStage, EditStage, GenerateStage


def generate(**settings: Any) -> GenerateStage:
    return GenerateStage(**{"prompts": ("a dog",), "count": 4, **settings})


@pytest.fixture(params=[True, False], ids=["ray", "no-ray"])
def ray_is_there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(on_ray, "installed", lambda: request.param)
    return request.param


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_several_gpus_are_used_or_it_is_said(gpus: int, ray_is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for stage in (generate(), AnnotateStage(data="images:x")):
        assert on_ray.chosen(stage) == (gpus > 1 and ray_is_there)
        if on_ray.chosen(stage) or gpus < 2:
            continue
        (note,) = on_ray.idle_notes(stage)
        assert "one of the 2 GPUs" in note and "--engine ray" in note and "pip install" in note
    assert not on_ray.idle_notes(generate(engine="local")) and not on_ray.idle_notes(generate(device="cpu"))


def test_what_has_one_process_says_so(ray_is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for stage in (generate(count=None, target=4), EditStage(data="x", replace={"dog": "cat"})):
        assert isinstance(stage, EditStage) or not on_ray.chosen(stage)
        assert "no other way" in on_ray.idle_notes(stage)[0]
    assert on_ray.chosen(generate(workers=2)) and on_ray.chosen(generate(address="auto"))
