"""One function per kind of stage that loads models: it checks the output place and the data, then loads models, then works.

Each takes the stage (its references resolved), its output place, and what receives how far the work is. The command line runs
single stages with them, `recipe.run` whole recipes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from textwrap import shorten

from datasetdm.backbones import (
    FeatureConfig,
    RunOptions,
    find_backbone,
    is_hub_id,
    load_backbone,
    pick_device,
    with_loras,
)
from datasetdm.backbones.words import CutTexts
from datasetdm.decoder.config import read_config
from datasetdm.decoder.model import decoder_folder
from datasetdm.decoder.tasks import make_task
from datasetdm.engines.local import iter_write
from datasetdm.engines.progress import Outcome, Progress, Report
from datasetdm.engines.target import Reached, iter_target
from datasetdm.engines.yields import yield_of
from datasetdm.errors import DataError, StoreError
from datasetdm.io.remote import Place
from datasetdm.pipelines.annotate import Annotator
from datasetdm.pipelines.edit import Editor, check_edits, plan_edit
from datasetdm.pipelines.filter import make_filters
from datasetdm.pipelines.fit import iter_fit
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.pipelines.rounds import RoundPrompts
from datasetdm.pipelines.settings import EditConfig, FitConfig, GenerateConfig
from datasetdm.pipelines.stream import Data, Source, Stream
from datasetdm.prompts import PromptRow, PromptSource, nameless, open_prompts
from datasetdm.prompts.grammar import Grammar
from datasetdm.quality.checks import make_checks
from datasetdm.recipe import places
from datasetdm.recipe.data import StageData, open_data
from datasetdm.recipe.schema import (
    GRAMMAR,
    AnnotateStage,
    EditStage,
    EvaluateStage,
    FitStage,
    GenerateStage,
)
from datasetdm.store.store import Store
from datasetdm.transforms import transform_from_json

LOOKED_AT = 1000
"""Prompts that are read and searched for labels before a generation begins."""
LONG_FILE = 32_000_000
"""Bytes of a prompt file whose reading shows a bar."""
DEFAULT_BATCH = 16


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
        name = stage.backbone or decoder.backbone
    if not is_hub_id(name):
        find_backbone(name)


def fit(stage: FitStage, out: Path, report: Report) -> Outcome:
    """Fit a decoder into a new folder, or go on with the same fit."""
    places.require_folder(out, places.WORK)
    for task in stage.tasks or ():
        make_task(task)
    data = open_data(stage.data, stage, stage.seed)
    features = FeatureConfig(stage.timesteps, stage.inversion, size=stage.size)
    config = FitConfig(**{name: getattr(stage, name) for name in FitConfig.model_fields})
    name, options = with_loras(stage.backbone, stage.lora), RunOptions.chosen(stage.low_memory)
    frozen = load_backbone(name, config=features, device=stage.device, options=options)
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

    def on_read(done: int, total: int) -> None:
        if total >= LONG_FILE:
            report(Progress("prompts", done // 10**6, total // 10**6, "MB"))

    prompts = Grammar.load() if stage.prompts == (GRAMMAR,) else open_prompts(stage.prompts, on_read)
    wanted = stage.count or stage.target or 1
    first = _first_rows(prompts, min(wanted, LOOKED_AT))
    transforms = (*(transform_from_json(t) for t in stage.transforms), *make_filters(stage))
    settings = {name: getattr(stage, name) for name in GenerateConfig.model_fields}
    settings["batch"] = stage.batch or default_batch(out, wanted)
    source = DatasetGenerator(
        prompts, decoder=stage.decoder, backbone=stage.backbone, device=stage.device,
        options=RunOptions.chosen(stage.low_memory, stage.compile), **settings,
    )  # fmt: skip
    cut = CutTexts(source.backbone.kept_texts, "prompts")
    notes, stream = _prompt_notes(source, first), Stream(source, transforms)
    if stage.target is None:
        work = _counted(stream, out, stage.count)
    else:
        size = -(-stage.round // source.config.batch) * source.config.batch
        source.prompts = RoundPrompts(prompts, source.labels, size)
        work = iter_target(stream, source.prompts, out, stage.target, stage.min_yield)
    return _write(work, stream, out, wanted, "generate", report, cut, notes)


def _first_rows(prompts: PromptSource, count: int) -> list[PromptRow]:
    """At most `count` rows, none twice."""
    rows: list[PromptRow] = []
    for i in range(count):
        row = prompts.row(i)
        if prompts.count is not None and i >= prompts.count:
            break
        rows.append(row)
    return rows


def _prompt_notes(source: DatasetGenerator, rows: Sequence[PromptRow]) -> list[str]:
    """What the first prompts ask for that cannot be given."""
    notes: list[str] = []
    if bare := nameless(rows, source.labels):
        notes.append(f"{len(bare)} of {len(rows)} prompts name no label, first: {shorten(bare[0], 80)!r}")
    unknown = {n: None for row in rows for n in row.labels or () if n.lower() not in source.labels.by_word}
    if unknown:
        more = ", ..." if len(unknown) > 5 else ""
        notes.append(f"labels of prompts that are not annotated: {', '.join([*unknown][:5])}{more}")
    if not source.contrasts and (negative := [row for row in rows if row.negative]):
        notes.append(
            f"negative prompts have no effect on {source.backbone.name} at guidance {source.guidance:g} and are left out: "
            f"{len(negative)} of {len(rows)} prompts"
        )
    return notes


def annotate(stage: AnnotateStage, out: Place, report: Report) -> Outcome:
    """Annotate those images that the store does not hold yet."""
    places.require_folder(out, places.STORE)
    data = open_data(stage.data, stage.model_copy(update={"transforms": ()}))
    transforms = (*(transform_from_json(t) for t in stage.transforms), *make_filters(stage))
    source = Annotator(
        Data(data, data.format), decoder=stage.decoder, backbone=stage.backbone, device=stage.device,
        options=RunOptions.chosen(stage.low_memory), checks=make_checks(stage.flip_agreement),
    )  # fmt: skip
    cut = CutTexts(source.backbone.kept_texts, "captions")
    stream = Stream(source, transforms)
    return _write(_counted(stream, out), stream, out, len(data), "annotate", report, cut, data=data)


def edit(stage: EditStage, out: Place, report: Report) -> Outcome:
    """Edit those images that show what is to be edited, and that the store does not hold yet."""
    places.require_folder(out, places.STORE)
    data = open_data(stage.data, stage.model_copy(update={"transforms": ()}))
    transforms = tuple(transform_from_json(t) for t in stage.transforms)
    config = EditConfig(**{name: getattr(stage, name) for name in EditConfig.model_fields})
    check_edits(config, data.labels)
    if not any(plan_edit(sample, config) for sample in data):
        raise DataError(
            "no image shows what is to be edited", where=stage.data, expected=f"images with {config.edits()}",
            remedy="`datasetdm inspect` counts the labels that are there; --min-region is the smallest region",
        )  # fmt: skip
    source = Editor(
        Data(data, data.format), decoder=stage.decoder, backbone=stage.backbone, device=stage.device,
        options=RunOptions.chosen(stage.low_memory), **config.model_dump(),
    )  # fmt: skip
    cut = CutTexts(source.backbone.kept_texts, "prompts")
    stream = Stream(source, transforms)
    outcome = _write(_counted(stream, out), stream, out, len(data), "edit", report, cut, data=data)
    return replace(outcome, notes=(*outcome.notes, f"{len(data) - outcome.count} images show nothing to edit"))


def _counted(source: Source, out: Place, count: int | None = None) -> Generator[Reached]:
    """`iter_write`; every sample counts."""
    with closing(iter_write(source, out, count)) as work:
        for held, sample in work:
            yield Reached(held, held, sample)


def _write(
    work: Generator[Reached],
    stream: Stream,
    out: Place,
    wanted: int,
    what: str,
    report: Report,
    cut: CutTexts,
    notes: Sequence[str] = (),
    data: StageData | None = None,
) -> Outcome:
    labels: Counter[str] = Counter()
    held = new = composed = 0
    with closing(work):
        for reached in work:
            held, sample = reached.held, reached.sample
            if sample is not None:
                new += 1
                names = sample.labels.names
                labels.update(names[i] for i in sample.annotations.labels_in())
                cut.add(sample.caption)
                composed += sample.prompt is not None and sample.prompt.composed
            report(Progress(what, reached.passed, max(reached.passed, wanted)))
    made = f"{held} annotated images" if new == held else f"{held} annotated images, {new} of them new"
    skipped = () if data is None else data.reader.skipped
    notes = [*notes, *cut.notes()]
    if composed and what == "annotate":
        notes.append(f"{composed} of {new} images were read under captions composed of the labels that the data have")
    passed = yield_of(Store(out)) if stream.filtered else None
    return Outcome(out, made, held, labels, skipped=skipped, notes=notes, next=f"datasetdm view {out}", passed=passed)


def default_batch(out: Place, count: int) -> int:
    """The batch of the store that is already in `out`; for a new one 16, or the count if that is smaller."""
    if not (out / places.STORE).exists():
        return min(DEFAULT_BATCH, count)
    batch = Store(out).stream.get("batch")
    if not isinstance(batch, int) or batch < 1:
        raise StoreError("this store was not made by generate", where=out, remedy="choose another --out")
    return batch
