"""Pruning: what nothing needs is listed with its size, and goes only when told."""

import shutil
import subprocess
import sys

import pytest

from alignet.pipeline.cli import load
from alignet.pipeline.housekeeping import leftovers, print_leftovers, remove
from alignet.pipeline.runner import Pipeline
from alignet.runtime.artifacts import ArtifactError, Store, locked
from tests.makers.worlds import overrides


@pytest.fixture
def run(ready):
    """The stage `status` on a command line."""
    return lambda *arguments: ready.run("alignet.stages.status", *arguments)


@pytest.fixture
def store(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "store")
    return tmp_path / "store"


def test_a_finished_run_leaves_nothing_over(tiny, capsys):
    print_leftovers([load(overrides(tiny))], delete=False)
    assert "0 folders, 0.0 MB not needed" in capsys.readouterr().out


def test_other_settings_make_the_old_fit_and_what_came_of_it_superfluous(tiny, capsys):
    print_leftovers([load(overrides(tiny, "vice.settings.dim=7"))], delete=False)
    text = capsys.readouterr().out
    assert "vice " in text
    assert "finetune[alignet]" in text
    assert "finetune[distillation]" not in text
    assert "world" not in text.replace("alignet.stages", "")


def test_the_command_line_lists_then_removes_and_keeps_what_every_named_configuration_needs(run, store):
    old, new = overrides(store), overrides(store, "vice.settings.dim=7")
    before = sorted(path.name for path in store.rglob("MANIFEST.json"))
    listed = run("prune", *new)
    assert listed.returncode == 0, listed.stderr
    assert "status prune remove" in listed.stdout
    assert sorted(path.name for path in store.rglob("MANIFEST.json")) == before
    both = run(
        "prune",
        "-m",
        *[item for item in old if not item.startswith("vice.settings.dim")],
        "vice.settings.dim=7,8",
    )
    assert "0 folders" in both.stdout, both.stdout + both.stderr
    gone = run("prune", "remove", *new)
    assert gone.returncode == 0, gone.stderr
    assert not list((store / "vice").glob("*/MANIFEST.json"))
    pipeline = Pipeline(load(old))
    assert pipeline.state("embed[teacher.pool]").state == "cached"
    assert pipeline.state("vice").state == "missing"
    assert "0 folders" in run("prune", *new).stdout


def test_foreign_files_and_unfinished_work_of_current_nodes_stay(store):
    pipeline = Pipeline(load(overrides(store)))
    (store / "vice" / "my notes").mkdir()
    current = store / "vice" / (pipeline.identity("vice").fingerprint[:12] + ".partial")
    current.mkdir()
    other = store / "vice" / "0123456789ab.partial"
    other.mkdir()
    (other / "checkpoint").write_bytes(b"x" * 1000)
    needed = [pipeline.store.folder(pipeline.identity(key)) for key in pipeline.graph]
    (found,) = leftovers(Store(store), needed, ["vice"])
    assert (found.folder, found.what, found.size) == (other, "unfinished work", 1000)
    remove(found)
    assert not other.exists()
    assert current.is_dir()


def test_what_another_process_works_on_is_not_removed(store):
    folder = store / "vice" / "0123456789ab.partial"
    folder.mkdir()
    (found,) = (item for item in leftovers(Store(store), [], ["vice"]) if item.folder == folder)
    code = (
        "import sys, time; from pathlib import Path; from alignet.runtime.artifacts import locked\n"
        f"with locked(Path({str(folder.with_suffix('.lock'))!r})): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ArtifactError, match="another process"):
            remove(found)
        holder.kill()
    assert folder.is_dir()
    with locked(folder.with_suffix(".lock")):
        pass


def test_with_data_missing_nothing_is_called_superfluous(run, tmp_path):
    gone = run("prune", "experiment=photos", f"paths.photos={tmp_path}", f"paths.artifacts={tmp_path}")
    assert gone.returncode == 1
    assert "cannot be named" in gone.stderr
    assert "Traceback" not in gone.stderr
