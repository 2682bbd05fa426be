"""Tables of students: rows as small files, gains with intervals, a report of what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmarks.students import curves, data, renders, report, tables
from benchmarks.students.__main__ import main, plan
from benchmarks.students.curves import CURVES, measure_point, plan_points
from benchmarks.students.data import Data
from benchmarks.students.figures import MeanIoU, evidence_of, pack
from benchmarks.students.rows import Bench, needs_of
from benchmarks.students.sheet import draw_sheet
from benchmarks.students.tables import TABLES, Settings

from datasetdm.errors import ConfigError
from datasetdm.pipelines.settings import FitConfig
from datasetdm.pipelines.stream import Keys
from datasetdm.prompts import PromptSource
from datasetdm.prompts.grammar import Grammar
from datasetdm.readers import read
from datasetdm.readers.formats.mini import LABELS, PACKAGED
from datasetdm.records import Sample
from datasetdm.store.store import Store

TINY = Settings(steps=3, trial_steps=1, learning_rates=(1e-3, 2e-3), batch=2, size=32)
FIT = FitConfig(tasks=("semantic",), steps=1, batch=2, variants=1, width=32)


@dataclass(frozen=True)
class Shown:
    """A generator whose images are packaged renders with their labels."""

    prompts: PromptSource
    device: str
    labels = LABELS
    endless = False

    def origin(self) -> dict[str, Any]:
        return {"source": "test", **self.prompts.origin()}

    def check(self, store: Store) -> None: ...

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        return (s for s in islice(read("mini:test"), 4) if s.key not in done)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Two labelled renders among four; two to choose by, three to test on."""
    rows = pq.read_table(next(PACKAGED.glob("train-*.parquet"))).slice(0, 12)
    places = {"labelled": (0, 2), "everything": (0, 4), "val": (4, 2), "test": (6, 3)}
    for name, place in places.items():
        pq.write_table(rows.slice(*place), tmp_path / f"{name}-000000.parquet")
    splits = {name: tmp_path / name for name in places}
    data = Data(4, tmp_path / "work", **splits, generator=Shown, fit=FIT, strange=1)
    return Bench(data, tmp_path / "rows", TINY)


