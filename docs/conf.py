"""The documentation site: `sphinx-build -W docs docs/_build`, which needs no network.

What the code knows is taken from the code: the command line's reference, the public names and the layouts of formats.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import datasetdm

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
autodoc_typehints = "none"
napoleon_numpy_docstring = True

html_theme = "furo"
html_title = f"DatasetDM {release}"
html_copy_source = False


class FormatLayout(Directive):
    """`{layout} NAME`: how the files of a format lie, as `datasetdm formats NAME` prints it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """One literal block."""
        from datasetdm.readers.layouts import layout

        text = layout(self.arguments[0])
        return [nodes.literal_block(text, text, language="text")]


SECTION = re.compile(r"(Args|Attributes|Parameters|Raises|Returns|Yields):?$")
"""The first line of a part of a docstring that napoleon reads."""


def prose_as_rst(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
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
    app.add_directive("layout", FormatLayout)
    app.connect("autodoc-process-docstring", prose_as_rst, priority=400)  # before napoleon
