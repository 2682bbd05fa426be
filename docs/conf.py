"""The documentation site: `sphinx-build -W docs docs/_build`, which needs no network.

What the code knows is taken from the code: the command line's reference, the public names and the layouts of formats.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import datasetdm
from datasetdm.exporters import EXPORTERS
from datasetdm.readers import READERS
from datasetdm.readers.layouts import layout

project = "DatasetDM"
author = "the DatasetDM authors"
release = version = datasetdm.__version__
copyright = "the DatasetDM authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "cyclopts.ext.sphinx"]
exclude_patterns = ["_build"]
default_role = "code"
smartquotes = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config"}
autodoc_typehints = "none"
napoleon_numpy_docstring = True

html_theme = "furo"
html_title = f"DatasetDM {release}"
html_copy_source = False
html_theme_options = {"light_css_variables": {"code-font-size": "0.78em"}}


class Layouts(SphinxDirective):
    """`{layouts} read` or `{layouts} written`: how the files of every format lie, as the code says it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A title and a text per format."""
        return self._read() if self.arguments[0] == "read" else self._written()

    def _read(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for name in READERS:
            text = layout(name)
            found += [nodes.rubric("", "", nodes.literal(name, name)), nodes.literal_block(text, text, language="text")]
        return found

    def _written(self) -> list[nodes.Node]:
        names: dict[str, list[str]] = {}
        for name, home in EXPORTERS.table.items():
            names.setdefault(home.partition(":")[0], []).append(name)
        found: list[nodes.Node] = []
        for module, own in names.items():
            title = nodes.rubric("", "")
            for name in own:
                title += [nodes.literal(name, name), nodes.Text(" ")]
            lines = (inspect.getdoc(importlib.import_module(module)) or "").splitlines()
            prose_as_rst(lines)
            found += [title, *self.parse_text_to_nodes("\n".join(["```{eval-rst}", *lines, "```"]))]
        return found


class Modules(SphinxDirective):
    """`{modules}`: what can be imported from `datasetdm`, by the module that it comes from.

    `{modules} NAME ...`: everything in these modules, without those that are already in the list above.
    """

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """A title and autodoc's text per module."""
        homes = datasetdm._HOMES
        if self.arguments:
            members = {name: "" for name in self.arguments[0].split() if name not in homes}
        else:
            members = {home: "" if _lists_its_names(home) else ", ".join(names) for home, names in homes.items()}
        found: list[nodes.Node] = []
        for home, names in members.items():
            module = f"datasetdm.{home}"
            found.append(nodes.rubric("", "", nodes.literal(module, module)))
            found += self.parse_text_to_nodes(f"```{{eval-rst}}\n.. automodule:: {module}\n   :members: {names}\n```")
        return found


def _lists_its_names(home: str) -> bool:
    return hasattr(importlib.import_module(f"datasetdm.{home}"), "__all__")


SECTION = re.compile(r"(Args|Attributes|Parameters|Raises|Returns|Yields):?$")
"""The first line of a part of a docstring that napoleon reads."""


def process_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Autodoc's hook."""
    prose_as_rst(lines)


def prose_as_rst(lines: list[str]) -> None:
    """Make reStructuredText of a docstring's prose, which precedes its sections.

    An indented block after an empty line (a drawing, an example) is shown as it stands; a hanging indent is none.
    """
    end = next((i for i, line in enumerate(lines) if SECTION.match(line)), len(lines))
    prose: list[str] = []
    literal = False
    for line in lines[:end]:
        indented, after_gap = line.startswith("  "), not prose or not prose[-1].strip()
        if indented and after_gap and not literal:
            prose += ["::", ""]
            literal = True
        elif line.strip() and not indented:
            literal = False
        prose.append(line if literal or not indented else line.lstrip())
    lines[:end] = prose


def setup(app: Sphinx) -> None:
    """Add what this site has of its own."""
    app.add_directive("layouts", Layouts)
    app.add_directive("modules", Modules)
    app.connect("autodoc-process-docstring", process_docstring, priority=400)  # before napoleon
