"""One row: a student trained on one mix of data with one seed, and its result as a small JSON file.

The file is named by a hash of all that the result depends on, so rows can be computed one by one, anywhere, and put into one
folder. A row that was stopped goes on from its last checkpoint; its seconds are then those of the last process.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.common import stamp
from benchmarks.students.data import Data
from benchmarks.students.figures import Evidence, Judge, pack
from benchmarks.students.pretrain import ENCODER, encoder_digest
from benchmarks.students.scenarios import PLAIN
from benchmarks.students.tables import PSEUDO, REAL, ROWS, TABLES, Row, Settings
from datasetdm.downstream import STUDENTS
from datasetdm.downstream.files import TrainedModel
from datasetdm.errors import ConfigError
from datasetdm.io.files import write_json
from datasetdm.pipelines.train import RULES as TRAIN_RULES
from datasetdm.pipelines.train import iter_train

RULES = 1
"""Raised whenever the same settings begin to give another result."""


@dataclass(frozen=True)
class Bench:
    """The rows of one folder.

    Args:
        data: of the plain tables; the scenarios of the others have the same files.
        rows: the folder of the results.
        settings: of all tables; None for each table's own.
        encoder: folder of the pretrained encoder, for tables that begin with one.
    """

    data: Data
    rows: Path
    settings: Settings | None = None
    encoder: Path = ENCODER
    _by_scenario: dict[str, Data] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, table: str) -> Data:
        """The data of a table."""
        scenario = TABLES[table].scenario
        if scenario is PLAIN:
            return self.data
        if scenario.name not in self._by_scenario:
            self._by_scenario[scenario.name] = replace(self.data, scenario=scenario)
        return self._by_scenario[scenario.name]

    def settings_of(self, table: str) -> Settings:
        """The settings of a table's trainings."""
        return self.settings or TABLES[table].settings

    def identity(self, table: str, row: str, seed: int) -> dict[str, Any]:
        """All that a result depends on, JSON-ready.

        Raises:
            ConfigError: an unknown table or row, or one that cannot be measured.
        """
        mix, data = _row(table, row), self.of(table)
        teacher = self.name(table, REAL, seed) if any(p in PSEUDO for p in mix.parts) else ""
        encoder = {"encoder": encoder_digest(self.encoder)} if TABLES[table].pretrained else {}
        value = {
            "rules": [RULES, TRAIN_RULES],
            "table": table,
            "row": row,
            "seed": seed,
            "settings": vars(self.settings_of(table)),
            "data": [data.identity(p, teacher) for p in mix.parts],
            **data.judges(),
            **TABLES[table].story(),
            **encoder,
        }
        return json.loads(json.dumps(value))

    def name(self, table: str, row: str, seed: int) -> str:
        """The name of a result, without suffix."""
        text = json.dumps(self.identity(table, row, seed), sort_keys=True)
        return f"{table}-{row}-{seed}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def find(self, table: str, row: str, seed: int) -> dict[str, Any] | None:
        """A result that is there."""
        path = self.rows / f"{self.name(table, row, seed)}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def make_data(self, table: str, row: str) -> None:
        """Make what a row learns from and is measured on, but for pseudo-labels, which need a student first."""
        mix, own = _row(table, row), self.of(table)
        for part in mix.parts:
            if part not in PSEUDO:
                own.reader(part)
        own.exam()

    def measure(self, table: str, row: str, seed: int) -> dict[str, Any]:
        """A result, computed if it is not there."""
        if (known := self.find(table, row, seed)) is not None:
            return known
        folder, choice, data_seconds = self.student(table, row, seed)
        exam, judge = self.of(table).exam(), TABLES[table].judge
        began = time.process_time()
        figure, evidence = self._judged(judge, folder, exam)
        story = json.loads((folder / "datasetdm.json").read_text(encoding="utf-8"))["trained"]
        value = {
            "identity": self.identity(table, row, seed),
            "table": table,
            "row": row,
            "seed": seed,
            "metric": judge.metric,
            "figure": figure,
            "details": judge.details(evidence),
            "images": story["images"] + story["synthetic_images"],
            "digests": [story["data"], story["synthetic"]],
            **choice,
            "seconds": round(choice["seconds"] + time.process_time() - began, 1),
            "data_seconds": data_seconds,
            "device": self.data.device,
            **{k: v for k, v in stamp([seed]).items() if k != "seeds"},
            **{name: pack(values) for name, values in evidence.items()},
        }
        write_json(self.rows / f"{self.name(table, row, seed)}.json", value)
        return value

    def student(self, table: str, row: str, seed: int) -> tuple[Path, dict[str, Any], float]:
        """The folder of the trained student; its learning rate, the trials, and seconds of processor time; and those that
        its data took."""
        name, settings = self.name(table, row, seed), self.settings_of(table)
        folder, mark = self.data.work / "students" / name, self.data.work / "students" / f"{name}.json"
        if mark.exists():
            return folder, json.loads(mark.read_text(encoding="utf-8")), 0.0
        mix, own, teacher = _row(table, row), self.of(table), None
        if any(p in PSEUDO for p in mix.parts):
            teacher = (self.name(table, REAL, seed), self.student(table, REAL, seed)[0])
        began = time.process_time()
        data, more, unlabelled = (
            None if p is None else own.reader(p, teacher) for p in (mix.data, mix.more, mix.unlabelled)
        )
        assert data is not None
        encoder = self.encoder if TABLES[table].pretrained else None
        data_seconds, began = round(time.process_time() - began, 1), time.process_time()
        trials: dict[str, float] = {}

        def train(out: Path, rate: float, steps: int) -> None:
            """Train a student unless it is there."""
            config = settings.config(rate, steps, seed, TABLES[table].student, encoder)
            if not (out / "config.json").exists():
                for _ in iter_train(
                    data, out, synthetic=more, self_training=unlabelled, config=config, device=self.data.device
                ):
                    pass

        judge = TABLES[table].chooses or TABLES[table].judge
        rates = settings.learning_rates if len(settings.learning_rates) > 1 else ()
        for rate in rates:
            out = folder.with_name(f"{name}-{rate:g}")
            train(out, rate, settings.trial_steps)
            trials[f"{rate:g}"] = self._judged(judge, out, own.choice())[0]
        best = (max if judge.more else min)(rates or settings.learning_rates, key=lambda r: trials.get(f"{r:g}", 0.0))
        train(folder, best, settings.steps)
        for rate in rates:
            shutil.rmtree(folder.with_name(f"{name}-{rate:g}"))
        seconds = round(time.process_time() - began, 1)
        choice = {"learning_rate": best, "val": trials, "seconds": seconds}
        write_json(mark, choice)
        return folder, choice, data_seconds

    def _judged(self, judge: Judge, folder: Path, samples: Any) -> tuple[float, Evidence]:
        evidence = judge.look(TrainedModel.load(folder, self.data.device).annotate(samples))
        return judge.figure(evidence), evidence


def _row(table: str, row: str) -> Row:
    """Raises ConfigError for an unknown table or row, or one that cannot be measured."""
    for name, known in ((table, TABLES), (row, ROWS)):
        if name not in known:
            raise ConfigError(f"unknown name {name!r}", expected=f"one of: {', '.join(known)}")
    if needs := needs_of(table):
        raise ConfigError(f"the table {table} cannot be measured yet", remedy=f"it needs {needs}")
    if row not in TABLES[table].rows:
        why = dict(TABLES[table].left_out)[row]
        raise ConfigError(f"the table {table} has no row {row}: {why}", expected=", ".join(TABLES[table].rows))
    return ROWS[row]


def needs_of(table: str) -> str:
    """What has to be written before a table can be measured; empty if nothing."""
    student = TABLES[table].student
    return "" if student in STUDENTS else f"the student {student}"
