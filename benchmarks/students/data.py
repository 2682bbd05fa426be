"""The parts of the data mixes: labelled renders, one cached set of generated images, and twins of both with other labels.

A generated store or a twin is written in shards and goes on where it was stopped. What a part depends on is known without
making it (`Data.identity`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from miniworld.score.oracle import WEIGHTS as ORACLE_WEIGHTS
from miniworld.score.oracle import load_oracle

from benchmarks.baselines.attention import annotate as annotate_by_attention
from benchmarks.baselines.attention import choose_way
from benchmarks.common import RENDERS as FOLDER
from benchmarks.fitting import InMemoryReader, fit
from benchmarks.generated import oracle_maps
from benchmarks.students import renders, tables
from benchmarks.students.scenarios import PLAIN, Scenario, without
from datasetdm.backbones import Backbone
from datasetdm.decoder.blocks.transformer import UNSEEN_WORD_LOGIT
from datasetdm.decoder.inference import annotate
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.downstream.files import TrainedModel
from datasetdm.engines.local import write
from datasetdm.pipelines.filter import make_filters
from datasetdm.pipelines.fit import RULES as FIT_RULES
from datasetdm.pipelines.fit import unseen_labels
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.pipelines.settings import FilterConfig, FitConfig
from datasetdm.pipelines.stream import Keys, Source
from datasetdm.prompts import PromptSource
from datasetdm.readers import Reader, read
from datasetdm.readers.formats.mini import PACKAGED
from datasetdm.records import Labels, Sample, SemanticMap
from datasetdm.store.store import Store
from datasetdm.transforms import accepted, apply

SEED, BATCH = 0, 16
"""Of the generated set; the batch is a part of what its images depend on."""
SHARD = 64
"""Samples per shard."""
IMAGES = "images"
"""The part whose images are generated, with whatever labels they come with."""
CHUNK = 16
"""Images that get other labels at a time."""
FILTERS = FilterConfig(min_confidence=0.75, min_prompted=0.5, min_contrast=0.02)
"""Of the row `both_filtered`: fixed before any student was measured. A quarter of 512 generated images is below that confidence."""

FIT = FitConfig(tasks=("semantic",))
"""Of the P-Decoder of a scenario."""

Relabel = Callable[[list[Sample]], Iterable[Sample]]


@dataclass(frozen=True)
class Twin:
    """The images of a reader with other labels: a source of samples.

    Args:
        images: read in their order.
        story: what the labels depend on, JSON-ready.
        relabel: makes the function that labels a list of samples, when the first one is asked for.
    """

    images: Iterable[Sample]
    labels: Labels
    story: dict[str, Any]
    relabel: Callable[[], Relabel]
    endless: bool = False

    def origin(self) -> dict[str, Any]:
        """What the samples depend on."""
        return self.story

    def check(self, store: Store) -> None:
        """Nothing to check: equal origins give equal samples."""

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """All samples, without those whose key is in `done`."""
        missing = (s for s in self.images if s.key not in done)
        relabel = None
        while chunk := list(islice(missing, CHUNK)):
            relabel = relabel or self.relabel()
            yield from relabel(chunk)


def mini_generator(prompts: PromptSource, device: str) -> Source:
    """The shipped models with one prompt per image."""
    decoder, backbone = _mini(device)
    return DatasetGenerator(prompts, decoder=decoder, backbone=backbone, seed=SEED, batch=BATCH)


@cache
def _mini(device: str) -> tuple[PDecoder, Backbone]:
    """The shipped models."""
    return load_pair("mini", device=device)


@dataclass(frozen=True)
class Data:
    """All parts of one size in one scenario.

    Args:
        count: of generated images, and of renders where a row uses renders in their place.
        work: the folder of the stores.
        labelled, everything, val, test: prefixes of the mini world's files; `everything` holds the labelled ones.
        generator: of the generated set.
        scenario: which images are labelled, and what is tested on.
        device: of the models that make labels and images.
        fit: of the P-Decoder of a scenario that may not use the shipped one.
        strange: renders per condition that a scenario without known conditions is tested on.
        prompts: a name and prompts instead of the scenario's grammar.
    """

    count: int
    work: Path
    labelled: Path = PACKAGED / "train"
    everything: Path = FOLDER / "train"
    val: Path = FOLDER / "val"
    test: Path = FOLDER / "test"
    generator: Callable[[PromptSource, str], Source] = mini_generator
    scenario: Scenario = PLAIN
    device: str = "cpu"
    fit: FitConfig = FIT
    strange: int = renders.COUNT
    prompts: tuple[str, PromptSource] | None = None

    def split(self, prefix: Path) -> Reader:
        """Renders of a split."""
        return read(f"mini:{prefix}")

    @cached_property
    def _files(self) -> dict[str, str]:
        return {name: files_digest(getattr(self, name)) for name in ("labelled", "everything", "val", "test")}

    @cached_property
    def _generated(self) -> Source:
        return self.generator(self.prompts[1] if self.prompts else self.scenario.grammar(), self.device)

    # ------------------------------------------------------------------ val and test
    def judges(self) -> dict[str, Any]:
        """What the figures of any student depend on."""
        own = {name: self._files[name] for name in ("val", "test")}
        return own | ({"test": renders.identity(self.strange)} if self.scenario.strange_test else {})

    def choice(self) -> Iterable[Sample]:
        """What learning rates are chosen on."""
        return self.scenario.val(self.split(self.val))

    def exam(self) -> Iterable[Sample]:
        """What figures are measured on."""
        if not self.scenario.strange_test:
            return self.split(self.test)
        return chain.from_iterable(map(self.split, renders.render_all(self.work / "renders", self.strange)))

    # ------------------------------------------------------------------ identity
    def identity(self, part: str, teacher: str = "") -> dict[str, Any]:
        """What the samples of a part depend on, JSON-ready.

        Args:
            teacher: the name of the result of the student that makes pseudo-labels.
        """
        if part == tables.LABELLED:
            return self._labelled_story()
        if part == tables.ALL:
            return {"files": self._files["everything"]}
        if part == tables.RENDERS:
            known = self._files["labelled"] if self.scenario is PLAIN else self._labelled_story()
            return {"pool": self._files["everything"], "without": known, "count": self.count}
        if part == IMAGES or (part == tables.GENERATED and self.scenario is PLAIN):
            return {**self._generated.origin(), "count": self.count}
        return {"part": part, "images": self.identity(self._images_of(part)), "labels": self._labeller(part, teacher)}

    def _labelled_story(self) -> dict[str, Any]:
        own = {"files": self._files["labelled"]}
        if self.scenario is PLAIN:
            return own
        return own | {"pool": self._files["everything"], "scenario": self.scenario.story()}

    def _images_of(self, part: str) -> str:
        """The part whose images this one has."""
        if part in (tables.DECODED_RENDERS, tables.PSEUDO_RENDERS):
            return tables.RENDERS
        return tables.GENERATED if part == tables.FILTERED else IMAGES

    def _labeller(self, part: str, teacher: str) -> dict[str, Any]:
        if part in tables.PSEUDO:
            return {"teacher": teacher}
        if part == tables.ORACLE:
            return {"oracle": hashlib.sha256(ORACLE_WEIGHTS.read_bytes()).hexdigest()}
        if part == tables.FILTERED:
            return FILTERS.model_dump(mode="json", exclude_none=True)
        origin = self._generated.origin()
        if self.scenario is not PLAIN and part != tables.ATTENTION:
            fitted = {"rules": FIT_RULES, "config": self.fit.model_dump(mode="json"), "data": self._labelled_story()}
            unseen = {"unseen": self._unseen, "logit": UNSEEN_WORD_LOGIT} if self._unseen else {}
            return {"backbone": origin.get("backbone"), "fitted": fitted, **unseen}
        models = {name: origin.get(name) for name in ("backbone", "decoder")}
        return models | ({"labelled": self._files["labelled"]} if part == tables.ATTENTION else {})

    # ------------------------------------------------------------------ samples
    def reader(self, part: str, teacher: tuple[str, Path] | None = None) -> Reader:
        """The samples of a part, made if they are not there yet.

        Args:
            teacher: for pseudo-labels, the name of its result and its folder.
        """
        if part == tables.LABELLED:
            return self._labelled
        if part == tables.ALL:
            return self.split(self.everything)
        if part == tables.RENDERS:
            return self._store(part, Twin(self._pool(), self.split(self.everything).labels, self.identity(part), _same))
        if part == IMAGES or (part == tables.GENERATED and self.scenario is PLAIN):
            return self._store(tables.GENERATED, self._generated, shared=not self.scenario.strange_test)
        name, folder = teacher or ("", Path())
        base = self.reader(self._images_of(part))
        relabel = {
            tables.ORACLE: _by_oracle,
            tables.FILTERED: lambda: _by_filters(base.labels),
            tables.ATTENTION: lambda: _by_attention(list(self._labelled), base.labels, self.device),
            tables.DECODED_RENDERS: self._by_decoder,
            tables.GENERATED: self._by_decoder,
        }.get(part, lambda: _by_student(folder, self.device))
        own = "labelled" if part == tables.GENERATED and self.scenario.strange_test else ""
        return self._store(
            "-".join(filter(None, (part, name, own))), Twin(base, base.labels, self.identity(part, name), relabel)
        )

    @cached_property
    def _labelled(self) -> Reader:
        own, pool = self.split(self.labelled), self.split(self.everything)
        return own if self.scenario is PLAIN else InMemoryReader(self.scenario.labelled(own, pool), own.labels)

    @cached_property
    def _unseen(self) -> list[str]:
        """Names of labels that no labelled image shows."""
        return [*unseen_labels(list(self._labelled), self._labelled.labels)]

    def _pool(self) -> Iterable[Sample]:
        """Renders that are not among the labelled ones."""
        known = {hashlib.sha256(s.image.tobytes()).digest() for s in self._labelled}
        fresh = (s for s in self.split(self.everything) if hashlib.sha256(s.image.tobytes()).digest() not in known)
        return islice(fresh, self.count)

    def _by_decoder(self) -> Relabel:
        """Labels of the shipped P-Decoder, or of one that was fitted on the scenario's labelled images."""
        if self.scenario is PLAIN:
            decoder, backbone = _mini(self.device)
            return lambda samples: (found for _, found in annotate(decoder, backbone, samples))
        story = json.dumps(self._labeller(tables.GENERATED, ""), sort_keys=True)
        folder = self.work / f"{self.scenario.name}-decoder-{hashlib.sha256(story.encode()).hexdigest()[:12]}"
        _, backbone = _mini(self.device)
        known = [without(s, self.scenario.unseen) if self.scenario.unseen else s for s in self._labelled]
        fit(InMemoryReader(known, known[0].labels), folder, backbone, self.fit)
        decoder, backbone = load_pair(folder, backbone, self.device)
        labels = self._labelled.labels
        return lambda samples: (found for _, found in annotate(decoder, backbone, samples, labels=labels))

    def _store(self, name: str, source: Source, shared: bool = False) -> Store:
        """The store of a part; `shared` by all scenarios."""
        own = "" if shared or self.scenario is PLAIN else f"{self.scenario.name}-"
        own += f"{self.prompts[0]}-" if self.prompts else ""
        folder = self.work / f"{own}{name}-{self.count}"
        if source.endless and not folder.exists():
            _begin(folder)
        write(source, folder, self.count if source.endless else None, SHARD)
        return Store(folder)


