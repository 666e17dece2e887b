"""Which measures of the four systems a page has, and what each row came to in each of them.

Gathered results of all families -> Board: rows x measures, of which report.four makes tables, figures and sentences.
Every measure here is better when larger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.report.attack_figures import comparable, norm_title
from alignet.report.attack_values import Values, alignments, finite_values, tolerances
from alignet.report.dataset_results import ROWS, Gathered, Row
from alignet.report.formatting import setting_title
from alignet.report.invariance import by_image

SYSTEMS = {  # key -> title, in the order of tables
    "alignet": "AligNet", "harmonizer": "Neural Harmonizer", "adversarial": "adversarial alignment",
    "invariance": "identically represented inputs", "accuracy": "accuracy",
}  # fmt: skip
ACCURACY = "accuracy"  # which is no system's own
OTHERS = (
    "teacher",
    "baseline",
    "data",
)  # models that are no rows: nothing was trained, or nothing can be attacked
MAPPED = (
    "ud",
    "global",
    "glocal",
    "direct",
)  # settings that are maps of features, without a network of their own

UNITS = ("%", "rho", "l2", "l-inf", "1/255")  # behind a title's last comma


@dataclass(frozen=True)
class Measure:
    """One measure. families: those whose scores of this metric it is. scale, digits: how it is printed."""

    key: str
    title: str
    system: str
    metric: str
    families: tuple[str, ...]
    scale: float = 1.0
    digits: int = 2


MEASURES = (
    Measure("odd_one_out", "odd-one-out accuracy, %", "alignet", "odd_one_out", ("odd_one_out",), 100, 1),
    Measure("agreement", "agreement with the teacher, %", "alignet", "agreement", ("agreement",), 100, 1),
    Measure("rsa", "similarities as people's, rho", "alignet", "rsa_spearman", ("rsa", "rsa_mean")),
    Measure("levels", "odd-one-out, Levels, %", "alignet", "odd_one_out", ("levels",), 100, 1),
    Measure("nights", "two alternatives, NIGHTS, %", "alignet", "two_alternatives", ("nights",), 100, 1),
    Measure("where", "saliency as people's maps, rho", "harmonizer", "where", ("where",)),
    Measure("masking", "recognition as pixels are revealed", "harmonizer", "masked_area", ("masking",)),
    Measure("tolerance", "perturbation tolerance", "adversarial", "tolerance", ("attack",)),
    Measure("alignment", "perturbations as people's maps, rho", "adversarial", "attack_alignment", ("attack",)),
    Measure("two", "2AFC by distances, %", "invariance", "two", ("invariance",), 100, 1),
    Measure("match", "clustering by distances, %", "invariance", "match", ("invariance",), 100, 1),
    Measure("two_people", "2AFC by people, %", "invariance", "two_people", ("invariance",), 100, 1),
    Measure("match_people", "clustering by people, %", "invariance", "match_people", ("invariance",), 100, 1),
    Measure("linear_probe", "linear probe, %", ACCURACY, "linear_probe", ("linear_probe",), 100, 1),
    Measure("few_shot", "few-shot accuracy, %", ACCURACY, "few_shot", ("few_shot",), 100, 1),
    Measure("top1", "ImageNet top-1, %", ACCURACY, "top1", ("top1",), 100, 1),
    Measure("own", "accuracy by its classifier, %", ACCURACY, "accuracy", ("where", "attack"), 100, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A measure on one data set: what each row came to, and its values image by image where the files have them."""

    measure: Measure
    dataset: str
    scores: Mapping[Row, Score]
    values: Mapping[Row, Values] = field(default_factory=dict)
    settings: Sequence[Row] = ()  # rows that were evaluated on this data set

    @property
    def title(self) -> str:
        """The measure, with its unit."""
        return self.measure.title

    @property
    def name(self) -> str:
        """The measure without its unit."""
        head, _, unit = self.title.rpartition(", ")
        return head if unit in UNITS else self.title

    def text(self, value: float) -> str:
        """A value as it is printed."""
        return f"{self.measure.scale * value:.{self.measure.digits}f}"


@dataclass(frozen=True)
class Board:
    """Rows x measures.

    unused: measure -> data sets that have it too, of which another one is shown. notes: what is to be known beside the
    numbers.
    """

    rows: Sequence[Row]
    columns: Sequence[Column]
    unused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def systems(self) -> list[str]:
        """Keys of the systems that have a measure, accuracy not among them."""
        having = {one.measure.system for one in self.columns}
        return [key for key in SYSTEMS if key in having and key != ACCURACY]

    def label(self, row: Row) -> str:
        """The row's name: its setting alone where all rows are of one model."""
        one = len({other.model for other in self.rows}) == 1 and bool(row.setting)
        return setting_title(row.setting) if one else row.title

    def matrix(self) -> np.ndarray:
        """(rows, measures) float64, NaN where a row has no value."""
        return np.array(
            [[one.scores[row].value if row in one.scores else np.nan for one in self.columns] for row in self.rows],
            dtype=np.float64,
        ).reshape(len(self.rows), len(self.columns))  # fmt: skip


