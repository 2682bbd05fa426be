"""Filters over a finished store: they write scores and reasons beside its shards, which stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from datasetdm.errors import ConfigError
from datasetdm.io.files import locked
from datasetdm.pipelines.settings import FilterConfig
from datasetdm.quality.agreement import FilterByTeacher
from datasetdm.quality.copies import FilterCopies
from datasetdm.quality.limbs import FilterByLimbs
from datasetdm.records import Quality, Sample
from datasetdm.store.quality import append_qualities
from datasetdm.store.store import Store
from datasetdm.store.writer import LOCK
from datasetdm.transforms import Transform, apply
from datasetdm.transforms.duplicates import FilterDuplicates
from datasetdm.transforms.images import FilterByClipping, FilterByContrast
from datasetdm.transforms.objects import FilterByArea, FilterByBoundary, FilterFragments
from datasetdm.transforms.prompted import FilterByPrompt
from datasetdm.transforms.threshold import FilterByConfidence


def make_filters(config: FilterConfig) -> tuple[Transform, ...]:
    """The filters that the settings stand for; the one that compares samples runs last, on what the others accepted."""
    own, found = config, list[Transform]()
    if own.min_contrast is not None:
        found.append(FilterByContrast(minimum=own.min_contrast))
    if own.min_unclipped is not None:
        found.append(FilterByClipping(minimum=own.min_unclipped))
    if own.min_confidence is not None:
        found.append(FilterByConfidence(minimum=own.min_confidence))
    if own.min_prompted is not None:
        found.append(FilterByPrompt(minimum=own.min_prompted))
    if own.min_area is not None:
        found.append(FilterByArea(minimum=own.min_area, tolerate=own.tolerate))
    if own.min_piece is not None:
        found.append(FilterFragments(minimum=own.min_piece, tolerate=own.tolerate))
    if own.min_boundary is not None:
        found.append(FilterByBoundary(minimum=own.min_boundary, tolerate=own.tolerate))
    if own.limbs_of is not None:
        found.append(FilterByLimbs(data=own.limbs_of, tolerate=own.tolerate))
    if own.teacher is not None:
        found.append(FilterByTeacher(teacher=own.teacher, minimum=own.teacher_agreement))
    if own.copies_of is not None:
        found.append(FilterCopies(data=own.copies_of))
    if own.duplicates is not None:
        found.append(FilterDuplicates(distance=own.duplicates))
    return tuple(found)


def filter_store(
    store: Store, filters: Sequence[Transform], clear: bool = False, dry_run: bool = False
) -> Iterator[Sample]:
    """Every sample with its own annotations and the quality that it now has. Scores and reasons are written when all samples
    were looked at, so a run that is stopped changes nothing. What other filters found stays.

    Args:
        clear: forget first what was found since the store was written.
        dry_run: write nothing.

    Raises:
        ConfigError: a transform that is no filter.
        OutputError: the store is being written.
    """
    if choice := next((t for t in filters if t.selects or t.vocabulary(store.labels) != store.labels), None):
        raise ConfigError(
            f"the transform {choice.name!r} is no filter", expected="filters, which write scores and reasons"
        )
    with locked(store.folder / LOCK, "store"):
        present = dict(store.quality)
        if clear:
            store.quality = {}
        names, changed = {t.name for t in filters}, dict[str, Quality]()
        originals: list[Sample] = []

        def fresh() -> Iterator[Sample]:
            for sample in store:
                originals[:] = [sample]
                yield replace(sample, quality=_without(sample.quality, names))

        for judged in apply(fresh(), store.labels, filters)[0]:
            (original,) = originals
            if judged.quality != present.get(judged.key, original.quality):
                changed[judged.key] = judged.quality
            yield replace(original, quality=judged.quality)
        if not dry_run:
            append_qualities(store.folder, changed)


def _without(quality: Quality, filters: set[str]) -> Quality:
    """The quality without what these filters found earlier."""
    scores = {name: value for name, value in quality.scores.items() if name not in filters}
    return Quality(scores, tuple(r for r in quality.reasons if r.partition(": ")[0] not in filters))
