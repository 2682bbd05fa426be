"""The kinds of stages that write samples for others, an export and a page: they load no model and import no torch."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from datasetdm.engines.progress import Outcome, Progress, Report
from datasetdm.errors import OutputError
from datasetdm.exporters import iter_export
from datasetdm.recipe import places
from datasetdm.recipe.data import export_transforms, open_data, review_notes
from datasetdm.recipe.schema import DataOptions, ExportStage, PageStage
from datasetdm.viewer.gallery import write_gallery


def export(stage: ExportStage, out: Path, report: Report) -> Outcome:
    """Write data in another format into a new folder."""
    places.require_folder(out)
    data = open_data(stage.data, stage)
    if data.format == "store" and out.resolve().is_relative_to(Path(stage.data.removeprefix("store:")).resolve()):
        raise OutputError(
            "the output folder lies inside the store that is read", where=out, remedy="choose another --out"
        )
    transforms = (*data.transforms, *export_transforms(stage))
    writes = iter_export(
        data.reader, data.reader.labels, stage.format, out, transforms, link=stage.link, licence=stage.licence
    )
    written = 0
    for written, _ in enumerate(writes, 1):
        report(Progress("export", written, len(data)))
    return Outcome(
        out,
        f"{written} images as {stage.format}",
        written,
        skipped=data.reader.skipped,
        notes=review_notes(data),
    )


def page(stage: PageStage, out: Path, report: Report) -> Outcome:
    """Write the page over the first samples; an older page is replaced."""
    places.require_file(out)
    data = open_data(stage.data, DataOptions())
    shown = min(stage.limit, len(data))
    title = f"{shown} of {len(data)} samples" if shown < len(data) else f"{shown} samples"
    for done, _ in enumerate(write_gallery(islice(data, stage.limit), data.labels, out, title), 1):
        report(Progress("gallery", done, shown))
    return Outcome(out, f"a page of {title}", shown)
