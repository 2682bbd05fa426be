"""Benchmarks that take minutes, each in its smallest form: they run, and their figures are there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from benchmarks.baselines import words

from benchmarks import (
    coco_reading,
    edits,
    engine_speed,
    formats,
    generated,
    paper_loop,
    quality,
    scale,
    sd15,
    simulated,
    speed,
    spine,
    store_speed,
    throughput,
    viewer_load,
    viewer_speed,
)
from datasetdm.backbones import Backbone, load_backbone
from datasetdm.backbones.hub import load_pipeline
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.engines import ray
from datasetdm.io.codecs import encode_png
from datasetdm.prompts import PromptRow
from datasetdm.readers import read
from datasetdm.recipe.schema import GenerateStage
from datasetdm.recipe.sources import open_job
from datasetdm.store.store import Store
from engines.in_process import InProcess
from factory import LABELS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def finite(figures: Mapping[str, Any]) -> bool:
    """Whether there are numbers, all of them finite."""
    numbers = [v for v in figures.values() if isinstance(v, (int, float))]
    return bool(numbers) and all(map(math.isfinite, numbers))


@pytest.mark.slow
def test_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three ways, the paper's loop among them, on the embedded model."""
    monkeypatch.setattr(throughput, "STEPS", 1)
    monkeypatch.setattr(paper_loop, "STEPS", 1)
    monkeypatch.setattr(throughput, "matrix_rate", lambda bench, _, rate=throughput.matrix_rate: rate(bench, 64))
    figures = throughput.measure("cpu", batch=1, pairs=1)
    assert finite(figures) and figures.keys() == json.loads((RESULTS / "throughput-cpu.json").read_text()).keys()


def test_speed(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "DatasetGenerator", partial(speed.DatasetGenerator, steps=1))
    figures = speed.speed(1, PDecoder.for_backbone(tiny, LABELS, ("semantic",)))
    assert finite(figures) and figures["ratios"] == [round(figures["ratio_annotated_to_plain"], 3)]


