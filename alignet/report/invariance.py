"""The page's blocks on identically represented inputs: do inverted images match, and do they look like their target?

From the scores and tables of the family `invariance`; figures in report.invariance_figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.report.blocks import Block, Cell, Pictures, Table, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import (
    BOLD,
    best_of,
    counted,
    grouped_notes,
    moved,
    score_cell,
)
from alignet.report.invariance_figures import figures, methods_of, optimised_of, task_distances
from alignet.report.invariance_published import published
from alignet.report.network_tables import against_original

SHOWN = 3  # targets whose inversions are shown
TASKS = {"two": "2AFC", "match": "clustering, all triples", "match_hard": "clustering, similar triples"}
PEOPLE = {"two": "2AFC", "match": "clustering"}  # tasks of people
OPTIMISED = "optimised: "  # before the value of a distance that was

Key = TypeVar("Key")  # a row, or the name of a network


def invariance(every: Sequence[Gathered]) -> list[Block]:
    """Of each data set whether inverted images match, tables, figures, tests and pictures; then published values."""
    blocks: list[Block] = []
    for one in every:
        if not one.tables("methods"):
            continue
        for made in (
            unmatched(one), matching(one), alike(one, "two"), alike(one, "match"), people(one), *figures(one),
            tests(one), pictures(one),
        ):  # fmt: skip
            blocks += [made] if made is not None else []
    return [*blocks, *published()] if blocks else []


def unmatched(gathered: Gathered) -> Text | None:
    """A sentence on rows whose inverted images are not all represented alike; None where all are."""
    found = []
    for row, table in gathered.tables("methods").items():
        counts = [[int(one) for one in table[what]] for what in ("images", "draws", "matched")]
        for name, images, draws, count in zip(table["name"], *counts, strict=True):
            total = images * draws
            if count < total:
                found.append(f"{row.title}{f' by {name}' if name else ''}: {count:,} of {total:,}")
    if not found:
        return None
    most = float(gathered.options["matched"])
    return Text(
        f"Not all inverted images of {gathered.dataset} are represented as their targets are, with a relative error of "
        f"at most {most:g}. Matched: {'; '.join(found)}. Scores are over all of them; what they come to over the "
        "matched ones alone stands in a column of its own. An image that does not match says little about invariance."
    )


def matching(gathered: Gathered) -> Table:
    """How well inverted images match in the representation, in float and in 8 bit."""
    rows: list[list[Cell | str]] = []
    for row, name, prefix, place, table in _lines(gathered):
        of = {
            metric: gathered.scores(f"{prefix}{metric}").get(row)
            for metric in ("error", "matched", "error8", "matched8")
        }
        n, k = int(table["images"][place]), int(table["draws"][place])
        rows.append([
            row.title, name, Cell(f"{n:,} x {k}", n * k), score_cell(of["error"], digits=4),
            score_cell(of["matched"], digits=1, scale=100), score_cell(of["error8"], digits=4),
            score_cell(of["matched8"], digits=1, scale=100),
        ])  # fmt: skip
    most = float(gathered.options["matched"])
    layers = sorted(
        {
            str(layer) or "penultimate"
            for table in gathered.tables("methods").values()
            for layer in table["layer"]
        }
    )
    return Table(
        slug(f"{gathered.dataset} represented alike"), f"Are inverted images represented alike? {gathered.dataset}",
        ["", "method", "targets x starts", "relative error, median", f"matched (at most {most:g}), %",
         "error in 8 bit, median", "matched in 8 bit, %"], rows,
        f"Relative error: l2 distance of the representation (layer: {', '.join(layers)}) of the stored image from that "
        "of its target, divided by the length of the target's. It is computed again from what is stored, in float and "
        "rounded to levels of 1/255. 95% intervals over images.",
    )  # fmt: skip


def alike(gathered: Gathered, task: str) -> Table | None:
    """Whether inverted images look like their targets, by each distance and by people; None without such scores."""
    tasks = [task, "match_hard"] if task == "match" else [task]
    tasks = [one for one in tasks if any(task_distances(gathered, one).values())]
    if not tasks:
        return None
    names = list(dict.fromkeys(name for found in task_distances(gathered, task).values() for name in found))
    asked = bool(gathered.scores(f"{task}_people"))
    lines = list(_lines(gathered))
    alone = any(row in gathered.scores(f"{prefix}{task}_matched") for row, _, prefix, _, _ in lines)
    best = {one: best_of(gathered.scores(one).values()) for one in tasks}
    header, groups = ["", "method"], [("", 2)]
    for one in tasks:
        own = ["mean", *names, *(["mean, matched alone"] if alone and one == task else []),
               *(["people"] if asked and one == task else [])]  # fmt: skip
        header, groups = [*header, *own], [*groups, (f"{TASKS[one]}, %", len(own))]
    rows: list[list[Cell | str]] = []
    notes: dict[Row, str] = {}
    for row, name, prefix, _, _ in lines:
        optimised = optimised_of(gathered, row, prefix)
        cells: list[Cell | str] = []
        for one in tasks:
            score = gathered.scores(f"{prefix}{one}").get(row)
            marked = not prefix and score is not None and score.value == best[one]
            cells.append(score_cell(score, digits=1, scale=100, best=marked))
            cells += [
                _of_distance(gathered.scores(f"{prefix}{one}_{distance}").get(row), distance in optimised)
                for distance in names
            ]
            if alone and one == task:
                cells.append(
                    score_cell(gathered.scores(f"{prefix}{one}_matched").get(row), digits=1, scale=100)
                )
            if asked and one == task:
                there = gathered.scores(f"{task}_people").get(row) if not prefix else None
                cells.append(score_cell(there, digits=1, scale=100))
            if score is not None and not prefix:
                notes[row] = "; ".join(text for text in (notes.get(row, ""), _said(score)) if text)
        rows.append([row.title, name, *cells])
    changed = moved(gathered.scores(task), digits=1, scale=100)
    caption = f"{_caption(task, tasks)} {_left_out(gathered)} {changed} {BOLD}"
    titles = {"two": "Nearer to the target or to the start?", "match": "Which target is it?"}
    return Table(
        slug(f"{gathered.dataset} inverted {task}"), f"{titles[task]} {gathered.dataset}", header, rows,
        " ".join(caption.split()), groups, notes=grouped_notes(notes, len(gathered.tables("methods"))),
    )  # fmt: skip


def _of_distance(score: Score | None, optimised: bool) -> Cell:
    cell = score_cell(score, digits=1, scale=100)
    return (
        Cell(f"{OPTIMISED}{cell.text}", cell.value, cell.low, cell.high) if optimised and cell.text else cell
    )


def _caption(task: str, tasks: Sequence[str]) -> str:
    if task == "two":
        return (
            "Two-alternative forced choice: share of inverted images that are nearer to their target than to the start "
            "they were made from, by each perceptual distance; strictly nearer. 100%: what the network keeps is what "
            "the distance sees; 0%: nothing of the target is left to see; 50% by guessing. 95% intervals over images."
        )
    hard = (
        " Similar triples: an image and the two that people find most similar to it."
        if len(tasks) > 1
        else ""
    )
    return (
        "Clustering: share of inverted images that are nearest to their own target among three targets, by each "
        f"perceptual distance; of j equally near ones 1/j counts; 33.3% by guessing. All triples of targets "
        f"count.{hard} 95% intervals over images."
    )


def _left_out(gathered: Gathered) -> str:
    """What the mean leaves out, where a distance was optimised."""
    found = sorted({
        name for row, _, prefix, _, _ in _lines(gathered) for name in optimised_of(gathered, row, prefix)
    })  # fmt: skip
    if not found:
        return "Mean: over all distances shown."
    return (
        f"Mean: over the distances that were not optimised. An adversarial method moved images away from their target "
        f"by {', '.join(found)}; this value is marked and left out of its mean."
    )


def _said(score: Score) -> str:
    """What a mean's note adds to the caption."""
    return "; ".join(
        text
        for text in score.note.split("; ")
        if text.endswith("judgments") or re.match(r"[\d,]+ triples", text)
    )


