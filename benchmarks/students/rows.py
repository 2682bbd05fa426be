"""One row: a student trained on one mix of data with one seed, and its result as a small JSON file.

The file is named by a hash of all that the result depends on, so rows can be computed one by one, anywhere, and put into one
folder. A row that was stopped goes on from its last checkpoint; its seconds are then those of the last process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import stamp
from benchmarks.students.data import Data
from benchmarks.students.tables import PSEUDO, REAL, ROWS, TABLES
from datasetdm.downstream.files import TrainedModel
from datasetdm.errors import ConfigError
from datasetdm.io.files import write_json
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.pipelines.train import RULES as TRAIN_RULES
from datasetdm.pipelines.train import iter_train
from datasetdm.readers import Reader
from datasetdm.records import IGNORE

RULES = 1
"""Raised whenever the same settings begin to give another result."""


@dataclass(frozen=True)
class Settings:
    """Equal for all rows of a table.

    Args:
        steps: of the student that is measured.
        trial_steps: of the students by which the learning rate is chosen on val.
        learning_rates: the candidates.
        fraction: of every batch that comes from a row's second part.
        size: side of the images that the student sees; None is its variant's.
    """

    steps: int = 1000
    trial_steps: int = 100
    learning_rates: tuple[float, ...] = (4e-3, 8e-3, 1.6e-2)
    batch: int = 16
    fraction: float = 0.5
    variant: str = "tiny"
    size: int | None = None

    def config(self, learning_rate: float, steps: int, seed: int) -> TrainConfig:
        """Of one training."""
        return TrainConfig(
            variant=self.variant,
            size=self.size,
            steps=steps,
            batch=self.batch,
            learning_rate=learning_rate,
            synthetic_fraction=self.fraction,
            seed=seed,
        )


@dataclass(frozen=True)
class Bench:
    """The rows of one folder.

    Args:
        rows: the folder of the results.
    """

    data: Data
    rows: Path
    settings: Settings = Settings()

    def identity(self, table: str, row: str, seed: int) -> dict[str, Any]:
        """All that a result depends on, JSON-ready.

        Raises:
            ConfigError: an unknown table or row, or one that cannot be measured yet.
        """
        for name, known in ((table, TABLES), (row, ROWS)):
            if name not in known:
                raise ConfigError(f"unknown name {name!r}", expected=f"one of: {', '.join(known)}")
        if TABLES[table].needs:
            raise ConfigError(f"the table {table} cannot be measured yet", remedy=f"needs {TABLES[table].needs}")
        parts = [p for p in (ROWS[row].data, ROWS[row].more) if p is not None]
        teacher = self.name(table, REAL, seed) if any(p in PSEUDO for p in parts) else ""
        value = {
            "rules": [RULES, TRAIN_RULES],
            "table": table,
            "row": row,
            "seed": seed,
            "settings": vars(self.settings),
            "data": [self.data.identity(p, teacher) for p in parts],
            **self.data.judges(),
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

    def measure(self, table: str, row: str, seed: int) -> dict[str, Any]:
        """A result, computed if it is not there."""
        if (known := self.find(table, row, seed)) is not None:
            return known
        folder, choice, data_seconds = self._student(table, row, seed)
        began = time.process_time()
        counts = image_counts(TrainedModel.load(folder, "cpu"), self.data.split(self.data.test))
        story = json.loads((folder / "datasetdm.json").read_text(encoding="utf-8"))["trained"]
        value = {
            "identity": self.identity(table, row, seed),
            "table": table,
            "row": row,
            "seed": seed,
            "metric": TABLES[table].metric,
            "figure": miou(counts.sum(0)),
            "images": story["images"] + story["synthetic_images"],
            "digests": [story["data"], story["synthetic"]],
            **choice,
            "seconds": round(choice["seconds"] + time.process_time() - began, 1),
            "data_seconds": data_seconds,
            **{k: v for k, v in stamp([seed]).items() if k != "seeds"},
            "counts": pack(counts),
        }
        write_json(self.rows / f"{self.name(table, row, seed)}.json", value)
        return value

    def _student(self, table: str, row: str, seed: int) -> tuple[Path, dict[str, Any], float]:
        """The folder of the trained student; its learning rate, the trials, and seconds of processor time; and those that
        its data took."""
        name = self.name(table, row, seed)
        folder, mark = self.data.work / "students" / name, self.data.work / "students" / f"{name}.json"
        if mark.exists():
            return folder, json.loads(mark.read_text(encoding="utf-8")), 0.0
        mix, teacher = ROWS[row], None
        if mix.data in PSEUDO or mix.more in PSEUDO:
            teacher = (self.name(table, REAL, seed), self._student(table, REAL, seed)[0])
        began = time.process_time()
        data = self.data.reader(mix.data, teacher)
        more = None if mix.more is None else self.data.reader(mix.more, teacher)
        data_seconds, began = round(time.process_time() - began, 1), time.process_time()
        trials: dict[str, float] = {}
        for rate in self.settings.learning_rates:
            out = folder.with_name(f"{name}-{rate:g}")
            _train(data, more, out, self.settings.config(rate, self.settings.trial_steps, seed))
            val = image_counts(TrainedModel.load(out, "cpu"), self.data.split(self.data.val))
            trials[f"{rate:g}"] = miou(val.sum(0))
        best = max(self.settings.learning_rates, key=lambda r: trials[f"{r:g}"])
        _train(data, more, folder, self.settings.config(best, self.settings.steps, seed))
        for rate in self.settings.learning_rates:
            shutil.rmtree(folder.with_name(f"{name}-{rate:g}"))
        seconds = round(time.process_time() - began, 1)
        choice = {"learning_rate": best, "val": trials, "seconds": seconds}
        write_json(mark, choice)
        return folder, choice, data_seconds


def _train(data: Reader, more: Reader | None, out: Path, config: TrainConfig) -> None:
    """Train a student unless it is there."""
    if not (out / "config.json").exists():
        for _ in iter_train(data, out, synthetic=more, config=config, device="cpu"):
            pass


# ---------------------------------------------------------------------- figures
@torch.no_grad()
def image_counts(trained: TrainedModel, reader: Reader) -> np.ndarray:
    """Pixels per image and label, i64[images labels 3]: right, true, found (the last only where the truth is known)."""
    labels = len(reader.labels)
    rows = []
    for true, found in trained.annotate(reader):
        assert true.semantic is not None and found.semantic is not None
        known = true.semantic.ids != IGNORE
        t, p = true.semantic.ids[known], found.semantic.ids[known]
        rows.append(np.stack([np.bincount(x, minlength=labels) for x in (t[t == p], t, p)], 1))
    return np.stack(rows)


def miou(counts: np.ndarray) -> float:
    """Mean IoU of the labels that occur in the truth, from `right, true, found` per label, [labels 3]."""
    right, true, found = np.moveaxis(counts.astype(float), -1, 0)
    iou = right / np.maximum(true + found - right, 1)
    return float(iou[true > 0].mean())


def pack(counts: np.ndarray) -> Mapping[str, Any]:
    """Counts as JSON."""
    data = zlib.compress(np.ascontiguousarray(counts, "<u4").tobytes(), 9)
    return {"shape": list(counts.shape), "zlib_u32": base64.b64encode(data).decode()}


def unpack(value: Mapping[str, Any]) -> np.ndarray:
    """Inverse of `pack`."""
    return np.frombuffer(zlib.decompress(base64.b64decode(value["zlib_u32"])), "<u4").reshape(value["shape"])
