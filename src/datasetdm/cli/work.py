"""One stage as a command: with bars, then a summary."""

from __future__ import annotations

import time

from datasetdm.cli.bars import bars
from datasetdm.cli.tables import show_outcome
from datasetdm.engines.progress import Outcome
from datasetdm.io.remote import Place
from datasetdm.recipe.schema import Stage


def perform(stage: Stage, out: Place | None) -> Outcome:
    """Run a stage into `out` and say what it made."""
    from datasetdm.recipe.runners import RUNNERS

    began = time.monotonic()
    runner = RUNNERS.load(stage.kind)
    with bars() as report:
        outcome = runner(stage, out, report)
    show_outcome(outcome, time.monotonic() - began)
    return outcome
