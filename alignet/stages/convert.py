"""Turn a data set that is distributed as a pickle into a table, once; a pickle is never opened in this process.

reads   levels IN.pkl OUT.parquet|OUT.csv: the data set Levels, a dictionary participant -> list of trials
writes  OUT, a row for each trial, which data.sets.<name> with kind trials takes. Another process reads the pickle, with
        bounded memory and time, and understands nothing but text, numbers, lists and dictionaries
cost    seconds
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignet.pipeline.cli import main

if TYPE_CHECKING:
    from alignet.config import Config


def prepared(target: Path) -> Path:
    """Where the table is to be, its folder made; ValueError where a folder is in its place or none can be made."""
    if target.is_dir():
        raise ValueError(f"{target}: expected the name of a file, found a folder; add /levels.parquet to it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{target}: expected a folder {target.parent}, which could not be made ({error.strerror}); name another "
            "place."
        ) from None
    return target


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
        source, target = Path(words[1]), prepared(Path(words[2]))
        try:
            found = convert_levels(source, target)
        except OSError as error:
            raise ValueError(
                f"{target}: expected to write a table there, which failed ({error.strerror}); name another place."
            ) from None
        finally:
            target.with_name(f"{target.name}.tmp").unlink(missing_ok=True)
        if found["emptied"]:
            print(f"{found['emptied']:,} values of further fields are neither text nor number: left empty")
        print(
            f"{target}: {found['trials']:,} trials of {found['participants']:,} participants, "
            f"{found['columns']} columns\n"
            f"next, with your experiment's options: python -m alignet.stages.pipeline +also=levels "
            f"{shlex.quote(f'data.sets.levels_trials.path={target}')} "
            "data.sets.levels_images.path=FOLDER_OF_THE_IMAGES"
        )

    main("convert", __doc__ or "", act, list(arguments[count:]), typed=arguments)


if __name__ == "__main__":
    act_on(sys.argv[1:])
