"""The whole chain on a tiny world: it ends, it is cached, it resumes, it notices damage and change."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest

from alignet.pipeline import messages, payloads
from alignet.pipeline.cli import load, main
from alignet.pipeline.commands import print_status, run_pipeline, run_stage
from alignet.pipeline.runner import Pipeline
from alignet.runtime.artifacts import ArtifactError
from tests.makers.worlds import overrides


def copy(tiny, tmp_path):
    root = tmp_path / "store"
    shutil.copytree(tiny, root)
    return root


def digests(root):
    return {
        f"{path.parent.parent.name}/{path.parent.name}": json.loads(path.read_text())["digest"]
        for path in root.glob("*/*/MANIFEST.json")
    }


@pytest.fixture
def run(ready):
    """The whole chain of the tiny world on a command line."""
    return lambda root, *more: ready.run("alignet.stages.pipeline", *overrides(root, *more))


def forked(root, *more):
    """The same command in a fork of this process, which has PyTorch and most compiled kernels already."""
    process = multiprocessing.get_context("fork").Process(
        target=main, args=("pipeline", "", run_pipeline, overrides(root, *more))
    )
    process.start()
    return process


def test_a_second_run_recomputes_nothing_and_prints_the_table(tiny, capsys):
    run_pipeline(load(overrides(tiny)))
    out = capsys.readouterr().out
    assert "0 nodes made" in out
    assert out.splitlines()[0].startswith("a synthetic world")
    for word in (
        "alignet",
        "distillation",
        "ud",
        "raw pixels",
        "colour histogram",
        "noise ceiling",
        "unjudged",
    ):
        assert word in out


def test_another_run_elsewhere_makes_the_same_bytes(tiny, tmp_path):
    run_pipeline(load(overrides(tmp_path / "again")))
    assert digests(tmp_path / "again") == digests(tiny)


def test_another_seed_makes_other_bytes(tiny, tmp_path):
    chain = Pipeline(load(overrides(tmp_path / "seed", "seed=1", "role=vice")))
    chain.make_all(["vice"])
    old = Pipeline(load(overrides(tiny)))
    for key in ("world", "index[human_train]", "vice"):
        assert chain.state(key).artifact.digest != old.state(key).artifact.digest


def test_status_names_every_node_and_what_is_missing(tiny, tmp_path, capsys):
    root = copy(tiny, tmp_path)
    chain = Pipeline(load(overrides(root)))
    shutil.rmtree(chain.state("vice").artifact.folder)
    print_status(load(overrides(root)))
    out = capsys.readouterr().out
    assert "1 missing" in out
    line = next(line for line in out.splitlines() if line.startswith("vice "))
    assert "python -m alignet.stages.vice" in line
    assert all(key in out for key in chain.graph)


def test_a_stage_without_its_inputs_says_what_is_missing_and_what_is_nearest(tiny, tmp_path):
    root = copy(tiny, tmp_path)
    with pytest.raises(ArtifactError) as caught:
        run_stage(load(overrides(root, "vice.settings.lr=0.02", "role=human_train")), "soft_labels")
    message = str(caught.value)
    assert "needs vice, which is missing" in message
    assert "settings.lr: 0.03 there, 0.02 wanted" in message
    assert "python -m alignet.stages.vice" in message


def test_a_role_that_does_not_exist_lists_those_that_do(tiny):
    with pytest.raises(ValueError, match="expected one of alignet, distillation"):
        run_stage(load(overrides(tiny, "role=alignnet")), "finetune")


def test_a_flipped_byte_is_found_before_it_is_used_and_force_mends_it(tiny, tmp_path):
    root = copy(tiny, tmp_path)
    before = digests(root)
    chain = Pipeline(load(overrides(root)))
    artifact = chain.state("vice").artifact
    with open(artifact.folder / "pruned.npz", "r+b") as handle:
        handle.seek(200)
        byte = handle.read(1)
        handle.seek(200)
        handle.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ArtifactError, match=r"pruned\.npz.*checksum differs"):
        run_stage(load(overrides(root, "role=human_train", "force=true")), "soft_labels")
    run_stage(load(overrides(root, "force=true")), "vice")
    assert digests(root) == before


def test_what_was_built_from_other_bytes_is_stale_and_is_made_again(tiny, tmp_path, monkeypatch):
    root = copy(tiny, tmp_path)
    chain = Pipeline(load(overrides(root)))
    artifact = chain.state("soft_labels[human_train]").artifact
    manifest = json.loads((artifact.folder / "MANIFEST.json").read_text())
    labels = np.load(artifact.folder / "probabilities.npy")
    import alignet.stages.soft_labels as stage

    def other(work):
        np.save(work.folder / "probabilities.npy", labels[:, [0, 2, 1]])
        return manifest["metrics"]

    with monkeypatch.context() as patch:
        patch.setattr(stage, "run", other)
        run_stage(load(overrides(root, "role=human_train", "force=true")), "soft_labels")
    chain = Pipeline(load(overrides(root)))
    assert chain.state("distill[teacher]").state == "stale"
    assert chain.state("finetune[alignet]").state == "stale"
    assert chain.state("finetune[distillation]").state == "cached"
    ran = chain.make_all(["distill[teacher]"])
    assert ran == ["distill[teacher]"]


def test_a_full_disk_ends_with_one_message_and_keeps_what_was_finished(ready, tiny, tmp_path):
    root = copy(tiny, tmp_path)
    chain = Pipeline(load(overrides(root)))
    shutil.rmtree(chain.state("pretrain[student]").artifact.folder)
    small_files = """
