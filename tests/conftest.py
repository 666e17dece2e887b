"""Shared by the tests: a tiny world, run once through the whole chain."""

import os
import sys
from pathlib import Path

import pytest

from tests.makers.photos import PHOTOS
from tests.makers.worlds import everything, overrides

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of tests on two cores; before torch is imported


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With photographs at hand, a test may be skipped only where it needs a browser or a GPU, or that there is none."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    allowed = (
        "no chromium on this machine",
        "no GPU on this machine",
        "a GPU is there",
        "a GPU may be there",
    )
    skipped = [
        report
        for report in (reporter.stats.get("skipped", []) if reporter else [])
        if not any(reason in str(report.longrepr) for reason in allowed)
    ]
    if PHOTOS and skipped:
        print(f"\nALIGNET_PHOTOS is set and {len(skipped)} tests were skipped", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The store of one finished run of the tiny world. Tests that change it take a copy."""
    from alignet.pipeline.cli import load
    from alignet.pipeline.commands import run_pipeline

    root = tmp_path_factory.mktemp("tiny")
    run_pipeline(load(overrides(root)))
    return root


@pytest.fixture(scope="session")
def measured(tmp_path_factory) -> Path:
    """The store of one finished run of the tiny world with all that it measures."""
    from alignet.pipeline.cli import load
    from alignet.pipeline.commands import run_pipeline

    root = tmp_path_factory.mktemp("measured")
    run_pipeline(load(everything(root)))
    return root
