"""The files for clusters in the documentation: their parsers read them, and their commands have the options that they use."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from datasetdm.recipe.schema import GenerateStage

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "cluster.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def test_the_script_is_a_script() -> None:
    (script,) = [text for text in blocks("sh") if text.startswith("#!/bin/bash")]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    (command,) = re.findall(r"datasetdm generate (.*?)$\n(?!\s*--)", script.replace("\\\n", " "), re.M)
    assert {*re.findall(r"--(\w+)", command)} - {"out"} <= {*GenerateStage.model_fields}


def test_the_launcher_file_starts_a_head_and_workers() -> None:
    (text,) = blocks("yml")
    content = yaml.safe_load(text)
    assert content["provider"]["type"] == "local" and len(content["provider"]["worker_ips"]) == 2
    assert any("ray start --head" in c for c in content["head_start_ray_commands"])
    assert any("ray start --address" in c for c in content["worker_start_ray_commands"])
