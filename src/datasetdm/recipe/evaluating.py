"""The kind of stage that measures a P-Decoder or a trained model, and what it writes: figures, and a page of hits and misses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasetdm.backbones import RunOptions
from datasetdm.backbones.words import CutTexts
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.downstream.files import TrainedModel
from datasetdm.engines.progress import Outcome, Progress, Report, label_table
from datasetdm.errors import DataError
from datasetdm.io.files import write_json, write_text
from datasetdm.pipelines import evaluate as evaluation
from datasetdm.recipe import places
from datasetdm.recipe.data import StageData, open_data, strange_labels
from datasetdm.recipe.schema import EvaluateStage
from datasetdm.records import Labels, Sample
from datasetdm.viewer.hits import HitsAndMisses

COMPOSED = "under_composed_captions"
"""The figures under captions that were composed of the true labels, beside those on new images."""


def evaluate(stage: EvaluateStage, out: Path | None, report: Report) -> Outcome:
    """Measure a decoder or a trained model. Into the folder, if there is one, go the figures as JSON and Markdown, and a page of
    hits and misses."""
    if out is not None:
        places.require_folder(out)
    data = open_data(stage.data, stage)
    return _evaluate_model(stage, data, out, report) if stage.model else _evaluate_decoder(stage, data, out, report)


def _evaluate_decoder(stage: EvaluateStage, data: StageData, out: Path | None, report: Report) -> Outcome:
    loaded = PDecoder.load(stage.decoder)
    if (first := next(iter(data), None)) is not None:
        evaluation.require_comparable(loaded, first)
    model, frozen = load_pair(loaded, stage.backbone, stage.device, RunOptions.chosen(stage.low_memory))
    cut, composed = CutTexts(frozen.kept_texts, "captions"), 0
    found: Counter[str] = Counter()
    labels: Counter[str] = Counter()

    def reported(what: str) -> Iterator[Sample]:
        nonlocal composed
        for done, sample in enumerate(data, 1):
            if what == "evaluate":
                composed += sample.prompt is not None and sample.prompt.composed
                cut.add(sample.caption if stage.captions else "")
                found.update(_known(sample))
                labels.update(sample.labels.names[i] for i in sample.annotations.labels_in())
            yield sample
            report(Progress(what, done, len(data)))

    page = _page(stage, loaded.config.labels, out)
    measured = evaluation.evaluate_decoder(
        model, frozen, reported("evaluate"), stage.captions, unseen=stage.unseen, on_pair=page.add if page else None
    )
    figures: dict[str, Any] = dict(measured.figures)
    if not figures:
        raise _nothing(stage, f"the decoder gives: {', '.join(model.tasks)}", "a decoder", found)
    notes = cut.notes()
    if composed and stage.captions:
        figures[COMPOSED] = evaluation.evaluate(
            model, frozen, reported("evaluate under composed captions"), composed=True
        )
        notes.append(
            f"{composed} of {len(data)} images have no caption of their own, only one composed of their labels. The figures on "
            f"new images are those without it; {COMPOSED}: those under it, which says what is to be found"
        )
    write_report(measured, figures, page, stage, out)
    return Outcome(
        out or Path(),
        f"figures of {stage.decoder} on {describe(measured.counts)}",
        len(data),
        labels,
        figures=figures,
        by_label=measured.by_label,
        skipped=data.reader.skipped,
        notes=notes,
        next=_look(out, page) or f"datasetdm annotate --data images:DIR --decoder {stage.decoder} --out DIR",
    )


def _evaluate_model(stage: EvaluateStage, data: StageData, out: Path | None, report: Report) -> Outcome:
    trained = TrainedModel.load(str(stage.model), stage.device)
    found: Counter[str] = Counter()

    def reported() -> Iterator[Sample]:
        for done, sample in enumerate(data, 1):
            found.update(_known(sample))
            yield sample
            report(Progress("evaluate", done, len(data)))

    page = _page(stage, data.labels, out)
    measured = evaluation.evaluate_model(trained, reported(), data.labels, stage.unseen, page.add if page else None)
    if not measured.figures:
        tasks = ", ".join(trained.student.meters())
        raise _nothing(stage, f"the model, a {trained.student.name}, gives: {tasks}", "a model", found)
    write_report(measured, measured.figures, page, stage, out)
    return Outcome(
        out or Path(),
        f"figures of {stage.model} on {describe(measured.counts)}",
        len(data),
        figures=measured.figures,
        by_label=measured.by_label,
        skipped=data.reader.skipped,
        notes=_label_notes(trained.student.labels, data.labels) if measured.by_label else [],
        next=_look(out, page) or f"datasetdm evaluate --model {stage.model} --data {stage.data} --out DIR",
    )


def _label_notes(own: Labels, labels: Labels) -> list[str]:
    """Labels that the model or the data have alone: names are compared letter by letter."""
    notes = {
        "labels of the data that the model does not know, so that it finds none": strange_labels(labels, own),
        "labels of the model that the data do not know; what is found under them is wrong": strange_labels(own, labels),
    }
    return [f"{what}: {names}" for what, names in notes.items() if names]


def _known(sample: Sample) -> list[str]:
    """What is known of a sample."""
    return [name for name, record in sample.annotations.fields().items() if record is not None]


def _nothing(stage: EvaluateStage, given: str, maker: str, found: Counter[str]) -> DataError:
    """The error of data without what is to be measured."""
    there = ", ".join(f"{n} on {c} images" for n, c in found.items()) or "no annotations"
    return DataError(
        "there is nothing to measure",
        where=stage.data,
        expected=f"annotations that {given}; the data have {there}",
        remedy=f"choose data or {maker} of the same tasks",
    )


# ---------------------------------------------------------------------- report
def _page(stage: EvaluateStage, labels: Labels, out: Path | None) -> HitsAndMisses | None:
    return HitsAndMisses(labels, stage.shown) if out is not None and stage.shown else None


def _look(out: Path | None, page: HitsAndMisses | None) -> str:
    return f"open {out / places.HITS} in a browser" if out is not None and page is not None else ""


def describe(counts: evaluation.Counts) -> str:
    """What was compared, in words."""
    parts = [f"{n} {what}" for n, what in ((counts.images, "images"), (counts.objects, "objects")) if n]
    ignored = (
        (counts.crowds, "crowds"),
        (counts.unlabelled, "pixels without a label"),
        (counts.without_depth, "pixels without depth"),
    )
    left_out = ", ".join(f"{count} {what}" for count, what in ignored if count)
    return " with ".join(parts) + (f" (ignored: {left_out}, of {counts.pixels} pixels)" if left_out else "")


def write_report(
    measured: evaluation.Evaluation,
    figures: Mapping[str, Any],
    page: HitsAndMisses | None,
    stage: EvaluateStage,
    out: Path | None,
) -> None:
    """Write figures and page into the folder, if there is one."""
    if out is None:
        return
    about = {"data": stage.data, "model": stage.model or stage.decoder}
    value = {**about, "counts": asdict(measured.counts), "figures": figures, "by_label": measured.by_label}
    write_json(out / places.FIGURES, value)
    title = f"{about['model']} on {about['data']}"
    write_text(out / places.FIGURES_PAGE, _markdown(title, measured, figures))
    if page is not None:
        page.write(out / places.HITS, title)


def _markdown(title: str, measured: evaluation.Evaluation, figures: Mapping[str, Any]) -> str:
    flat = {f"{task} {name}": v for task, row in measured.figures.items() for name, v in row.items()}
    lines = [f"# {_cell(title)}", "", f"Compared: {describe(measured.counts)}.", "", "| figure | value |", "|---|---|"]
    lines += [f"| {_cell(name)} | {value:.4f} |" for name, value in flat.items()]
    if COMPOSED in figures:
        lines += ["", "Under captions composed of the true labels: see `figures.json`."]
    columns, rows = label_table(measured.by_label)
    if rows:
        lines += ["", "| label | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
        lines += [f"| {_cell(label)} | " + " | ".join(cells) + " |" for label, cells in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text as a cell of a Markdown table, without meaning in HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
