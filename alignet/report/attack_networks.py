"""The page of any networks under attack, outside of a run: what `stages.robustness` writes.

results of the family `attack` of each network -> Page: one table of all networks, figures (alignet.report.
attack_networks_figures), the tables of alignet.report.attack, tests between networks, and pictures.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report import attack as blocks_of
from alignet.report.attack_figures import BROKEN
from alignet.report.attack_networks_figures import figures
from alignet.report.attack_networks_given import Given
from alignet.report.attack_networks_tests import between_groups, between_networks, over_networks
from alignet.report.attack_published import published
from alignet.report.attack_values import Measure, measure
from alignet.report.blocks import Block, Cell, Section, Table, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.formatting import counted, score_cell, spread
from alignet.report.network_points import Network
from alignet.report.network_tables import details, first_rows, options_text, padded, score_of, shown
from alignet.report.page import Page
from alignet.report.sections import SECTIONS
from alignet.report.summary import Number, Summary

__all__ = ["Given", "counting", "page", "printed"]

FEW = 30  # images below which a page says so
PICTURED = 6  # networks whose attacked images are shown


def page(given: Given, networks: Mapping[str, Result], dataset: str) -> Page:
    """The page; networks: name -> result of the family `attack`, in the order of tables. dataset: name of the scores'
    data set."""
    rows: dict[Row, Result] = {Network(name): one for name, one in networks.items()}
    gathered = Gathered(dataset, "attack", given.options, rows)
    count = min(one.n for result in networks.values() if (one := score_of(result, "tolerance")) is not None)
    how = measure(networks)
    found: list[Block | None] = [
        Text(counting(given)), _resolutions(how), blocks_of.masking(gathered), _overview(given, networks, how),
        *figures(given, networks, how), blocks_of.tolerance(gathered), blocks_of.under_attack(gathered),
        blocks_of.alignment(gathered), blocks_of.against(gathered), over_networks(given, networks, how),
        between_groups(given, networks, how), between_networks(given, networks, how),
        blocks_of.pictures(first_rows(gathered, PICTURED)), published(),
    ]  # fmt: skip
    maps = f", people's maps `{given.maps}`" if given.maps else ""
    return Page(
        "Perturbation tolerance of networks",
        f"{counted(len(networks), 'network')}, {counted(given.count, 'image')} of `{given.images}`{maps}",
        f"attacks: {', '.join(given.methods)}; {_whose(given)}",
        f"Only {counted(count, 'image')} counted: with so few images the intervals are wide and the order of networks "
        "is uncertain."
        if count < FEW
        else "",
        _summary(given, networks, how),
        [
            Section("attack", SECTIONS["attack"], [block for block in found if block is not None]),
            Section("networks", "Networks", [_details(given)]),
        ],
    )  # fmt: skip


def counting(given: Given) -> str:
    """Which images were attacked, and which of them count, as sentences."""
    said = [_counting(given)]
    if given.total > given.count:
        said.insert(0, f"{given.count:,} of {given.total:,} images were drawn at random.")
    if len(given.attacked) > 1 and given.left_out:
        without = "; ".join(f"{name} by {', '.join(methods)}" for name, methods in given.left_out.items())
        said.append(f"Left out, since none of the images that count was attacked by that method: {without}.")
    return " ".join(said)


def _counting(given: Given) -> str:
    attacked = ", ".join(f"{name} {count:,}" for name, count in given.attacked.items())
    if given.any_answer:
        return f"All {counted(given.count, 'image')} were attacked, whatever a network answered at first."
    whose = (
        f"Each network was attacked on the images that it names right itself, of {given.count:,}: {attacked}."
    )
    if len(given.attacked) == 1:
        return whose
    if given.common is None:
        return f"{whose} Each network's numbers are of its own images."
    return (
        f"{whose} Numbers are of the {counted(given.common, 'image')} that all {len(given.attacked)} networks name "
        "right, so that networks compare on the same images; accuracy, and accuracy under attack, are of all images of "
        "known class."
    )


def _whose(given: Given) -> str:
    if given.any_answer:
        return "any answer counts as right"
    return "images named right by all" if given.common is not None else "images that each network names right"


def _resolutions(how: Measure) -> Text | None:
    if how.metric == "tolerance":
        return None
    return Text(
        "Networks see images at different resolutions. The same picture change at twice the resolution has twice the "
        "l2 norm but the same root mean square. The scatter plots, the bold number of the table of all networks, and "
        "the tests therefore use the root mean square change of a pixel value, in units of 1/255. Survival curves, "
        "success and accuracy at a norm, 8-bit and further attacks are in l2: compare these only between networks of "
        "one resolution."
    )


# ---- tables


def _overview(given: Given, networks: Mapping[str, Result], how: Measure) -> Table:
    """A row for each network."""
    eps = [float(value) for value in given.options["eps"]]
    title = how.norm_title
    known = any(score_of(result, "accuracy") is not None for result in networks.values())
    columns = [
        "", *(("accuracy, %",) if known else ()), title, "RMS, 1/255", f"8 bit, {title}", "unbroken, %",
        *(f"{value:g}" for value in eps), *(("rho", "centre bias", "against centre bias") if given.maps else ()),
    ]  # fmt: skip
    groups = [("", 1 + known), ("tolerance", 4), (f"attack success within {title} norm, %", len(eps))]
    groups += [("alignment", 3)] if given.maps else []
    best = max(
        (one.value for result in networks.values() if (one := score_of(result, how.metric)) is not None),
        default=None,
    )
    rows: list[list[Cell | str]] = []
    for name, result in networks.items():
        of = {
            metric: score_of(result, metric)
            for metric in (
                "accuracy", "tolerance", "tolerance_rms", "tolerance_8bit", "unbroken", "attack_alignment",
                "attack_centre_bias", "attack_over_centre",
            )
        }  # fmt: skip
        most = of[how.metric]
        marked = most is not None and most.value == best
        rows.append([
            name, *((_plain(of["accuracy"], 1, 100),) if known else ()),
            score_cell(of["tolerance"], best=marked and how.metric == "tolerance"),
            _plain(of["tolerance_rms"], 3, 255, best=marked and how.metric == "tolerance_rms"),
            _plain(of["tolerance_8bit"], 3, 1), _plain(of["unbroken"], 1, 100),
            *(spread(100 * _success(result, value), None, None, digits=1) for value in eps),
            *((score_cell(of["attack_alignment"]), _plain(of["attack_centre_bias"], 3, 1),
               _side(of["attack_over_centre"])) if given.maps else ()),
        ])  # fmt: skip
    caption = (
        f"{BROKEN} Tolerance: the {title} norm of the smallest perturbation found, mean over images, pixels in [0, 1]; "
        f"times 255 for pixels of 0 to 255. An unbroken image counts as {how.high:g}, the largest norm searched "
        f"(right-censored). RMS: root mean square change of a pixel value. {blocks_of.EIGHT_BIT} Success: share of "
        f"images with a perturbation of at most that {title} norm. "
    )
    if given.maps:
        caption += (
            "Rho: Spearman's correlation of the perturbation's magnitude with people's map. Against centre bias: "
            "whether the 95% interval of rho less the centre bias of the same images is above or below 0. "
        )
    return Table(
        "networks_attacked", "All networks", columns, rows,
        f"{caption}Bold: highest mean of the column {title if how.metric == 'tolerance' else 'RMS'}.", groups,
    )  # fmt: skip


def _plain(score: Score | None, digits: int, scale: float, *, best: bool = False) -> Cell:
    """A score times `scale` without its interval, which another table has."""
    return Cell("") if score is None else spread(scale * score.value, None, None, digits=digits, best=best)


def _success(result: Result, eps: float) -> float:
    """Share of the images that count which a perturbation of norm <= eps was found for."""
    table = result.tables["images"]
    tried, broken = (np.asarray(table[name], dtype=bool) for name in ("tried", "broken"))
    norms = np.asarray(table["norm"], dtype=np.float64)
    return float((broken & (norms <= eps))[tried].mean())


def _side(over: Score | None) -> str:
    """Whether a network is above the centre bias, by the interval of their difference."""
    if over is None or over.low is None or over.high is None:
        return "–"
    return "above" if over.low > 0 else "below" if over.high < 0 else "no difference shown"


def _details(given: Given) -> Table:
    methods = "; ".join(f"{name}: {options_text(settings)}" for name, settings in given.methods.items())
    return details(
        "What was attacked", given.details,
        f"Kind: vit where a network has attention blocks. Methods: {methods}. Options: {options_text(given.options)}.",
    )  # fmt: skip


def _summary(given: Given, networks: Mapping[str, Result], how: Measure) -> Summary:
    """The most tolerant and the most aligned network, and how many are above the centre bias."""
    numbers, sentences = [], [
        "How much must change for a network to answer otherwise, and is that where people look? Larger tolerance is "
        "better; alignment is Spearman's correlation of the smallest perturbation with people's importance map."
        if given.maps else
        "How much must change for a network to answer otherwise? Larger tolerance is better."
    ]  # fmt: skip
    for metric, label, scale, digits in (
        (how.metric, how.title, how.scale, 3), ("attack_alignment", "alignment, rho", 1, 2),
    ):  # fmt: skip
        found = {name: score for name in networks if (score := score_of(networks[name], metric)) is not None}
        if not found:
            continue
        name = max(found, key=lambda one: found[one].value)
        score = found[name]
        ends = (
            ""
            if score.low is None or score.high is None
            else f" [{scale * score.low:.{digits}f}, {scale * score.high:.{digits}f}]"
        )
        numbers.append(Number(label, f"{scale * score.value:.{digits}f}", f"{name}{ends}, highest"))
    over = {
        name: one for name in networks if (one := score_of(networks[name], "attack_over_centre")) is not None
    }
    if over:
        above = [name for name, one in over.items() if one.low is not None and one.low > 0]
        sentences.append(
            f"Above the centre bias, with an interval that does not reach 0: {len(above)} of {len(over)} networks."
        )
    masked = [
        name for name in networks if (one := score_of(networks[name], "masked")) is not None and one.value > 0
    ]
    if masked:
        sentences.append(
            f"Signs of gradient masking in {len(masked)} of {len(networks)} networks: see below."
        )
    return Summary(sentences, numbers, ())


# ---- as text


_PRINTED = {  # metric -> title of its column, scale, digits
    "accuracy": ("accuracy, %", 100, 0), "tolerance": ("{norm}", 1, 3), "tolerance_rms": ("RMS, 1/255", 255, 3),
    "tolerance_8bit": ("8 bit, {norm}", 1, 3), "unbroken": ("unbroken, %", 100, 0), "attack_alignment": ("rho", 1, 2),
    "attack_centre_bias": ("centre bias", 1, 2), "masked": ("masked, %", 100, 0),
}  # fmt: skip


def printed(given: Given, networks: Mapping[str, Result]) -> str:
    """A row for each network, for a terminal."""
    there = {score.metric for result in networks.values() for score in result.scores}
    columns = {metric: one for metric, one in _PRINTED.items() if metric in there}
    norm = measure(networks).norm_title
    rows = [["", *(title.format(norm=norm) for title, _, _ in columns.values())]]
    for name, result in networks.items():
        cells = [shown(score_of(result, one), scale, digits) for one, (_, scale, digits) in columns.items()]
        rows.append([name, *cells])
    return padded(rows)
