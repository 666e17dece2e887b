"""What lets every Python of the tests do the same sooner; nothing that is computed or written changes.

Kernels are compiled once and configurations composed once, no file waits for the disk, garbage is collected seldom.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import io
import os
import re
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import omegaconf._utils
import yaml
from omegaconf import OmegaConf

from alignet.pipeline import conf
from alignet.pipeline import overrides as composing

_CHECKOUT = Path(__file__).parents[2]
_SOURCES = ("alignet/vice", "alignet/teacher")


def _kernels() -> Path:
    """A folder for compiled kernels that is another one after any change of what they are compiled from.

    numba by itself would look only at the file of the outermost function.
    """
    known = hashlib.sha256(" ".join(map(version, ("numba", "llvmlite", "numpy"))).encode())
    for path in sorted(file for folder in _SOURCES for file in (_CHECKOUT / folder).glob("*.py")):
        known.update(path.read_bytes())
    return _CHECKOUT / ".pytest_cache" / "kernels" / known.hexdigest()[:16]


def compile_once() -> None:
    """alignet's kernels are kept on disk: a process of the tests that needs one reads it."""
    import numba

    njit, folder = numba.njit, str(_kernels())

    def kept(function: Any) -> Any:
        if str(function.py_func.__module__).startswith("alignet."):
            others, numba.config.CACHE_DIR = numba.config.CACHE_DIR, folder
            function.enable_caching()
            numba.config.CACHE_DIR = others
        return function

    def remembered(*given: Any, **options: Any) -> Any:
        made: Any = njit(*given, **options)
        if hasattr(made, "py_func"):
            return kept(made)
        decorate: Callable[[Any], Any] = made
        return lambda function: kept(decorate(function))

    numba.njit = remembered


def trust_the_disk() -> None:
    """No test takes the power away: what is written need not have reached the disk when a file is closed."""
    os.fsync = lambda _: None


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


def begin() -> None:
    """All of it, once a process, before anything of alignet that has kernels is imported."""
    compile_once()
    trust_the_disk()
    gc.set_threshold(50_000, 20, 100)
    if yaml.__with_libyaml__:
        read_yaml_with_libyaml()
    read_files_once()
    compose_once()
