"""Commands on data alone: inspect, export, view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from datasetdm.cli.app import Images, OnError, app, filled, positive
from datasetdm.errors import ConfigError


@app.command
def inspect(data: str, *, images: Images = None, on_error: OnError = "stop") -> None:
    """Say what is in labelled data: pictures, labels, sizes.

    Parameters
    ----------
    data
        FORMAT:PATH, for instance `coco:annotations.json`. Formats: cityscapes, coco, coco-panoptic, deepfashion, hf,
        images, kitti, lvis, masks, mini, nyu, store, vkitti, voc, yolo.
    """
    from datasetdm.cli.progress import show_skipped, show_summary, track
    from datasetdm.readers import read
    from datasetdm.readers.overview import summarise

    reader = read(data, images, on_error)
    show_summary(summarise(track(reader, "read", len(reader)), reader.labels), data)
    show_skipped(reader)


@app.command
def export(
    data: str,
    *,
    out: Path,
    format: str = "coco",
    images: Path | None = None,
    split: str | None = None,
    remap: str | None = None,
    min_score: float = 0.0,
    min_confidence: float = 0.0,
    link: bool = False,
    licence: str = "unknown",
    push: str | None = None,
) -> None:
    """Write a store, or other labelled data, in another format.

    Parameters
    ----------
    data
        A store, or FORMAT:PATH.
    out
        A new folder.
    format
        coco, coco-panoptic, cvat, depth-exr, depth-kitti, depth-npy, fiftyone, hf, label-studio, masks, voc, webdataset,
        yolo-detect, yolo-pose, yolo-seg.
    images
        Folder of the pictures, where the data do not say.
    split
        Parts and their shares: train=0.8,val=0.1,test=0.1. A sample's part follows from its key alone.
    remap
        New names of labels: cat=animal,dog=animal,sky= (the last drops a label).
    min_score
        Leave out objects and regions of a lower score.
    min_confidence
        Ignore single pixels that the decoder is less sure of, in semantic maps and depth.
    link
        Link pictures that are files instead of copying them.
    licence
        What a dataset's card says, for instance cc-by-4.0.
    push
        With --format hf: also upload to the Hugging Face hub as OWNER/NAME, private.
    """
    from datasetdm.cli.progress import export_with_bars
    from datasetdm.exporters.formats.hf import push_to_hub
    from datasetdm.exporters.options import Options, parse_remap, parse_splits
    from datasetdm.readers import read
    from datasetdm.store import Store

    splits = parse_splits(split) if split else ()
    options = Options(splits, parse_remap(remap) if remap else {}, min_score, min_confidence, link, licence)
    if push and format != "hf":
        raise ConfigError(f"--push with --format {format}", expected="--format hf")
    reader = read(data, images) if ":" in data and not Path(data).exists() else filled(Store(data))
    export_with_bars(reader, format, out, options)
    print(push_to_hub(out, push) if push else out)


@app.command
def view(
    store: Path,
    *,
    port: int = 0,
    open_browser: Annotated[bool, Parameter(name="--open", negative=())] = False,
    out: Path | None = None,
    limit: int = 200,
) -> None:
    """Look at a store in the browser, filter and review it; or write its first samples as a page of one file.

    Parameters
    ----------
    store
        The store.
    port
        Of the page on this machine (no other can reach it); default a free one.
    open_browser
        Also open the page.
    out
        Write a page to share to this file instead, for instance page.html.
    limit
        At most so many samples on the page to share, the first ones.
    """
    from datasetdm.store import Store

    positive(limit=limit)
    opened = filled(Store(store))
    if out is None:
        from datasetdm.viewer.server import serve

        serve(opened, port, open_browser)
        return
    from datasetdm.cli.progress import gallery_with_bars

    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder", expected="a file, for instance page.html")
    gallery_with_bars(opened, out, limit)
    print(out.resolve())
