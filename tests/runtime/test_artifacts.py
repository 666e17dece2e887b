"""The store: completeness, resuming, damage, staleness, locks, full disks."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignet.runtime import artifacts
from alignet.runtime.artifacts import MANIFEST, ArtifactError, Identity, Store, fingerprint


def identity(**changes):
    values = {"stage": "vice", "role": "", "version": 1, "section": {"lr": 0.1}, "inputs": {"a": "f" * 64}}
    return Identity(**(values | changes))


def make(store, one, text="payload", built_from=None, fresh=False):
    with store.work(one, built_from or {}, fresh=fresh) as work:
        (work.folder / "data.txt").write_text(text)
        return work.commit({"figure": 1.5}, {"seconds": 1})


def test_the_fingerprint_depends_on_every_part_of_the_identity_and_on_nothing_else():
    base = identity()
    assert base.fingerprint == identity(section={"lr": 0.1}).fingerprint
    for change in (
        {"stage": "x"},
        {"role": "r"},
        {"version": 2},
        {"section": {"lr": 0.2}},
        {"inputs": {"a": "0"}},
    ):
        assert identity(**change).fingerprint != base.fingerprint
    assert fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})


def test_an_artifact_exists_only_after_its_commit(tmp_path):
    store, one = Store(tmp_path), identity()
    with store.work(one, {}, fresh=False) as work:
        (work.folder / "data.txt").write_text("x")
        assert store.find(one) is None
        work.commit({}, {})
    found = store.find(one)
    assert found is not None
    assert not store.partial(one).exists()
    assert set(found.manifest["files"]) == {"data.txt"}
    found.verify()


def test_figures_whose_names_are_numbers_do_not_look_damaged(tmp_path):
    store, one = Store(tmp_path), identity()
    with store.work(one, {}, fresh=False) as work:
        work.commit({"clusters": {10: 1, 2: 1}}, {})
    found = store.find(one)
    assert found is not None
    assert found.metrics["clusters"] == {"2": 1, "10": 1}


def test_checkpoints_survive_an_exception_and_are_dropped_at_the_commit(tmp_path):
    store, one = Store(tmp_path), identity()
    with pytest.raises(RuntimeError, match="interrupted"), store.work(one, {}, fresh=False) as work:
        work.checkpoints.mkdir()
        (work.checkpoints / "1.safetensors").write_text("state")
        raise RuntimeError("interrupted")
    with store.work(one, {}, fresh=False) as work:
        assert (work.checkpoints / "1.safetensors").read_text() == "state"
        artifact = work.commit({}, {})
    assert not (artifact.folder / "checkpoints").exists()


def test_work_begun_from_other_bytes_is_dropped(tmp_path):
    store, one = Store(tmp_path), identity()
    with pytest.raises(RuntimeError), store.work(one, {"a": "old"}, fresh=False) as work:
        (work.folder / "half.txt").write_text("x")
        raise RuntimeError
    with store.work(one, {"a": "new"}, fresh=False) as work:
        assert not (work.folder / "half.txt").exists()


WRITES_WEIGHTS = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from alignet.runtime.artifacts import Store
from tests.runtime.test_artifacts import identity
with Store(Path(sys.argv[1])).work(identity(), {}, fresh=False) as work:
    (work.folder / "parts.tmp").mkdir()
    (work.folder / "parts.tmp" / "a.txt").write_text("x")
    while True:
        save_file({"a": torch.zeros(50_000_000)}, work.folder / "weights.safetensors")
"""


