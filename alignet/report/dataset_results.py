"""All results of one evaluation over models and settings, as builders of sections read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from alignet.config import trained_role
from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Columns, Result

SETTINGS = ("original", "distillation", "ud", "alignet")  # of a model, in the paper's order
TITLES = {"original": "original", "distillation": "distillation", "ud": "UD", "alignet": "AligNet",
          "direct": "direct", "global": "global", "glocal": "gLocal", "harmonized": "Harmonizer",
          "unharmonized": "Harmonizer without maps", "shuffled-maps": "Harmonizer, shuffled maps",
          "alignet-harmonized": "AligNet, then Harmonizer",
          "alignet-and-harmonized": "AligNet and Harmonizer",
          "robust-l2": "robust (l2)", "robust-linf": "robust (l-inf)", "robust-free": "robust (free)"}  # fmt: skip

ROWS = {  # setting of the configuration -> (model, setting) as tables print them
    "data": ("data", "data"),
    "pixels": ("baseline", "raw pixels"),
    "histogram": ("baseline", "colour histogram"),
    "teacher-original": ("teacher", "original"),
    "teacher-ud": ("teacher", "ud"),
    "original": ("student", "original"),
    "distillation": ("student", "distillation"),
    "direct": ("student", "direct"),
    "ud": ("student", "ud"),
    "global": ("student", "global"),
    "glocal": ("student", "glocal"),
    "unharmonized": ("student", "unharmonized"),
    "shuffled-maps": ("student", "shuffled-maps"),
    "harmonized": ("student", "harmonized"),
    "alignet": ("student", "alignet"),
    "alignet-harmonized": ("student", "alignet-harmonized"),
    "alignet-and-harmonized": ("student", "alignet-and-harmonized"),
    "robust-l2": ("student", "robust-l2"),
    "robust-linf": ("student", "robust-linf"),
    "robust-free": ("student", "robust-free"),
}


_LOSSES = {"standard": "standard", "adversarial": "adversarial training", "trades": "TRADES", "mart": "MART",
           "simclr": "SimCLR"}  # fmt: skip
_ENDINGS = {"adversarial-none": "adversarial training, no augmentation", "standard-none": "standard, no augmentation",
            "standard-strong": "standard, strong augmentation", "simclr-no-colour": "SimCLR without colour",
            "simclr-adversarial": "SimCLR, adversarial augmentation"}  # fmt: skip


def title_of(setting: str) -> str:
    """A setting as tables print it, also one that a configuration names itself: trades-6, standard@50."""
    if setting in TITLES or trained_role(setting) is None:
        return TITLES.get(setting, setting)
    name, _, steps = setting.partition("@")
    loss, _, ending = name.partition("-")
    title = TITLES.get(name) or _ENDINGS.get(name) or _LOSSES[loss]
    if ending and title == _LOSSES.get(loss):
        words = ending.replace("-", " ")
        title += f", beta {words}" if loss in ("trades", "mart") and ending.isdigit() else f", {words}"
    return f"{title}, step {int(steps):,}" if steps else title


def row_of(setting: str) -> tuple[str, str] | None:
    """What ROWS says of a setting, also of one that a configuration names itself; None for what is no row."""
    return ROWS.get(setting) or (("student", setting) if trained_role(setting) else None)


def in_rows(settings: Iterable[str]) -> list[str]:
    """Settings in the order of the table: those of ROWS, then others as they come, snapshots by their steps."""
    order = {setting: place for place, setting in enumerate(ROWS)}
    return sorted(settings, key=lambda one: order.get(one, len(order)))


@dataclass(frozen=True)
class Row:
    """A model in a setting. model: `student`, `teacher` or `baseline`; on a page of several students their names."""

    model: str
    setting: str  # original | distillation | ud | alignet | data | a baseline's name

    @property
    def title(self) -> str:
        """As text."""
        return f"{self.model} {title_of(self.setting)}"


@dataclass(frozen=True)
class Gathered:
    """One data set of the configuration: its family, its options, and what each row came to, in the table's order."""

    dataset: str
    family: str
    options: Mapping[str, Any]
    results: Mapping[Row, Result]

    def scores(self, metric: str) -> dict[Row, Score]:
        """The score of each row that has this metric."""
        return {
            row: score
            for row, result in self.results.items()
            for score in result.scores
            if score.metric == metric
        }

    def tables(self, name: str) -> dict[Row, Columns]:
        """The table of each row that has it."""
        return {row: result.tables[name] for row, result in self.results.items() if name in result.tables}
