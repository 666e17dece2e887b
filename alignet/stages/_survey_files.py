"""What a survey's stage writes, of either kind of question: the page, tables, files that replace others at once."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.config import SurveySettings
    from alignet.survey.page import Texts
    from alignet.survey.survey import AnySurvey

QUESTIONS = {
    "odd_one_out": "Which is the odd one out?",
    "two": "Which of the two looks more like the first picture?",
    "match": "Which of the three looks most like the first picture?",
}
SAID = {"yes": "used", "catch trial": "catch trials", "participant set aside": "of participants set aside"}


def texts(settings: SurveySettings) -> Texts:
    """What the page says in its maker's words; ValueError for a file of consent that is no text."""
    from alignet.survey.page import Texts

    consent = settings.consent
    if settings.consent_file:
        try:
            consent = Path(settings.consent_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"survey.consent_file: expected a UTF-8 text file, found {error}") from None
    title = QUESTIONS[settings.kind] if settings.title is None else settings.title
    return Texts(title, consent, settings.hand_in)


def drawn(ids: list[str], count: int, seed: int) -> list[str]:
    """At most `count` ids (0: all) in their order."""
    import numpy as np

    if not 0 < count < len(ids):
        return ids
    rows = np.random.default_rng(seed).choice(len(ids), count, replace=False)
    return [ids[row] for row in sorted(rows)]


def write_survey(settings: SurveySettings, survey: AnySurvey, html: str, about: str, questions: int) -> None:
    """Write the page and survey.json, and say so. about: what is asked; questions: units of which trials are drawn."""
    folder = Path(settings.folder) / survey.id
    folder.mkdir(parents=True, exist_ok=True)
    survey.save(folder / "survey.json")
    write(folder / "page.html", html.encode())
    print(
        f"survey {survey.id}: {about}\n"
        f"page: {folder / 'page.html'} ({len(html.encode()) / 1e6:.1f} MB, works offline)\n"
        f"keep: {folder / 'survey.json'} (the import needs it, participants do not)\n"
        f"next: give the page to participants (about {_participants(questions, survey.trials)}, for an "
        "answer to nine in ten questions), collect the files that it saves, and: "
        f"python -m alignet.stages.survey import FOLDER/*.json survey.folder={shlex.quote(settings.folder)}"
    )


def _participants(questions: int, trials: int) -> int:
    """How many people who each answer some of the questions, drawn at random, leave one in ten unanswered."""
    return 1 if trials >= questions else math.ceil(math.log(0.1) / math.log1p(-trials / questions))


def replaced(folder: Path, names: Sequence[str], write_all: Callable[[], None]) -> None:
    """Write an import; what an earlier one left under other names is taken away, so that all files belong together."""
    every = ("triplets.npy", "train.npy", "validation.npy", "objects.csv", "trials.csv", "choices.csv")
    folder.mkdir(parents=True, exist_ok=True)
    write_all()
    for name in every:
        if name not in names:
            (folder / name).unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Through a temporary name, so that readers see the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def csv_bytes(lines: Sequence[Sequence[object]]) -> bytes:
    """A table, its header first."""
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def listed(counts: Mapping[str, int]) -> str:
    """Counts in words."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def say_import(summary: Mapping[str, Any]) -> None:
    """What came in, and who and what was set aside."""
    for line in summary["damaged"]:
        print(f"skipped: {line}")
    print(
        f"{summary['files']} files: {len(summary['damaged'])} damaged, {summary['repeated_files']} repeated, "
        f"{len(summary['contradictory_participants'])} participants with contradictory files\n"
        f"{summary['participants']} participants, {summary['used_participants']} used; set aside: "
        f"{listed(summary['set_aside'])}\n"
        f"answers: {listed({SAID.get(name, name): count for name, count in summary['trials'].items()})}"
    )


def check_some(count: int, summary: Mapping[str, Any]) -> None:
    """ValueError where no answer counts."""
    if not count:
        raise ValueError(
            f"survey import: expected at least one participant whose answers count, found none of "
            f"{summary['participants']} (set aside: {listed(summary['set_aside'])}); collect more, or loosen "
            "survey.catch_accuracy, survey.max_misses or survey.incomplete"
        )
