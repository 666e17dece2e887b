"""List every node: cached, stale, partial, missing or blocked, its size, and the command that makes it.

reads   the manifests below paths.artifacts; sizes and times of outside files
writes  nothing
cost    seconds
"""

from alignet.cli import main
from alignet.config import Config


def act(config: Config) -> None:
    """Do what the first line says."""
    from alignet.pipeline import print_status

    print_status(config)


if __name__ == "__main__":
    main("status", __doc__ or "", act)
