"""Libraries that talk while they load, made to keep to what matters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def quiet(call: Callable[[], T]) -> T:
    """Run a library call without its bars and its advice (missing torchvision, unused configuration keys)."""
    with silenced(logging.CRITICAL), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


@contextmanager
def silenced(level: int = logging.ERROR) -> Generator[None]:
    """Let diffusers and transformers show no bars, and no messages below `level`: every long prompt would be one."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.set_verbosity(level)
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level, bar in zip(libraries, levels, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()
