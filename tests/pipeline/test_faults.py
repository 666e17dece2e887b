"""Faults put into the store and into every stage: one message, exit status 1, nothing lost, a rerun to the same bytes.

Each attempt runs in a fork of this process, in which an audit hook stands at every moment that something is created,
renamed or removed: there the disk is full, the folder read-only, or the process killed. Code that opens files below
Python (safetensors, Parquet) meets a limit on the size of files instead. With ALIGNET_FAULTS=all every such moment is
taken, otherwise some of each stage.
"""

import errno
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from alignet.pipeline import cli
from alignet.pipeline.cli import load
from alignet.pipeline.commands import run_stage
from alignet.pipeline.runner import Pipeline
from alignet.runtime.artifacts import ArtifactError
from tests.makers.worlds import ATTACK, INVARIANCE, MAPS, everything, overrides

ALL = os.environ.get("ALIGNET_FAULTS") == "all"
# one node of every stage, and what is to be said beyond the tiny world for it to be in the graph
NODES = {
    "world": [], "index[things]": [], "pretrain[student]": [], "embed[teacher.things]": [], "vice": [],
    "soft_labels[human_train]": [], "reliability": [], "distill[teacher]": [], "cluster[alignet]": [],
    "smooth": ["smooth={penalties:[1000.0]}"],
    "triplets[alignet]": ["finetune.settings.sampling=triplets", "finetune.settings.batch=32", "triplets.count=200"],
    "finetune[alignet]": [], "evaluate[alignet.all]": [], "levels[trials]": ["everything"],
    "export[alignet]": [], "report": [],
    "harmonize[alignet-and-harmonized]": MAPS, "saliency[student.mapped_test]": MAPS, "stimuli[mapped_test_maps]": MAPS,
    "robust[robust-free]": ATTACK, "attack[student.mapped_test]": ATTACK,
    "robust[simclr-adversarial]": INVARIANCE, "robust[simclr-adversarial@2]": INVARIANCE,
    "invert[student.mapped_test.adversarial]": INVARIANCE, "perceptual[student.mapped_test.adversarial]": INVARIANCE,
    "evaluate[original.invariance]": INVARIANCE,
}  # fmt: skip
_EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


@cache
def composed(more):
    lines = everything(Path("store")) if more == ("everything",) else overrides(Path("store"), *more)
    return load([*lines, "runtime.checkpoint_seconds=0"])


def config_of(root, key, **changes):
    """The configuration in which a node is to be made, and its stage."""
    config = composed(tuple(NODES.get(key, ())))
    stage, _, role = key.removesuffix("]").partition("[")
    return replace(config, role=role, paths=replace(config.paths, artifacts=str(root)), **changes), stage


@pytest.fixture(scope="module")
def whole(tiny, mapped, tmp_path_factory):
    """A store with every node of NODES, made without a fault."""
    root = tmp_path_factory.mktemp("whole") / "store"
    for store in (tiny, mapped):
        shutil.copytree(store, root, dirs_exist_ok=True)
    for key in NODES:
        Pipeline(config_of(root, key)[0]).make_all([key])
    return root


@pytest.fixture
def store(whole, tmp_path):
    """A copy of it whose files are those of the original until they are replaced."""
    root = tmp_path / "store"
    shutil.copytree(whole, root, copy_function=os.link)
    return root


def digest(root, key):
    artifact = Pipeline(config_of(root, key)[0]).state(key).artifact
    assert artifact is not None, key
    artifact.verify()
    return artifact.digest


def store_of(root, key):
    chain = Pipeline(config_of(root, key)[0])
    return chain.store.folder(chain.identity(key))


def remove(root, key):
    shutil.rmtree(store_of(root, key))


class Fault:
    """An audit hook that counts the moments at which the store is written to, and does something at one of them."""

    def __init__(self, root, act=None, at=0):
        self.root, self.act, self.at, self.count = os.path.realpath(root), act, at, 0

    def __call__(self, event, details):
        if event not in _EVENTS or not isinstance(details[0], (str, bytes, os.PathLike)):
            return
        if event == "open":
            mode, flags = details[1], details[2]
            if not (isinstance(mode, str) and set(mode) & set("wax+")) and not flags & (
                os.O_WRONLY | os.O_RDWR
            ):
                return
        path = os.path.realpath(os.fsdecode(details[0]))
        if path.startswith(self.root + "/"):
            self.count += 1
            if self.act is not None and self.count >= self.at > 0:
                self.act(path)


