"""The kind of stage that filters a store into a store of its own: shards are linked, so several choices share one generation."""

from __future__ import annotations

from pathlib import Path

from datasetdm.engines.progress import Outcome, Progress, Report, Yield
from datasetdm.errors import ConfigError
from datasetdm.pipelines.filter import filter_store, make_filters
from datasetdm.pipelines.settings import FilterConfig
from datasetdm.recipe import places
from datasetdm.recipe.schema import FilterStage
from datasetdm.store.merge import merge
from datasetdm.store.store import Store


def filter(stage: FilterStage, out: Path, report: Report) -> Outcome:
    """Link a store's shards into a new store, and write there what the filters find."""
    places.require_folder(out, places.STORE)
    filters = make_filters(FilterConfig(**{name: getattr(stage, name) for name in FilterConfig.model_fields}))
    if not filters:
        raise ConfigError("no filter was chosen", expected="one or more, for instance min_area: 0.002")
    source, found = Store(stage.data.removeprefix("store:")), Yield()
    for _ in merge([source], out):
        pass
    for done, sample in enumerate(filter_store(Store(out), filters), 1):
        found.add([sample.labels.names[i] for i in sample.annotations.labels_in()], sample.quality.reasons)
        report(Progress("filter", done, len(source)))
    made = f"{found.accepted} of {found.samples} samples pass the filters"
    return Outcome(out, made, found.samples, found.accepted_labels, passed=found, next=f"datasetdm view {out}")
