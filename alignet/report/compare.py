"""A page over several runs: their settings, what the runs differ in, and all figures with every student in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignet.report.blocks import Block, Cell, Section, Table, Text
from alignet.report.cross_dataset import across
from alignet.report.dataset_results import SETTINGS, TITLES, Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import BOLD, best_of, setting_title
from alignet.report.four import TITLE, four
from alignet.report.load_results import gather, merged
from alignet.report.metric_styles import better_if_larger, hidden, number, title_of
from alignet.report.page import Page
from alignet.report.provenance import provenance
from alignet.report.published import published_blocks
from alignet.report.run_page import family_sections, sentence, warning
from alignet.report.settings_block import settings_block
from alignet.report.settings_table import Row as TableRow
from alignet.report.settings_table import shown
from alignet.report.summary import Number, Summary, summarise

if TYPE_CHECKING:
    from alignet.evaluate.bootstrap import Score
    from alignet.runtime.artifacts import Artifact

LONGEST_VALUE = 30  # letters of an option's value in a run's label
OTHERS = ("teacher", "baseline", "data")  # models that runs may share


@dataclass(frozen=True)
class Run:
    """A finished run. label: what tells it from the others. section: of its node `report`. rows: of its table."""

    label: str
    section: Mapping[str, Any]
    rows: Sequence[TableRow]
    evaluated: Sequence[Artifact]


def labels(jobs: Sequence[Sequence[str]], students: Sequence[str]) -> list[str]:
    """What tells each of several command lines from the others: the student's name, and the options that differ.

    jobs: the overrides of each. students: the name of each one's student. Of a long value the end is shown. Equal
    labels get a number.
    """
    common = [item for item in jobs[0] if all(item in job for job in jobs)]
    several = len(set(students)) > 1
    found: list[str] = []
    for job, student in zip(jobs, students, strict=True):
        rest = [item for item in job if item not in common]
        if several:
            rest = [item for item in rest if not item.startswith("student=")]
        text = ", ".join([*([student] if several else []), *map(_short, rest)]) or "as given"
        found.append(text if text not in found else f"{text} ({found.count(text) + 1})")
    return found


def _short(option: str) -> str:
    key, _, value = option.partition("=")
    return option if len(value) <= LONGEST_VALUE else f"{key}=...{value[3 - LONGEST_VALUE :]}"


def gathered_runs(runs: Sequence[Run]) -> list[Gathered]:
    """The results of all runs by data set; a run's student is called by its label, what all runs share stands once."""
    parts = []
    for run in runs:
        names = {"student": run.label}
        for model in OTHERS:
            if len({_identity(other, model) for other in runs}) > 1:
                names[model] = f"{model} ({run.label})"
        parts.append(gather(run.evaluated, names))
    return merged(parts)


def _identity(run: Run, model: str) -> tuple[str, ...]:
    """Fingerprints of the evaluations of one model."""
    from alignet.report.dataset_results import row_of

    return tuple(
        sorted(
            one.manifest["fingerprint"]
            for one in run.evaluated
            if (row_of(one.manifest["identity"]["section"]["setting"]) or ("",))[0] == model
        )
    )


def compare_page(runs: Sequence[Run]) -> Page:
    """The page of two runs or more."""
    gathered = gathered_runs(runs)
    first = runs[0].section
    fresh = [role for run in runs for role in run.section.get("fresh", ())]
    tables: list[Block] = [
        settings_block(run.rows, run.label, name=slug(f"{place} {run.label}"))
        for place, run in enumerate(runs, start=1)
    ]
    sections = [
        *([Section("differences", "Differences", differences(*runs))] if len(runs) == 2 else []),
        *overview(gathered),
        Section("settings", "All settings", tables),
        Section("four", TITLE, four(gathered, first["headline"], fresh)),
        Section(
            "published", "The paper's tables", published_blocks(gathered, first["published"], "measured here")
        ),
        *family_sections(gathered),
        provenance([artifact for run in runs for artifact in run.evaluated], [run.section for run in runs]),
    ]
    banners = dict.fromkeys(run.section["banner"] for run in runs)
    warnings = dict.fromkeys(warning(run.section["redistribute"]) for run in runs)
    titles = dict.fromkeys(sentence(run.section["title"]) for run in runs)
    return Page(
        title=f"{len(runs)} runs compared", subtitle="; ".join(titles),
        banner=sentence("; ".join(banners)), warning=" ".join(filter(None, warnings)), summary=_summary(runs),
        sections=sections,
    )  # fmt: skip


def overview(gathered: Sequence[Gathered]) -> list[Section]:
    """What is said of all students together, from every data set."""
    tables: list[Block] = [table for one in gathered for table in _side_by_side(one)]
    if not tables:
        return []
    said = "Every student in every setting, one table for each measure that is better when larger."
    return [Section("overview", "Students side by side", [*across(gathered), Text(said), *tables])]