def full(path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def read_only(path):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def kill(path):
    os.kill(os.getpid(), signal.SIGKILL)


def attempt(root, key, act=None, at=0, largest=None, setup=None, **changes):
    """Make a node in a fork with a fault: (status, what it printed, moments counted); -9 if it was killed."""
    config, stage = config_of(root, key, **changes)
    log = root.parent / "log.txt"
    child = os.fork()
    if child == 0:
        _child(config, stage, Fault(root, act, at), largest, setup, log)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = log.read_text(encoding="utf-8", errors="replace")
    counted = re.search(r"^moments: (\d+)$", text, re.MULTILINE)
    return status, text, int(counted.group(1)) if counted else 0


def _child(config, stage, fault, largest, setup, log):
    out = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    signal.alarm(60)
    status = 1
    try:
        if setup is not None:
            setup()
        cli.load = lambda _: config
        sys.addaudithook(fault)
        if largest is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        cli.main(stage, "", lambda one: run_stage(one, stage), [])
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    )
    sys.stdout.flush()
    print(f"\nmoments: {fault.count}", file=sys.stderr, flush=True)
    os._exit(status)


def one_message(status, text, *words):
    assert status == 1, text
    assert "Traceback" not in text, text
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, text
    assert all(word in text for word in words), text


def moments(count):
    """Which of so many moments are taken: all, or the middle and the last."""
    return range(1, count + 1) if ALL else sorted({max(1, count // 2), count})


@pytest.mark.parametrize("key", NODES)
def test_every_stage_survives_a_full_disk_a_read_only_folder_and_a_kill(whole, store, key):
    before = digest(whole, key)
    others = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    files = Pipeline(config_of(store, key)[0]).state(key).artifact.manifest["files"].values()
    own = store_of(store, key)
    remove(store, key)
    status, text, count = attempt(store, key)
    assert (status, digest(store, key)) == (0, before), text
    remove(store, key)
    one_message(*attempt(store, key, read_only, 1)[:2], "Read-only file system")
    half = max(entry["size"] for entry in files) // 2
    if half > 4096:  # what is printed goes into a file, too
        one_message(*attempt(store, key, largest=half)[:2], "no room to write")
    for at in moments(count):
        status, text, _ = attempt(store, key, full, at)
        if status == 0:  # what an earlier attempt had finished was not written again
            remove(store, key)
            break
        one_message(status, text, "no room to write", "run the same command again")
    for at in list(moments(count))[: None if ALL else 1]:
        for left in own.parent.glob(f"{own.name}*"):  # of the attempts before: the kill is to come
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        assert attempt(store, key, kill, at)[0] == -9
    status, text, _ = attempt(store, key)
    assert (status, digest(store, key)) == (0, before), text
    kept = [path for path in others if own not in path.parents and path.suffix != ".lock"]
    assert all(path.stat().st_mtime_ns == others[path] for path in kept if path.parent.name != "seen")


def test_a_clock_that_runs_backwards_changes_nothing(whole, store):
    def backwards():
        moment = iter(range(10**9, 0, -3))
        time.time = time.monotonic = time.perf_counter = lambda: float(next(moment))
        time.time_ns = time.monotonic_ns = lambda: next(moment) * 10**9

    for key in (
        "index[things]",
        "vice",
        "pretrain[student]",
        "embed[teacher.things]",
        "finetune[alignet]",
        "report",
    ):
        before = digest(whole, key)
        remove(store, key)
        status, text, _ = attempt(store, key, setup=backwards)
        assert (status, digest(store, key)) == (0, before), text


def test_two_processes_on_one_artifact_make_it_once(whole, store):
    before = digest(whole, "finetune[alignet]")
    remove(store, "finetune[alignet]")
    config, stage = config_of(store, "finetune[alignet]")
    children = []
    for number in range(2):
        child = os.fork()
        if child == 0:
            _child(config, stage, Fault(store), None, None, store.parent / f"{number}.txt")
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    texts = [(store.parent / f"{number}.txt").read_text() for number in range(2)]
    assert sorted(statuses) in ([0, 1], [0, 0]), texts
    for status, text in zip(statuses, texts):
        if status:
            one_message(status, text, "another process is making this artifact")
    assert digest(store, "finetune[alignet]") == before


def damage(path, how, chance):
    """A byte turned, the end cut off, or the file gone; as a new file, so that the original stays."""
    data = bytearray(path.read_bytes())
    path.unlink()
    if how == "flipped" and data:
        data[chance.integers(len(data))] ^= 1 << int(chance.integers(8))
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    return bytes(data)


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_damage_to_any_file_of_any_artifact_is_named_before_it_is_used(whole, store, how):
    chance = np.random.default_rng(["flipped", "cut", "gone"].index(how))
    chain, looked = Pipeline(config_of(store, "vice")[0]), 0
    for key, node in chain.graph.items():
        artifact = chain.state(key).artifact
        children = [name for name, other in chain.graph.items() if key in other.inputs.values()]
        names = sorted(artifact.manifest["files"]) if children else []
        if key == "world" and not ALL:
            names = names[:: max(1, len(names) // 20)]
        for name in names:
            path = artifact.folder / name
            if not path.stat().st_size:
                continue
            original = path.read_bytes()
            damage(path, how, chance)
            with pytest.raises(ArtifactError) as caught:
                chain.make(children[0], force=True)
            assert str(path) in str(caught.value)
            assert f"python -m alignet.stages.{node.stage}" in str(caught.value)
            path.unlink(missing_ok=True)
            path.write_bytes(original)
            looked += 1
    assert looked > 60


def test_a_damaged_manifest_is_told_and_making_it_again_gives_the_same_bytes(whole, store):
    chance = np.random.default_rng(0)
    for key in (
        "vice",
        "soft_labels[human_train]",
        "cluster[alignet]",
        "finetune[alignet]",
        "evaluate[alignet.all]",
    ):
        before = digest(whole, key)
        folder = Pipeline(config_of(store, key)[0]).state(key).artifact.folder
        text = (folder / "MANIFEST.json").read_bytes()
        for how in ("flipped", "cut", "gone", "flipped", "flipped"):
            (folder / "MANIFEST.json").write_bytes(text) if not (folder / "MANIFEST.json").exists() else None
            damage(folder / "MANIFEST.json", how, chance)
            status, said, _ = attempt(store, key)
            one_message(
                status, said, "MANIFEST.json", str(folder), "delete that folder and run the stage again"
            )
            (folder / "MANIFEST.json").unlink(missing_ok=True)
            (folder / "MANIFEST.json").write_bytes(text)
        (folder / "MANIFEST.json").unlink()
        (folder / "MANIFEST.json").write_bytes(text[:100])
        shutil.rmtree(folder)
        status, said, _ = attempt(store, key)
        assert (status, digest(store, key)) == (0, before), said


def test_what_a_lost_upstream_artifact_is_needed_for_is_told_with_the_command_that_makes_it(whole, store):
    chain = Pipeline(config_of(store, "vice")[0])
    for key, node in chain.graph.items():
        children = [name for name, other in chain.graph.items() if key in other.inputs.values()]
        if not children or (node.stage == "index" and not ALL):
            continue
        folder = chain.state(key).artifact.folder
        folder.rename(folder.with_name("aside"))
        fresh = Pipeline(chain.config)
        with pytest.raises(ArtifactError) as caught:
            fresh.make(children[0], force=True)
        message = str(caught.value)
        if node.stage != "world":
            assert f"needs {key}, which is missing" in message
            assert f"python -m alignet.stages.{node.stage}" in message
        folder.with_name("aside").rename(folder)
    assert json.loads((chain.state("vice").artifact.folder / "MANIFEST.json").read_text())[
        "digest"
    ] == digest(whole, "vice")


def test_nothing_is_written_outside_the_folders_that_are_documented(tmp_path):
    """The tiny world from nothing, in a process of its own: the store and the folder for temporary files."""
    import subprocess

    root, home, temporary = tmp_path / "store", tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary, tmp_path / "cwd"):
        folder.mkdir()
    lines = overrides(root, "role=finetune[alignet]") if not ALL else overrides(root)
    program = f"""
import os, sys
seen = set()
def hook(event, details):
    if event == "open":
        path, mode, flags = details
        by_mode = isinstance(mode, str) and set(mode) & set("wax+")
        if not by_mode and not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        touched = [path]
    elif event in ("os.rename", "os.link", "os.symlink"):
        touched = details[:2]
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.utime", "shutil.rmtree"):
        touched = details[:1]
    else:
        return
    numbered = event in ("os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.utime") and details[-1]
    for path in touched:  # a name may be relative to an open folder, as shutil.rmtree's are
        if isinstance(path, (str, bytes, os.PathLike)):
            if isinstance(numbered, int) and numbered > 0:
                path = os.path.join(os.readlink("/proc/self/fd/%d" % numbered), os.fsdecode(path))
            seen.add(os.path.realpath(os.fsdecode(path)))
sys.addaudithook(hook)
sys.argv = ["alignet", *{lines!r}]
import runpy
try:
    runpy.run_module("alignet.stages.pipeline", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print("\\n".join(["written:", *sorted(seen)]))
"""
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {
        key: value
        for key, value in environment.items()
        if not key.startswith(("XDG_", "MPL", "NUMBA_", "TORCHINDUCTOR_"))
    }
    repository = Path(__file__).parents[2]
    environment["PYTHONPATH"] = str(repository)
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path / "cwd",
        env=environment,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    written = answer.stdout.partition("written:\n")[2].splitlines()
    assert any(name.startswith(str(root)) for name in written)
    allowed = (
        str(root),
        str(temporary),
        str(home / ".cache/matplotlib"),
        str(home / ".config/matplotlib"),
        "/dev/",
    )
    strange = [name for name in written if not name.startswith(allowed)]
    assert strange == []
    assert list((tmp_path / "cwd").iterdir()) == []
    left = [path for path in home.rglob("*") if path.is_file() and "matplotlib" not in path.parts]
    assert left == []
