"""Code that lies in a folder of weights never runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from datasetdm.backbones import load_backbone
from datasetdm.errors import BackboneError

SOURCE = Path(__file__).parents[2] / "src"


def test_a_pipeline_with_code_of_its_own_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(tiny_folder, folder)
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').close()\nfrom diffusers import UNet2DConditionModel\n"
    for place in (folder, folder / "unet"):
        (place / "evil.py").write_text(code)
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["evil", "UNet2DConditionModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BackboneError):
        load_backbone(str(folder), device="cpu")
    assert not ran.exists()


def test_nothing_asks_for_remote_code() -> None:
    assert not [path for path in SOURCE.rglob("*.py") if "trust_remote_code=True" in path.read_text()]
