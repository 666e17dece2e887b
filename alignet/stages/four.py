"""Compare networks by the measures of four systems on one page (docs/four.md).

    images=FOLDER model=timm:NAME,timm:NAME=FILE.safetensors,FOLDER [maps=MAPS.npz] [key=NAME] [names=A,B,C]
    [labels=TABLE.csv] [column=class] [logit=label|top1] [arrows=FROM>TO,FROM>TO] [common=true|false]
    [methods=free,human] [distances=pixels] [against=DISTANCE] [count=8] [skip=where,robustness,invariances]
    [photographs=true|false] [output=FOLDER] [device=cpu] [batch=32] [threads=2]

reads   images, two networks or more; a table with the images' classes, people's importance maps of the images
writes  output: four.html (one page, which works offline), four.csv and four.json (all measures with intervals),
        tables/, figures/; and the folders where/, robustness/ and invariances/ with what these commands write, a page
        in each
cost    that of `where`, `robustness` and `invariances` together. What is finished is not made again
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignet.pipeline import cli
from alignet.stages._four_given import (
    COMMANDS,
    Plan,
    check_inversions,
    options_of,
    peel,
    plan,
    several,
    without,
    words,
)
from alignet.stages._networks_given import Listed, loaded
from alignet.stages._robustness_given import NotMeasured, key_of

if TYPE_CHECKING:
    from alignet.config import Config
    from alignet.evaluate.result import Result
    from alignet.report.dataset_results import Gathered, Row
    from alignet.report.four_networks import Compared

PAGE, TABLE, SCORES, LOCK = "four.html", "four.csv", "four.json", "four.lock"
COLUMNS = ("model", "system", "measure", "dataset", "value", "low", "high", "n", "unit", "note")
FAMILIES = {
    "where": "where",
    "robustness": "attack",
    "invariances": "invariance",
}  # command -> family of its scores


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    typed = list(sys.argv[1:] if argv is None else argv)
    own, rest = peel(typed)
    cli.main("four", __doc__ or "", lambda config: four(own, config), rest, typed=typed)


def four(own: dict[str, str], config: Config) -> None:
    """Run the commands, write the page, and say what was made and where."""
    from alignet.pipeline.torch_setup import set_up
    from alignet.report.four_networks import compared, page
    from alignet.runtime.artifacts import locked
    from alignet.stages._networks_given import arrows_of, images_of, labels_of
    from alignet.stages._networks_page import check_output, publish, without_folders

    started = time.monotonic()
    options = options_of(own)
    cli.check_one_process(
        config, "four", "start it without a launcher, or start where, robustness and invariances apart"
    )
    networks = several(options)
    check_inversions(options, networks, config)
    arrows = arrows_of(options["arrows"], networks)
    source = images_of(options["images"], options["maps"], config)
    labels = labels_of(options["labels"], source.ids, config.attack.column)
    output = Path(options["output"])
    check_output(output, LOCK)
    set_up(config.runtime)
    planned = plan(options, networks, labels, _classifying(networks, config), config)
    if "robustness" in planned.networks:
        key_of(options, source.ids)
    with locked(output / LOCK):
        for place, (command, those) in enumerate(list(planned.networks.items()), 1):
            names = ", ".join(one.name for one in those)
            print(f"{place} of {len(planned.networks)}: {command} of {names}", flush=True)
            planned = _measured(command, options, planned, networks, config)
        result = compared(
            _gathered(output, planned), arrows, planned.missing,
            images=Path(options["images"]).absolute().name, maps=Path(options["maps"]).name if options["maps"] else "",
            count=len(source.ids), inverted=_inverted(output, planned),
            networks={one.name: without_folders(one) for one in networks},
            pages={command: f"{command}/{command}.html" for command in planned.networks},
        )  # fmt: skip
        publish(output, PAGE, page(result))
        _write_scores(output, result)
    _tell(output, result, time.monotonic() - started)


def _measured(
    command: str, options: dict[str, str], planned: Plan, networks: Sequence[Listed], config: Config
) -> Plan:
    """Run a command. The plan without what these images do not allow, which is named with the reason."""
    while command in planned.networks:
        given = options if planned.maps else options | {"maps": "", "key": ""}
        try:
            _commands()[command](words(command, given, planned.networks[command], networks), config)
            break
        except NotMeasured as error:
            planned = without(planned, command, error)
    return planned


def _commands() -> dict[str, Callable[[dict[str, str], Config], None]]:
    from alignet.stages.invariances import invariances
    from alignet.stages.robustness import robustness
    from alignet.stages.where import where

    return {"where": where, "robustness": robustness, "invariances": invariances}


def _classifying(networks: Sequence[Listed], config: Config) -> list[str]:
    """Names of the networks that have a classifier; ValueError for one that cannot be loaded."""
    from alignet.backbones.gradients import has_classifier

    device = config.runtime.device
    return [one.name for one in networks if has_classifier(loaded(one, f"model {one.name}", device))]


def _inverted(output: Path, planned: Plan) -> int:
    """How many images were inverted; 0 where none were to be."""
    import json

    if "invariances" not in planned.networks:
        return 0
    path = output / "invariances" / "invariances.json"
    return int(json.loads(path.read_text(encoding="utf-8"))["count"])


def _gathered(output: Path, planned: Plan) -> list[Gathered]:
    """What each command's networks came to, from the files that it wrote."""
    import json

    from alignet.evaluate.result import read_result
    from alignet.report.dataset_results import Gathered
    from alignet.report.network_points import Network

    found = []
    for command, those in planned.networks.items():
        folder = output / command
        options = json.loads((folder / f"{command}.json").read_text(encoding="utf-8"))["options"]
        results: dict[Row, Result] = {
            Network(one.name): read_result(folder / one.folder / "scores") for one in those
        }
        dataset = next((score.dataset for result in results.values() for score in result.scores), command)
        found.append(Gathered(dataset, FAMILIES[command], options, results))
    return found


