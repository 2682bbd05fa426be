"""The command line. Heavy libraries are imported inside the commands, so that `--help` answers at once.

Settings come from the file `datasetdm.toml` in the current folder, then from variables like `DATASETDM_GENERATE_SEED`,
then from the command line; the later wins. Exit codes: 0 done, 2 wrong input, 130 interrupted.
"""

from __future__ import annotations

import sys

import cyclopts

from datasetdm.cli import data, models  # noqa: F401 (their commands join the app)
from datasetdm.cli.app import app
from datasetdm.errors import DatasetDMError


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one clear message and a code instead of a traceback."""
    try:
        app(arguments, exit_on_error=False)
    except DatasetDMError as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(2) from None
    except cyclopts.CycloptsError:
        raise SystemExit(2) from None  # cyclopts has said what was wrong
    except KeyboardInterrupt:
        print("interrupted: the same fit or generate command goes on where it stopped", file=sys.stderr)
        raise SystemExit(130) from None