def board(every: Sequence[Gathered], headline: str | None = None) -> Board | None:
    """Rows x measures of a page; None unless two systems have a measure that two rows have.

    Rows are networks and what was trained of them; teachers and baselines are left out. Of a measure on several data
    sets one column stands here: that of `headline`, else the first that most rows have.
    """
    columns: list[Column] = []
    unused: dict[str, list[str]] = {}
    for measure in MEASURES:
        found = [column for one in every for column in _columns(one, measure)]
        if not found:
            continue
        best = max(
            found, key=lambda one: (one.dataset == headline, len(one.scores))
        )  # the first of equal ones
        columns.append(best)
        rest = [one.dataset for one in found if one is not best]
        if rest:
            unused[measure.title] = rest
    compared = {one.measure.system for one in columns if len(one.scores) > 1} - {ACCURACY}
    if len(compared) < 2:
        return None
    having = {row for column in columns for row in column.scores}
    rows = [row for row in dict.fromkeys(row for one in every for row in one.results) if row in having]
    models, settings = (
        list(dict.fromkeys(row.model for row in rows)),
        [setting for _, setting in ROWS.values()],
    )
    rows.sort(
        key=lambda row: (
            models.index(row.model),
            settings.index(row.setting) if row.setting in settings else len(settings),
        )
    )
    made = Board(rows, columns, unused)
    return replace(made, notes=_unmatched(made, every))


def _unmatched(made: Board, every: Sequence[Gathered]) -> list[str]:
    """Rows some of whose inverted images are no IRIs: the network tells them from their targets."""
    said = []
    for one in every:
        found = {
            row: score for row, score in one.scores("matched").items() if _is_row(row) and score.value < 1
        }
        if one.family == "invariance" and found:
            listed = ", ".join(f"{made.label(row)} {100 * score.value:.0f}%" for row, score in found.items())
            said.append(
                f"{one.dataset}: 2AFC and clustering are over all inverted images; of these rows only a part is "
                f"represented like its target: {listed}"
            )
    return said


def _is_row(row: Row) -> bool:
    return not row.model.startswith(OTHERS) or row.setting == ""


def _columns(one: Gathered, measure: Measure) -> list[Column]:
    """A measure on a data set; several where its scores are of several parts, as of kinds of maps."""
    if one.family not in measure.families:
        return []
    metric, scale, title = measure.metric, measure.scale, measure.title
    if measure.key == "tolerance":
        metric, _, _, scale = comparable(one) if one.tables("attacks") else (metric, "", "", scale)
        norm = norm_title(one, "attack")
        title = f"{title}, {norm}" if metric == "tolerance" and norm else title
        title = "RMS pixel change, 1/255" if metric == "tolerance_rms" else title
    parts: dict[str, dict[Row, Score]] = {}
    for row, result in one.results.items():
        for score in result.scores if _is_row(row) else ():
            if score.metric == metric:
                parts.setdefault(score.dataset, {})[row] = score
    if measure.key == "levels":  # the mean over levels alone
        parts = {name: scores for name, scores in parts.items() if name == one.dataset}
    shown = Measure(measure.key, title, measure.system, metric, measure.families, scale, measure.digits)
    values = VALUES[measure.key](one) if measure.key in VALUES else {}
    rows = [row for row in one.results if _is_row(row)]
    first = next(iter(parts), "")
    return [
        Column(shown, name, scores, values if name == first else {}, rows) for name, scores in parts.items()
    ]


# ---- values image by image, for tests on the same images


def _where(one: Gathered) -> dict[Row, Values]:
    """Spearman of each image, at full scale, of the first kind of maps and the scored reduction."""
    found: dict[Row, Values] = {}
    for row, table in one.tables("images").items():
        key, how, scale = (np.asarray(table[name]) for name in ("key", "reduction", "scale"))
        kept = (
            (key == key[0]) & (how == one.options["reductions"][0]) & (scale == 1) if len(key) else key == ""
        )
        found[row] = finite_values(np.asarray(table["id"])[kept], np.asarray(table["spearman"])[kept])
    return found


def _tolerance(one: Gathered) -> dict[Row, dict[str, float]]:
    """The norm that each image took, in the unit in which rows compare."""
    results = {row: result for row, result in one.results.items() if "attacks" in result.tables}
    return tolerances(results, comparable(one)[0] if results else "tolerance")


def _alignment(one: Gathered) -> dict[Row, dict[str, float]]:
    """Spearman of each broken image."""
    results = {row: result for row, result in one.results.items() if "images" in result.tables}
    return alignments(results, str(one.options.get("reduction", "mean")))


def _iris(task: str) -> Callable[[Gathered], dict[Row, dict[str, float]]]:
    """Of each image the mean over its IRIs, by the distances that were not optimised."""
    return lambda one: by_image(one.tables("images"), f"{task}_mean")


VALUES: dict[str, Callable[[Gathered], Mapping[Row, Values]]] = {
    "where": _where, "tolerance": _tolerance, "alignment": _alignment, "two": _iris("two"), "match": _iris("match"),
}  # fmt: skip


# ---- why a cell is empty


def reasons(found: Board, given: Mapping[str, str]) -> list[str]:
    """Why cells are empty, each reason once with the rows and measures that it is for.

    given: of a system or a row's title why it has no measure, in words, which is said as it is.
    """
    why: dict[str, dict[str, list[str]]] = {}
    for row in found.rows:
        for column in found.columns:
            if row in column.scores or found.label(row) in given:
                continue
            if row.setting in MAPPED and column.measure.system != "alignet" and row not in column.settings:
                text = "a map of features, which has no network of its own to measure this with"
            elif row in column.settings:
                text = f"measured on `{column.dataset}`, but without a value"
            else:
                text = "not among the settings of this data set"
            why.setdefault(text, {}).setdefault(found.label(row), []).append(column.title)
    said = []
    for text, rows in why.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for title, columns in rows.items():
            alike.setdefault(tuple(columns), []).append(title)
        said += [
            f"{', '.join(titles)}: no {'; '.join(columns)} ({text})" for columns, titles in alike.items()
        ]
    return [*(f"{what}: {text}" for what, text in given.items()), *said]
