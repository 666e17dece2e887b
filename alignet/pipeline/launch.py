"""Starting a command line as several processes: runtime.launcher = torchrun on this machine, slurm on a cluster's.

    cli.main -> launch -> the same command, once for each process -> processes.join

torchrun   torch's own launcher; this process waits for it and ends with the status of the work
slurm      submitit writes the sbatch script; each task on a node starts the command with the variables that
           torch.distributed reads. Before the time limit SLURM signals the tasks, the command ends with
           interrupt.STATUS behind a checkpoint, and the first task puts the job back into the queue.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignet.config import RuntimeSettings
from alignet.runtime import interrupt

_LINGER = (
    30  # seconds: srun ends all tasks behind the first that fails, and the first task may have to requeue
)


def launch(stage: str, arguments: list[str], runtime: RuntimeSettings) -> None:
    """Run a stage's command line by runtime.launcher; raises SystemExit where the work did not end well.

    arguments: as they were given. slurm returns when the job is in the queue.
    """
    if runtime.launcher == "torchrun":
        status = torchrun(stage, arguments, runtime)
        if status:
            raise SystemExit(status)
        return
    if "force=true" in arguments:
        raise ValueError(
            "force=true: expected none with runtime.launcher=slurm, where a job that is queued again would begin anew "
            "each time; move the old artifact away instead (`status` names its folder)"
        )
    print(submit(stage, arguments, runtime), flush=True)


def command(stage: str, arguments: list[str]) -> list[str]:
    """What each process runs; there, processes.launched keeps the command line from launching again."""
    return ["-m", f"alignet.stages.{stage}", *arguments]


def torchrun(stage: str, arguments: list[str], runtime: RuntimeSettings) -> int:
    """The command as several processes of this machine. Returns the exit status: 0, 1, or interrupt.STATUS."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # a process that fails says why; torchrun's report of its exit status would only follow that
    logging.disable(logging.ERROR)
    options = ["--standalone", f"--nproc-per-node={_processes(runtime)}"]
    try:
        with _as_sigterm():
            interrupt.stop_if_asked()  # since the first moment: importing torch takes seconds
            run(parse_args([*options, *command(stage, arguments)]))
    except ChildFailedError as error:
        _, first = error.get_first_failure()  # the others end because of it
        return interrupt.STATUS if first.exitcode == interrupt.STATUS else 1
    except SignalException:  # torchrun has passed it on and waited
        return interrupt.STATUS
    return 0


def _processes(runtime: RuntimeSettings) -> int:
    if runtime.processes or runtime.device == "cpu":
        return max(runtime.processes, 1)
    import torch

    return max(torch.cuda.device_count(), 1)


@contextmanager
def _as_sigterm() -> Iterator[None]:
    # torchrun passes SIGTERM on to its processes once there are some, and would die of the other signals
    def end(*_: object) -> None:
        raise interrupt.Stopped("stopped by SIGTERM")

    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    for number in interrupt.SIGNALS:
        signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Task:
    """What submitit runs in each task of a job: the command line, as one of the processes of a run."""

    stage: str
    arguments: tuple[str, ...]

    def __call__(self) -> None:
        import submitit

        # a requeued job starts with the variables of its first start
        environment = submitit.helpers.TorchDistributedEnvironment()
        environment.export(set_cuda_visible_devices=False, overwrite=True)
        process = subprocess.Popen([sys.executable, "-u", *command(self.stage, list(self.arguments))])
        for number in interrupt.SIGNALS:
            signal.signal(number, lambda got, _: process.send_signal(got))
        status = process.wait()
        job = os.environ.get("SLURM_JOB_ID", "")
        if status == interrupt.STATUS and job and environment.rank == 0:
            print(f"job {job} goes back into the queue and will go on from its checkpoint", flush=True)
            subprocess.run(["scontrol", "requeue", job], check=True)
        if status:
            time.sleep(_LINGER if environment.rank else 0)
            raise SystemExit(status if status > 0 else 128 - status)


def submit(stage: str, arguments: list[str], runtime: RuntimeSettings, cluster: str = "slurm") -> str:
    """Put the command into SLURM's queue. Returns what to tell the user: the job's number and where it writes.

    cluster: submitit's name of where to run; "local" starts the tasks on this machine. ValueError without submitit, and
    where sbatch is missing or refuses.
    """
    executor = _executor(stage, runtime, cluster)
    task = Task(stage, tuple(arguments))
    try:
        job = executor.submit(task)
    except (OSError, RuntimeError) as error:  # submitit's FailedJobError is a RuntimeError
        raise ValueError(
            f"runtime.launcher=slurm: sbatch took no job: {' '.join(str(error).split())}"
        ) from error
    log = Path(runtime.slurm.logs).absolute() / f"{job.job_id}_0_log"
    return (
        f"job {job.job_id}: {shlex.join(['python', *command(stage, arguments)])}\n"
        f"script: {job.paths.submission_file}\n"
        f"log of the first process: {log}.out, errors and progress: {log}.err\n"
        f"look: squeue -j {job.job_id}; tail -f {log}.err; python -m alignet.stages.status {shlex.join(arguments)}"
    ).rstrip()


def _executor(stage: str, runtime: RuntimeSettings, cluster: str) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ValueError(
            "runtime.launcher=slurm: expected the package submitit, found none; install it with "
            "`uv sync --extra slurm` or `pip install submitit`"
        ) from error
    slurm = runtime.slurm
    try:
        executor = submitit.AutoExecutor(folder=slurm.logs, cluster=cluster)
    except RuntimeError as error:
        raise ValueError(
            f"runtime.launcher=slurm: expected sbatch and srun on this machine, found none ({error}); submit "
            f"from a login node of the cluster."
        ) from error
    options: dict[str, Any] = {
        "name": f"alignet-{stage}",
        "nodes": slurm.nodes,
        "tasks_per_node": runtime.processes,
        "timeout_min": slurm.minutes,
        "cpus_per_task": slurm.cpus,
    }
    if runtime.device == "cuda":
        options["gpus_per_node"] = runtime.processes
    if slurm.memory_gb:
        options["mem_gb"] = slurm.memory_gb
    extra = {name: getattr(slurm, name) for name in ("partition", "account") if getattr(slurm, name)}
    options |= {
        "slurm_signal_delay_s": slurm.grace,
        "slurm_srun_args": ["--kill-on-bad-exit=1"],  # one process that fails ends the others
        "slurm_additional_parameters": {"requeue": True} | extra | dict(slurm.options),
    }
    executor.update_parameters(**options)
    return executor
