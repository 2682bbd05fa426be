"""The JSON of `tasks.py`: one object a task, one number a method."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.fitting import main_figure

TASK_KEYS = ("semantic", "instance", "depth", "keypoints")
COLUMNS = ("ours", "pixels", "pixels_pretrained", "attention", "mlp", "paper")

Rows = Sequence[Mapping[str, Any]]


def summary(
    tasks: Sequence[str],
    found: Mapping[str, Rows],
    unseen: Rows,
    floor: Rows,
    generated: Mapping[str, Any],
    pace: Mapping[str, Any],
    notes: Sequence[str],
) -> dict[str, Any]:
    """All keys that the benchmark promises, null where nothing was measured.

    found: by method, one row a seed with `figures` by task. unseen, floor: zero-shot figures of ours and of attention
    alone, one row a seed. generated: of generated images. pace: of annotating.
    """
    value: dict[str, Any] = {name: _task(name, found) for name in TASK_KEYS}
    for name in (n for n in TASK_KEYS if n not in tasks):
        notes = [*notes, f"{name}: there is no such task yet"]
    value["zero_shot"] = _zero_shot(unseen, floor)
    ours = found["ours"]
    value["fit_seconds"] = mean([r["fit_seconds"] for r in ours])
    value["fit_peak_gb"] = max(r["fit_peak_gb"] for r in ours)
    value["annotate_share"] = pace["annotate_share"]
    value |= {k: generated[k] for k in ("generated_miou_gap", "prompted_label_hit")}
    value["generated"], value["pace"] = dict(generated), dict(pace)
    value["fits"] = {
        method: [{k: v for k, v in row.items() if k != "figures"} for row in rows] for method, rows in found.items()
    }
    return finite({**value, "notes": list(notes)})


def _task(name: str, found: Mapping[str, Rows]) -> dict[str, Any]:
    """The main figure of each method, and `all` figures."""
    rows = {m: [r["figures"][name] for r in own if name in r["figures"]] for m, own in found.items()}
    value: dict[str, Any] = dict.fromkeys((*COLUMNS, "deviation", "deviations", "figure", "all"))
    if not any(rows.values()):
        return value
    figure = main_figure(name)
    seeds = {m: [r[figure] for r in own] for m, own in rows.items()}
    value |= {m: mean(v) for m, v in seeds.items()}
    deviations = {m: deviation(v) for m, v in seeds.items() if v}
    value |= {"deviation": deviations.get("ours"), "deviations": deviations, "figure": figure}
    value["all"] = {m: _means(own) for m, own in rows.items() if own}
    return value


def _zero_shot(unseen: Rows, floor: Rows) -> dict[str, Any]:
    """Harmonic mIoU of seen and unseen things."""
    value: dict[str, Any] = dict.fromkeys((*COLUMNS, "deviation", "figure", "seen", "unseen", "all"))
    value["figure"] = "harmonic mIoU of seen and unseen things"
    value["ours"], value["attention"] = (mean([r["harmonic"] for r in own]) for own in (unseen, floor))
    value["deviation"] = deviation([r["harmonic"] for r in unseen])
    value |= {k: mean([r[k] for r in unseen]) for k in ("seen", "unseen")}
    value["all"] = {m: _means(own) for m, own in (("ours", unseen), ("attention", floor)) if own}
    return value


def _means(rows: Rows) -> dict[str, float | None]:
    return {k: mean([r[k] for r in rows]) for k, v in rows[0].items() if isinstance(v, int | float)}


def mean(values: Sequence[float]) -> float | None:
    """None for none."""
    return statistics.fmean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def finite(value: Any) -> Any:
    """The same with null for every number that is none, which JSON has not."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
