"""Curves: rows of a semantic table with one setting at several values.

A point is an ordinary row under that setting. At the table's own value it is the table's row, measured once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.common import ROOT
from benchmarks.students.rows import Bench
from benchmarks.students.scenarios import few
from benchmarks.students.tables import REAL
from datasetdm.errors import ConfigError
from datasetdm.prompts.files import PromptFile
from datasetdm.prompts.scene_grammar import ClassNames
from datasetdm.prompts.scenes import SceneSampler
from datasetdm.readers.formats.mini import LABELS

SCRATCH, PRETRAINED = "semantic", "semantic_pretrained"
"""The tables: a student with a pretrained encoder tells data apart that one from scratch cannot."""
SEEDS = (0,)
"""Asked for unless others are named; the page averages over all that are there."""
PACKAGED_LABELS = 100
"""Labelled images of the table."""
GRAMMAR, NAMES, LLM = "grammar", "class_names", "llm"
LLM_FILE = ROOT / "benchmarks" / "results" / "prompts-llm.jsonl"
"""Prompts that a language model wrote."""

Value = int | str


@dataclass(frozen=True)
class Curve:
    """See the module.

    Args:
        title: what the page calls it.
        axis: what its values are.
        values: by row.
        at: a bench with the setting at a value.
        table: whose rows they are.
        own_base: whether gains are over real only at the same value; else at the table's.
    """

    title: str
    axis: str
    values: Mapping[str, Sequence[Value]]
    at: Callable[[Bench, Value], Bench]
    table: str = PRETRAINED
    own_base: bool = False

    def parse(self, text: str) -> Value:
        """A value by its text. Raises ConfigError for one that it has not."""
        known = {str(v): v for values in self.values.values() for v in values}
        if text not in known:
            raise ConfigError(f"the curve has no value {text!r}", expected=f"one of: {', '.join(known)}")
        return known[text]


def _labels(bench: Bench, value: Value) -> Bench:
    if value == PACKAGED_LABELS:
        return bench
    return replace(bench, data=replace(bench.data, scenario=few(int(value))))


def _images(bench: Bench, value: Value) -> Bench:
    return replace(bench, data=replace(bench.data, count=int(value)))


def _steps(bench: Bench, value: Value) -> Bench:
    return replace(bench, settings=replace(bench.settings_of(SCRATCH), steps=int(value)))


def _prompts(bench: Bench, value: Value) -> Bench:
    if value == GRAMMAR:
        return bench
    source = PromptFile(LLM_FILE) if value == LLM else ClassNames(SceneSampler(LABELS))
    return replace(bench, data=replace(bench.data, prompts=(str(value), source)))


CURVES: dict[str, Curve] = {
    "steps": Curve(
        "Optimiser steps",
        "steps of the student",
        {row: (250, 1000, 4000) for row in (REAL, "both", "true_renders")},
        _steps,
        SCRATCH,
        own_base=True,
    ),
    "labels": Curve(
        "Labelled images",
        "labelled images, on which the P-Decoder is fitted, too",
        {row: (5, 20, PACKAGED_LABELS, 400) for row in (REAL, "both")},
        _labels,
        own_base=True,
    ),
    "images": Curve(
        "Synthetic images",
        "images beside the labelled ones, in half of every batch",
        {"both": (64, 256, 512, 1024, 2048, 4096), "true_renders": (64, 256, 512, 2048)},
        _images,
    ),
    "prompts": Curve(
        "Prompts", "who wrote the prompts of the generated images", {"both": (NAMES, GRAMMAR, LLM)}, _prompts
    ),
}


def needs_of(curve: str, value: Value) -> str:
    """What has to be there before a point can be measured; empty if nothing."""
    if curve == "prompts" and value == LLM and not LLM_FILE.exists():
        return f"`datasetdm prompts --source llm --data mini:train --count 512 --out {LLM_FILE.relative_to(ROOT)}`"
    return ""


def plan_points(
    curve: str | None, value: str | None, row: str | None, seed: int | None
) -> Iterator[tuple[str, Value, str, int]]:
    """(curve, value, row, seed) of all points that are asked for and can be measured; None is whatever there is."""
    for name in CURVES if curve is None else [curve]:
        own = CURVES[name]
        chosen = None if value is None else own.parse(value)
        for known, values in own.values.items():
            for at in values if row in (None, known) else ():
                if chosen in (None, at) and not needs_of(name, at):
                    yield from ((name, at, known, s) for s in (SEEDS if seed is None else (seed,)))


def measure_point(bench: Bench, curve: str, value: Value, row: str, seed: int) -> dict[str, Any]:
    """The result of a point, computed if it is not there."""
    own = CURVES[curve]
    return own.at(bench, value).measure(own.table, row, seed)
