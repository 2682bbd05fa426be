"""One function per kind of stage that loads models: it checks the output place and the data, then loads models, then works.

Each takes the stage (its references resolved), its output place, and what receives how far the work is. The command line runs
single stages with them, `recipe.run` whole recipes.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from datasetdm.backbones import (
    find_backbone,
    is_hub_id,
    pick_device,
    with_loras,
)
from datasetdm.decoder.config import read_config
from datasetdm.decoder.model import decoder_folder, own_backbone
from datasetdm.decoder.tasks import make_task
from datasetdm.engines.local import iter_write
from datasetdm.engines.progress import Outcome, Progress, Report, Seen
from datasetdm.engines.ray import Event
from datasetdm.engines.target import Reached, iter_target
from datasetdm.errors import DataError
from datasetdm.io.remote import Place
from datasetdm.pipelines.edit import check_edits, plan_edit
from datasetdm.pipelines.filter import make_filters
from datasetdm.pipelines.fit import iter_fit
from datasetdm.pipelines.rounds import RoundPrompts
from datasetdm.pipelines.settings import EditConfig
from datasetdm.pipelines.stream import Source
from datasetdm.recipe import on_ray, places
from datasetdm.recipe.data import open_data
from datasetdm.recipe.schema import (
    AnnotateStage,
    EditStage,
    EvaluateStage,
    FitStage,
    GenerateStage,
)
from datasetdm.recipe.sources import (
    OpenedStream,
    default_batch,
    made_store,
    open_annotator,
    open_editor,
    open_fit,
    open_generator,
    open_job,
)

LONG_FILE = 32_000_000
"""Bytes of a prompt file whose reading shows a bar."""


def check_models(stage: FitStage | GenerateStage | AnnotateStage | EvaluateStage) -> None:
    """Raises for a task, decoder, backbone, LoRA or device that is not there; nothing is loaded or downloaded."""
    pick_device(stage.device)
    if isinstance(stage, EvaluateStage) and stage.model is not None:
        return
    name = stage.backbone
    if isinstance(stage, FitStage):
        for task in stage.tasks or ():
            make_task(task)
        name = with_loras(stage.backbone, stage.lora)
    else:
        decoder = read_config(decoder_folder(stage.decoder))
        name = name or own_backbone(decoder)
    if not is_hub_id(name):
        find_backbone(name)


def fit(stage: FitStage, out: Path, report: Report) -> Outcome:
    """Fit a decoder into a new folder, or go on with the same fit."""
    places.require_folder(out, places.WORK)
    data, frozen, config = open_fit(stage)
    figures: Mapping[str, float] = {}
    labels: Mapping[str, int] = {}
    notes: Sequence[str] = ()
    with closing(iter_fit(data, out, backbone=frozen, config=config)) as work:
        for event in work:
            unit = "image" if event.stage == "features" else "step"
            report(Progress(f"fit: {event.stage}", event.done, event.total, unit))
            figures, notes = event.held_out or figures, event.notes or notes
            labels = event.labels or labels
    return Outcome(
        out,
        f"a decoder fitted on {len(data)} images",
        len(data),
        labels,
        figures=figures,
        skipped=data.reader.skipped,
        notes=notes,
        next=f"datasetdm generate --decoder {out} --prompts FILE --count 100 --out DIR",
    )


def generate(stage: GenerateStage, out: Place, report: Report) -> Outcome:
    """Bring a store to `count` generated samples, or to `target` that pass the filters."""
    places.require_folder(out, places.STORE)
    if stage.count is not None:
        places.require_growth(out, stage.count)
    wanted = stage.count or stage.target or 1
    stage = stage.model_copy(update={"batch": stage.batch or default_batch(out, wanted)})
    if on_ray.chosen(stage):
        return _made_by_workers(stage, out, on_ray.generate(stage, out, report, open_job))

    def on_read(done: int, total: int) -> None:
        if total >= LONG_FILE:
            report(Progress("prompts", done // 10**6, total // 10**6, "MB"))

    generator, opened = open_generator(stage, on_read)
    if stage.target is None:
        work = _counted(opened.stream, out, stage.count)
    else:
        size = -(-stage.round // generator.config.batch) * generator.config.batch
        generator.prompts = RoundPrompts(generator.prompts, generator.labels, size)
        work = iter_target(opened.stream, generator.prompts, out, stage.target, stage.min_yield)
    return _write(work, opened, out, wanted, stage, report)


def annotate(stage: AnnotateStage, out: Place, report: Report) -> Outcome:
    """Annotate those images that the store does not hold yet."""
    places.require_folder(out, places.STORE)
    data = open_data(stage.data, stage.model_copy(update={"transforms": ()}))
    if on_ray.chosen(stage):
        return _made_by_workers(stage, out, on_ray.annotate(stage, data, out, report, open_job))
    opened = open_annotator(stage, data)
    return _write(_counted(opened.stream, out), opened, out, len(data), stage, report)


def edit(stage: EditStage, out: Place, report: Report) -> Outcome:
    """Edit those images that show what is to be edited, and that the store does not hold yet."""
    places.require_folder(out, places.STORE)
    data = open_data(stage.data, stage.model_copy(update={"transforms": ()}))
    config = EditConfig(**{name: getattr(stage, name) for name in EditConfig.model_fields})
    check_edits(config, data.labels)
    if not any(plan_edit(sample, config) for sample in data):
        raise DataError(
            "no image shows what is to be edited", where=stage.data, expected=f"images with {config.edits()}",
            remedy="`datasetdm inspect` counts the labels that are there; --min-region is the smallest region",
        )  # fmt: skip
    opened = open_editor(stage, data)
    outcome = _write(_counted(opened.stream, out), opened, out, len(data), stage, report)
    return replace(outcome, notes=(*outcome.notes, f"{len(data) - outcome.count} images show nothing to edit"))


def _counted(source: Source, out: Place, count: int | None = None) -> Generator[Reached]:
    """`iter_write`; every sample counts."""
    with closing(iter_write(source, out, count)) as work:
        for held, sample in work:
            yield Reached(held, held, sample)


def _made_by_workers(stage: GenerateStage | AnnotateStage, out: Place, event: Event) -> Outcome:
    filtered = bool(stage.transforms or make_filters(stage) or getattr(stage, "flip_agreement", None))
    return made_store(out, stage.kind, event.held, event.seen, event.notes, event.skipped, filtered)


def _write(
    work: Generator[Reached],
    opened: OpenedStream,
    out: Place,
    wanted: int,
    stage: GenerateStage | AnnotateStage | EditStage,
    report: Report,
) -> Outcome:
    seen, held = Seen(), 0
    with closing(work):
        for reached in work:
            held = reached.held
            if reached.sample is not None:
                seen.update(opened.count([reached.sample]))
            report(Progress(stage.kind, reached.passed, max(reached.passed, wanted)))
    skipped = () if opened.data is None else opened.data.reader.skipped
    notes = [*opened.notes, *on_ray.idle_notes(stage)]
    return made_store(out, stage.kind, held, seen, notes, skipped, opened.stream.filtered)
