"""The command line: python -m miniworld.pretrain STAGE ... Exit codes: 0 done, 2 wrong input, 130 interrupted.

Heavy libraries are imported inside the stages, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasetdm.errors import DatasetDMError

from . import PretrainError
from .config import PRESETS, find_preset

if TYPE_CHECKING:
    from .work import Work


def main(arguments: list[str] | None = None) -> None:
    """Runs one stage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (PretrainError, DatasetDMError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted: the last checkpoint is kept, the same command goes on from it\n")


def _pack(options: argparse.Namespace) -> None:
    from .data import pack, read

    data = read(options.data, options.part)
    pack(data, options.out)
    print(f"{options.out}: {data}, {options.out.stat().st_size / 2**20:.1f} MiB")


def _vae(options: argparse.Namespace) -> None:
    from .vae import train_vae

    _train(options, "vae", train_vae, decoder_only=options.decoder_only)


def _unet(options: argparse.Namespace) -> None:
    from .unet import train_unet

    _train(options, "unet", train_unet, timesteps=options.timesteps, half=options.half, words=options.words)


def _latents(options: argparse.Namespace) -> None:
    from .data import read
    from .latents import load_latents

    latents = load_latents(_work(options), read(options.data), half=options.half)
    print(f"{len(latents)} latents, spread {float(latents.float().std()):.3f}")


def _sheet(options: argparse.Namespace) -> None:
    from .sheet import sheet
    from .work import Work

    sheet(Work.existing(options.work), options.out, options.prompts, options.seed)
    print(options.out)


def _export(options: argparse.Namespace) -> None:
    from .pipeline import export
    from .work import Work

    size = export(Work.existing(options.work), options.out)
    print(f"{options.out}: {size / 1e6:.1f} MB of weights")


def _import(options: argparse.Namespace) -> None:
    from .restore import import_pipeline

    work = import_pipeline(options.model, options.work, options.preset)
    print(f"{work.folder}: preset {work.preset.name}")


def _all(options: argparse.Namespace) -> None:
    from .data import read
    from .recipe import train_all

    work, data = _work(options), read(options.data)
    minutes = {
        "vae_minutes": options.vae_minutes or work.preset.vae.minutes,
        "unet_minutes": options.unet_minutes or work.preset.unet.minutes,
    }
    train_all(work, data, options.out, **minutes, steps=options.steps, seed=options.seed, compiled=options.compile)


def _train(options: argparse.Namespace, stage: str, train: Callable, **settings: object) -> None:
    """Runs a training stage whose config is the preset's with some settings replaced."""
    from .data import read
    from .loop import Budget

    work = _work(options)
    chosen = {"batch": options.batch, "learning_rate": options.rate} | settings
    config = replace(getattr(work.preset, stage), **{k: v for k, v in chosen.items() if v is not None})
    work = replace(work, preset=replace(work.preset, **{stage: config}))
    budget = Budget(options.minutes or config.minutes, options.steps, options.final)
    run = train(work, read(options.data), budget, seed=options.seed, compiled=options.compile)
    print(run.summary(), flush=True)


def _work(options: argparse.Namespace) -> Work:
    from .work import Work

    return Work.open(options.work, options.preset)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m miniworld.pretrain",
        description="Train a small text-to-image model on captioned renders, in time-boxed stages that add up.",
    )
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    data, work, training = _data_options(), _work_options(), _training_options()

    def stage(name: str, run: Callable, help_: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = stages.add_parser(name, help=help_, description=help_, parents=list(parents))
        added.set_defaults(run=run)
        return added

    pack = stage("pack", _pack, "gather images and captions in one small file", data)
    pack.add_argument("--out", type=Path, required=True, help="NAME.safetensors")
    pack.add_argument("--part", default="0/1", help="i/n: every n-th data file from the i-th on")
    for name, run, help_ in (("vae", _vae, "train the VAE"), ("unet", _unet, "train the UNet and its text encoder")):
        one = stage(name, run, help_, data, work, training)
        if name == "vae":
            one.add_argument("--decoder-only", action="store_true", help="leave the encoder and so the latents alone")
        one.add_argument("--minutes", type=_positive(float), help="time for this run; default: the preset's")
        one.add_argument("--final", action="store_true", help="let the learning rate fall to 0 at the end of this run")
        one.add_argument("--batch", type=_positive(int), help="instead of the preset's")
        one.add_argument("--rate", type=_positive(float), help="learning rate instead of the preset's")
    one.add_argument("--timesteps", choices=["uniform", "logit-normal"], help="how noise levels are sampled")
    one.add_argument("--words", type=_share, help="fraction of images whose words are predicted without caption")
    one.add_argument("--half", action="store_true", help="half-size images, four times as many, in this run")
    latents = stage("latents", _latents, "encode all images (the stage unet does so by itself)", data, work)
    latents.add_argument("--half", action="store_true", help="of half-size images")
    whole = stage("all", _all, "vae, latents, unet, export, sheet; the same command goes on", data, work, training)
    whole.add_argument("--out", type=Path, required=True, help="pipeline folder")
    whole.add_argument("--vae-minutes", type=_positive(float), help="in all; default: the preset's")
    whole.add_argument("--unet-minutes", type=_positive(float), help="in all; default: the preset's")
    sheet = stage("sheet", _sheet, "generate a sheet of images")
    sheet.add_argument("--seed", type=int, default=0)
    sheet.add_argument("prompts", nargs="*", help="default: 16 of them, four times each")
    export = stage("export", _export, "write a StableDiffusionPipeline folder in fp16")
    for one in (sheet, export):
        one.add_argument("--work", type=Path, required=True)
        one.add_argument("--out", type=Path, required=True)
    stage("import", _import, "make a work folder from a pipeline folder", work).add_argument(
        "--model", type=Path, required=True, help="pipeline folder"
    )
    return parser


def _data_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    help_ = "folders with captioned-*.parquet, Parquet files, or files of `pack`"
    options.add_argument("--data", type=Path, nargs="+", required=True, help=help_)
    return options


def _work_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--work", type=Path, required=True, help="folder in which the training is kept")
    options.add_argument("--preset", type=_preset, help=f"one of {', '.join(PRESETS)}; default: the work folder's")
    return options


def _training_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--steps", type=_positive(int), help="stop after so many steps at the latest")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--no-compile", dest="compile", action="store_false", help="for short runs and tests")
    return options


def _preset(name: str) -> str:
    try:
        return find_preset(name).name
    except PretrainError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    parse.__name__ = "number"
    return parse


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: expected a number from 0 to less than 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
