"""Shared fixtures."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def renderer():
    """The renderer's module on one thread, or a skip where Mitsuba or LLVM is missing."""
    pytest.importorskip("mitsuba", reason="rendering needs Mitsuba")
    pytest.importorskip("mitsuba_oidn", reason="rendering needs the denoiser")
    try:
        from miniworld import renderer
    except RuntimeError as error:
        pytest.skip(str(error))
    renderer.use_one_thread()
    return renderer
