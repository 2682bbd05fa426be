"""How long the stages of a plan take, from a few samples that they make now: `datasetdm run RECIPE --dry-run --calibrate`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasetdm.engines.progress import Measured, Report
from datasetdm.errors import DatasetDMError
from datasetdm.recipe.plan import Step
from datasetdm.recipe.runners import MEASURES

STAND_IN_PROMPT = "a photo"
"""Stands for prompts that an earlier stage has yet to make: what a prompt says does not change how long its image takes."""


def calibrate(steps: Sequence[Step], report: Report) -> list[tuple[Step, Measured | str]]:
    """Every step that is left and makes samples or a decoder, with what was measured, or why nothing could be. Its seconds and
    bytes are the measured ones. Nothing is written but into a temporary folder.

    Args:
        steps: of a plan.
        report: receives how far the work is.
    """
    found: list[tuple[Step, Measured | str]] = []
    stand_ins: dict[object, str | tuple[str, ...]] = {
        (str(s.out),): (STAND_IN_PROMPT,) for s in steps if s.stage.MAKES == "prompts" and not s.out.exists()
    }
    with tempfile.TemporaryDirectory(prefix="datasetdm-") as folder:
        for step in steps:
            if step.action == "reuse" or step.stage.kind not in MEASURES:
                continue
            own = Path(folder) / step.name
            known = {f: v for f in ("decoder", "data", "prompts") if (v := getattr(step.stage, f, None)) in stand_ins}
            stage = step.stage.model_copy(update={f: stand_ins[v] for f, v in known.items()})
            try:
                measured = MEASURES.load(stage.kind)(replace(step, stage=stage), own, report)
            except DatasetDMError as e:
                found.append((step, e.what))
                continue
            if not step.out.exists():
                stand_ins[str(step.out)] = str(own)
            found.append((replace(step, seconds=measured.seconds, bytes=measured.bytes), measured))
    return found
