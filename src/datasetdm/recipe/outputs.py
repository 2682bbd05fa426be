"""The kinds of stages that write samples for others, an export and a page: they load no model and import no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import islice
from pathlib import Path

from datasetdm.engines.progress import Outcome, Progress, Report
from datasetdm.errors import OutputError
from datasetdm.exporters import iter_export
from datasetdm.io.remote import as_place
from datasetdm.recipe import places
from datasetdm.recipe.data import export_transforms, open_data, review_notes
from datasetdm.recipe.schema import DataOptions, ExportStage, PageStage
from datasetdm.viewer.gallery import write_gallery


def export(stage: ExportStage, out: Path, report: Report) -> Outcome:
    """Write data in another format into a new folder."""
    places.require_folder(out)
    data = open_data(stage.data, stage)
    store = as_place(stage.data.removeprefix("store:")) if data.format == "store" else None
    if isinstance(store, Path) and out.resolve().is_relative_to(store.resolve()):
        raise OutputError(
            "the output folder lies inside the store that is read", where=out, remedy="choose another --out"
        )
    transforms = (*data.transforms, *export_transforms(stage))
    labels: Counter[str] = Counter()
    writes = iter_export(
        data.reader,
        data.reader.labels,
        stage.format,
        out,
        transforms,
        link=stage.link,
        licence=stage.licence,
        counts=labels,
    )
    written = 0
    for written, _ in enumerate(writes, 1):
        report(Progress("export", written, len(data)))
    return Outcome(
        out,
        f"{written} images as {stage.format}",
        written,
        labels,
        skipped=data.reader.skipped,
        notes=[*review_notes(data), *data.reader.source.notes],
        next=f"datasetdm inspect {made}" if (made := data_of(stage.format, out, stage.split)) else "",
    )


def data_of(format: str, out: Path, parts: Collection[str] = ()) -> str:
    """An exported folder as data to read, its first part if it has some; empty for formats that are not read here."""
    part = next(iter(parts), "")
    option, end, folder = (f"@{part}", f"_{part}", f"/{part}") if part else ("", "", "")
    names = {
        "coco": f"coco:{out}/annotations/instances{end}.json",
        "coco-panoptic": f"coco-panoptic:{out}/annotations/panoptic{end}.json",
        "voc": f"voc:{out}{option}",
        "masks": f"masks:{out}{option}",
        "hf": f"hf:{out}{option}",
        "depth-kitti": f"kitti:{out}{folder}",
        "depth-npy": f"masks:{out}{option}",
        "depth-exr": f"masks:{out}{option}",
        "yolo-detect": f"yolo:{out}/data.yaml{option}",
        "yolo-pose": f"yolo:{out}/data.yaml{option}",
        "yolo-seg": f"yolo:{out}/data.yaml{option}",
    }
    return names.get(format, "")


def page(stage: PageStage, out: Path, report: Report) -> Outcome:
    """Write the page over the first samples; an older page is replaced."""
    places.require_file(out)
    data = open_data(stage.data, DataOptions())
    shown = min(stage.limit, len(data))
    title = f"{shown} of {len(data)} samples" if shown < len(data) else f"{shown} samples"
    for done, _ in enumerate(write_gallery(islice(data, stage.limit), data.labels, out, title), 1):
        report(Progress("gallery", done, shown))
    return Outcome(out, f"a page of {title}", shown, next=f"open {out} in a browser")