# ---- what is written and said


def _write_scores(output: Path, result: Compared) -> None:
    """four.csv, a row for each network and measure, and four.json."""
    from alignet.runtime.artifacts import write_json
    from alignet.stages._networks_page import write_csv

    rows: list[dict[str, Any]] = [
        {"model": row.title, "system": column.measure.system, "measure": column.measure.key, "dataset": column.dataset,
         "value": one.value, "low": one.low, "high": one.high, "n": one.n, "unit": one.unit, "note": one.note}
        for row in result.board.rows for column in result.board.columns if (one := column.scores.get(row)) is not None
    ]  # fmt: skip
    write_csv(output / TABLE, COLUMNS, rows)
    write_json(
        output / SCORES,
        {
            "images": result.images, "maps": result.maps, "count": result.count, "models": dict(result.networks),
            "arrows": [list(pair) for pair in result.arrows], "missing": dict(result.missing),
            "sentences": list(result.told.sentences), "scores": rows,
            "correlations": [
                {"first": one.first.measure.key, "second": one.second.measure.key, "n": one.n, "rho": one.rho,
                 "low": one.low, "high": one.high, "p": one.p, "exact": one.exact, "adjusted": one.adjusted}
                for one in result.told.pairs
            ],
        },
    )  # fmt: skip


def _tell(output: Path, result: Compared, seconds: float) -> None:
    from alignet.report.formatting import counted

    for text in result.told.sentences:
        print(text)
    for what, why in result.missing.items():
        print(f"not measured: {what} ({why})")
    page = shlex.quote(str(output / PAGE))
    print(
        f"{counted(len(result.board.rows), 'network')} x {counted(len(result.board.columns), 'measure')} -> {output} "
        f"({PAGE}, {TABLE}, {SCORES}; {', '.join(f'{name}/' for name in COMMANDS if name in result.pages)}), "
        f"{seconds:,.0f} s\n"
        f"next: open {page} in a browser; the same command with more networks in model= keeps what is made"
    )


if __name__ == "__main__":
    main()