@pytest.mark.slow
def test_rows_are_measured_once_and_reported(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = bench.measure("semantic", "self_training", 0)
    assert value["figure"] == pytest.approx(MeanIoU().figure(evidence_of(value))) and value["images"] == 4
    assert value["val"].keys() == {"0.001", "0.002"} and value["learning_rate"] in TINY.learning_rates
    assert {p.name for p in bench.rows.glob("*")} == {f"{bench.name('semantic', 'self_training', 0)}.json"}
    bench.measure("semantic", "real", 0)  # the teacher that is there already
    base = bench.measure("semantic_pretrained", "real", 0)["figure"]
    monkeypatch.setattr("benchmarks.students.rows.iter_train", lambda *_, **__: pytest.fail("trained again"))
    assert bench.measure("semantic", "self_training", 0) == json.loads(json.dumps(value))

    paths = report.write_report(bench, tmp_path / "docs")
    found, page = json.loads(paths[0].read_text())["tables"], paths[1].read_text()
    assert set(found) == set(tables.TABLES) and all(set(rows) == set(tables.ROWS) for rows in found.values())
    own = found["semantic"]["self_training"]
    assert own["mean"] == value["figure"] and own["deviation"] is None and own["seeds"] == [0]
    assert own["gain"]["low"] <= own["gain"]["high"] and own["seconds"] > 0 and own["metric"] == "mIoU"
    assert found["semantic"]["both"]["mean"] is None and found["depth"]["attention"]["left_out"]
    assert "--row both --images 4  # seeds 0, 1, 2" in page and "--row real --images 4  # seeds 1, 2" in page
    assert "--table depth --images 4\n" in page and "glpn with the pretrained encoder at 32 pixels for 3 steps" in page
    real = json.loads(paths[0].read_text())["curves"]["labels"]["real"]
    assert [(p["at"], p["mean"]) for p in real] == [(5, None), (20, None), (100, base), (400, None)]
    assert "--curve labels --at 5 --row both --images 4\n" in page and "| 100 | " + f"{base:.3f}, seed 0 | not" in page
    assert paths[2].read_text().count("<circle") == 1 and "![Gains" in page
    sheet = draw_sheet(bench, "semantic", "self_training")
    assert sheet.size == (2 * (4 * 132 + 8), 132)
    assert "| `both` | both: real, and generated with the P-Decoder's labels | not measured yet |" in page


def test_a_name_says_all_that_a_result_depends_on(bench: Bench, tmp_path: Path) -> None:
    def names(other: Bench) -> dict[str, str]:
        return {row: other.name("semantic", row, 0) for row in tables.ROWS}

    same, more = (
        names(Bench(bench.data, tmp_path)),
        names(Bench(Data(**{**vars_of(bench), "count": 5}), tmp_path, TINY)),
    )
    own = names(bench)
    assert len({*own.values()}) == len(tables.ROWS) and not {*own.values()} & {*same.values()}
    assert {row for row in own if own[row] == more[row]} == {"real", "upper"}
    assert bench.name("semantic", "real", 1) != own["real"]
    with pytest.raises(ConfigError, match="has no row attention: attention labels pixels only"):
        bench.name("depth", "attention", 0)
    with pytest.raises(ConfigError, match="unknown name 'rael'"):
        bench.name("semantic", "rael", 0)


def vars_of(bench: Bench) -> dict[str, Any]:
    """What the data of a bench were made with."""
    return {name: getattr(bench.data, name) for name in Data.__dataclass_fields__}


def test_the_parts_of_the_mixes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = {s.digest() for s in bench.data.reader(tables.LABELLED)}
    pool = list(bench.data.reader(tables.RENDERS))
    assert len(pool) == 2 and not labelled & {s.digest() for s in pool}
    twin, images = (list(bench.data.reader(p)) for p in (tables.ORACLE, tables.GENERATED))
    assert [s.key for s in twin] == [s.key for s in images] and len(twin) == 4
    assert all((a.image == b.image).all() and a.depth is None for a, b in zip(twin, images, strict=True))
    assert any(
        (a.semantic.ids != b.semantic.ids).any() for a, b in zip(twin, images, strict=True) if a.semantic and b.semantic
    )
    monkeypatch.setattr(data, "load_oracle", lambda: pytest.fail("labelled again"))
    assert [s.digest() for s in bench.data.reader(tables.ORACLE)] == [s.digest() for s in twin]
    kept = {s.key for s in bench.data.reader(tables.FILTERED)}
    assert kept <= {s.key for s in images}


def test_committed_figures_are_those_of_the_committed_rows() -> None:
    root = Path(report.__file__).parents[2]
    committed = json.loads((root / "docs" / "results.json").read_text())["tables"]
    page = (root / "docs" / "results.md").read_text()
    assert set(committed) == set(tables.TABLES) and all(set(rows) == set(tables.ROWS) for rows in committed.values())
    on_curves = json.loads((root / "docs" / "results.json").read_text())["curves"]
    points = [(n, p) for rows in on_curves.values() for n, own in rows.items() for p in own]
    assert set(on_curves) == set(CURVES) and any(p["files"] for _, p in points)
    everything = [(n, row) for rows in committed.values() for n, row in rows.items()] + points
    for name, row in ((n, row) for n, row in everything if row["files"]):
        values = [json.loads((root / "benchmarks/results/rows" / f).read_text()) for f in row["files"]]
        judge = TABLES[values[0]["table"]].judge
        assert row["mean"] == pytest.approx(np.mean([judge.figure(evidence_of(v)) for v in values]), abs=1e-3)
        assert row["seeds"] == [v["seed"] for v in values] and {v["row"] for v in values} == {name}
        begin, figure = ("| ", f"{row['mean']:.3f}, ") if "at" in row else (f"| `{name}` ", f"| {row['mean']:.3f} ")
        assert any(line.startswith(begin) and figure in line for line in page.splitlines())


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "--report" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["--table", "instance", "--row", "attention"])
    assert "the table instance has no row attention" in str(stop.value)


def test_quick_measures_four_rows_and_prints_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = pack(np.array([[[5, 10, 10], [4, 6, 5]]], int))

    def measure(bench: Bench, table: str, row: str, seed: int) -> dict[str, Any]:
        assert bench.data.count == 512 and table == "semantic"
        value = {"figure": 0.25, "seconds": 2.0, "seed": seed, "metric": "mIoU", "counts": counts}
        tmp_path.joinpath(f"{row}-{seed}.json").write_text(json.dumps(value))
        return value

    monkeypatch.setattr(Bench, "name", lambda _, table, row, seed: f"{row}-{seed}")
    monkeypatch.setattr(Bench, "measure", measure)
    main(["--quick", "--rows", str(tmp_path)])
    assert {p.stem for p in tmp_path.iterdir()} == {f"{row}-0" for row in report.QUICK_ROWS}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:4]] == [*report.QUICK_ROWS]
    assert lines[-4].startswith("| `real` |") and lines[-3].endswith("| 0.250 |  | 0 | +0.0 [+0.0, +0.0] | 1.00 | 2 |")


def test_a_point_at_the_tables_own_value_is_the_tables_row(bench: Bench) -> None:
    own = {"labels": 100, "images": bench.data.count, "steps": TINY.steps, "prompts": "grammar"}
    for name, curve in CURVES.items():
        row, table = "both", curve.table
        assert curve.at(bench, own[name]).name(table, row, 0) == bench.name(table, row, 0)
        values = [v for v in curve.values[row] if not curves.needs_of(name, v)]
        assert len({curve.at(bench, v).name(table, row, 0) for v in values}) == len(values)


