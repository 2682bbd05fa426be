"""The application, and what its commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts
from cyclopts import App, Parameter

from datasetdm import __version__
from datasetdm.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from datasetdm.store import Store

app = App(
    name="datasetdm",
    help="A hundred labelled images and a frozen text-to-image model in, as many annotated images as you need out.",
    version=__version__,
    suppress_keyboard_interrupt=False,
    config=[cyclopts.config.Env("DATASETDM_"), cyclopts.config.Toml("datasetdm.toml", search_parents=False)],
)

OnError = Annotated[
    Literal["stop", "skip"], Parameter(help="What wrong data do: stop the work, or skip the picture and count it.")
]
Texts = Annotated[list[str], Parameter(consume_multiple=True)]
Files = Annotated[list[Path] | None, Parameter(consume_multiple=True)]
Images = Annotated[Path | None, Parameter(help="Folder of the pictures, where the format does not say.")]
Fitted = Annotated[str | None, Parameter(help="Default: the one that the decoder was fitted on.")]
LowMemory = Annotated[
    bool,
    Parameter(help="Parts of the pipeline wait in the CPU's memory, and the VAE takes one picture at a time."),
]


def filled(store: Store) -> Store:
    """The store, if it holds any sample."""
    if not len(store):
        raise StoreError("the store holds no samples", where=store.folder, remedy="run its generate command again")
    return store


def items(text: str) -> list[str]:
    """What stands between commas."""
    return [t.strip() for t in text.split(",") if t.strip()]


def whole(text: str, name: str) -> int:
    """A whole number, or an error that names the option."""
    if not text.isdecimal():
        raise ConfigError(f"{name}: {text!r} is no whole number", expected="for instance 1,50")
    return int(text)


def positive(**values: int) -> None:
    """Options that must be at least 1, by name."""
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"--{name} {value}", expected="at least 1")
