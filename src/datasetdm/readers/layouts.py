"""How the folders of a format look, as text: for `datasetdm formats NAME` and the documentation."""

from __future__ import annotations

import inspect
import sys

from datasetdm.readers import READERS


def layout(name: str) -> str:
    """The folder layout of a format: the constant `LAYOUT` of its module, or the module's docstring where it has none.

    Raises:
        ConfigError: an unknown format.
    """
    module = sys.modules[READERS.load(name).__module__]
    return str(getattr(module, "LAYOUT", None) or inspect.getdoc(module) or "").strip("\n")