def _lines(gathered: Gathered) -> list[tuple[Row, str, str, int, Mapping[str, Any]]]:
    """(row, method as text, what stands before its scores, its place, table `methods`) of all rows and methods."""
    return [
        (row, title, prefix, place, table)
        for row, table in gathered.tables("methods").items()
        for place, (prefix, title) in enumerate(methods_of(table).items())
    ]


def people(gathered: Gathered) -> Table | None:
    """What people answered, and how often each distance chooses as they do; None without people."""
    lines: list[list[Cell | str]] = []
    for task, title in PEOPLE.items():
        names = list(
            dict.fromkeys(name for found in task_distances(gathered, task).values() for name in found)
        )
        for row, score in gathered.scores(f"{task}_people").items():
            for name in names:
                same, rho = (gathered.scores(f"{task}_{what}_{name}").get(row) for what in ("agree", "rho"))
                own = gathered.scores(f"{task}_{name}").get(row)
                lines.append([
                    row.title, title, Cell(f"{score.n:,}", score.n),
                    score_cell(score, digits=1, scale=100), name, score_cell(own, digits=1, scale=100),
                    score_cell(same, digits=1, scale=100), score_cell(rho, digits=2),
                ])  # fmt: skip
    if not lines:
        return None
    notes = [
        f"{title}: {note}"
        for task, title in PEOPLE.items() if (scores := gathered.scores(f"{task}_people"))
        for note in grouped_notes({row: score.note for row, score in scores.items()}, len(scores))
    ]  # fmt: skip
    return Table(
        slug(f"{gathered.dataset} inverted people"), f"Do distances choose as people do? {gathered.dataset}",
        ["", "task", "answers", "people right, %", "distance", "distance right, %", "same answer, %", "Spearman's rho"],
        lines,
        "People's answers on inverted images, 95% intervals over images. Same answer: share of people's answers that "
        "the distance gives too. Rho: rank correlation over inverted images of people's share of right answers with "
        "how clearly the distance is right. The distance's own score is over all inverted images, judged or not.",
        notes=notes,
    )  # fmt: skip


