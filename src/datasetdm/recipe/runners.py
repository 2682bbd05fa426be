"""What runs each kind of stage, by name: those of `stages` import torch, so all are imported when they are used."""

from __future__ import annotations

from collections.abc import Callable

from datasetdm.engines.progress import Measured, Outcome
from datasetdm.io.registry import Registry

_WITH_MODELS = ("fit", "generate", "annotate", "edit")

RUNNERS: Registry[Callable[..., Outcome]] = Registry(
    "kind of stage",
    None,
    {
        **{kind: f"datasetdm.recipe.stages:{kind}" for kind in _WITH_MODELS},
        "evaluate": "datasetdm.recipe.evaluating:evaluate",
        "filter": "datasetdm.recipe.filtering:filter",
        "train": "datasetdm.recipe.training:train",
        **{kind: f"datasetdm.recipe.outputs:{kind}" for kind in ("export", "page")},
        "prompts": "datasetdm.recipe.prompting:prompts",
    },
)
"""Kind of stage -> the function that runs it: (stage, out, report) -> Outcome."""

CHECKS: Registry[Callable[..., None]] = Registry(
    "kind of stage",
    None,
    {
        **{kind: "datasetdm.recipe.stages:check_models" for kind in (*_WITH_MODELS, "evaluate")},
        "train": "datasetdm.recipe.training:check_student",
    },
)
"""Kind of stage -> a function of the stage that raises for what its runner would refuse before it writes."""

MEASURES: Registry[Callable[..., Measured]] = Registry(
    "kind of stage",
    None,
    {
        "fit": "datasetdm.recipe.measuring:fit",
        **{kind: "datasetdm.recipe.measuring:fill" for kind in ("generate", "annotate", "edit")},
    },
)
"""Kind of stage -> a function that does a little of its work and times it: (step, folder, report) -> Measured."""
