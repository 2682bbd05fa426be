"""The application: its commands by name, each imported when it is asked for."""

from __future__ import annotations

import cyclopts
from cyclopts import App

from datasetdm import __version__

COMMANDS = {
    "recipes": ("demo", "run"),
    "decoders": ("fit", "evaluate", "backbones"),
    "stores": ("generate", "annotate", "view", "merge"),
    "data": ("inspect", "export", "formats"),
}
"""Module -> its commands."""

app = App(
    name="datasetdm",
    help="A hundred labelled images and a frozen text-to-image model in, as many annotated images as you need out.",
    version=__version__,
    suppress_keyboard_interrupt=False,
    config=[cyclopts.config.Env("DATASETDM_"), cyclopts.config.Toml("datasetdm.toml", search_parents=False)],
)
for module, names in COMMANDS.items():
    for name in names:
        app.command(f"datasetdm.cli.{module}:{name}", name=name)