def tests(gathered: Gathered) -> Table | None:
    """Each row beside its model's original on the same images; None without such a pair."""
    tables = gathered.tables("images")
    return against_original(
        tables, {"2AFC, %": by_image(tables, "two_mean"), "clustering, %": by_image(tables, "match_mean")},
        slug(f"{gathered.dataset} inverted tests"), gathered.dataset,
        "The change from the original on the same targets, inverted by the first method; mean over starts and over the "
        "distances that were not optimised", scale=100, digits=1,
    )  # fmt: skip


tests.__test__ = False  # type: ignore[attr-defined]  # no test of ours, whatever its name begins with


def by_image(tables: Mapping[Key, Mapping[str, Any]], column: str) -> dict[Key, dict[str, float]]:
    """Row -> image -> mean of a column over the starts of each image, where it is finite. tables: `images`, by row."""
    found: dict[Key, dict[str, float]] = {}
    for row, table in tables.items():
        several: dict[str, list[float]] = {}
        for name, value in zip(table["id"], table[column], strict=True) if column in table else ():
            several.setdefault(str(name), []).append(float(value))
        means = {name: float(np.mean(values)) for name, values in several.items()}
        found[row] = {name: value for name, value in means.items() if np.isfinite(value)}
    return found


def pictures(gathered: Gathered) -> Pictures | None:
    """Targets, the starts, and what each row's network takes for the same, by each method; None where none is shown."""
    tables: Mapping[Row, Mapping[str, Any]] = gathered.tables("pictures")
    names = list(dict.fromkeys(str(name) for table in tables.values() for name in table["id"]))[:SHOWN]
    rows: list[tuple[str, list[tuple[bytes, str]]]] = []
    for name in names:
        shown: dict[str, list[tuple[bytes, str]]] = {}
        start: list[tuple[bytes, str]] = []
        for row, table in tables.items():
            titles = {
                str(node): title
                for node, title in zip(
                    gathered.tables("methods")[row]["node"], methods_of(gathered.tables("methods")[row]).values(),
                    strict=True,
                )
            }  # fmt: skip
            for place in np.flatnonzero([str(one) == name for one in table["id"]]).tolist():
                start = start or [(table["target"][place], "target"), (table["seed"][place], "start")]
                line = f"{row.title}, error {float(table['error8'][place]):.3g}"
                shown.setdefault(titles[str(table["node"][place])], []).append(
                    (table["inverted"][place], line)
                )
        rows += [(f"`{name}`", start), *((f"`{name}`, {title}", list(each)) for title, each in shown.items())]
    if not rows:
        return None
    return Pictures(
        slug(f"{gathered.dataset} inverted"), f"Inverted images: {gathered.dataset}", rows,
        f"{counted(len(names), 'target')}, drawn at random, the first row's target and start, and images that each "
        f"network represents as it does the target; below each the relative error in 8 bit. {_left_out_short(gathered)}"
        "Pictures are shrunk and compressed: they need not match.",
    )  # fmt: skip


def _left_out_short(gathered: Gathered) -> str:
    names = sorted(
        {name for row, _, prefix, _, _ in _lines(gathered) for name in optimised_of(gathered, row, prefix)}
    )
    return (
        f"The adversarial method made the distance {', '.join(names)} to the target large. " if names else ""
    )
