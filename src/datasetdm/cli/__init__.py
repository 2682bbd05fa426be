"""The command line. Heavy libraries are imported inside the commands, so that `--help` answers at once.

Settings come from the file `datasetdm.toml` in the current folder, then from variables like `DATASETDM_GENERATE_SEED`,
then from the command line; the later wins. Exit codes: 0 done, 2 wrong input, 130 interrupted (Ctrl-C), 143 terminated.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import cyclopts
import pydantic

from datasetdm.cli.app import app
from datasetdm.errors import DatasetDMError

PATIENCE = 10
"""Seconds for which a second Ctrl-C or SIGTERM is ignored, while finished work is saved."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers and containers send it."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one clear message and a code instead of a traceback."""
    try:
        with _signals():
            app(arguments, exit_on_error=False, print_error=False)
    except DatasetDMError as e:
        _fail(str(e))
    except cyclopts.CycloptsError as e:
        _fail(_explained(e))
    except KeyboardInterrupt as e:
        terminated = isinstance(e, Terminated)
        word = "terminated" if terminated else "interrupted"
        print(f"{word}: finished work is saved; the same command goes on where it stopped", file=sys.stderr)
        raise SystemExit(143 if terminated else 130) from None


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2) from None


def _explained(error: cyclopts.CycloptsError) -> str:
    """The parser's message; what pydantic says of a setting, by the option's name."""
    cause = error.__cause__
    if isinstance(cause, pydantic.ValidationError) and not isinstance(error, cyclopts.MissingArgumentError):
        first = cause.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "options"
        return f"{option} {first['input']}: {first['msg'].removeprefix('Value error, ')}"
    return str(error).replace("\n", " ")


@contextmanager
def _signals() -> Generator[None]:
    """SIGTERM stops the work as Ctrl-C does; a second signal does not disturb the first while it saves."""
    began: list[float] = []

    def stop(number: int, _: FrameType | None) -> None:
        if began and time.monotonic() - began[0] < PATIENCE:
            return
        began[:] = [time.monotonic()]
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    try:
        old = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