def _begin(folder: Path) -> None:
    """Begin a store NAME-COUNT as a copy of the largest smaller one, if there is one: the same generator goes on with it."""
    name, _, count = folder.name.rpartition("-")
    counts = (
        int(p.name.rpartition("-")[2]) for p in folder.parent.glob(f"{name}-*") if p.name.rpartition("-")[0] == name
    )
    if smaller := max((c for c in counts if c < int(count)), default=0):
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.copytree(folder.with_name(f"{name}-{smaller}"), temporary, dirs_exist_ok=True)
        temporary.rename(folder)


def files_digest(prefix: Path) -> str:
    """SHA-256 of the files of a split of the mini world."""
    digest = hashlib.sha256()
    for path in sorted(prefix.parent.glob(f"{prefix.name}-*.parquet")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def with_map(sample: Sample, found: SemanticMap) -> Sample:
    """The image with one other annotation and nothing else."""
    return Sample(sample.key, sample.image, sample.labels, sample.prompt, semantic=found)


def _same() -> Relabel:
    return lambda samples: samples


def _by_oracle() -> Relabel:
    oracle = load_oracle()
    return lambda samples: map(with_map, samples, oracle_maps(oracle, [s.image for s in samples]))


def _by_filters(labels: Labels) -> Relabel:
    filters = make_filters(FILTERS)
    return lambda samples: accepted(apply(samples, labels, filters)[0])


def _by_attention(labelled: Sequence[Sample], labels: Labels, device: str) -> Relabel:
    """The labelled images only choose the stride and the standardisation of the maps."""
    _, backbone = _mini(device)
    way = choose_way(backbone, labelled, labels.names)
    return lambda samples: (with_map(s, m) for s, m in annotate_by_attention(backbone, samples, labels.names, way))


def _by_student(folder: Path, device: str) -> Relabel:
    trained = TrainedModel.load(folder, device)
    return lambda samples: (
        with_map(given, found.semantic) for given, found in trained.annotate(samples) if found.semantic is not None
    )
