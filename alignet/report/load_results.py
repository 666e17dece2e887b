"""From the artifacts of a run's evaluations to what builders of sections read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignet.report.dataset_results import ROWS, Gathered, Row, in_rows, row_of

if TYPE_CHECKING:
    from alignet.evaluate.result import Result
    from alignet.runtime.artifacts import Artifact


def gather(evaluated: Iterable[Artifact], names: Mapping[str, str]) -> list[Gathered]:
    """All results by data set, in the order in which the data sets come; rows in the table's order.

    evaluated: artifacts of the stage `evaluate`. names: model of dataset_results.ROWS -> how it is called instead; a
    model that is not named keeps its name.
    """
    from alignet.evaluate.result import read_result

    found: dict[str, tuple[str, Mapping[str, Any], dict[str, Result]]] = {}
    for artifact in evaluated:
        section = artifact.manifest["identity"]["section"]
        if row_of(section["setting"]) is None:
            raise ValueError(
                f"the page: expected a setting out of {', '.join(ROWS)}, found {section['setting']!r}; name it in "
                "alignet.report.dataset_results.ROWS"
            )
        entry = found.setdefault(section["dataset"], (section["family"], section["options"], {}))
        entry[2][section["setting"]] = read_result(artifact.folder)
    return [
        Gathered(dataset, family, options, _rows(results, names))
        for dataset, (family, options, results) in found.items()
    ]


def _rows(results: Mapping[str, Result], names: Mapping[str, str]) -> dict[Row, Result]:
    rows = {}
    for setting in in_rows(results):
        model, title = row_of(setting) or ("student", setting)
        rows[Row(names.get(model, model), title)] = results[setting]
    return rows


def merged(runs: Sequence[Sequence[Gathered]]) -> list[Gathered]:
    """Several runs' results by data set; a row that two runs share is the first one's.

    Their models must have been named apart, but for those that are the same in all runs. ValueError where one name
    is two families.
    """
    found: dict[str, Gathered] = {}
    for run in runs:
        for one in run:
            known = found.get(one.dataset)
            if known is not None and known.family != one.family:
                raise ValueError(
                    f"{one.dataset}: expected one family in all runs, found {known.family} and {one.family}; compare "
                    "runs that measure the same."
                )
            results = {**one.results, **(known.results if known else {})}
            order = [*(known.results if known else ()), *one.results]
            found[one.dataset] = Gathered(
                one.dataset, one.family, known.options if known else one.options,
                {row: results[row] for row in dict.fromkeys(order)},
            )  # fmt: skip
    return list(found.values())
