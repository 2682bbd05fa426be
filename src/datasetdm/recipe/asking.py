"""The sources of prompts that ask a language model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from datasetdm.engines.progress import Progress, Report
from datasetdm.errors import ConfigError
from datasetdm.prompts.language_model.endpoint import Endpoint
from datasetdm.prompts.language_model.journal import Journal, opened
from datasetdm.prompts.language_model.replies import DUPLICATE
from datasetdm.prompts.language_model.sources import Fits, ImageCaptions, Kinds, Paraphrases, TextSource, WrittenScenes
from datasetdm.prompts.language_model.writer import Limits, Writer
from datasetdm.prompts.rows import PromptRow
from datasetdm.prompts.scenes import SceneSampler
from datasetdm.prompts.spread import same_text
from datasetdm.recipe.data import StageData
from datasetdm.recipe.prompt_settings import CHOOSING, RUNNING, PromptsConfig
from datasetdm.recipe.schema import PromptsStage
from datasetdm.records import Sample

Made = tuple[list[PromptRow], list[str], dict[str, Any], bool]
"""Candidates, notes, usage for the report, and whether nothing stopped the work early."""


def written(stage: PromptsStage, replies: Path, scenes: SceneSampler, data: StageData | None, fits: Fits,
            report: Report) -> Made:  # fmt: skip
    """Candidates from a language model, or captions of labelled images.

    Args:
        stage: what to make.
        replies: file of the model's replies, to go on with.
        scenes: what the prompts shall show.
        data: labelled images, for their captions.
        fits: whether the text encoder reads a text to its end.
        report: what receives how far it is.

    Raises:
        ConfigError: no model, no key, no server, or nothing usable from it.
        OutputError: replies to a command of other settings.
    """
    wanted = math.ceil(stage.count * stage.candidates)
    own, bare = ([], 0) if stage.source == "llm" else _captions(data)
    limits = Limits(stage.max_tokens, stage.max_cost, stage.price_in, stage.price_out)
    if stage.model is None:
        if stage.source != "captions" or not own:
            raise ConfigError(
                "there is no language model" if not bare or own else f"none of the {bare} images has a caption",
                expected="--model NAME", remedy="give --model and --base-url, or use --source grammar, which needs none",
            )  # fmt: skip
        return own[:wanted], [f"{bare} images without a caption are left out"] if bare else [], {}, True
    endpoint = Endpoint(stage.base_url, stage.model, stage.timeout, stage.temperature)
    with closing(endpoint), opened(replies, _identity(stage, scenes)) as journal:
        writer = Writer(endpoint, journal, limits, stage.parallel)

        def collect(source: TextSource, count: int, what: str) -> list[PromptRow]:
            found = writer.collect(source.request, count, lambda done: report(Progress(what, done, count, "prompt")))
            return [source.row(*place) for place in found]

        rows = own
        if missing := min(bare, max(0, wanted - len(own))):
            images = ImageCaptions(_without_caption(data), scenes.labels, stage.seed, fits)
            rows = own + collect(images, missing, "captions")
        if stage.source == "paraphrases":
            captions = [r.prompt for r in rows if r.labels]
            if not captions:
                raise ConfigError(
                    "no caption names a label", expected="captions in the words of the labels, or --labels"
                )
            source = Paraphrases(captions, scenes.labels, stage.style, stage.batch, stage.seed, fits)
            rows = collect(source, wanted, "prompts")
        elif stage.source == "llm":
            kinds: dict[str, tuple[str, ...]] = {}
            if stage.subclasses:
                asked = Kinds(scenes.labels, scenes.things, stage.subclasses, stage.seed)
                writer.collect(asked.request, len(scenes.things), lambda done: None)
                kinds = asked.found(journal)
            rows = collect(WrittenScenes(scenes, stage.style, stage.batch, stage.seed, fits, kinds), wanted, "prompts")
        usage = _usage(journal, limits)
    complete = writer.stopped is None or len(rows) >= stage.count
    notes = _notes(usage, None if complete else writer.stopped, bool(limits.price_in or limits.price_out))
    return rows[:wanted], notes, usage, complete


def _captions(data: StageData | None) -> tuple[list[PromptRow], int]:
    """The captions that images have of their own, none twice, and the number of images without one."""
    if data is None:
        raise ConfigError("captions are those of labelled images", expected="--data FORMAT:PATH")
    rows: dict[str, PromptRow] = {}
    bare = 0
    for sample in data:
        if _has_caption(sample) and sample.prompt is not None:
            text = " ".join(sample.prompt.text.split())
            row = PromptRow(prompt=text, labels=data.labels.named_in(text))
            rows.setdefault(same_text(text), row)
        else:
            bare += 1
    return [*rows.values()], bare


def _without_caption(data: StageData | None) -> Iterator[Sample]:
    return (sample for sample in data or () if not _has_caption(sample))


def _has_caption(sample: Sample) -> bool:
    """Whether the data say what an image shows; captions that were composed of its labels do not count."""
    prompt = sample.prompt
    return prompt is not None and prompt.origin not in ("labels", "unknown") and bool(prompt.text.strip())


def _identity(stage: PromptsStage, scenes: SceneSampler) -> dict[str, Any]:
    """All that the requests depend on, JSON-ready: settings, labels, and how these occur together."""
    settings = stage.model_dump(mode="json", include=set(PromptsConfig.model_fields) - RUNNING - CHOOSING)
    reading = stage.model_dump(mode="json", include={"data", "limit", "balance", "images"})
    origin = json.dumps(scenes.origin(), sort_keys=True)
    return {**settings, **reading, "labels": hashlib.sha256(origin.encode()).hexdigest()}


def _usage(journal: Journal, limits: Limits) -> dict[str, Any]:
    rejected = journal.rejected
    for kind in ("scenes/", "paraphrases/"):
        texts = [t for key, r in journal.replies.items() if key.startswith(kind) for t in r.texts.values()]
        if twice := len(texts) - len(set(map(same_text, texts))):
            rejected[DUPLICATE] += twice
    sent, received = journal.tokens
    cost = limits.cost(journal.tokens)
    return {
        "requests": len(journal.replies), "tokens_in": sent, "tokens_out": received, "cost": round(cost, 6),
        "rejected": dict(rejected.most_common()),
    }  # fmt: skip


def _notes(usage: dict[str, Any], stopped: str | None, priced: bool) -> list[str]:
    cost = f", cost {usage['cost']:.4g}" if priced else ""
    notes = [f"{usage['requests']} requests, {usage['tokens_in']} tokens in, {usage['tokens_out']} out{cost}"]
    if usage["rejected"]:
        notes.append("texts not used: " + ", ".join(f"{why} {n}" for why, n in usage["rejected"].items()))
    if stopped is not None:
        notes.append(f"stopped early: {stopped}; the same command goes on")
    return notes
