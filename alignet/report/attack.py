"""The page's blocks on attacks: how much must change for an answer to turn, and whether that is where people look.

From the scores and tables of the family `attack`; figures in report.attack_figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.report.attack_figures import BROKEN, comparable, figures, norm_title, resolutions, unit_title
from alignet.report.attack_published import published
from alignet.report.attack_values import MAIN, alignments, nodes_of, tolerances
from alignet.report.blocks import Block, Cell, Pictures, Table, Text
from alignet.report.dataset_results import Gathered
from alignet.report.files import slug
from alignet.report.formatting import (
    best_of,
    counted,
    grouped_notes,
    moved,
    score_cell,
)
from alignet.report.network_tables import against_original

SHOWN = 3  # images whose attacks are shown, those that most rows have
EIGHT_BIT = (
    "For 8 bit the same perturbation is made longer until the image rounded to levels of 1/255 is answered otherwise. "
    "No new direction is searched, so this is an upper bound."
)
_ALIGNED = {  # metric -> title of its column
    "attack_alignment": "Spearman's rho", "attack_alignment_mean": "by the channel mean",
    "attack_alignment_max": "by the channel maximum", "attack_centre_bias": "centre bias (control)",
    "attack_over_centre": "above the centre bias",
}  # fmt: skip


def attack(every: Sequence[Gathered]) -> list[Block]:
    """Of each data set signs of masking, tables, figures, tests and pictures; then published values."""
    blocks: list[Block] = []
    for one in every:
        if not one.scores("tolerance"):
            continue
        for made in (
            masking(one), tolerance(one), under_attack(one), alignment(one), *figures(one), against(one), tests(one),
            pictures(one),
        ):  # fmt: skip
            blocks += [made] if made is not None else []
    return [*blocks, published()] if blocks else []


def masking(gathered: Gathered) -> Text | None:
    """A sentence on rows whose gradients may mislead; None where there is no sign of it."""
    found = []
    for row, table in gathered.tables("attacks").items():
        for name, node in nodes_of(table).items():
            if node["masked"]:
                kinds = (
                    f"{node['blind']:,} also turned by a step without gradients, {node['no_gradient']:,} without a "
                    "gradient in some step"
                )
                attacked = "" if name == MAIN else f" by {name}"
                found.append(
                    f"{row.title}{attacked}: {node['masked']:,} of {counted(node['tried'], 'image')} ({kinds})"
                )
    if not found:
        return None
    return Text(
        f"Signs of gradient masking in {gathered.dataset}: {'; '.join(found)}. The step goes towards grey or in a "
        "random direction; it is as long as the perturbation found, or, where none was found, as the largest norm "
        "searched. The tolerance of these images may be too high."
    )


def tolerance(gathered: Gathered) -> Table:
    """How large the smallest perturbations are, in every unit."""
    scores = gathered.scores("tolerance")
    attacks = {row: nodes_of(table) for row, table in gathered.tables("attacks").items()}
    others = [
        name for name in dict.fromkeys(name for nodes in attacks.values() for name in nodes) if name != MAIN
    ]
    titles = {name: norm_title(gathered, name) for name in (MAIN, *others)}
    header = ["", "attacked", "unbroken, %", f"tolerance, {titles[MAIN]}", "median", "RMS pixel change, 1/255",
              "tolerance in 8 bit", *(f"{name}: tolerance, {titles[name]}" for name in others)]  # fmt: skip
    of = {
        metric: gathered.scores(metric)
        for metric in ("tolerance_median", "tolerance_rms", "tolerance_8bit", "unbroken")
    }
    sizes = resolutions(gathered)
    by_rms = comparable(gathered)[0] == "tolerance_rms"
    best = best_of((of["tolerance_rms"] if by_rms else scores).values())
    rows: list[list[Cell | str]] = []
    for row, score in scores.items():
        main = attacks[row][MAIN]
        middle, change = (of[metric].get(row) for metric in ("tolerance_median", "tolerance_rms"))
        rows.append([
            row.title, Cell(f"{main['tried']:,} of {main['images']:,}", main["tried"]),
            score_cell(of["unbroken"].get(row), digits=1, scale=100),
            score_cell(score, best=not by_rms and score.value == best),
            score_cell(middle) if middle is not None else f"above {main['high']:g}",
            score_cell(change, digits=2, scale=255, best=by_rms and change is not None and change.value == best),
            score_cell(of["tolerance_8bit"].get(row)),
            *(score_cell(gathered.scores(f"{name}_tolerance").get(row), digits=4) for name in others),
        ])  # fmt: skip
    first = next(iter(attacks.values()))[MAIN]
    attacked = (
        "all images, whatever the network answered at first"
        if any(_attacked_wrong(table) for table in gathered.tables("images").values())
        else "the images answered right at first"
    )
    column = "RMS pixel change" if by_rms else "tolerance"
    at = " or ".join(f"{height} x {width}" for height, width in sizes)
    caption = (
        f"The {titles[MAIN]} norm of the smallest perturbation found that changes the answer, mean over the images "
        f"that were attacked, with 95% intervals over images; pixels in [0, 1] at {at}, times 255 for pixels of 0 to "
        f"255. Attacked are {attacked}. {BROKEN} An image unbroken at {first['high']:g} counts as {first['high']:g} "
        "(right-censored): with such images the mean is a lower bound of the mean norm that this attack needs. RMS "
        f"pixel change: root mean square over pixels and channels. {EIGHT_BIT} {moved(scores)} Bold: highest mean of "
        f"the column {column}."
    )
    return Table(
        slug(f"{gathered.dataset} tolerance"), f"Perturbation tolerance: {gathered.dataset}", header, rows,
        caption.replace("  ", " "),
    )  # fmt: skip


def under_attack(gathered: Gathered) -> Table | None:
    """Accuracy under perturbations of given norms; None where the data set names none."""
    norms = sorted(
        {
            float(score.metric.removeprefix("robust_")) for result in gathered.results.values()
            for score in result.scores if score.metric.startswith("robust_")
        }
    )  # fmt: skip
    if not norms:
        return None
    title = norm_title(gathered, MAIN)
    found = {eps: gathered.scores(f"robust_{eps:g}") for eps in norms}
    accuracy = gathered.scores("accuracy")
    columns = ([(accuracy, "accuracy, %")] if accuracy else []) + [
        (found[eps], f"at {title} norm {eps:g}, %") for eps in norms
    ]
    best = [best_of(scores.values()) for scores, _ in columns]
    rows: list[list[Cell | str]] = []
    for row in gathered.scores("tolerance"):
        cells = [
            score_cell(
                score := scores.get(row),
                digits=1,
                scale=100,
                best=score is not None and score.value == highest,
            )
            for (scores, _), highest in zip(columns, best, strict=True)
        ]
        rows.append([row.title, *cells])
    what = (
        "Share of images that are answered right and stay so"
        if accuracy
        else "No class is known: share of images whose answer stays"
    )
    return Table(
        slug(f"{gathered.dataset} under attack"), f"Accuracy under attack: {gathered.dataset}",
        ["", *(name for _, name in columns)], rows,
        f"{what} under every perturbation of that norm that was found; 95% intervals over images. An attack can miss "
        "a perturbation that exists, so these are upper bounds. Bold: highest of each column.",
    )  # fmt: skip


def alignment(gathered: Gathered) -> Table | None:
    """Whether perturbations fall where people look; None without maps."""
    scores = gathered.scores("attack_alignment")
    if not scores:
        return None
    found = {metric: gathered.scores(metric) for metric in _ALIGNED}
    others = {
        score.metric: f"{score.metric.removesuffix('_alignment')}: Spearman's rho"
        for result in gathered.results.values() for score in result.scores
        if score.metric.endswith("_alignment") and score.metric != "attack_alignment"
    }  # fmt: skip
    found |= {metric: gathered.scores(metric) for metric in others}
    titles = {metric: title for metric, title in (_ALIGNED | others).items() if found[metric]}
    best = best_of(scores.values())
    rows: list[list[Cell | str]] = []
    for row, score in scores.items():
        cells: list[Cell | str] = [row.title, Cell(f"{score.n:,}", score.n)]
        cells += [
            score_cell(found[metric].get(row), best=metric == "attack_alignment" and score.value == best)
            for metric in titles
        ]
        rows.append(cells)
    over = found["attack_over_centre"]
    above = [row for row, score in over.items() if (score.low or 0) > 0]
    said = (
        f" Above the centre bias with an interval above 0: {len(above)} of {counted(len(over), 'row')}."
        if over
        else ""
    )
    caption = (
        "Spearman's correlation of the magnitude of the perturbation with people's importance map, mean over the "
        "images that were broken, with 95% intervals over images. Centre bias: Spearman's correlation of an image's "
        f"map with the mean map of all other images, over the same broken images.{said} {moved(scores)} Bold: highest "
        "mean of the column Spearman's rho, unless its interval reaches 0."
    )
    return Table(
        slug(f"{gathered.dataset} attack alignment"), f"Do perturbations fall where people look? {gathered.dataset}",
        ["", "images", *titles.values()], rows, caption.replace("  ", " "),
        notes=grouped_notes({row: _said(score) for row, score in scores.items()}, len(scores)),
    )  # fmt: skip


def _said(score: Score) -> str:
    """The note without how many images were broken, which is a column."""
    return "; ".join(text for text in score.note.split("; ") if not text.endswith("broken images"))


def against(gathered: Gathered) -> Table | None:
    """How other attacks rank the images; None without other attacks."""
    names = list(dict.fromkeys(
        score.metric.removesuffix("_against").removesuffix("_alignment") for result in gathered.results.values()
        for score in result.scores if score.metric.endswith("_against")
    ))  # fmt: skip
    if not names:
        return None
    columns = {
        f"{name}{part}_against": f"{name}: {title}"
        for name in names for part, title in (("", "norms"), ("_alignment", "alignment"))
    }  # fmt: skip
    found = {metric: scores for metric in columns if (scores := gathered.scores(metric))}
    rows: list[list[Cell | str]] = []
    for row in gathered.scores("tolerance"):
        values = [found[metric].get(row) for metric in found]
        counts = sorted({score.n for score in values if score is not None})
        cells = [Cell("–".join(f"{n:,}" for n in counts), counts[0] if counts else None)]
        rows.append([row.title, *cells, *(score_cell(score, digits=2) for score in values)])
    return Table(
        slug(f"{gathered.dataset} attacks"), f"Do other attacks agree? {gathered.dataset}",
        ["", "images", *(columns[metric] for metric in found)], rows,
        "Spearman's rank correlation over images between the first attack and another one, of the images that both "
        "broke: of the norms they needed, and of each image's alignment with people's map; 95% intervals over images.",
    )  # fmt: skip


def tests(gathered: Gathered) -> Table | None:
    """Each row beside its model's original on the same images; None without such a pair."""
    results = {
        row: one for row, one in gathered.results.items() if {"images", "attacks"} <= one.tables.keys()
    }
    highest = min((nodes_of(one.tables["attacks"])[MAIN]["high"] for one in results.values()), default=0.0)
    measures = {
        f"tolerance ({unit_title(gathered)})": tolerances(results),
        "alignment": alignments(results, str(gathered.options.get("reduction", "mean"))),
    }
    return against_original(
        results, measures, slug(f"{gathered.dataset} attack tests"), gathered.dataset,
        "The change from the original on the same images: of tolerance over the images that both were attacked on, an "
        f"unbroken one counted as {highest:g}; of alignment over those broken in both",
    )  # fmt: skip


