"""List every node: cached, stale, partial, missing or blocked, its size, and the command that makes it.

reads   the manifests below paths.artifacts; sizes and times of outside files, and all of them when they are new
writes  seen/ in paths.artifacts: the checksums of outside files
cost    seconds; the first time, as long as it takes to read the data once

`status experiment=ablation/<name>` lists the nodes of all its jobs, those that they share once.

`status prune` lists what lies in the store and is no node of this configuration, with sizes; `status prune remove`
deletes what `status prune` lists. Name everything that is to stay: `status prune -m experiment=world seed=0,1,2` keeps
the nodes of all three. Nothing is deleted without the word `remove`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignet.pipeline.cli import main

if TYPE_CHECKING:
    from alignet.config import Config


def show(arguments: Sequence[str]) -> None:
    """Do what the first line says; the jobs of an ablation together."""
    jobs: list[Config] = []

    def act(config: Config) -> None:
        from alignet.pipeline.commands import print_status

        if config.ablation is None:
            print_status(config)
        else:
            jobs.append(config)

    def finish() -> None:
        from alignet.pipeline.commands import print_status

        if jobs:
            print_status(*jobs)

    main("status", __doc__ or "", act, arguments, finish)


def prune(arguments: Sequence[str], delete: bool) -> None:
    """List, or with `delete` remove, what no node of the configurations needs."""
    configs: list[Config] = []

    def finish() -> None:
        from alignet.pipeline.housekeeping import print_leftovers

        print_leftovers(configs, delete)

    main("status", __doc__ or "", configs.append, arguments, finish)


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["prune"]:
        prune([word for word in words[1:] if word != "remove"], "remove" in words[1:])
    else:
        show(words)
