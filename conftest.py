"""What holds for every test, those of `tests/` and of `miniworld/tests/`."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the workers share the processor

from collections.abc import Generator
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

MAY_BE_SKIPPED = (
    "DATASETDM_LLM names no GGUF file",
    "DATASETDM_REAL names no folder",
    "needs CUDA",
    "no package of a label tool",
    "OpenEXR's own writer decides",
    "of an installed package, which tests its own",
)
"""Beginnings of the reasons for which a test may be skipped where CI is set; any other skip is a failure there."""

SLOW_FIXTURES = {"tiny", "tiny_folder", "pipeline_folders", "mini", "oracle", "renderer", "browser"}
"""Fixtures of models, renderers and browsers: tests that use one are `slow` without a mark of their own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests with a slow fixture as slow."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail tests that are skipped in CI."""
    return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail modules that are skipped in CI."""
    return _failed_if_skipped((yield))


def _failed_if_skipped(report: Report) -> Report:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(MAY_BE_SKIPPED):
            report.outcome = "failed"
            report.longrepr = f"skipped although CI installs all that tests need: {reason}"
    return report
