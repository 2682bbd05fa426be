"""One source for settings: what the command line, the environment, the file, recipes and Python say is the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from commands import run
from datasetdm.pipelines.settings import FilterConfig
from datasetdm.recipe.schema import KINDS, FitStage, GenerateStage, PageOptions

COMMANDS: dict[str, type[BaseModel]] = {
    m.model_fields["kind"].default: m for m in KINDS if m.model_fields["kind"].default != "page"
} | {"view": PageOptions, "filter": FilterConfig}  # the command filters in place, the stage into a store of its own


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """(stage, out) of the commands that would have run."""
    import datasetdm.cli.decoders as decoders
    import datasetdm.cli.stores as stores
    from datasetdm.engines.progress import Outcome

    seen: list[tuple[Any, Any]] = []

    def perform(stage: Any, out: Any) -> Outcome:
        seen.append((stage, out))
        return Outcome(out or Path(), "")

    monkeypatch.setattr(decoders, "perform", perform)
    monkeypatch.setattr(stores, "perform", perform)
    return seen


def test_a_command_builds_the_stage_of_a_recipe(performed: list[tuple[Any, Any]]) -> None:
    assert run("fit", "--data", "coco:x.json", "--out", "o") == 0
    assert performed.pop() == (FitStage(data="coco:x.json"), Path("o"))
    words = ("--tasks", "semantic,depth", "--timesteps", "1,50", "--low-memory", "--lora", "a", "b")
    assert run("fit", "--data", "x", "--out", "o", *words) == 0
    wanted = FitStage(
        data="x", tasks=("semantic", "depth"), timesteps=(1, 50), low_memory=True, lora=(Path("a"), Path("b"))
    )
    assert performed.pop()[0] == wanted
    assert run("generate", "--prompts", "a dog, a cat", "two cats", "--count", "3", "--out", "s") == 0
    assert performed.pop()[0] == GenerateStage(prompts=("a dog, a cat", "two cats"), count=3)


def test_the_later_of_file_environment_and_command_line_wins(
    performed: list[tuple[Any, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("fit", "--data", "x", "--out", "o")
    Path("datasetdm.toml").write_text('[fit]\nsteps = 3\ntasks = ["depth"]\nlearning_rate = 0.5\n')
    assert run(*words) == 0
    assert performed.pop()[0] == FitStage(data="x", steps=3, tasks=("depth",), learning_rate=0.5)
    monkeypatch.setenv("DATASETDM_FIT_STEPS", "4")
    assert run(*words) == 0 and performed.pop()[0].steps == 4
    assert run(*words, "--steps", "5") == 0 and performed.pop()[0].steps == 5


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_shows_every_setting_with_its_default(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert run(command, "--help") == 0
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out).partition("Parameters")[2]
    for name, field in COMMANDS[command].model_fields.items():
        if name == "kind" or name.endswith("transforms"):
            continue
        assert field.description, name
        assert field.description.replace("`", "") in shown, name
        option = name if name == "data" and command == "export" else f"--{name.replace('_', '-')}"
        assert re.search(rf"{option}\b", shown, re.IGNORECASE), name
        simple = isinstance(field.default, (bool, int, float, str)) and field.default != ""
        if simple:
            after = shown[re.search(rf"{option}\b", shown).end() :]
            assert f"[default: {field.default}]" in after[: len(field.description) + 120], name


def test_backbone_defaults_are_those_of_python() -> None:
    """Its configuration is a part of a decoder's file, so it stands in the backbones' own module."""
    from datasetdm.backbones import FeatureConfig

    stage, own = FitStage(data="x"), FeatureConfig()
    assert (stage.timesteps, stage.inversion, stage.size) == (own.timesteps, own.inversion, own.size)
