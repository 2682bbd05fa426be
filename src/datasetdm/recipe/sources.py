"""What stages work with, opened with its models: the sources that fill stores, the backbone of a fit; and what was made, in words.

Every worker of a run opens its own, by `open_generator` or `open_annotator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch

from datasetdm.backbones import Backbone, FeatureConfig, RunOptions, load_backbone, with_loras
from datasetdm.backbones.words import CutTexts
from datasetdm.decoder.tasks import make_task
from datasetdm.engines.progress import Outcome, Seen
from datasetdm.engines.yields import yield_of
from datasetdm.errors import DataError, StoreError
from datasetdm.io.remote import Place
from datasetdm.pipelines.annotate import Annotator
from datasetdm.pipelines.divisible import Divisible
from datasetdm.pipelines.edit import Editor
from datasetdm.pipelines.filter import make_filters
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.pipelines.made import made_by
from datasetdm.pipelines.settings import EditConfig, FitConfig, GenerateConfig
from datasetdm.pipelines.stream import Data, Stream
from datasetdm.prompts import PromptRow, PromptSource, nameless, open_prompts
from datasetdm.prompts.grammar import Grammar
from datasetdm.quality.checks import make_checks
from datasetdm.recipe.data import StageData, open_data
from datasetdm.recipe.schema import GRAMMAR, AnnotateStage, EditStage, FitStage, GenerateStage
from datasetdm.records import Sample
from datasetdm.store.manifest import META
from datasetdm.store.store import Store
from datasetdm.transforms import transform_from_json

LOOKED_AT = 1000
"""Prompts that are read and searched for labels before a generation begins."""
DEFAULT_BATCH = 16


@dataclass(frozen=True)
class OpenedStream:
    """A source with its models.

    Args:
        stream: with all transforms.
        backbone: whose text encoders read the prompts.
        texts: what the samples' texts are, "prompts" or "captions".
        notes: what the user should know before the work begins.
        data: what it reads, if it reads data.
    """

    stream: Stream
    backbone: Backbone
    texts: str
    notes: Sequence[str] = ()
    data: StageData | None = None

    def count(self, samples: Sequence[Sample]) -> Seen:
        """The samples, counted."""
        seen, cut = Seen(), CutTexts(self.backbone.kept_texts, self.texts)
        for sample in samples:
            seen.add(sample)
            cut.add(sample.caption)
        seen.cut, seen.first_cut = cut.cut, cut.first
        return seen


def open_generator(
    stage: GenerateStage, on_read: Callable[[int, int], None] = lambda done, total: None
) -> tuple[DatasetGenerator, OpenedStream]:
    """The source of a stage whose `batch` is known; `on_read` receives bytes read and in all of a prompt file."""
    prompts = Grammar.load() if stage.prompts == (GRAMMAR,) else open_prompts(stage.prompts, on_read)
    first = _first_rows(prompts, min(stage.count or stage.target or 1, LOOKED_AT))
    transforms = (*(transform_from_json(t) for t in stage.transforms), *make_filters(stage))
    settings = {name: getattr(stage, name) for name in GenerateConfig.model_fields}
    source = DatasetGenerator(
        prompts, decoder=stage.decoder, backbone=stage.backbone, device=stage.device,
        options=RunOptions.chosen(stage.low_memory, stage.compile), **settings,
    )  # fmt: skip
    return source, OpenedStream(Stream(source, transforms), source.backbone, "prompts", _prompt_notes(source, first))


def open_annotator(stage: AnnotateStage, data: StageData) -> OpenedStream:
    """The source of a stage on data that are open."""
    transforms = (*(transform_from_json(t) for t in stage.transforms), *make_filters(stage))
    source = Annotator(
        Data(data, data.format), decoder=stage.decoder, backbone=stage.backbone, device=stage.device,
        options=RunOptions.chosen(stage.low_memory), checks=make_checks(stage.flip_agreement),
    )  # fmt: skip
    return OpenedStream(Stream(source, transforms), source.backbone, "captions", data=data)


def open_editor(stage: EditStage, data: StageData) -> OpenedStream:
    """The source of a stage on data that are open."""
    transforms = tuple(transform_from_json(t) for t in stage.transforms)
    source = Editor(
        Data(data, data.format), decoder=stage.decoder, backbone=stage.backbone, device=stage.device,
        options=RunOptions.chosen(stage.low_memory), **{name: getattr(stage, name) for name in EditConfig.model_fields},
    )  # fmt: skip
    return OpenedStream(Stream(source, transforms), source.backbone, "prompts", data=data)


def open_fit(stage: FitStage) -> tuple[StageData, Backbone, FitConfig]:
    """What a fit learns from, the loaded backbone, and its settings."""
    for task in stage.tasks or ():
        make_task(task)
    data = open_data(stage.data, stage, stage.seed)
    features = FeatureConfig(stage.timesteps, stage.inversion, size=stage.size)
    config = FitConfig(**{name: getattr(stage, name) for name in FitConfig.model_fields})
    name, options = with_loras(stage.backbone, stage.lora), RunOptions.chosen(stage.low_memory)
    return data, load_backbone(name, config=features, device=stage.device, options=options), config


def default_batch(out: Place, count: int) -> int:
    """The batch of the store that is already in `out`; for a new one 16, or the count if that is smaller."""
    if not (out / META).exists():
        return min(DEFAULT_BATCH, count)
    batch = Store(out).stream.get("batch")
    if not isinstance(batch, int) or batch < 1:
        raise StoreError("this store was not made by generate", where=out, remedy="choose another --out")
    return batch


# ---------------------------------------------------------------------- in the workers
@dataclass
class StageJob:
    """A stage's source in a worker."""

    opened: OpenedStream
    known: int = 0
    """Errors in the data that were reported already."""

    @property
    def source(self) -> Divisible:
        """The stream."""
        return self.opened.stream

    def count(self, samples: Sequence[Sample]) -> Seen:
        """The samples, counted."""
        return self.opened.count(samples)

    def skipped(self) -> list[tuple[str, str]]:
        """Errors in the data since this was last asked."""
        if self.opened.data is None:
            return []
        new = self.opened.data.reader.skipped[self.known :]
        self.known += len(new)
        return [(e.what, str(e.where)) for e in new]

    def made_by(self) -> dict[str, Any]:
        """Models and versions."""
        return made_by(self.opened.stream)

    def notes(self) -> list[str]:
        """Of the source."""
        return list(self.opened.notes)


