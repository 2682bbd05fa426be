"""Commands on decoders, trained models and backbones: fit, train, evaluate, backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from datasetdm.cli.bars import first_process
from datasetdm.cli.tables import show_figures
from datasetdm.cli.work import perform
from datasetdm.recipe.schema import EvaluateStage, FitStage, TrainStage


def fit(
    *,
    stage: Annotated[FitStage, Parameter(name="*")],
    out: Annotated[
        Path, Parameter(help="A new folder for the decoder; the same command goes on with an unfinished one.")
    ],
) -> None:
    """Fit a P-Decoder on labelled images."""
    outcome = perform(stage, out)
    show_figures(outcome.figures)
    print(out)


def train(
    *,
    stage: Annotated[TrainStage, Parameter(name="*")],
    out: Annotated[
        Path, Parameter(help="A new folder for the model; the same command goes on with an unfinished one.")
    ],
) -> None:
    """Train an ordinary model of transformers on labelled data, on synthetic samples, or on both."""
    perform(stage, out)
    if first_process:
        print(out)


def evaluate(
    *,
    stage: Annotated[EvaluateStage, Parameter(name="*")],
    out: Annotated[
        Path | None,
        Parameter(
            help="A new folder for the figures as JSON and Markdown, and for a page of hits and misses, worst first."
        ),
    ] = None,
    json_path: Annotated[Path | None, Parameter(name="--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure a P-Decoder, or a trained model, on labelled images: figures, a table of the labels, a page to look at."""
    from datasetdm.io.files import write_json
    from datasetdm.recipe.places import require_file

    if json_path is not None:
        require_file(json_path)
    outcome = perform(stage, out)
    if json_path is not None:
        write_json(json_path, outcome.figures)
    print(json.dumps(outcome.figures, indent=2))


def backbones() -> None:
    """List text-to-image models: what they want by default, their licences, and how far they are tested."""
    from datasetdm.backbones.catalogue import CATALOGUE
    from datasetdm.cli.tables import show_backbones

    show_backbones(CATALOGUE)
