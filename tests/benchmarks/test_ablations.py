"""The ablations' own code: every switch does what its row says, and the table keeps what other runs measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.baselines.pixels import PixelBackbone

from benchmarks import ablations, fitting
from datasetdm.backbones import Backbone
from datasetdm.decoder.model import PDecoder
from datasetdm.pipelines.fit import FitConfig
from datasetdm.records import Labels
from factory import make_sample

QUICK = FitConfig(steps=2, batch=4, variants=1, width=32, evaluate_every=4)


@pytest.mark.parametrize(
    "row", [r for r in ablations.ROWS if r.without or r.indices or r.images == 5 or not r.caption_labels]
)
def test_rows_of_the_ablations(
    row: ablations.Row, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = Labels(("sky", "dog", "grass"), ((), ("puppy",), ("lawn",)))
    rows = [make_sample(str(i), (48, 48), i, labels) for i in range(12)]
    monkeypatch.setattr(fitting, "load_samples", lambda data, count=3: rows[:count])
    found = ablations.measure(row, tmp_path / "d", QUICK, str(tiny_folder), "a", "b")
    assert found["figures"]["semantic"]["miou"] > 0 and found["fit_seconds"] > 0
    assert ("miou_of_synonyms" in found) == row.plain
    story = PDecoder.load(tmp_path / "d").config
    assert not {s.kind for s in story.specs} & set(row.without)
    assert story.text_width == (3 if row.indices else 64) and story.features == row.features
    assert story.fitted is not None and story.fitted["images"] == (5 if row.images == 5 else 11)


def test_words_are_followed_and_numbers_are_not(tiny: Backbone) -> None:
    latents = tiny.encode(torch.rand(1, 3, 64, 64))
    own = ablations.Altered(tiny, rename={"dog": "puppy"}).features(latents, [""], ["dog", "sky"])
    assert torch.equal(own.text, tiny.features(latents, [""], ["puppy", "sky"]).text)
    assert torch.equal(ablations.Altered(tiny, indices=2).features(latents, [""], ["dog", "sky"]).text, torch.eye(2))
    assert isinstance(ablations.Altered(tiny), Backbone) and isinstance(PixelBackbone(3), Backbone)


def test_the_table_keeps_what_other_runs_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def measure(row: ablations.Row, *_: Any) -> dict[str, Any]:
        calls.append(row)
        return {"figures": {"semantic": {"miou": 0.25 + 0.1 * (len(calls) % 2)}}, "fit_seconds": 60}

    monkeypatch.setattr(ablations, "measure", measure)
    common = ["--json", str(tmp_path / "a.json"), "--table", str(tmp_path / "a.md"), "--seeds", "2"]
    ablations.main([*common, "--only", "vae"])
    assert len(calls) == 4
    ablations.main([*common, "--only", "images"])
    assert len(calls) == 4 + 6  # 100 images are the row "with VAE features"
    text, value = (tmp_path / "a.md").read_text(), json.loads((tmp_path / "a.json").read_text())
    assert (
        "| vae | without | 0.300 ± 0.071 | 60 |" in text
        and "| labels | learned label indices |  | not measured |" in text
    )
    assert set(value["vae"]) == {"with VAE features", "without"} and set(value["timesteps"]) == {"50"}
    assert value["seeds"] == [0, 1] and {"commit", "machine"} <= value.keys()