@pytest.mark.slow
def test_a_pipeline_of_the_size_of_sd15(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its UNet has as many weights as the published one; a smaller one stands for it here, and can be loaded."""
    whole = []

    def small(model: Any, less: dict[str, Any], **asked: Any) -> Any:
        with torch.device("meta"):
            whole.append(model(**asked).num_parameters())
        return model(**{**asked, **less})

    blocks = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
    monkeypatch.setattr(sd15, "UNet2DConditionModel", partial(small, sd15.UNet2DConditionModel, blocks))
    monkeypatch.setattr(sd15, "AutoencoderKL", partial(small, sd15.AutoencoderKL, blocks))
    monkeypatch.setattr(sd15, "CLIPTextModel", lambda c, model=sd15.CLIPTextModel: model(few(c)))

    def few(config: Any) -> Any:
        config.num_hidden_layers, config.intermediate_size = 1, 32
        return config

    pipe = load_pipeline(sd15.random_sd15(tmp_path / "pipe", torch.float32), torch.float32)
    assert whole == [859_520_964, 83_653_863] and type(pipe).__name__ == "StableDiffusionPipeline"
    assert load_backbone(str(tmp_path / "pipe"), device="cpu").size == (512, 512)


@pytest.mark.slow
def test_spine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spine, "read", lambda data: list(islice(read(data), 4)))
    committed = json.loads((RESULTS / "spine.json").read_text())
    for measure in (spine.decoder_figures, spine.confidence_figures, spine.prior_figures, spine.attention_figures):
        figures = measure(2)
        assert finite(figures) and figures.keys() <= committed.keys()


@pytest.mark.slow
def test_generated() -> None:
    decoder, backbone = load_pair("mini")
    figures = generated.generated_figures(decoder, backbone, list(islice(read("mini:test"), 2)), count=2, seed=0)
    assert figures["prompts"] == 2 and 0 <= figures["drawn_miou"] <= 1 and 0 <= figures["rendered_miou"] <= 1


@pytest.mark.slow
def test_words_are_pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = encode_png(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    rows = [{"key": f"captioned-{i}", "image": image, "caption": "a red dog on a sofa"} for i in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "captioned-000000.parquet")
    figures = words.pretrain(tmp_path, tmp_path / "encoder.safetensors", seconds=2)
    assert finite(figures) and figures["steps"] > 0 and (tmp_path / "encoder.safetensors").stat().st_size > 1000


# ---------------------------------------------------------------------- stores and formats
def test_coco_reading() -> None:
    assert 0 < coco_reading.coco_read_ratio(20, repeats=1) < 100


def test_store_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(store_speed, "DIFFERENT", 2)
    store_speed.main(["--memory-of", "3"])
    peak = float(capsys.readouterr().out)
    monkeypatch.setattr(store_speed, "peak_memory", lambda _: peak)
    store_speed.main(["--json", str(tmp_path / "x.json"), "--samples", "5", "--repeats", "1", "--sizes", "2", "3"])
    figures = json.loads((tmp_path / "x.json").read_text())
    assert finite(figures) and set(figures["peak_memory_mb"]) == {"2", "3"} and peak > 10


def test_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"driver": 100.0, "worker": 50.0}, {"continue": 80.0}, {"read": 60.0}
    peaks = dict(zip(simulated.STEPS, steps, strict=True))
    monkeypatch.setattr(
        scale,
        "_in_a_process",
        lambda step, _, count: {k: v + count / 10**6 for k, v in peaks[step].items()} | {f"{step}_s": 1.0},
    )
    ways = {
        "alone_seconds": [(10.0, 10.2), (10.0, 9.9), (10.0, 10.1)],
        "workers_seconds": [(10.3, 5.0), (10.2, 6.0), (9.0, 5.0)],
    }
    names = {"alone_seconds": ("plain_s", "local_s"), "workers_seconds": ("workers_1_s", "workers_2_s")}
    for way, pairs in ways.items():
        rounds = iter(pairs)
        monkeypatch.setattr(scale, way, lambda *_, r=rounds, n=names[way]: dict(zip(n, next(r), strict=True)))
    monkeypatch.setattr(scale, "store_speed", lambda _: {"store_per_second": 800.0})
    monkeypatch.setattr(scale, "viewer_p99", lambda: {"viewer_p99": 0.5})
    asked = ["--work", str(tmp_path / "work"), "--sizes", "1000", "1000000", "--rounds", "3"]
    scale.main(asked)
    for name in ("_in_a_process", "_in_a_folder", "store_speed", "viewer_p99"):
        monkeypatch.setattr(scale, name, lambda *_: pytest.fail("measured again"))
    scale.main([*asked, "--json", str(tmp_path / "x.json")])
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["rss_growth_1k_to_1m"] == round(51 / 50.001, 3) and found["viewer_p99"] == 0.5
    assert (found["two_workers_speedup"], found["local_overhead"], found["worker_overhead"]) == (1.8, 0.01, 0.02)
    assert found["engine_overhead"] == 0.02 and found["store_per_second"] == 800.0


def test_simulated_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ray, "connected", InProcess().connected)
        assert simulated.take_step("workers", tmp_path, 300).keys() == {"driver", "worker"}
    for step in simulated.STEPS[1:]:
        assert simulated.take_step(step, tmp_path, 300)[step] > 10
    assert len({*Store(tmp_path / "store").keys()}) == 300 + simulated.GROUP


@pytest.mark.slow
def test_engine_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BATCH", 2), ("STEPS", 1)):
        monkeypatch.setattr(engine_speed, name, value)
    monkeypatch.setattr(engine_speed, "connected", InProcess().connected)
    monkeypatch.setattr(ray, "connected", InProcess().connected)
    monkeypatch.setattr(engine_speed, "_open_together", lambda stage, *_: open_job(GenerateStage, stage, 1))
    figures = engine_speed.alone_seconds(tmp_path, 4) | engine_speed.workers_seconds(tmp_path, 4)
    assert finite(figures) and len(figures) == 4
    assert all(len(Store(tmp_path / name)) == 4 for name in ("local", "workers-1", "workers-2"))


@pytest.mark.slow
def test_viewer_load() -> None:
    assert finite(viewer_load.viewer_load(100, 8, parallel=12))


@pytest.mark.slow
def test_viewer_speed() -> None:
    assert finite(viewer_speed.viewer_speed(300, repeats=1))


def test_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {name: formats.WAYS[name] for name in ("coco", "yolo-pose")}
    monkeypatch.setattr(formats, "WAYS", ways)
    monkeypatch.setattr(formats, "EXPORTERS", [*ways])
    verdicts, compared = formats.round_trips(6)
    assert set(verdicts) == {"mini", "store", "coco (coco)", "yolo (yolo-pose)"} == set(compared)
    assert all(set(row) == set(ways) for row in verdicts.values()) and verdicts["mini"]["coco"] == "equal"
    assert formats.coco_export_per_second(2, repeats=1) > 0


@pytest.mark.slow
def test_edits(mini: Backbone, tmp_path: Path) -> None:
    figures = edits.measure(2, 0, *load_pair("mini", mini), edits.load_oracle(), tmp_path, steps=2)
    assert finite(figures) and figures["edits"] == 2 and figures["edit_outside_change"] == 0
    assert sum(row["asked"] for row in figures["by_label"].values()) == figures["labels_asked"]
    by_label = edits.found_by_label([["cat", "dog"], [], ["cat"]], {"edited": [[True, False], [], [True]]})
    assert by_label == {"cat": {"asked": 2, "edited": 2}, "dog": {"asked": 1, "edited": 0}}
    rates = edits.found_rates([[True, False], [False]] * 50, [[True, True], [False]] * 50)
    assert (rates["edit_found"], rates["fresh_found"], rates["found_ratio"]) == (50 / 150, 100 / 150, 0.5)
    low, high = rates["edit_found_interval"]
    assert 0.2 < low < 1 / 3 < high < 0.5 and rates["found_ratio_interval"] == [0.5, 0.5]
    swap = edits.partners(edits.Grammar.load())
    assert all(old != new for old, new in swap.items()) and {*swap.values()} <= {*swap}


@pytest.mark.slow
def test_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters and prompts; edits are measured by the test above."""
    monkeypatch.setattr(quality.edits, "measure", lambda *_: {"edit_found": 0.5, "fresh_found": 0.6, "edits": 1})
    monkeypatch.setattr(quality, "DatasetGenerator", partial(quality.DatasetGenerator, steps=1))
    monkeypatch.setattr(quality, "THRESHOLDS", [0.3, 0.5])
    monkeypatch.setattr(quality, "FILTERS", quality.FILTERS[:2])
    monkeypatch.setattr(quality, "PROMPTS", 20)
    rows = [PromptRow(prompt=text).to_json() for text in ("a dog on the grass", "a red bus on a road")]
    (tmp_path / "llm.jsonl").write_text("\n".join(rows))
    asked = ["--json", str(tmp_path / "q.json"), "--count", "2", "--plot", str(tmp_path / "q.svg")]
    quality.main([*asked, "--edits", "1", "--edit-steps", "1", "--llm", str(tmp_path / "llm.jsonl")])
    found = json.loads((tmp_path / "q.json").read_text())
    committed = json.loads((RESULTS / "quality.json").read_text())
    assert (
        {k for k in committed if not k.startswith("edit_")} <= found.keys()
        and 0 <= found["edit_found"] <= 1
        and "<svg" in (tmp_path / "q.svg").read_text()
    )
    assert {n: d["prompts"] for n, d in found["diversity"].items()} == {"names": 2, "grammar": 2, "llm": 2}
    assert found["diversity"]["llm"]["labels"] > 0
