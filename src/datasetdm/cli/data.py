"""Commands on data alone: inspect, export, formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from datasetdm.cli.work import perform
from datasetdm.errors import ConfigError
from datasetdm.recipe.schema import DataOptions, ExportOptions, ExportStage

_DATA = Parameter(help=ExportStage.model_fields["data"].description)


def inspect(data: Annotated[str, _DATA], *, options: Annotated[DataOptions | None, Parameter(name="*")] = None) -> None:
    """Say what is in labelled data: images, labels, sizes."""
    from datasetdm.cli.bars import say, track
    from datasetdm.cli.tables import show_skipped, show_summary
    from datasetdm.readers.overview import summarise
    from datasetdm.recipe.data import open_data

    opened = open_data(data, options or DataOptions())
    found = summarise(track(opened.reader, "read", len(opened)), opened.reader.labels)
    show_summary(found, data)
    for note in opened.reader.source.notes:
        print(note)
    show_skipped(opened.reader.skipped)
    word = "fit" if found.tasks else "annotate"
    say(f"next: datasetdm {word} --data {data} --out DIR")


def export(
    data: Annotated[str, _DATA],
    *,
    out: Annotated[Path, Parameter(help="A new folder.")],
    options: Annotated[ExportOptions | None, Parameter(name="*")] = None,
    push: Annotated[
        str | None, Parameter(help="With --format hf: also upload to the Hugging Face hub as OWNER/NAME, private.")
    ] = None,
) -> None:
    """Write a store, or other labelled data, in another format.

    Reviews are applied first, then --limit, --min-score, --min-confidence, --remap and --split, in this order.
    """
    from datasetdm.exporters.hub import push_to_hub

    options = options or ExportOptions()
    if push and options.format != "hf":
        raise ConfigError(f"--push with --format {options.format}", expected="--format hf")
    perform(ExportStage(data=data, **options.model_dump()), out)
    print(push_to_hub(out, push) if push else out)


def formats(name: Annotated[str | None, Parameter(help="Show how this format's folder looks.")] = None) -> None:
    """List the formats that can be read and written, or show how one's folder looks."""
    from datasetdm.exporters import EXPORTERS
    from datasetdm.readers import READERS
    from datasetdm.readers.layouts import layout

    if name is not None:
        print(layout(name))
        return
    print("read, as FORMAT:PATH:    " + ", ".join(sorted(READERS)))
    print("written, by --format:    " + ", ".join(sorted(EXPORTERS)))
    print("layout of one:           datasetdm formats NAME")