def test_what_a_killed_write_left_is_no_part_of_the_artifact(tmp_path):
    """safetensors writes to a hidden name of its own first; libraries that write folders get one ending in tmp."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen([sys.executable, "-c", WRITES_WEIGHTS, str(tmp_path)], env=environment)
    store, one = Store(tmp_path), identity()
    while child.poll() is None and not list(store.partial(one).glob(".tmp*")):
        time.sleep(0.001)
    child.kill()
    assert child.wait() == -9
    assert list(store.partial(one).glob(".tmp*"))
    with store.work(one, {}, fresh=False) as work:
        left = {path.name for path in work.folder.iterdir()}
    assert left <= {artifacts.STARTED, "weights.safetensors"}


def test_killed_between_manifest_and_rename_it_only_renames(tmp_path, monkeypatch):
    store, one = Store(tmp_path), identity()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(artifacts.Work, "publish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        make(store, one, built_from={"a": "1"})
    assert store.find(one) is None
    with store.work(one, {"a": "1"}, fresh=False) as work:
        assert work.finished()
        artifact = work.publish()
    assert (artifact.folder / "data.txt").read_text() == "payload"


def test_a_manifest_whose_payload_was_damaged_before_the_rename_is_not_trusted(tmp_path, monkeypatch):
    store, one = Store(tmp_path), identity()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(artifacts.Work, "publish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        make(store, one)
    (store.partial(one) / "data.txt").write_text("Payload")
    with store.work(one, {}, fresh=False) as work:
        assert not work.finished()
        assert not (work.folder / MANIFEST).exists()


def test_a_flipped_byte_is_found_and_named(tmp_path):
    artifact = make(Store(tmp_path), identity())
    path = artifact.folder / "data.txt"
    path.write_bytes(b"paYload")
    with pytest.raises(ArtifactError, match=r"data\.txt.*checksum differs.*force=true"):
        artifact.verify()


def test_another_identity_under_the_same_short_name_is_refused(tmp_path):
    store, one = Store(tmp_path), identity()
    artifact = make(store, one)
    manifest = json.loads((artifact.folder / MANIFEST).read_text())
    manifest["identity"]["version"] = 9
    del manifest["checksum"]  # as of older versions
    (artifact.folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="another identity"):
        store.find(one)


def test_force_swaps_and_an_interrupted_swap_loses_nothing(tmp_path, monkeypatch):
    store, one = Store(tmp_path), identity()
    first = make(store, one, "first")
    real = os.rename

    def die_between(source, target):
        if str(source).endswith(".partial"):
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", die_between)
        make(store, one, "second", fresh=True)
    assert not first.folder.exists()
    assert (store.find(one).folder / "data.txt").read_text() == "first"
    again = make(store, one, "second", fresh=True)
    assert (again.folder / "data.txt").read_text() == "second"
    assert sorted(path.name for path in (tmp_path / "vice").iterdir() if path.is_dir()) == [again.folder.name]


def test_equal_bytes_have_equal_digests_whatever_else_the_manifest_says(tmp_path):
    one = make(Store(tmp_path / "a"), identity())
    two = make(Store(tmp_path / "b"), identity(section={"lr": 0.2}))
    three = make(Store(tmp_path / "c"), identity(), text="other")
    assert one.digest == two.digest != three.digest


def test_a_second_process_is_turned_away(tmp_path):
    store, one = Store(tmp_path), identity()
    program = (
        "import sys; from alignet.runtime.artifacts import *\n"
        "try:\n"
        "    one = Identity('vice', '', 1, {'lr': 0.1}, {'a': 'f' * 64})\n"
        f"    with Store({str(tmp_path)!r}).work(one, {{}}, fresh=False):\n"
        "        print('entered')\n"
        "except ArtifactError as error:\n"
        "    print(error)\n"
    )
    with store.work(one, {}, fresh=False):
        there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "another process is making this artifact" in there.stdout
        assert f"pid {os.getpid()}" in there.stdout
    after = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "entered" in after.stdout


def test_a_full_disk_keeps_what_was_finished(tmp_path, monkeypatch):
    store, one = Store(tmp_path), identity()
    make(store, identity(role="done"))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        make(store, one)
    assert store.find(one) is None
    store.find(identity(role="done")).verify()
    make(store, one).verify()
