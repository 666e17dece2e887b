"""Shared by the tests: a tiny world, run through the whole chain, once for all processes of a session."""

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.makers import sooner
from tests.makers.once import made_once
from tests.makers.photos import PHOTOS
from tests.makers.ready import Ready
from tests.makers.worlds import MAPS, everything, overrides

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of tests on two cores; before torch is imported
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    # Most tests of the command line start a Python; each would compile PyTorch anew. So bytecode is kept, elsewhere.
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    sys.pycache_prefix, sys.dont_write_bytecode = os.environ["PYTHONPYCACHEPREFIX"], False
sooner.begin()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With photographs at hand, a test may be skipped only where it needs a browser or a GPU, or that there is none."""
    gc.unfreeze()
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


_modules, _tests = 0, 0  # when the collector of garbage last looked at all that there was


def pytest_runtest_teardown() -> None:
    """What imports and hundreds of tests have left is there to stay: no further collection need look at it."""
    global _modules, _tests
    _tests += 1
    if len(sys.modules) > _modules + 200 or _tests > 250:
        gc.collect()
        gc.freeze()
        _modules, _tests = len(sys.modules), 0


@pytest.fixture(scope="session")
def ready(tmp_path_factory) -> Iterator[Ready]:
    """What runs command lines in new processes that need not import PyTorch and Hydra first."""
    imported = [
        "tests.makers.composed",  # first
        "torch._dynamo",
        "torchvision",
        "timm",
        "accelerate",
        "scipy.stats",
        "scipy.optimize",
        "sklearn.linear_model",
        "matplotlib.figure",
        "alignet.pipeline.commands",
        "alignet.vice.compiled",
        "tests.makers.torchrun_forks",
    ]
    with Ready(tmp_path_factory.mktemp("said"), imported) as one:
        yield one


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The store of one finished run of the tiny world. Tests that change it take a copy."""
    from alignet.pipeline.cli import load
    from alignet.pipeline.commands import run_pipeline

    return made_once(tmp_path_factory, "tiny", lambda root: run_pipeline(load(overrides(root))))


@pytest.fixture(scope="session")
def mapped(tmp_path_factory) -> Path:
    """The store of the tiny world with importance maps (worlds.MAPS, ATTACK, INVARIANCE) and its two networks."""
    from alignet.pipeline.cli import load
    from alignet.pipeline.runner import Pipeline

    def make(root: Path) -> None:
        Pipeline(load([*overrides(root), *MAPS])).make_all(["pretrain[teacher]", "pretrain[student]"])

    return made_once(tmp_path_factory, "mapped", make)


@pytest.fixture(scope="session")
def measured(tiny, tmp_path_factory) -> Path:
    """The store of one finished run of the tiny world with all that it measures. Tests that change it take a copy."""
    from alignet.pipeline.cli import load
    from alignet.pipeline.commands import run_pipeline

    def make(root: Path) -> None:
        shutil.copytree(tiny, root)
        run_pipeline(load(everything(root)))

    return made_once(tmp_path_factory, "measured", make)
