"""Several processes give what one gives; signals, errors and deaths of one of them end all; launchers."""

import json
import os
import shutil
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alignet.pipeline import cli, launch
from alignet.pipeline.cli import load
from alignet.pipeline.commands import run_stage
from alignet.pipeline.runner import Pipeline
from alignet.pipeline.stage_run import StageRun
from alignet.runtime import interrupt
from alignet.runtime.artifacts import ArtifactError
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes
from tests.makers.torchrun_forks import REAL
from tests.makers.worlds import overrides
from tests.pipeline.many_finetune import run as fine_tune
from tests.student.test_finetune import changed

CHECKOUT = Path(__file__).parents[2]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
VARIANTS = {
    "in_batch": changed(
        batch=9, accumulate=2, clusters_per_batch=3, flip=0.5, crop=0.4, colour=0.3, grey=0.3, head=5,
        tau_student="fit", retain=0.5,
    ),
    "triplets": changed(sampling="triplets", batch=7, accumulate=2, loss="jsd", frozen=("conv_stem",)),
    "one image too few": changed(sampling="triplets", batch=1, steps=3, crop=0.5, tau_student=2.0),
}  # fmt: skip


def finish(process):
    """Exit status, stdout, stderr; fails after two minutes."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def errors(text):
    """The lines that say why a run ended."""
    return [line for line in text.splitlines() if line.startswith(("error:", "stopped by"))]


def copy(tiny, tmp_path, without=("finetune", "embed")):
    """The finished tiny world without its fine-tuned students and features."""
    root = tmp_path / "store"
    shutil.copytree(tiny, root)
    for name in without:
        shutil.rmtree(root / name)
    return root


def stage(root, name, *more):
    """The module and the options of a stage over a store."""
    return [f"alignet.stages.{name}", *overrides(root, *more)]


def ranks_of_two():
    """Environments of two processes that meet each other, as torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]


# ---- the same results ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(ready, tmp_path_factory):
    """What two processes wrote that fine-tuned together, see many_finetune."""
    folder = tmp_path_factory.mktemp("two")
    ranks = [
        ready.start("tests.pipeline.many_finetune", str(folder), environment=environment)
        for environment in ranks_of_two()
    ]
    for status, _, err in map(finish, ranks):
        assert status == 0, err
    return folder


def test_two_processes_fine_tune_as_one_and_stop_together(two):
    first, second = (dict(np.load(two / f"{rank}.npz")) for rank in (0, 1))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)  # replicas never drift apart
    for name, settings in VARIANTS.items():
        alone = fine_tune(settings)
        assert first[f"{name}.tau"] == alone.tau_student
        for curve in ("loss", "retained", "distance"):
            np.testing.assert_allclose(
                first[f"{name}.{curve}"], alone.curves[curve], rtol=1e-5, atol=1e-5, err_msg=f"{name} {curve}"
            )
    # signalled in step 2, one process alone; both saw it in that step, and went on to the same bytes
    assert first["stopped"] == 2
    np.testing.assert_array_equal(first["resumed"], first["in_batch.weights"])


