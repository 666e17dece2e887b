"""The command lines: each job of one is acted upon, and an error ends all processes with one message.

Every stage is `python -m alignet.stages.<stage> [override ...]`. Overrides follow Hydra's grammar;
`-m` runs the product of comma-separated values. `--help` answers from text files alone.

    conf -> overrides (what is typed -> Config) -> explain (error -> message) -> main
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from alignet.pipeline.conf import conf_folder, help_text, names_in
from alignet.pipeline.explain import explain, shortened
from alignet.pipeline.overrides import compose, first_job, load, product, quoted
from alignet.runtime import distributed, interrupt

if TYPE_CHECKING:
    from alignet.config import Config

__all__ = [
    "check_one_process", "compose", "conf_folder", "explain", "first_job", "help_text", "jobs_of", "load", "main",
    "names_in", "product", "quoted", "shortened", "stage_main",
]  # fmt: skip


def main(
    stage: str,
    doc: str,
    act: Callable[[Config], None],
    argv: Sequence[str] | None = None,
    finish: Callable[[], None] | None = None,
    launches: bool = False,
    typed: Sequence[str] | None = None,
) -> None:
    """Run one stage's command line; exits with status 1 and one message on bad input, 75 when asked to end.

    argv: without the program's name, by default the process's own. finish: what to do after all jobs of a multirun.
    launches: whether runtime.launcher may start other processes for it. Of several processes that were started,
    the first runs `act` and the others follow it. typed: the command line to give again,
    where argv is only a part of it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(help_text(stage, doc))
        return
    with interrupt.listening():  # to the last word: what ends one process of several signals the others
        try:
            _take_part(stage, act, arguments, finish, launches)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except Exception as error:
            if isinstance(error, BrokenPipeError):
                _end_if_unheard()
            _end_of(error, stage, list(arguments if typed is None else typed))


def check_one_process(config: Config, what: str, instead: str) -> None:
    """ValueError where more processes than one are asked for. what: the command; instead: what to do."""
    launcher, size = config.runtime.launcher, distributed.current().size
    if launcher != "local" or size > 1:
        found = f"runtime.launcher={launcher}" if launcher != "local" else f"{size} processes"
        raise ValueError(f"{what}: expected one process, found {found}; {instead}.")


def _end_if_unheard() -> None:
    """End without a word where whoever reads what is printed has gone, as `head` does after its lines."""
    try:
        place = sys.stdout.fileno()
    except (OSError, ValueError):  # no file
        return
    poll = select.poll()
    poll.register(place, select.POLLOUT)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), place)  # for what is still to be flushed
        raise SystemExit(128 + signal.SIGPIPE) from None


def _take_part(
    stage: str,
    act: Callable[[Config], None],
    arguments: list[str],
    finish: Callable[[], None] | None,
    launches: bool,
) -> None:
    """Run the command line as the first process of its run, or follow the first."""
    if distributed.join().first:
        _run(stage, act, arguments, launches)
        if finish is not None:
            finish()
        distributed.current().tell("")
    else:
        from alignet.pipeline.runner import follow

        follow()
    distributed.leave()


def _end_of(error: Exception, stage: str, typed: list[str]) -> NoReturn:
    """End with the status and the message of what went wrong, or with how to go on where the run was asked to end."""
    processes = distributed.current()
    lost = isinstance(error, distributed.PeerLost)
    # a worker dies of a signal that comes before it ignores them
    dead_worker = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    asked = processes.was_asked()
    if isinstance(error, interrupt.Stopped) or (asked and (lost or dead_worker)):
        processes.note_asked()
        stopped = error if isinstance(error, interrupt.Stopped) else interrupt.stop()
        again = f"python -m alignet.stages.{stage} {shlex.join(typed)}".rstrip()
        anew = " (force=true would begin anew)" if "force=true" in typed else ""
        line = f"{stopped}; what was finished is kept. To go on, run the same command again{anew}: {again}"
        _end(interrupt.STATUS, line if processes.first else None, lost)
    if lost:
        _end(
            1,
            f"error: another process of this run has ended without a word (killed, or out of memory?): {error}. What "
            f"was finished is kept: run the same command again.",
            lost,
        )
    message = None if os.environ.get("ALIGNET_TRACEBACK") else explain(error, typed)
    if message is None and processes.size == 1:
        raise error
    _end(1, traceback.format_exc() if message is None else f"error: {message}")


def _run(stage: str, act: Callable[[Config], None], arguments: list[str], launches: bool) -> None:
    """Do what a command line says: in this process, or in others that its launcher starts."""
    several = bool({"-m", "--multirun"} & set(arguments))
    jobs = (
        product([item for item in arguments if item not in ("-m", "--multirun")]) if several else [arguments]
    )
    for number, overrides in enumerate(jobs):
        config = load(overrides)
        if launches and config.runtime.launcher != "local" and not distributed.launched():
            from alignet.pipeline.launch import launch

            launch(stage, arguments, config.runtime)
            return
        if several:
            from alignet.pipeline.messages import tell_job

            tell_job(overrides)
            print(f"[job {number}] {' '.join(overrides)}", flush=True)
        for job in jobs_of(config, overrides):
            act(job)


def jobs_of(config: Config, overrides: Sequence[str]) -> list[Config]:
    """The jobs of an ablation, one for each combination of its values and seeds; of any other configuration itself.

    overrides: the command line that the configuration comes from. A job's `ablation.point` holds its values.
    """
    ablation = config.ablation
    if ablation is None:
        return [config]
    from dataclasses import replace
    from itertools import product as combinations

    from alignet.pipeline.graph import build_graph

    jobs = []
    for values in combinations(*ablation.over.values()):
        point = dict(zip(ablation.over, values, strict=True))
        for seed in ablation.seeds or (config.seed,):
            own = [f"{key}={'null' if value is None else value}" for key, value in point.items()]
            job = load([*overrides, *own, f"seed={seed}"])
            assert job.ablation is not None
            jobs.append(replace(job, ablation=replace(job.ablation, point=point)))
            build_graph(jobs[-1])  # what cannot be made of the last job is said before the first is made
    return jobs


def _end(status: int, message: str | None, lost: bool = False) -> NoReturn:
    """End with a status and at most one message from all processes of the run; lost: see Processes.may_speak."""
    several = distributed.current().size > 1
    sys.stdout.flush()
    if message is not None and distributed.current().may_speak(lost):
        print(message, file=sys.stderr, flush=True)
    if several:
        os._exit(status)  # an orderly end would wait for the others
    raise SystemExit(status) from None


def stage_main(stage: str, doc: str | None) -> None:
    """The command line of a stage that makes one node."""

    def act(config: Config) -> None:
        from alignet.pipeline.commands import run_stage

        run_stage(config, stage)

    main(stage, doc or "", act, launches=True)
