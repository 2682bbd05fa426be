"""Commands that run a model: demo, fit, generate, evaluate, annotate, backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from datasetdm.cli.app import Files, Fitted, Images, LowMemory, OnError, Texts, app, items, positive, whole
from datasetdm.errors import ConfigError


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
    from datasetdm.cli.demo import run

    positive(count=count)
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
    caption_dropout: float | None = None,
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
    caption_dropout
        Share of the copies that are read without their caption (0), for a decoder of pictures that have none.
    """
    from datasetdm.backbones import FeatureConfig, RunOptions, load_backbone, with_loras
    from datasetdm.cli.progress import console, fit_with_bars, show_skipped
    from datasetdm.io.settings import validated
    from datasetdm.pipelines.fit import FitConfig
    from datasetdm.readers import read
    from datasetdm.readers.overview import part

    given = dict(steps=steps, variants=variants, caption_dropout=caption_dropout)
    chosen = {k: v for k, v in given.items() if v is not None}
    config = validated(FitConfig, tasks=None if tasks is None else tuple(items(tasks)), seed=seed, **chosen)
    reader = read(data, images, on_error)
    if limit is not None:
        positive(limit=limit)
        reader = part(reader, limit, balance, seed)
    levels = None if timesteps is None else tuple(whole(t, "timesteps") for t in items(timesteps))
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
    from datasetdm.cli.progress import console, generate_with_bars
    from datasetdm.pipelines.generate import DatasetGenerator, default_batch
    from datasetdm.prompts import check_labels, read_prompts

    positive(count=count)
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
        labels=tuple(items(labels)) if labels else None,
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
    from datasetdm.cli.progress import show_skipped, track
    from datasetdm.decoder.model import load_pair
    from datasetdm.io.files import write_json
    from datasetdm.pipelines.evaluate import evaluate as measure
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

    from datasetdm.cli.progress import show_skipped, track
    from datasetdm.decoder.model import load_pair
    from datasetdm.pipelines.evaluate import annotate as annotated
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
def backbones() -> None:
    """List text-to-image models: what they want by default, their licences, and how far they are tested."""
    from datasetdm.backbones.catalogue import CATALOGUE
    from datasetdm.cli.progress import show_backbones

    show_backbones(CATALOGUE)
