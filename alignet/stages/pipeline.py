"""Run whatever is missing, in order, and print the table; what would stop an evaluation later is said at once.

reads   the configuration
writes  every artifact of it that is not there yet, below paths.artifacts; of an ablation (experiment=ablation/<name>)
        what its jobs measure, and one figure and one table in <paths.artifacts>/ablation/<name>-<digest>
cost    the embedded world: at most five minutes on 2 cores; a second run: seconds; an ablation: docs/ablations.md
"""

from alignet.config import Config
from alignet.pipeline.cli import main


def act(config: Config) -> None:
    """Do what the first line says."""
    from alignet.doctor.dry_run import stop_on_faults
    from alignet.pipeline.ablation import run_ablation
    from alignet.pipeline.commands import run_pipeline

    if not JOBS:
        stop_on_faults(config)
    if config.ablation is None:
        run_pipeline(config)
    else:
        run_ablation(config)
        JOBS.append(config)


def finish() -> None:
    """Show each ablation whose jobs are all made."""
    from alignet.pipeline.ablation import show_ablation

    kinds: dict[tuple[str, str], list[Config]] = {}
    for job in JOBS:
        assert job.ablation is not None
        kinds.setdefault((job.experiment_name, job.ablation.name), []).append(job)
    for jobs in kinds.values():
        show_ablation(jobs)


JOBS: list[Config] = []  # of an ablation, those that are made

if __name__ == "__main__":
    main("pipeline", __doc__ or "", act, finish=finish, launches=True)
