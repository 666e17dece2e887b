"""Run whatever is missing, in order, and print the table.

reads   the configuration
writes  every artifact of it that is not there yet, below paths.artifacts
cost    the embedded world: at most five minutes on 2 cores; a second run: seconds
"""

from alignet.cli import main
from alignet.config import Config


def act(config: Config) -> None:
    """Do what the first line says."""
    from alignet.commands import run_pipeline

    run_pipeline(config)


if __name__ == "__main__":
    main("pipeline", __doc__ or "", act, launches=True)
