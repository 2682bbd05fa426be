"""The command line. Heavy libraries are imported inside the commands, so that `--help` answers at once.

Settings come from the file `datasetdm.toml` in the current folder, then from variables like `DATASETDM_GENERATE_SEED`,
then from the command line; the later wins. Exit codes: 0 done, 2 wrong input, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts
from cyclopts import App, Parameter

from datasetdm import __version__
from datasetdm.errors import ConfigError, DatasetDMError, StoreError

if TYPE_CHECKING:
    from datasetdm.store import Store

app = App(
    name="datasetdm",
    help="A hundred labelled images and a frozen text-to-image model in, as many annotated images as you need out.",
    version=__version__,
    suppress_keyboard_interrupt=False,
    config=[cyclopts.config.Env("DATASETDM_"), cyclopts.config.Toml("datasetdm.toml", search_parents=False)],
)

OnError = Annotated[
    Literal["stop", "skip"], Parameter(help="What wrong data do: stop the work, or skip the picture and count it.")
]
Texts = Annotated[list[str], Parameter(consume_multiple=True)]
Files = Annotated[list[Path] | None, Parameter(consume_multiple=True)]
Images = Annotated[Path | None, Parameter(help="Folder of the pictures, where the format does not say.")]
Fitted = Annotated[str | None, Parameter(help="Default: the one that the decoder was fitted on.")]
LowMemory = Annotated[
    bool,
    Parameter(help="Parts of the pipeline wait in the CPU's memory, and the VAE takes one picture at a time."),
]


@app.command
def demo(
    *,
    fit: bool = False,
    count: int = 64,
    seed: int = 0,
    prompts: Texts | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Everything once, with the embedded model: generate, store, export to COCO, gallery.

    Parameters
    ----------
    fit
        Fit the P-Decoder anew on the 100 labelled images of the mini world instead of loading the shipped one.
    count
        Number of pictures.
    seed
        Another seed gives other prompts and other pictures.
    prompts
        A file with one prompt a line, or prompts; without them a small grammar composes some.
    out
        Folder for `store/`, `coco/` and `gallery.html`; default `demo`, with --fit `demo-fit`.
    """
    from datasetdm.demo import run

    _positive(count=count)
    if seed < 0:
        raise ConfigError(f"--seed {seed}", expected="at least 0")
    folder = out or Path("demo-fit" if fit else "demo")
    print(run(fit=fit, count=count, seed=seed, prompts=prompts, out=folder, device=device))


@app.command
def fit(
    *,
    data: str,
    out: Path,
    images: Images = None,
    on_error: OnError = "stop",
    limit: int | None = None,
    balance: bool = False,
    tasks: str | None = None,
    backbone: str = "mini",
    lora: Files = None,
    size: int | None = None,
    timesteps: str | None = None,
    inversion: Literal["renoise", "ddim"] = "renoise",
    steps: int | None = None,
    variants: int | None = None,
    seed: int = 0,
    device: str = "auto",
    low_memory: LowMemory = False,
) -> None:
    """Fit a P-Decoder on labelled images.

    Parameters
    ----------
    data
        FORMAT:PATH: `coco:annotations.json`, `voc:VOC2012@train`, `masks:DIR`, ...; `datasetdm inspect --help` has all.
    out
        A new folder for the decoder; the same command goes on with an unfinished one.
    limit
        Use at most so many pictures, drawn by the seed.
    balance
        Draw them so that every label is there about equally often.
    tasks
        Comma-separated: semantic, depth, instance, keypoints; all that the data have labels of, if not given.
    backbone
        `mini`, a pipeline folder, or a hub id; `datasetdm backbones` lists some.
    lora
        LoRA files (.safetensors) on top of it; the decoder remembers them.
    size
        Side of the backbone's pictures in pixels, instead of its native one.
    timesteps
        Comma-separated noise levels at which the backbone reads the pictures; default the family's.
    inversion
        How the noise is found: fixed noise, or the deterministic sampler run backwards.
    steps
        Number of optimiser steps.
    variants
        Augmented copies of every picture.
    """
    from datasetdm.backbones import FeatureConfig, RunOptions, load_backbone, with_loras
    from datasetdm.fit import FitConfig
    from datasetdm.progress import console, fit_with_bars, show_skipped
    from datasetdm.readers import read
    from datasetdm.readers.overview import part
    from datasetdm.settings import validated

    chosen = {k: v for k, v in dict(steps=steps, variants=variants).items() if v is not None}
    config = validated(FitConfig, tasks=None if tasks is None else tuple(_items(tasks)), seed=seed, **chosen)
    reader = read(data, images, on_error)
    if limit is not None:
        _positive(limit=limit)
        reader = part(reader, limit, balance, seed)
    levels = None if timesteps is None else tuple(_whole(t, "timesteps") for t in _items(timesteps))
    features = FeatureConfig(levels, inversion, size=size)
    name, options = with_loras(backbone, lora or ()), RunOptions.chosen(low_memory)
    frozen = load_backbone(name, config=features, device=device, options=options)
    figures = fit_with_bars(reader, out, frozen, config)
    show_skipped(reader)
    console.print(f"held-out figures: {figures}")
    print(out)


