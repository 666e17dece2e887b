"""Turn a data set into files that every other stage reads, once: the pickle of Levels, people's importance maps.

reads   levels IN.pkl OUT.parquet|OUT.csv: the data set Levels, a dictionary participant -> list of trials
        maps IN... OUT_FOLDER [images=FOLDER] [key=NAME] [side=64]: ClickMe's or Clicktionary's TFRecords (files or
        folders), or maps as .npz, .png or .npy; images: where the images lie that are not beside their maps; key: which
        array; side: maps are averaged down to so many pixels each way, since a stage holds all of a set in memory
writes  levels: OUT, a row for each trial, which data.sets.<name> with kind trials takes. Another process reads the
        pickle, with bounded memory and time, and understands nothing but text, numbers, lists and dictionaries
        maps: OUT_FOLDER/maps-00000.tar and so on, WebDataset shards of 1,000 images with their maps and classes, which
        data.sets.<name> with kind shards and with kind maps takes. Run again, it goes on where it was stopped
cost    levels: seconds; maps: the time to read and write the images once
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


def _convert_maps(arguments: Sequence[str]) -> None:
    """The command line of `maps`: inputs and a folder, with images=, key= and side= among them, then overrides."""
    paths, given, rest = list[str](), dict[str, str](), list[str]()
    for one in arguments[1:]:
        name, equals, value = one.partition("=")
        if equals and name in ("images", "key", "side"):
            given[name] = value
        elif one.startswith("-") or (equals and not Path(one).exists()):
            rest.append(one)
        else:
            paths.append(one)

    def act(_: Config) -> None:
        from alignet.data.map_shards import convert_maps

        if len(paths) < 2:
            raise ValueError(
                "convert: expected `maps IN... OUT_FOLDER` (and images=FOLDER, key=NAME, side=PIXELS), found "
                f"{' '.join(['maps', *paths])!r}"
            )
        target = Path(paths[-1])
        if target.exists() and not target.is_dir():
            raise ValueError(f"{target}: expected a folder for the shards, found a file; name a folder last.")
        images = Path(given["images"]) if "images" in given else None
        side = given.get("side", "0")
        if not side.isdigit():
            raise ValueError(f"convert: expected side=PIXELS, a whole number, found {side!r}")
        made = convert_maps(
            [Path(one) for one in paths[:-1]], target, images=images, key=given.get("key", ""), side=int(side)
        )
        for line in made.said:
            print(line)
        if made.without_image:
            print(f"{made.without_image:,} maps have no image there: left out")
        kept = f", {made.kept:,} of them finished before" if made.kept else ""
        where = shlex.quote(str(target))
        print(
            f"{target}: {made.samples:,} images with importance maps in {made.shards:,} shards{kept}, "
            f"{made.bytes / 1e6:,.1f} MB\n"
            f"next: name the folder as both sets, data.sets.IMAGES with kind=shards path={where} and "
            f"data.sets.MAPS with kind=maps path={where}"
        )

    main("convert", __doc__ or "", act, rest, typed=arguments)


def act_on(arguments: Sequence[str]) -> None:
    """The command line: what to convert and two files come before overrides."""
    if arguments and arguments[0] == "maps":
        _convert_maps(arguments)
        return
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
