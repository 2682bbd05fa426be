"""The examples run as they stand."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

from labelled import noise_image

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path / "out")])
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn about each other
        runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


# ---------------------------------------------------------------------- the plug-in package
PLUGIN = Path(__file__).parent.parent / "examples" / "plugin"


def installed(folder: Path) -> Path:
    """The plug-in as an installer leaves it in `folder`: its module, and the entry points that pyproject.toml names."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    shutil.copy(PLUGIN / "datasetdm_boxes.py", folder)
    about = folder / f"datasetdm_boxes-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    text = "\n".join(f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in points.items()) for group, points in groups)
    (about / "entry_points.txt").write_text(text)
    return folder


USE = """
from datasetdm.readers import READERS, read
from datasetdm.readers.layouts import layout
from datasetdm.transforms import apply, transform_from_json
assert "csv-boxes" in READERS and "image,label" in layout("csv-boxes")
reader = read("csv-boxes:boxes.csv")
stream, labels = apply(reader, reader.labels, [transform_from_json({"name": "drop-small", "area": 50})])
for sample in stream:
    print(sample.key, [labels.names[i] for i in sample.instances.label_ids], sample.instances.boxes.tolist())
"""


@pytest.mark.slow
def test_a_plugin_package_adds_a_reader_and_a_transform(tmp_path: Path) -> None:
    """Both are found by their entry points, and the command line reads the new format."""
    noise_image(tmp_path / "a.png", (20, 30))
    (tmp_path / "boxes.csv").write_text("image,label,left,top,right,bottom\na.png,dog,1,2,11.5,12\na.png,cat,0,0,5,5\n")
    path = os.pathsep.join([str(installed(tmp_path)), os.environ.get("PYTHONPATH", "")])

    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        words = (sys.executable, *words)
        environment = os.environ | {"PYTHONPATH": path}
        return subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    done = ran("-c", USE)
    assert done.stdout.splitlines() == ["a ['dog'] [[1.0, 2.0, 10.5, 10.0]]"], done.stderr
    done = ran("-m", "datasetdm.cli", "inspect", "csv-boxes:boxes.csv")
    assert done.returncode == 0 and "dog" in done.stdout
    (tmp_path / "boxes.csv").write_text("image,label,left,top,right,bottom\na.png,dog,1,2\n")
    done = ran("-m", "datasetdm.cli", "inspect", "csv-boxes:boxes.csv")
    assert done.returncode == 2 and "boxes.csv, line 2" in done.stderr.replace("\n", "")
    assert len((PLUGIN / "datasetdm_boxes.py").read_text().splitlines()) <= 75
