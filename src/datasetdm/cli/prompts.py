"""The command that makes prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from datasetdm.cli.tables import show_figures
from datasetdm.cli.work import perform
from datasetdm.recipe.schema import PromptsStage


def prompts(
    *,
    stage: Annotated[PromptsStage, Parameter(name="*")],
    out: Annotated[
        Path, Parameter(help="A .jsonl file; replies of a language model and a report are written beside it.")
    ],
) -> None:
    """Make prompts for labels, with what each is meant to show, offline or by a language model.

    The same command goes on with what a language model has answered already, also with a larger --count.
    """
    outcome = perform(stage, out)
    show_figures(outcome.figures)
    print(out)