import resource, runpy, signal
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
runpy.run_module("alignet.stages.pipeline", run_name="__main__", alter_sys=True)
"""
    answer = ready.run("", *overrides(root, "role=pretrain[student]"), program=small_files)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert answer.stderr.strip().splitlines()[-1].startswith("error:")
    assert "File too large" in answer.stderr
    run_pipeline(load(overrides(root)))
    assert digests(root) == digests(tiny)


def test_no_space_left_inside_a_stage_is_told_and_resumes(tiny, tmp_path, monkeypatch, capsys):
    root = copy(tiny, tmp_path)
    chain = Pipeline(load(overrides(root)))
    shutil.rmtree(chain.state("vice").artifact.folder)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(root / "vice"))

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(np, "savez", full)
        main("vice", "", lambda config: run_stage(config, "vice"), overrides(root))
    assert caught.value.code == 1
    assert "no room to write" in capsys.readouterr().err
    run_pipeline(load(overrides(root)))
    assert digests(root) == digests(tiny)


def test_a_second_process_on_the_same_stage_is_turned_away(run, tiny, tmp_path):
    root = copy(tiny, tmp_path)
    chain = Pipeline(load(overrides(root)))
    shutil.rmtree(chain.state("vice").artifact.folder)
    identity = chain.identity("vice")
    with chain.store.work(identity, {}, fresh=False):
        answer = run(root, "role=vice")
    assert answer.returncode == 1
    assert "another process is making this artifact" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(tiny, tmp_path):
    """In four stages one after another, each time by the same command line."""
    root = tmp_path / "killed"
    for number, stage in enumerate(("pretrain", "vice", "finetune", "evaluate")):
        rng = np.random.default_rng(number)
        process = forked(root, "runtime.checkpoint_seconds=0.2")
        while process.is_alive() and not any((root / stage).glob("*.partial")):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, stage
    run_pipeline(load(overrides(root)))
    assert digests(root) == digests(tiny)


def test_progress_of_a_run_is_plain_lines_without_a_terminal(run, tiny):
    answer = run(tiny)
    assert answer.returncode == 0
    assert "\x1b" not in answer.stdout + answer.stderr
    assert answer.stdout.splitlines()[-1].startswith("next: python -m alignet.stages.status")


def test_nearest_prefers_the_fewest_differences():
    assert messages.differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}) == [
        "b.c: 3 there, 2 wanted"
    ]
    assert messages.differences({"a": (1, 2)}, {"a": [1, 2]}) == []


def test_a_smoothed_teacher_stands_in_the_place_of_the_teacher(tiny, tmp_path):
    config = load(overrides(copy(tiny, tmp_path), "smooth={penalties:[1000000.0]}"))
    run = Pipeline(config)
    assert run.graph["finetune[alignet]"].inputs["features"] == "smooth"
    made = ["embed[student.pool]", "smooth", "evaluate[teacher-ud.labels]"]
    assert run.make_all(made[1:]) == made
    smoothed, artifact = run.state("smooth").artifact, run.state("embed[teacher.pool]").artifact
    features, ids = payloads.embedding(smoothed)
    raw, raw_ids = payloads.embedding(artifact)
    assert ids == raw_ids
    # so strong a penalty leaves the mean alone
    np.testing.assert_allclose(features, np.tile(raw.mean(0), (len(raw), 1)), atol=1e-3)


def test_a_further_family_of_metrics_leaves_every_other_artifact_as_it_is(tiny, tmp_path, monkeypatch):
    from alignet.evaluate import families
    from alignet.evaluate.bootstrap import Score

    def width(material, options):
        features = material.features["test"][0]
        return [Score("width", material.dataset, features.shape[1], None, None, len(features), "images", "")]

    root = tmp_path / "store"
    shutil.copytree(tiny, root)
    before = digests(root)
    monkeypatch.setitem(families.FAMILIES, "width", width)
    more = (
        "+evaluate.datasets.extra={family: width, images: {test: fresh}, data: {}, nodes: {}, "
        "settings: [original, alignet], options: {}}"
    )
    pipeline = Pipeline(load(overrides(root, more)))
    ran = pipeline.make_all(list(pipeline.graph))
    assert sorted(ran) == ["evaluate[alignet.extra]", "evaluate[original.extra]", "report"]
    after = digests(root)
    assert {name: after[name] for name in before} == before
    assert "width" in pipeline.state("report").artifact.file("report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("together", [False, True])
def test_what_does_not_need_a_failed_node_is_made_all_the_same(tiny, tmp_path, monkeypatch, capfd, together):
    import alignet.stages.distill as stage

    root = copy(tiny, tmp_path)
    options = ["runtime.threads=2", "runtime.parallel_nodes=2"] if together else []
    keys = ["distill[teacher]", "evaluate[pixels.all]"]
    chain = Pipeline(load(overrides(root, *options)))
    for key in keys:
        shutil.rmtree(chain.state(key).artifact.folder)
    before = stage.run

    def broken(work):
        raise ValueError("the map: expected luck, found none; try again.")

    monkeypatch.setattr(stage, "run", broken)
    with pytest.raises(SystemExit) as caught:
        main("pipeline", "", run_pipeline, overrides(root, *options))
    assert caught.value.code == 1
    told = capfd.readouterr()
    assert told.out.count("failed: distill[teacher]: the map: expected luck") == 1
    lines = told.err.splitlines()
    assert [line for line in lines if line.startswith("error:")] == [lines[0]]
    assert "1 of" in lines[0]
    assert "that need them were not tried" in lines[0]
    assert "Traceback" not in told.err
    assert "role='distill[teacher]'" in lines[-1]
    chain = Pipeline(load(overrides(root, *options)))
    assert chain.state("evaluate[pixels.all]").state == "cached"
    assert chain.state("distill[teacher]").state in ("missing", "partial")
    monkeypatch.setattr(stage, "run", before)
    run_pipeline(load(overrides(root, *options)))
    assert digests(root) == digests(tiny)


def test_one_node_needs_only_its_own_data(tmp_path, capsys):
    files = [f"paths.photos={tmp_path}", f"paths.artifacts={tmp_path / 'store'}"]
    (tmp_path / "concepts.csv").write_text("index,unique_id,category,photo,split\n0,a,b,a.jpg,tune\n")
    run_pipeline(load(["experiment=photos", *files, "role=index[concepts]"]))
    assert "index[concepts] ->" in capsys.readouterr().out
    with pytest.raises(ArtifactError, match="human_train"):
        run_pipeline(load(["experiment=photos", *files, "role=vice"]))


def test_a_fit_that_keeps_no_dimension_says_so_itself(tiny, tmp_path):
    with pytest.raises(
        ValueError, match=r"^vice: expected a dimension in which more than 1000 of \d+ objects stay"
    ):
        Pipeline(load(overrides(copy(tiny, tmp_path), "vice.settings.k=1000"))).make("vice")
