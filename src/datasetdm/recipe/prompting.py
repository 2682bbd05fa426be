"""The kind of stage that makes prompts: composed offline, or written by a language model, then chosen and reported."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasetdm.engines.progress import Outcome, Progress, Report
from datasetdm.errors import ConfigError, OutputError
from datasetdm.io.files import parse_json, write_json, write_text
from datasetdm.prompts import PromptRow, PromptSource
from datasetdm.prompts.scene_grammar import ClassNames, SceneGrammar
from datasetdm.prompts.scenes import CoOccurrence, SceneSampler
from datasetdm.prompts.spread import choose, diversity, same_text
from datasetdm.recipe import places
from datasetdm.recipe.data import open_data
from datasetdm.recipe.schema import PromptsStage
from datasetdm.recipe.text_encoder import TextEncoder, default_fits
from datasetdm.records import Labels

REPORT = ".report.json"
REPLIES = ".replies.jsonl"
"""Suffixes of what lies beside the prompts, instead of theirs."""
TRIES = 20
"""Prompts that a grammar composes for each one that is wanted, at most, while it repeats itself."""


@dataclass
class _Made:
    """Candidates, and what making them took."""

    rows: list[PromptRow]
    notes: list[str]
    usage: dict[str, Any]
    complete: bool = True


def prompts(stage: PromptsStage, out: Path, report: Report) -> Outcome:
    """Write prompts as JSON lines, and a report beside them."""
    _check_place(out)
    if not stage.labels and stage.data is None:
        raise ConfigError("there are no labels", expected="--labels cat,dog, or --data FORMAT:PATH")
    data = None if stage.data is None else open_data(stage.data, stage, stage.seed)
    labels = Labels(stage.labels or ()) if data is None else data.labels.with_names(stage.labels)
    encoder = TextEncoder(stage.encoder) if stage.encoder else None
    if encoder is not None:
        encoder.require_different(labels)
    known = None if data is None else CoOccurrence.learn(data)
    scenes = SceneSampler(labels, known, most_labels=stage.most_labels, rare_weight=stage.rare_weight,
                          domains=stage.domains)  # fmt: skip
    if stage.source in ("grammar", "names"):
        made = _composed(stage, scenes, encoder, report)
    else:
        if importlib.util.find_spec("openai") is None:
            raise ConfigError("language models need a package that is not installed", expected="openai",
                              remedy="pip install 'datasetdm[llm]', or --source grammar, which needs none")  # fmt: skip
        from datasetdm.recipe.asking import written

        fits = default_fits if encoder is None else encoder.fits
        made = _Made(*written(stage, out.with_suffix(REPLIES), scenes, data, fits, report))
    rows = made.rows if stage.source == "names" else choose(made.rows, stage.count, stage.embedding)
    names = (*scenes.things, *scenes.stuff)
    found = diversity(rows, names, stage.embedding)
    plain = diversity([ClassNames(scenes).row(i) for i in range(len(rows))], names, stage.embedding)
    text = "".join(f"{row.to_json()}\n" for row in rows)
    write_text(out, text)
    summary = {
        "source": stage.source, "candidates": len(made.rows), "embedding": stage.embedding, "diversity": found,
        "class_names": plain, **made.usage, "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }  # fmt: skip
    write_json(out.with_suffix(REPORT), summary)
    notes = list(made.notes)
    if len(rows) < stage.count:
        notes.append(f"{len(rows)} prompts instead of {stage.count}: the {len(made.rows)} candidates have no more that "
                     "differ enough; raise --candidates, or add labels, domains or --data")  # fmt: skip
    shown = Counter(n for row in rows for n in row.labels or ())
    figures = {name: f"{value:g} (class names {plain[name]:g})" for name, value in found.items() if name != "prompts"}
    return Outcome(
        out, f"{len(rows)} prompts ({stage.source})", len(rows), labels=shown, unit="prompt", figures=figures, notes=notes,
        skipped=() if data is None else data.reader.skipped, complete=made.complete,
        next=f"datasetdm generate --prompts {out} --count {10 * len(rows)} --out DIR",
    )  # fmt: skip


def _check_place(out: Path) -> None:
    """Raises OutputError if `out` is no place for prompts, or holds others than this command wrote."""
    places.require_file(out)
    if out.suffix != ".jsonl":
        raise OutputError("prompts are written as JSON lines", where=out, expected="a name that ends in .jsonl")
    if not out.exists():
        return
    try:
        written = parse_json(out.with_suffix(REPORT).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        written = None
    if written != hashlib.sha256(out.read_bytes()).hexdigest():
        raise OutputError(
            "the file holds prompts that this command did not write, or that were changed since",
            where=out,
            expected="a new file, or one that the same command wrote",
            remedy="choose another --out, or move the file away",
        )


def _composed(stage: PromptsStage, scenes: SceneSampler, encoder: TextEncoder | None, report: Report) -> _Made:
    """Candidates that need no model, none twice (class names repeat: there are no more of them)."""
    if stage.source == "names":
        return _Made([ClassNames(scenes).row(i) for i in range(stage.count)], [], {})
    source: PromptSource = SceneGrammar(scenes, stage.style)
    wanted = math.ceil(stage.count * stage.candidates)
    rows: dict[str, PromptRow] = {}
    cut = 0
    for index in range(wanted * TRIES):
        row = source.row(index, stage.seed)
        if encoder is not None and not encoder.fits(row.prompt):
            cut += 1
            continue
        if rows.setdefault(same_text(row.prompt), row) is row:
            report(Progress("prompts", len(rows), wanted, "prompt"))
        if len(rows) == wanted:
            break
    if not rows:
        raise ConfigError(
            "every prompt is too long for the text encoder", where=stage.encoder, expected="shorter names of labels",
            remedy="use a smaller --most-labels or a shorter --style",
        )  # fmt: skip
    return _Made([*rows.values()], [], {"rejected": {"too long for the text encoder": cut} if cut else {}})
