"""How long a stage takes and how much it writes, before it runs.

Measured rates come first: those of the stage's own last run, in its mark. The constants are those of the embedded model on two
CPU cores; other models have no constants, so nothing is said of them before their first run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasetdm.io.files import parse_json
from datasetdm.recipe.schema import FitStage, GenerateStage, PromptsStage, Stage, TrainStage

SECONDS_PER_IMAGE = {
    "generate": 0.3,
    "annotate": 0.1,
    "edit": 0.4,
    "filter": 0.01,
    "evaluate": 0.1,
    "export": 0.002,
    "page": 0.05,
}
"""By kind of stage, 128 x 128 pixels (benchmarks: spine, throughput, formats)."""
WITH_MODELS = ("generate", "annotate", "edit")
"""Their rate is that of the embedded model; images of another size come from another model."""
SECONDS_PER_VIEW = 0.1
"""Of a fit: features of one augmented copy of an image."""
SECONDS_PER_STEP = 0.6
"""Of a fit: one optimiser step of 16 images."""

SECONDS_PER_TRAINED_IMAGE = {"segformer": 0.015, "glpn": 0.023, "mask2former": 0.038, "vitpose": 0.0045}
"""By student, in its smallest size at its own side, on one core: one image of an optimiser step (docs/LOG.md, 2026-11-28)."""
MODEL_BYTES = 4_500_000
"""Of the largest of these models."""
SECONDS_PER_PROMPT = 0.002
"""Composed and chosen offline."""
BYTES_PER_PROMPT = 250
"""With what it is meant to show."""

EMBEDDED_SIDE = 128
"""Side of the embedded model's images in pixels."""
BYTES_PER_PIXEL = {"generate": 3.7, "annotate": 3.7, "edit": 3.7, "filter": 0.0, "export": 2.5, "page": 5.0}
"""Of images with all four annotations; an export in COCO; filters link."""
DECODER_BYTES = 10_000_000
"""A decoder of the default width."""


def estimate(
    stage: Stage, count: int | None, side: int | None, mark: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """(seconds, bytes on the disk) of a whole run; None where nothing is known.

    Args:
        stage: what is to run.
        count: of images.
        side: of the images in pixels, if it is known.
        mark: what the stage's last run left, with `seconds`, `count` and `bytes`.
    """
    if isinstance(stage, FitStage):
        return _fit_seconds(stage, count) if stage.backbone == "mini" else None, float(DECODER_BYTES)
    if isinstance(stage, TrainStage):
        rate = SECONDS_PER_TRAINED_IMAGE.get(stage.student)
        if rate is None or (stage.variant, stage.size, stage.encoder) != ("tiny", None, None):
            return None, None
        images = stage.batch * (2 if stage.self_training else 1)
        return stage.steps * images * rate, float(MODEL_BYTES)
    if isinstance(stage, PromptsStage):
        offline = stage.source in ("grammar", "names")
        return stage.count * SECONDS_PER_PROMPT if offline else None, float(stage.count * BYTES_PER_PROMPT)
    if count is None or stage.kind == "evaluate":
        return (None if count is None else count * SECONDS_PER_IMAGE[stage.kind]), 0.0
    if {"count", "seconds", "bytes"} <= mark.keys() and mark["count"]:
        return count * mark["seconds"] / mark["count"], count * mark["bytes"] / mark["count"]
    if side is None:
        return None, None
    pixels = count * side * side
    known = side == EMBEDDED_SIDE or stage.kind not in WITH_MODELS
    seconds = pixels / EMBEDDED_SIDE**2 * SECONDS_PER_IMAGE[stage.kind] if known else None
    return seconds, pixels * BYTES_PER_PIXEL[stage.kind]


def _fit_seconds(stage: FitStage, count: int | None) -> float | None:
    return None if count is None else count * stage.variants * SECONDS_PER_VIEW + stage.steps * SECONDS_PER_STEP


def image_side(stage: Stage, earlier: Mapping[str, Any]) -> int | None:
    """Side of the images that a stage handles, if it is known: of the embedded model, or of a fitted decoder.

    Args:
        stage: references unresolved.
        earlier: field -> the `Step`s that it refers to.
    """
    if "data" in earlier:
        return earlier["data"][0].side
    if "decoder" in earlier:
        fit = earlier["decoder"][0].stage
        return fit.size or (EMBEDDED_SIDE if fit.backbone == "mini" else None)
    decoder = getattr(stage, "decoder", "mini")
    if decoder == "mini":
        return EMBEDDED_SIDE if isinstance(stage, GenerateStage) else None
    try:
        return int(parse_json((Path(decoder) / "config.json").read_bytes())["side"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def written_bytes(out: Path) -> int:
    """Size of a file, or of all files below a folder."""
    return sum(p.stat().st_size for p in ([out] if out.is_file() else out.rglob("*")) if p.is_file())