def test_a_sharded_student_is_the_same_student(two):
    """FSDP2 over two processes, on gloo: curves of one process, the same bytes after an interruption."""
    first, second = (dict(np.load(two / f"{rank}.npz")) for rank in (0, 1))
    alone = fine_tune(VARIANTS["in_batch"])
    for curve in ("loss", "retained", "distance"):
        np.testing.assert_allclose(
            first[f"sharded.{curve}"], alone.curves[curve], rtol=1e-5, atol=1e-5, err_msg=curve
        )
        np.testing.assert_array_equal(first[f"sharded.{curve}"], second[f"sharded.{curve}"])
    np.testing.assert_allclose(first["sharded.weights"], first["in_batch.weights"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(first["sharded.weights"], second["sharded.weights"])
    assert first["sharded.stopped"] == 2
    np.testing.assert_array_equal(first["sharded.resumed"], first["sharded.weights"])


@pytest.mark.parametrize("name", ["checkpoints", "sharded"])
def test_one_process_goes_on_from_a_checkpoint_of_two(two, name):
    checkpoints = Checkpoints(two / name)
    assert checkpoints.newest() == 2
    resumed = fine_tune(VARIANTS["in_batch"], checkpoints=checkpoints)
    alone = fine_tune(VARIANTS["in_batch"])
    np.testing.assert_allclose(resumed.curves["loss"], alone.curves["loss"], rtol=1e-5, atol=1e-5)
    assert alone.curves["loss"].min() > 1e-3


def test_the_command_line_launches_two_processes_with_the_same_results(ready, tiny, tmp_path):
    root = copy(tiny, tmp_path)
    options = ["role=finetune[alignet]", "runtime.launcher=torchrun", "runtime.processes=2"]
    process = ready.start(*stage(root, "pipeline", *options), environment={REAL: "yes"})
    status, out, err = finish(process)
    assert status == 0, err
    assert sum(line.count("finetune[alignet] ->") for line in out.splitlines()) == 1  # only the first prints
    assert "torch" not in err
    made = 0
    for path in sorted(root.glob("embed/*/MANIFEST.json")):
        manifest = json.loads(path.read_text())
        before = json.loads((tiny / path.relative_to(root)).read_text())
        assert manifest["digest"] == before["digest"]
        assert manifest["provenance"]["world_size"] == 2
        made += 1
    assert made >= 2
    (path,) = root.glob("finetune/*/curves.npz")
    with np.load(path) as two, np.load(tiny / path.relative_to(root)) as one:
        np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-5, atol=1e-5)
        assert not np.array_equal(two["distance"], one["distance"])  # they did share the work


def test_features_do_not_depend_on_workers(tiny, tmp_path):
    root = copy(tiny, tmp_path)
    chain = Pipeline(load(overrides(root, "runtime.workers=2")))
    made = chain.make("embed[student.probe]")
    assert made.digest == Pipeline(load(overrides(tiny))).state("embed[student.probe]").artifact.digest


# ---- how a run ends --------------------------------------------------------------------------------

FAILING = """
import os, signal, sys
from alignet.pipeline.cli import main
from alignet.pipeline.commands import run_stage
from alignet.stages import embed
how, write = sys.argv.pop(1), embed._write_shard
def fail(folder, number, ids, features):
    if number == 1 and how == "error":
        raise ValueError("the second shard: expected luck, found none; try again.")
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder, number, ids, features)
embed._write_shard = fail
main("embed", "", lambda config: run_stage(config, "embed"))
"""


SLOW = """
import os, time
from alignet.pipeline.cli import main
from alignet.pipeline.commands import run_stage
from alignet.stages import embed
from alignet.pipeline import payloads
opener = payloads.opener
def slow(work, source):
    read = opener(work, source)
    def one(name, **said):
        time.sleep(0 if os.environ.get("RANK") == "0" else 0.1)
        return read(name, **said)
    return one
payloads.opener = slow
main("embed", "", lambda config: run_stage(config, "embed"))
"""


@pytest.mark.parametrize("how", ["error", "kill"])
def test_what_ends_one_process_ends_all_with_one_message(ready, tiny, tmp_path, how):
    root = copy(tiny, tmp_path)
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    status, _, err = finish(ready.start(*TORCHRUN, str(script), how, *overrides(root, "role=student.probe")))
    assert status == 1
    assert len(errors(err)) == 1, err
    # of a death the others learn from their broken connections, or from torchrun, which ends them
    expected = ["expected luck"] if how == "error" else ["ended without a word", "stopped by SIGTERM"]
    assert any(words in errors(err)[0] for words in expected)
    assert not list(root.glob("embed/*/MANIFEST.json"))
    # what the other process had finished is used
    run_stage(load(overrides(root, "role=student.probe")), "embed")
    before = Pipeline(load(overrides(tiny))).state("embed[student.probe]").artifact.digest
    assert Pipeline(load(overrides(root))).state("embed[student.probe]").artifact.digest == before


def test_a_bad_option_is_told_once(ready, tiny):
    command = stage(tiny, "finetune", "finetune.settings.lr=-1", "force=true")
    status, out, err = finish(ready.start(*TORCHRUN, "-m", *command))
    assert status == 1
    assert len(errors(err)) == 1
    assert out == ""


@pytest.mark.parametrize(("launcher", "number"), [("local", signal.SIGTERM), ("torchrun", signal.SIGUSR1)])
def test_a_signal_ends_at_a_checkpoint_and_the_same_command_goes_on(ready, tiny, tmp_path, launcher, number):
    root = copy(tiny, tmp_path, without=["finetune"])
    options = ["finetune.settings.steps=24", "runtime.checkpoint_seconds=0.3", "runtime.processes=2"]
    process = ready.start(*stage(root, "finetune", *options, f"runtime.launcher={launcher}"))
    checkpoints = "finetune/*.partial/checkpoints/*.safetensors"
    while process.poll() is None and not list(root.glob(checkpoints)):
        time.sleep(0.02)
    process.send_signal(number)
    status, _, err = finish(process)
    assert status == interrupt.STATUS, err
    (line,) = errors(err)
    assert "torch" not in err.replace("torchrun", "")
    assert "run the same command again: python -m alignet.stages.finetune" in line
    assert 0 < max(int(path.stem) for path in root.glob(checkpoints)) < 24
    if launcher == "torchrun":
        return
    run_stage(load(overrides(root, *options)), "finetune")
    (resumed,) = root.glob("finetune/*/weights.safetensors")
    whole = tmp_path / "whole"
    shutil.copytree(root, whole, ignore=lambda _, names: {"finetune"} & set(names))
    run_stage(load(overrides(whole, *options)), "finetune")
    assert resumed.read_bytes() == (whole / resumed.relative_to(root)).read_bytes()


def test_a_signal_to_the_whole_group_leaves_workers_reading_until_the_shard_can_be_left(
    ready, tiny, tmp_path
):
    """SLURM, timeout and kill -- -GROUP signal the workers of a DataLoader too, for which torch has its own handler."""
    root = copy(tiny, tmp_path)
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    options = overrides(root, "role=student.probe", "runtime.workers=2", "embed.batch=2", "embed.shard=30")
    process = ready.start("", *options, file=str(slow), own_session=True)
    while process.poll() is None and not list(root.glob("embed/*.partial/**/features-*.npy")):
        time.sleep(0.02)
    time.sleep(0.5)  # so that the workers of the next shard have begun
    os.killpg(process.pid, signal.SIGTERM)
    status, _, err = finish(process)
    assert status == interrupt.STATUS, err
    assert "stopped by SIGTERM" in errors(err)[0]
    assert "Traceback" not in err
    assert not list(root.glob("embed/*/MANIFEST.json"))


@pytest.mark.parametrize("who", ["all", "the other"])
def test_a_first_process_that_only_waits_ends_as_one_that_was_asked(ready, tiny, tmp_path, who):
    """It has finished its shards; the other, which has not, ends because of the signal."""
    root = copy(tiny, tmp_path)
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    options = overrides(root, "role=student.probe", "embed.batch=1", "embed.shard=30")
    ranks = [ready.start("", *options, file=str(slow), environment=one) for one in ranks_of_two()]
    while ranks[1].poll() is None and not list(root.glob("embed/*.partial/**/features-00002.npy")):
        time.sleep(0.02)
    time.sleep(0.5)
    for process in ranks if who == "all" else ranks[1:]:
        process.send_signal(signal.SIGUSR2)
    (first, _, said), (second, _, other) = (finish(process) for process in ranks)
    assert (first, second) == (interrupt.STATUS, interrupt.STATUS), said + other
    assert "run the same command again" in errors(said)[0]
    assert errors(other) == []


def test_torchrun_that_is_signalled_before_it_has_processes_starts_none(tiny, monkeypatch, capsys):
    from torch.distributed import run as torch_run

    monkeypatch.setattr(torch_run, "run", lambda _: pytest.fail("started"))
    kept = launch._processes

    def signalled(runtime):  # as while torch is imported
        os.kill(os.getpid(), signal.SIGTERM)
        return kept(runtime)

    monkeypatch.setattr(launch, "_processes", signalled)
    options = overrides(tiny, "runtime.launcher=torchrun", "runtime.processes=2")
    with pytest.raises(SystemExit) as caught:
        cli.main("finetune", "", lambda _: pytest.fail("ran here"), options, launches=True)
    assert caught.value.code == interrupt.STATUS
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_between_nodes_and_in_a_checkpoint(tmp_path):
    import torch

    with interrupt.listening():
        checkpoints = Checkpoints(tmp_path, seconds=1e9)
        assert not checkpoints.due()
        interrupt.stop_if_asked()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert checkpoints.due()
        with pytest.raises(interrupt.Stopped, match="stopped by SIGUSR2"):
            checkpoints.save(3, {"x": torch.ones(1)}, {})
        assert checkpoints.newest() == 3
        with pytest.raises(interrupt.Stopped):
            interrupt.stop_if_asked()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(ValueError, match=r"expected the checkpoint .* on a disk that every"):
        checkpoints.at(4)


# ---- shares and messages ---------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_shares_cover_every_row_once(count, size):
    rows = [list(range(count))[Processes(rank, size).share(count)] for rank in range(size)]
    assert [row for part in rows for row in part] == list(range(count))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_another_process_makes_the_same_run_from_a_message(tiny, tmp_path):
    chain = Pipeline(load(overrides(tiny)))
    node = chain.graph["finetune[alignet]"]
    inputs = {name: chain.state(parent).artifact for name, parent in node.inputs.items()}
    run = StageRun(
        node, node.section, inputs, chain._sources(node), tmp_path, tmp_path / "c", chain.config.runtime
    )
    there = StageRun.from_text(run.as_text())
    assert there.runtime == run.runtime
    assert there.node.key == run.node.key
    assert {name: artifact.digest for name, artifact in there.inputs.items()} == {
        name: artifact.digest for name, artifact in inputs.items()
    }
    text = run.as_text().replace(str(tmp_path), "/nowhere")
    with pytest.raises(ArtifactError, match="on a disk that every machine shares"):
        StageRun.from_text(text)


# ---- launchers -------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder of commands that stand in for SLURM's: sbatch keeps the script, scontrol notes what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {
        "sbatch": f'cp "$1" {tmp_path}/script.sh; echo "Submitted batch job 4242"',
        "srun": "exit 1",
        "scontrol": f'echo "$@" >> {tmp_path}/scontrol.txt',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path


def slurm(root, logs, *more):
    """Options of a job on two nodes with four GPUs each."""
    return overrides(
        root, "runtime.launcher=slurm", "runtime.processes=4", "runtime.slurm.nodes=2", "runtime.device=cuda",
        "runtime.slurm.partition=gpu", "runtime.slurm.account=lab", "runtime.slurm.minutes=30",
        f"runtime.slurm.logs={logs}", "+runtime.slurm.options={qos: high}", *more,
    )  # fmt: skip


def test_the_batch_script_asks_for_what_is_configured(tiny, cluster, capsys):
    cli.main("finetune", "", lambda _: pytest.fail("ran here"), slurm(tiny, cluster / "logs"), launches=True)
    out = capsys.readouterr().out
    assert out.startswith("job 4242: python -m alignet.stages.finetune")
    assert f"{cluster}/logs/4242_0_log.err" in out
    script = (cluster / "script.sh").read_text()
    for line in (
        "nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=8", "partition=gpu", "account=lab",
        "time=30", "signal=USR2@120", "requeue", "qos=high", "job-name=alignet-finetune",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in script
    assert "--kill-on-bad-exit=1" in script


def test_slurm_refuses_what_it_cannot_do(tiny, cluster, monkeypatch, capsys):
    def message(*more):
        with pytest.raises(SystemExit) as caught:
            cli.main("finetune", "", lambda _: None, slurm(tiny, cluster / "logs", *more), launches=True)
        assert caught.value.code == 1
        return capsys.readouterr().err

    assert "would begin anew" in message("force=true")
    assert "expected the number of processes (GPUs) on each node" in message("runtime.processes=0")
    (cluster / "bin" / "sbatch").write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    assert "sbatch took no job: no such partition" in message()
    monkeypatch.setenv("PATH", "/nowhere")
    assert "expected sbatch and srun on this machine" in message()
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "install it with `uv sync --extra slurm`" in message()


def test_a_job_that_was_signalled_goes_back_into_the_queue(cluster, monkeypatch, capsys):
    import submitit

    class Environment:
        rank = 0

        def export(self, **_):
            pass

    monkeypatch.setattr(submitit.helpers, "TorchDistributedEnvironment", Environment)
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    program = f"import signal, sys\nsignal.signal(signal.SIGUSR2, lambda *_: sys.exit({interrupt.STATUS}))\n"
    program += "import os; os.kill(os.getppid(), signal.SIGUSR2); signal.pause()"
    try:
        monkeypatch.setattr(launch, "command", lambda *_: ["-c", program])
        with pytest.raises(SystemExit) as caught:
            launch.Task("finetune", ())()
        assert caught.value.code == interrupt.STATUS
        assert (cluster / "scontrol.txt").read_text() == "requeue 4242\n"
        assert "goes back into the queue" in capsys.readouterr().out
        monkeypatch.setattr(launch, "command", lambda *_: ["-c", "raise SystemExit(1)"])
        with pytest.raises(SystemExit) as caught:
            launch.Task("finetune", ())()
        assert caught.value.code == 1
        assert (cluster / "scontrol.txt").read_text() == "requeue 4242\n"  # failures are not repeated
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_tasks_of_a_job_meet_and_do_the_work(tiny, tmp_path, monkeypatch):
    """The job itself, by submitit's executor for this machine: two tasks, one run."""
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = copy(tiny, tmp_path)
    options = overrides(
        root, "role=student.probe", "runtime.processes=2", f"runtime.slurm.logs={tmp_path}/logs"
    )
    executor = launch._executor("embed", load(options).runtime, "local")
    job = executor.submit(launch.Task("embed", tuple(options)))
    job.results()
    artifact = Pipeline(load(overrides(root))).state("embed[student.probe]").artifact
    assert artifact.manifest["provenance"]["world_size"] == 2
    assert artifact.digest == Pipeline(load(overrides(tiny))).state("embed[student.probe]").artifact.digest
