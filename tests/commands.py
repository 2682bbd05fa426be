"""The command line, run inside the test's process."""

from __future__ import annotations

from datasetdm.cli import main


def run(*arguments: str) -> int:
    """The exit code of a command."""
    try:
        main(list(arguments))
    except SystemExit as e:
        return int(e.code or 0)
    return 0
