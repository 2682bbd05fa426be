"""How many steps and how much guidance a model wants: from its configuration, and where that is silent from its name.

Rules, the first that applies:
1. A word of `DISTILLED` in the name of the model, or of a LoRA file on top: that entry, with the number of steps that the
   name gives ("8steps", "4-step"), if it does.
2. A scheduler made for few steps (`LCMScheduler`, `TCDScheduler`): 4 steps.
3. The family's own defaults, which look at the denoiser's configuration (FLUX.1 schnell and latent consistency models tell
   themselves by whether they take the guidance scale as an input).
Distilled models take no classifier-free guidance: a scale of 1 turns it off. Where the scale is an input it stays the
family's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FEW_STEPS = ("LCMScheduler", "TCDScheduler")


@dataclass(frozen=True)
class Sampling:
    """Steps and guidance when none are asked for, and the scheduler that they need (None: the pipeline's own)."""

    steps: int
    guidance: float
    scheduler: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


DISTILLED = {
    "lcm": Sampling(4, 1.0, "LCMScheduler"),
    "hyper": Sampling(8, 1.0, "DDIMScheduler", {"timestep_spacing": "trailing"}),
    "lightning": Sampling(4, 1.0, "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "turbo": Sampling(4, 1.0),
    "schnell": Sampling(4, 1.0),
}
"""Word in a name -> what its authors' model cards advise. The scheduler is exchanged only for a LoRA: a whole pipeline
brings its own."""


def choose_sampling(name: str, loras: Sequence[Path], scheduler: str, default: Sampling, embedded: bool) -> Sampling:
    """Apply the rules.

    Args:
        name: hub id or folder. scheduler: class name of the pipeline's own. default: the family's.
        embedded: whether the denoiser takes the guidance scale as an input.
    """
    parts = [part for lora in loras for part in lora.parts[-4:]]  # a hub's cache has the model's name three folders up
    by_lora = next((s for s in map(_by_word, reversed(parts)) if s), None)
    found = by_lora or _by_word(Path(name).name)
    if not found:
        found = Sampling(4, 1.0) if scheduler in FEW_STEPS else default
    elif not by_lora:
        found = replace(found, scheduler=None, changes={})
    return replace(found, guidance=default.guidance) if embedded else found


def _by_word(name: str) -> Sampling | None:
    words = re.findall(r"[a-z]+|\d+", name.lower())
    for word, sampling in DISTILLED.items():
        if word in words:
            given = re.search(r"(\d+)[-_ ]?steps?(?![a-z])", name.lower())
            return replace(sampling, steps=int(given[1])) if given else sampling
    return None