def test_points_are_planned_and_measured_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = list(plan_points(None, None, None, None))
    assert (
        len({*jobs}) == len(jobs) and jobs[0] == ("steps", 250, "real", 0) and ("prompts", "llm", "both", 0) not in jobs
    )
    assert list(plan_points("steps", "4000", "both", 2)) == [("steps", 4000, "both", 2)]
    with pytest.raises(ConfigError, match="the curve has no value '7'"):
        list(plan_points("labels", "7", None, None))
    monkeypatch.setattr(Bench, "measure", lambda own, *row: {"steps": own.settings_of("semantic").steps, "row": row})
    assert measure_point(bench, "steps", 4000, "both", 1) == {"steps": 4000, "row": ("semantic", "both", 1)}


@dataclass(frozen=True)
class Endless:
    """Packaged renders without end; counts those that it made."""

    made: list[str]
    labels = LABELS
    endless = True

    def origin(self) -> dict[str, Any]:
        return {"source": "test"}

    def check(self, store: Store) -> None: ...

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        for sample in read("mini:test"):
            if sample.key not in done:
                self.made.append(sample.key)
                yield sample


@pytest.mark.slow
def test_more_generated_images_go_on_with_fewer(bench: Bench) -> None:
    made: list[str] = []
    own = replace(bench.data, generator=lambda *_: Endless(made))
    few = list(replace(own, count=2).reader(tables.GENERATED))
    more = list(replace(own, count=5).reader(tables.GENERATED))
    assert [s.key for s in more[:2]] == [s.key for s in few] and len(more) == 5
    assert len({*made}) == 5 and made.count(more[0].key) == 1  # the first ones were not made again
    assert len(replace(own, count=2).reader(tables.GENERATED)) == 2 and not list(own.work.glob(".*"))
    assert len(replace(own, count=3, prompts=("other", Grammar.load())).reader(tables.GENERATED)) == 3
    assert {p.name for p in own.work.iterdir()} == {"generated-2", "generated-5", "other-generated-3"}


@pytest.mark.slow
def test_a_point_with_fewer_labels(bench: Bench) -> None:
    value = CURVES["labels"].at(bench, 1).measure("semantic", "both", 0)
    assert value["images"] == 1 + 4 and value["identity"]["data"][0]["scenario"]["name"] == "labels_1"


@pytest.mark.slow
def test_what_a_row_learns_from_can_be_made_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(renders, "render_all", lambda _, count: shown.append(count) or [bench.data.test] * 3)
    monkeypatch.setattr(Data, "_by_decoder", lambda _: list)
    bench.make_data("shift", "both")
    bench.make_data("semantic_pretrained", "self_training")  # whose pseudo-labels need a student
    found = {p.name for p in bench.data.work.iterdir()}
    assert shown == [1] and {"shift-generated-4", "shift-generated-labelled-4"} == found
    assert not bench.rows.exists()


def test_the_order_of_all_rows() -> None:
    jobs = list(plan(None, None, None))
    assert len({*jobs}) == len(jobs) and jobs[0] == ("semantic", "real", 0)
    first = [jobs.index((t, "real", 0)) for t in TABLES if not needs_of(t)]
    assert first == sorted(first) and jobs.index(("semantic_pretrained", "both", 1)) < jobs.index(("depth", "real", 0))
    assert next(j for j in jobs if j[2] == 2) == ("semantic", "real", 2) and ("depth", "real", 2) not in jobs
    assert list(plan("depth", "both", None)) == [("depth", "both", 0), ("depth", "both", 1)]
    assert list(plan("depth", "both", 5)) == [("depth", "both", 5)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("semantic_pretrained", "both"),
        ("semantic", "consistency"),
        *((t, "decoder_on_renders") for t in ("instance", "depth", "pose")),
        *((t, "both") for t in ("zero_shot", "long_tail", "shift")),
    ],
)
def test_a_row_of_every_table(bench: Bench, table: str, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renders, "render_all", lambda *_: [bench.data.test] * 3)
    if needs_of(table):
        with pytest.raises(ConfigError, match="cannot be measured yet"):
            bench.name(table, row, 0)
        return
    value = bench.measure(table, row, 0)
    judge = TABLES[table].judge
    again = evidence_of(json.loads(json.dumps(value)))
    assert value["figure"] == pytest.approx(judge.figure(again), abs=1e-5) and value["metric"] == TABLES[table].metric
    assert value["images"] == 2 + {"decoder_on_renders": 2, "consistency": 0}.get(row, 4)
    names = {
        "depth": {"delta1", "rmse", "absrel_scaled", "delta1_scaled"},
        "zero_shot": {"seen", "unseen", "all labels"},
        "long_tail": {"all labels"},
        "shift": {*renders.CONDITIONS},
    }
    assert value["details"].keys() == names.get(table, set())
