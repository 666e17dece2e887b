"""Shared by the tests: a tiny world, run through the whole chain, once for all processes of a session."""

import copy
import gc
import io
import os
import re
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import omegaconf._utils
import pytest
import yaml
from omegaconf import OmegaConf

from alignet.pipeline import conf
from alignet.pipeline import overrides as composing
from tests.makers.once import made_once
from tests.makers.photos import PHOTOS
from tests.makers.ready import Ready
from tests.makers.worlds import everything, overrides

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of tests on two cores; before torch is imported
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    # Most tests of the command line start a Python; each would compile PyTorch anew. So bytecode is kept, elsewhere.
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    sys.pycache_prefix, sys.dont_write_bytecode = os.environ["PYTHONPYCACHEPREFIX"], False


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


def read_yaml_with_libyaml() -> None:
    """OmegaConf's loader on the C parser: composing a configuration is in most tests, and reads 50 files."""
    fast = types.ModuleType("yaml")
    fast.__dict__.update(yaml.__dict__, SafeLoader=yaml.CSafeLoader)
    omegaconf._utils.yaml = fast


def read_files_once() -> None:
    """Each file of conf/ is read once by each process, while it stays as it is."""
    load, made = OmegaConf.load, {}

    def remembered(file):
        if not isinstance(file, io.IOBase):
            return load(file)
        found = os.stat(file.name)
        key = os.path.realpath(file.name), found.st_mtime_ns, found.st_size
        if key not in made:
            made[key] = load(file)
        return copy.deepcopy(made[key])

    OmegaConf.load = remembered


if yaml.__with_libyaml__:
    read_yaml_with_libyaml()
read_files_once()


_PLAIN = re.compile(r"paths\.artifacts=(/[\w./-]+)")  # an absolute path that means itself in Hydra's grammar
_ELSEWHERE = "/a-store-that-stands-for-every-other"


def compose_once() -> None:
    """A command line is composed once by each process, whatever its store, while conf/ is the checkout's."""
    compose, made = composing.compose, {}
    checkout = conf.conf_folder()

    def remembered(overrides):
        if conf.conf_folder() != checkout:
            return compose(overrides)
        stores = [found[1] for found in map(_PLAIN.fullmatch, overrides) if found]
        store = stores[0] if len(stores) == 1 else _ELSEWHERE
        given = [
            f"paths.artifacts={_ELSEWHERE}" if item == f"paths.artifacts={store}" else item
            for item in overrides
        ]
        key = tuple(given), os.getcwd(), os.environ.get("HOME")
        if key not in made:
            made[key] = compose(given)
        return replaced(made[key], _ELSEWHERE, store)

    composing.compose = remembered


def replaced(value, old, new):
    """A copy of plain values with a text in the place of another wherever it stands."""
    if isinstance(value, dict):
        return {key: replaced(one, old, new) for key, one in value.items()}
    if isinstance(value, list):
        return [replaced(one, old, new) for one in value]
    return value.replace(old, new) if isinstance(value, str) else value


compose_once()


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
        "torch._dynamo",
        "torchvision",
        "alignet.pipeline.cli",
        "hydra.core.override_parser.overrides_parser",
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
def measured(tiny, tmp_path_factory) -> Path:
    """The store of one finished run of the tiny world with all that it measures. Tests that change it take a copy."""
    from alignet.pipeline.cli import load
    from alignet.pipeline.commands import run_pipeline

    def make(root: Path) -> None:
        shutil.copytree(tiny, root)
        run_pipeline(load(everything(root)))

    return made_once(tmp_path_factory, "measured", make)