@app.command
def generate(
    *,
    prompts: Texts,
    count: int,
    out: Path,
    decoder: str = "mini",
    backbone: Fitted = None,
    seed: int = 0,
    batch: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str = "",
    labels: str | None = None,
    device: str = "auto",
    low_memory: LowMemory = False,
    compile: bool = False,
) -> None:
    """Generate annotated pictures into a store; the same command goes on with an unfinished one.

    Parameters
    ----------
    prompts
        A file with one prompt a line, or prompts. They are used in turn.
    count
        Number of samples that the store shall hold.
    out
        The store: a new folder, or one of the same recipe.
    decoder
        `mini`, or a folder that `fit` wrote.
    batch
        Pictures at a time; part of the recipe. Default 16; halved where it takes too much memory.
    steps
        Sampling steps; default the model's (few for distilled ones).
    guidance
        Guidance scale; default the model's (1, which is none, for distilled ones).
    negative
        What no picture shall show.
    labels
        Comma-separated labels to annotate instead of the decoder's own.
    compile
        Compile the denoiser first (torch.compile): minutes at the start, faster pictures from then on.
    """
    from datasetdm.backbones import RunOptions
    from datasetdm.generate import DatasetGenerator, default_batch
    from datasetdm.progress import console, generate_with_bars
    from datasetdm.prompts import check_labels, read_prompts

    _positive(count=count)
    texts = read_prompts(prompts)
    generator = DatasetGenerator(
        texts,
        decoder=decoder,
        backbone=backbone,
        device=device,
        seed=seed,
        batch=default_batch(out, count) if batch is None else batch,
        steps=steps,
        guidance=guidance,
        negative=negative,
        options=RunOptions.chosen(low_memory, compile),
        labels=tuple(_items(labels)) if labels else None,
    )
    if nameless := check_labels(texts, generator.labels):
        console.print(f"[yellow]note:[/] {len(nameless)} of {len(texts)} prompts name no label, first: {nameless[0]!r}")
    generate_with_bars(generator, out, count)
    print(out)