def _side_by_side(one: Gathered) -> list[Table]:
    """A table of students x settings for each metric of a data set, or of a part of it, in which settings compete."""
    students = list(
        dict.fromkeys(
            row.model for row in one.results if not row.model.startswith(OTHERS) and row.setting in SETTINGS
        )
    )
    measures = dict.fromkeys(
        (score.metric, score.dataset) for result in one.results.values() for score in result.scores
    )
    found = []
    for metric, dataset in measures:
        scores = {
            row: score for row, result in one.results.items() for score in result.scores
            if (score.metric, score.dataset) == (metric, dataset)
        }  # fmt: skip
        settings = [name for name in SETTINGS if any(Row(model, name) in scores for model in students)]
        if hidden(metric) or not better_if_larger(metric) or len(students) < 2 or len(settings) < 2:
            continue
        best = {
            name: best_of(scores[row] for model in students if (row := Row(model, name)) in scores)
            for name in settings
        }
        rows = []
        for model in students:
            cells = [_cell(scores.get(Row(model, name)), best[name]) for name in settings]
            rows.append([Cell(model), *cells])
        some = next(iter(scores.values()))
        found.append(
            Table(
                slug(f"{dataset} {metric}"), f"{sentence(title_of(metric))}: {dataset}",
                ["student", *(TITLES[name] for name in settings)], rows,
                f"n = {some.n:,} {some.unit}. {BOLD} Brackets: 95% intervals"
                f"{f' over {some.over}' if some.over else ''}.",
            )
        )  # fmt: skip
    return found


def _cell(score: Score | None, best: float | None) -> Cell | str:
    return (
        ""
        if score is None
        else Cell(shown(score), score.value, score.low, score.high, best=score.value == best)
    )


def differences(first: Run, second: Run) -> list[Block]:
    """How many scores differ; those whose intervals are apart; and, folded, every score that differs at all."""
    rows, same = _different(first, second)
    apart = [row for row in rows if row[-1] == "apart"]
    title = f"{second.label} against {first.label}"
    header = ["measure", "data set", "row", first.label, second.label, "difference", "intervals"]
    unit = f"Difference: {second.label} less {first.label}, in the units of the measure."
    blocks: list[Block] = [
        Text(
            f"{len(rows)} scores differ between {first.label} and {second.label}, {same} are the same. {len(apart)} "
            "have 95% intervals without a common value. Intervals that overlap do not show that there is no "
            "difference: both runs may have been measured on the same data."
        )
    ]  # fmt: skip
    if apart:
        said = f"{unit} n = {len(apart)} scores, all that have intervals apart."
        blocks.append(Table("apart", f"{title}: intervals apart", header, _once(apart), said))
    said = f"{unit} n = {len(rows)} scores; those that are the same in both runs are left out."
    blocks.append(Table("scores", f"{title}: every score", header, _once(rows), said, folded=True))
    return blocks


def _once(rows: Sequence[list[Cell | str]]) -> list[list[Cell | str]]:
    """Rows in which the measure is shown where it begins; files name it in each."""
    found, last = [], None
    for measure, *rest in rows:
        found.append([Cell("" if measure == last else str(measure), str(measure)), *rest])
        last = measure
    return found


def _different(first: Run, second: Run) -> tuple[list[list[Cell | str]], int]:
    """A row for every score in which two runs differ, the second's less the first's, and how many are the same."""
    theirs = {
        (row.model, row.setting, score.metric, score.dataset): score
        for row in second.rows
        for score in row.scores
    }
    rows: list[list[Cell | str]] = []
    same = 0
    for metric in dict.fromkeys(score.metric for row in first.rows for score in row.scores):
        for row in first.rows:
            for score in row.scores:
                other = theirs.get((row.model, row.setting, metric, score.dataset))
                if score.metric != metric or other is None or hidden(metric):
                    continue
                if (score.value, score.low, score.high) == (other.value, other.low, other.high):
                    same += 1
                    continue
                named = f"{row.model} {setting_title(row.setting)}"
                rows.append([title_of(metric), score.dataset, named, *_difference(score, other)])
    return rows, same


def _difference(score: Score, other: Score) -> list[Cell | str]:
    change = other.value - score.value
    text = number(score.metric, abs(change))
    zero = not float(text)
    cells: list[Cell | str] = [Cell(shown(one), one.value, one.low, one.high) for one in (score, other)]
    cells.append(Cell(text if zero else f"{'+' if change > 0 else '−'}{text}", change))
    if score.low is None or score.high is None or other.low is None or other.high is None:
        return [*cells, ""]
    return [*cells, "apart" if other.low > score.high or other.high < score.low else "overlap"]


def _summary(runs: Sequence[Run]) -> Summary:
    numbers = []
    for run in runs:
        of_run = summarise(run.rows, run.section["headline"]).numbers
        if of_run:
            numbers.append(
                Number(run.label, of_run[0].value, f"{of_run[0].label}; {of_run[1].label}: {of_run[1].value}")
            )
    names = "; ".join(run.label for run in runs)
    return Summary(
        [f"{len(runs)} runs: {names}. The large numbers are the original student and the aligned one."],
        numbers,
        [],
    )