tests.__test__ = False  # type: ignore[attr-defined]  # no test of ours, whatever its name begins with


def _attacked_wrong(table: Mapping[str, Any]) -> bool:
    """Whether an image was attacked that the network did not answer right, or whose class is unknown."""
    tried, top1, label = (np.asarray(table[name]) for name in ("tried", "top1", "label"))
    return bool((tried.astype(bool) & (top1 != label)).any())


def pictures(gathered: Gathered) -> Pictures | None:
    """Images as every row was attacked on them: where, how, and what it saw then; None where none is shown."""
    tables = gathered.tables("pictures")
    places = {
        row: {str(name): place for place, name in enumerate(table["id"])} for row, table in tables.items()
    }
    names = list(dict.fromkeys(name for found in places.values() for name in found))
    names.sort(key=lambda name: -sum(name in found for found in places.values()))  # stable
    rows: list[tuple[str, list[tuple[bytes, str]]]] = []
    for name in names[:SHOWN]:
        having = [(row, _picture(tables[row], found[name])) for row, found in places.items() if name in found]
        _, first = having[0]
        where = [
            (first[what], line) for what, line in (("image", "image"), ("human", "people")) if first[what]
        ]
        where += [(one["magnitude"], f"{row.title}{_rho(one['spearman'])}") for row, one in having]
        how = [(one["perturbation"], f"{row.title}, x{one['scale']:g}") for row, one in having]
        seen = [
            (one["attacked"], f"{row.title}, norm {one['norm']:.3g}")
            for row, one in having
            if one["attacked"]
        ]
        rows += [
            (f"`{name}`: where it was changed", where),
            (f"`{name}`: the perturbation", how),
            *([(f"`{name}`: attacked", seen)] if seen else []),
        ]
    if not rows:
        return None
    return Pictures(
        slug(f"{gathered.dataset} attacked"), f"Attacked images: {gathered.dataset}", rows,
        f"{counted(min(SHOWN, len(names)), 'image')}, drawn at random from the broken ones; those that most rows share "
        "come first. Where: the magnitude of the perturbation with its Spearman correlation with people's map, black "
        "at the 1st percentile, white at the 99th. The perturbation: grey is no change; contrast is multiplied by the "
        "factor below each. Pictures are shrunk and compressed: they need not turn an answer.",
    )  # fmt: skip


def _picture(table: Mapping[str, Any], place: int) -> dict[str, Any]:
    """A row of the table `pictures`."""
    return {name: values[place] for name, values in table.items()}


def _rho(value: float) -> str:
    return f", rho {value:.2f}" if np.isfinite(value) else ""