@app.command
def evaluate(
    *,
    data: str,
    images: Images = None,
    on_error: OnError = "stop",
    decoder: str = "mini",
    backbone: Fitted = None,
    captions: bool = True,
    device: str = "auto",
    json_path: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Measure a P-Decoder on labelled pictures.

    Parameters
    ----------
    data
        FORMAT:PATH: `mini:test`, `coco:annotations.json`, `store:DIR`.
    captions
        Read every picture under its own caption, as when it was generated; else under none.
    json_path
        Also write the figures there.
    """
    from datasetdm.evaluate import evaluate as measure
    from datasetdm.files import write_json
    from datasetdm.model import load_pair
    from datasetdm.progress import show_skipped, track
    from datasetdm.readers import read

    model, frozen = load_pair(decoder, backbone, device)
    reader = read(data, images, on_error)
    figures = measure(model, frozen, track(reader, "evaluate", len(reader)), captions)
    show_skipped(reader)
    if json_path:
        write_json(json_path, figures)
    print(json.dumps(figures, indent=2))


@app.command
def annotate(
    *,
    data: str,
    out: Path,
    images: Images = None,
    on_error: OnError = "stop",
    decoder: str = "mini",
    backbone: Fitted = None,
    device: str = "auto",
) -> None:
    """Annotate existing pictures into a store; the same command goes on with an unfinished one.

    Parameters
    ----------
    data
        FORMAT:PATH, for instance `images:DIR`; captions (in a text file beside each picture) help much.
    out
        The store: a new folder, or one of the same recipe.
    decoder
        `mini`, or a folder that `fit` wrote.
    """
    from itertools import islice

    from datasetdm.evaluate import annotate as annotated
    from datasetdm.model import load_pair
    from datasetdm.progress import show_skipped, track
    from datasetdm.readers import read
    from datasetdm.store import Writer

    model, frozen = load_pair(decoder, backbone, device)
    reader = read(data, images, on_error)
    recipe = {"data": data, "decoder": model.fingerprint()}
    with Writer(out, model.config.labels, recipe) as writer:
        rest = islice(iter(reader), writer.written, None)
        pairs = annotated(model, frozen, rest)
        for _, sample in track(pairs, "annotate", len(reader) - writer.written):
            writer.add(sample)
    show_skipped(reader)
    print(out)


@app.command
def inspect(data: str, *, images: Images = None, on_error: OnError = "stop") -> None:
    """Say what is in labelled data: pictures, labels, sizes.

    Parameters
    ----------
    data
        FORMAT:PATH, for instance `coco:annotations.json`. Formats: cityscapes, coco, coco-panoptic, deepfashion, hf,
        images, kitti, lvis, masks, mini, nyu, store, vkitti, voc, yolo.
    """
    from datasetdm.progress import show_skipped, show_summary, track
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
    link
        Link pictures that are files instead of copying them.
    licence
        What a dataset's card says, for instance cc-by-4.0.
    push
        With --format hf: also upload to the Hugging Face hub as OWNER/NAME, private.
    """
    from datasetdm.exporters.hf import push_to_hub
    from datasetdm.exporters.options import Options, parse_remap, parse_splits
    from datasetdm.progress import export_with_bars
    from datasetdm.readers import read
    from datasetdm.store import Store

    splits = parse_splits(split) if split else ()
    options = Options(splits, parse_remap(remap) if remap else {}, min_score, link, licence)
    if push and format != "hf":
        raise ConfigError(f"--push with --format {format}", expected="--format hf")
    reader = read(data, images) if ":" in data and not Path(data).exists() else _filled(Store(data))
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

    _positive(limit=limit)
    opened = _filled(Store(store))
    if out is None:
        from datasetdm.viewer.server import serve

        serve(opened, port, open_browser)
        return
    from datasetdm.progress import gallery_with_bars

    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder", expected="a file, for instance page.html")
    gallery_with_bars(opened, out, limit)
    print(out.resolve())


@app.command
def backbones() -> None:
    """List text-to-image models: what they want by default, their licences, and how far they are tested."""
    from datasetdm.backbones.catalogue import CATALOGUE
    from datasetdm.progress import show_backbones

    show_backbones(CATALOGUE)


def _filled(store: Store) -> Store:
    if not len(store):
        raise StoreError("the store holds no samples", where=store.folder, remedy="run its generate command again")
    return store


def _items(text: str) -> list[str]:
    return [t.strip() for t in text.split(",") if t.strip()]


def _whole(text: str, name: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"{name}: {text!r} is no whole number", expected="for instance 1,50")
    return int(text)


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"--{name} {value}", expected="at least 1")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one clear message and a code instead of a traceback."""
    try:
        app(arguments, exit_on_error=False)
    except DatasetDMError as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(2) from None
    except cyclopts.CycloptsError:
        raise SystemExit(2) from None  # cyclopts has said what was wrong
    except KeyboardInterrupt:
        print("interrupted: the same fit or generate command goes on where it stopped", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