def open_job(kind: type[GenerateStage] | type[AnnotateStage], stage: str, threads: int) -> StageJob:
    """A stage's source from its settings as JSON."""
    torch.set_num_threads(threads)
    own = kind.model_validate_json(stage)
    if isinstance(own, GenerateStage):
        return StageJob(open_generator(own)[1])
    data = open_data(own.data, own.model_copy(update={"transforms": ()}))
    return StageJob(open_annotator(own, data), known=len(data.reader.skipped))


# ---------------------------------------------------------------------- what was made
def made_store(
    out: Place,
    what: str,
    held: int,
    seen: Seen,
    notes: Sequence[str],
    skipped: Sequence[DataError],
    filtered: bool,
) -> Outcome:
    """What a stage made that filled a store with `held` samples, those that were counted among them."""
    new = seen.samples
    made = f"{held} annotated images" if new == held else f"{held} annotated images, {new} of them new"
    texts = CutTexts(list, "captions" if what == "annotate" else "prompts")
    texts.seen, texts.cut, texts.first = new, seen.cut, seen.first_cut
    notes = [*notes, *texts.notes()]
    if seen.composed and what == "annotate":
        notes.append(
            f"{seen.composed} of {new} images were read under captions composed of the labels that the data have"
        )
    passed = yield_of(Store(out)) if filtered else None
    return Outcome(
        out, made, held, seen.labels, skipped=skipped, notes=notes, next=f"datasetdm view {out}", passed=passed
    )


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
