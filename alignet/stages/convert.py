"""Turn a data set that is distributed as a pickle into a table, once; a pickle is never opened in this process.

reads   levels IN.pkl OUT.parquet|OUT.csv: the data set Levels, a dictionary participant -> list of trials
writes  OUT, a row for each trial, which data.sets.<name> with kind trials takes. Another process reads the pickle, with
        bounded memory and time, and understands nothing but text, numbers, lists and dictionaries
cost    seconds
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignet.cli import main

if TYPE_CHECKING:
    from alignet.config import Config


def act_on(arguments: Sequence[str]) -> None:
    """The command line: what to convert and two files come before overrides."""
    count = 0
    while count < min(3, len(arguments)) and not arguments[count].startswith("-"):
        count += 1
    words = list(arguments[:count])

    def act(_: Config) -> None:
        from alignet.data.pickled import convert_levels

        if len(words) < 3 or words[0] != "levels":
            raise ValueError(
                f"convert: expected `levels IN.pkl OUT.parquet` (or OUT.csv), found {' '.join(words) or 'nothing'!r}"
            )
        source, target = Path(words[1]), Path(words[2])
        found = convert_levels(source, target)
        print(
            f"{target}: {found['trials']:,} trials of {found['participants']:,} participants, "
            f"{found['columns']} columns\n"
            f"next: name it as a set of kind trials, data.sets.levels.path={target}"
        )

    main("convert", __doc__ or "", act, list(arguments[count:]), typed=arguments)


if __name__ == "__main__":
    act_on(sys.argv[1:])
