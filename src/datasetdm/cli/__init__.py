"""The command line. Heavy libraries are imported inside the commands, so that `--help` answers at once.

Settings come from the file `datasetdm.toml` in the current folder, then from variables like `DATASETDM_GENERATE_SEED`,
then from the command line; the later wins. Exit codes: 0 done, 2 wrong input, 130 interrupted (Ctrl-C), 143 terminated.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import cyclopts
import pydantic

from datasetdm.cli.app import app
from datasetdm.errors import DatasetDMError
from datasetdm.io.stopping import save_all

SHOW_CURSOR = "\x1b[?25h"


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers and containers send it."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one clear message and a code instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what no encoding has
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _signals():
            app(arguments, exit_on_error=False, print_error=False)
    except DatasetDMError as e:
        _fail(str(e))
    except cyclopts.CycloptsError as e:
        _fail(_explained(e))
    except KeyboardInterrupt as e:
        save_all()
        number = signal.SIGTERM if isinstance(e, Terminated) else signal.SIGINT
        print(_last_words(number), file=sys.stderr)
        raise SystemExit(128 + number) from None


def _last_words(number: int) -> str:
    word = "terminated" if number == signal.SIGTERM else "interrupted"
    return f"{word}: finished work is saved; the same command goes on where it stopped"


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
    """SIGTERM stops the work as Ctrl-C does. A second signal ends the process at once: finished work is saved, nothing is
    cleaned up."""
    began = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal began
        if began:
            save_all()
            os.write(2, f"{SHOW_CURSOR if os.isatty(2) else ''}{_last_words(number)}\n".encode())
            os._exit(128 + number)
        began = True
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
