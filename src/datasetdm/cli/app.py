"""The application and its commands."""

from __future__ import annotations

from importlib import import_module

import cyclopts
from cyclopts import App, Parameter

from datasetdm import __version__

COMMANDS = {
    "recipes": ("demo", "run", "recipes"),
    "decoders": ("fit", "train", "evaluate", "backbones"),
    "stores": ("generate", "annotate", "edit", "filter", "view", "merge", "push"),
    "prompts": ("prompts",),
    "data": ("inspect", "export", "formats"),
}
"""Module -> its commands."""

app = App(
    name="datasetdm",
    help="""A hundred labelled images and a frozen text-to-image model in, as many annotated images as you need out.

Every option can also be set in `datasetdm.toml` (`[generate]`, `seed = 1`) and by a variable (`DATASETDM_GENERATE_SEED=1`).""",
    version=__version__,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(show_env_var=False),
    config=[cyclopts.config.Env("DATASETDM_"), cyclopts.config.Toml("datasetdm.toml", search_parents=False)],
)
for module, names in COMMANDS.items():
    for name in names:
        app.command(getattr(import_module(f"datasetdm.cli.{module}"), name), name=name)
