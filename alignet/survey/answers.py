"""From the files that participants hand in to triplets: who and what counts, who and what is set aside, and why.

    answers-*.json, survey.json -> triplets (n, 3), odd one last; a row for every trial; a summary
    of a survey of identically represented inputs (IRIs) -> a row for every answer; a summary

A file is {"format": "alignet-survey-answers", "version": 1, "survey": id, "participant": 32 hex digits, "complete":
bool, "trials": [{"pictures": [a, b, c] as they stood on screen, "choice": 0..2, "rt": ms}, ...]}; of IRIs the pictures
are the one asked about and its options, of which `choice` is one. Nothing in it says which trials are catch trials; the
survey does. Nothing depends on the order or the names of the files.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from alignet.survey.survey import AnySurvey, InvertedSurvey, Shown, Survey

FORMAT = "alignet-survey-answers"
LONGEST = 1e12  # milliseconds, 30 years; also what NaN and whole numbers too large for a float are not below


@dataclass(frozen=True)
class Rules:
    """Who is believed, and which trials count.

    catch_accuracy: the least share of right answers to catch trials. max_misses: the most trials, catch trials among
    them, answered before `fast_ms` or after `slow_ms` milliseconds; such trials are dropped in any case.
    incomplete: what happens to participants who stopped early: set_aside, or use what they answered.
    """

    catch_accuracy: float
    max_misses: int
    fast_ms: float
    slow_ms: float
    incomplete: Literal["set_aside", "use"]


@dataclass(frozen=True)
class Trial:
    """One answer. `pair` and `odd` are objects; `catch` is None for an ordinary trial, else whether it was right."""

    pair: tuple[int, int]
    odd: int
    place: int
    rt: float
    catch: bool | None
    early: int = 0  # clicks and keys that came before the question could be answered


@dataclass(frozen=True)
class Matched:
    """One answer about IRIs: of which of the `options`, at `place`, `row` looks most like.

    right: whether that is the target that `row` was inverted from; of a catch trial, the same picture, as in `catch`.
    """

    row: Shown
    options: tuple[Shown, ...]
    right: bool
    place: int
    rt: float
    catch: bool | None
    early: int = 0


@dataclass(frozen=True)
class Sheet:
    """One participant's answers, checked."""

    survey: str
    participant: str
    complete: bool
    trials: tuple[Trial | Matched, ...]


@dataclass(frozen=True)
class Imported:
    """triplets: int64 (n, 3), rows of `objects`, odd one last; by participant, in the order they answered.

    trials: a row for every trial of every participant, see `trial_rows`. summary: counts and, by participant, why.
    """

    objects: tuple[str, ...]
    triplets: np.ndarray
    trials: list[dict[str, Any]]
    summary: dict[str, Any]


@dataclass(frozen=True)
class ImportedChoices:
    """choices: a row for every answer about IRIs, see `choice_rows`. summary: counts and, by participant, why."""

    choices: list[dict[str, Any]]
    summary: dict[str, Any]


def import_answers(
    files: Sequence[Path], surveys: Mapping[str, AnySurvey], *, rules: Rules, damaged: Literal["stop", "skip"]
) -> Imported | ImportedChoices:
    """Check every file and turn the answers of believed participants into triplets, or choices where IRIs were shown.

    surveys: by id; several are taken together where they are about the same objects, or the same IRIs. Of several files
    of one participant the longest counts, once. damaged: `stop` raises ValueError, naming the first file that is not
    what it should be; `skip` counts and names such files in the summary and imports the others.
    """
    if not files:
        raise ValueError(
            "survey import: expected files of answers, found none; name them, as answers/*.json."
        )
    sheets, refused = _read_all(files, surveys, damaged)
    objects = _one_object_list([surveys[sheet.survey] for sheet in sheets])
    inverted = isinstance(surveys[sheets[0].survey], InvertedSurvey)
    kept, copies, quarrels = _once_each(sheets)
    if quarrels and damaged == "stop":
        raise ValueError(
            f"survey import: expected one set of answers of each participant, found files of {quarrels[0][1]} that "
            "contradict each other; remove the wrong one, or set survey.damaged=skip to leave this participant out."
        )
    people = [_judge(sheet, rules, bool(surveys[sheet.survey].catches)) for sheet in kept]
    rows = [
        row
        for sheet, person in zip(kept, people)
        for row in (
            choice_rows(sheet, person, rules, surveys[sheet.survey])
            if inverted
            else trial_rows(sheet, person, rules)
        )
    ]
    used = [row for row in rows if row["used"] == "yes"]
    summary: dict[str, Any] = {
        "files": len(files), "damaged": refused, "repeated_files": copies,
        "contradictory_participants": [name for _, name in quarrels],
        "participants": len(kept), "used_participants": sum(not person["set_aside"] for person in people),
        "set_aside": _count(person["set_aside"] for person in people), "trials": _count(row["used"] for row in rows),
    }  # fmt: skip
    if inverted:
        counts = {"choices": len(used), "right": _right(used), "images": len({row["image"] for row in used})}
        return ImportedChoices(rows, summary | counts | {"by_participant": people})
    triplets = np.array([[*row["pair"], row["odd"]] for row in used], dtype=np.int64).reshape(-1, 3)
    summary |= {
        "triplets": len(triplets), "questions": len(np.unique(np.sort(triplets, 1), axis=0)) if len(used) else 0,
        "objects": len(objects), "objects_judged": len(np.unique(triplets)), "by_participant": people,
    }  # fmt: skip
    return Imported(objects, triplets, rows, summary)


def trial_rows(sheet: Sheet, person: Mapping[str, Any], rules: Rules) -> list[dict[str, Any]]:
    """What became of each trial: `used` is yes, catch trial, too fast, too slow or participant set aside."""
    trials = cast(tuple[Trial, ...], sheet.trials)
    return [
        {
            "survey": sheet.survey, "participant": sheet.participant, "trial": number, "pair": trial.pair,
            "odd": trial.odd, "place": trial.place, "rt_ms": trial.rt, "used": _used(trial, person, rules),
        }
        for number, trial in enumerate(trials)
    ]  # fmt: skip


def choice_rows(
    sheet: Sheet, person: Mapping[str, Any], rules: Rules, survey: AnySurvey
) -> list[dict[str, Any]]:
    """What became of each answer about IRIs: `used` as in `trial_rows`.

    image, draw: the IRI's target and which of its draws; of a catch trial, which asks about another picture, that
    picture's target, and the draw of the seed beside it, or empty. options: the ids of three targets from left to
    right, joined by |, or empty. choice: target or seed, or the id that was chosen. right: 1 or 0.
    """
    kind = cast(InvertedSurvey, survey).kind
    rows = []
    for number, trial in enumerate(cast(tuple[Matched, ...], sheet.trials)):
        chosen = trial.options[trial.place]
        two = kind == "two"
        draw = max(one.draw for one in (trial.row, *trial.options))  # a target has none
        rows.append(
            {
                "survey": sheet.survey, "participant": sheet.participant, "trial": number, "kind": kind,
                "image": survey.objects[trial.row.object], "draw": draw if draw >= 0 else "",
                "options": "" if two else "|".join(survey.objects[one.object] for one in trial.options),
                "choice": chosen.what if two else survey.objects[chosen.object], "right": int(trial.right),
                "rt_ms": trial.rt, "used": _used(trial, person, rules),
            }
        )  # fmt: skip
    return rows


def _used(trial: Trial | Matched, person: Mapping[str, Any], rules: Rules) -> str:
    if trial.catch is not None:
        return "catch trial"
    if person["set_aside"]:
        return "participant set aside"
    if trial.rt < rules.fast_ms:
        return "too fast"
    return "too slow" if trial.rt > rules.slow_ms else "yes"


def _right(used: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of right answers to each kind of question."""
    answers = {kind: [row["right"] for row in used if row["kind"] == kind] for kind in ("two", "match")}
    return {kind: statistics.fmean(values) for kind, values in answers.items() if values}


def split_triplets(triplets: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation triplets; all answers to one question (three objects) come to the same side.

    share: of the questions that go to validation, in (0, 1), rounded, at least one each side. A question's side
    hangs on its objects and the seed, so later answers to it join the same side while the number of sides is kept.
    """
    questions, which = np.unique(np.sort(triplets, axis=1), axis=0, return_inverse=True)
    if len(questions) < 2:
        raise ValueError(
            f"survey import: expected answers to at least 2 questions, found {len(questions)}; collect more."
        )
    keys = [hashlib.sha256(f"{seed}:{a}:{b}:{c}".encode()).digest() for a, b, c in questions.tolist()]
    count = min(max(1, round(share * len(questions))), len(questions) - 1)
    held_out = np.zeros(len(questions), dtype=bool)
    held_out[sorted(range(len(keys)), key=keys.__getitem__)[:count]] = True
    validation = held_out[which.reshape(-1)]
    return triplets[~validation], triplets[validation]


def _read_all(
    files: Sequence[Path], surveys: Mapping[str, AnySurvey], damaged: str
) -> tuple[list[Sheet], list[str]]:
    sheets, refused = [], []
    for path in sorted(Path(file) for file in files):
        try:
            sheets.append(read_sheet(path, surveys))
        except ValueError as error:
            if damaged == "stop":
                raise ValueError(f"{error} Or set survey.damaged=skip to import the others.") from None
            refused.append(str(error))
    if not sheets:
        raise ValueError(
            f"survey import: expected at least one readable file, found none of {len(files)}; the first: {refused[0]}"
        )
    return sheets, refused


def read_sheet(path: Path, surveys: Mapping[str, AnySurvey]) -> Sheet:
    """One file of answers, checked against its survey; ValueError names the file and what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors set a mark before it
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a file of answers, found none; check the path.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected the JSON file that the page saved, found other or cut-off text ({error}); "
            "ask for the file again."
        ) from None
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, 1):
        raise ValueError(
            f"{path}: expected answers of this survey's page (format {FORMAT}, version 1), found another JSON "
            "file; leave it out."
        )
    survey = surveys.get(str(content.get("survey")))
    if survey is None:
        raise ValueError(
            f"{path}: expected answers to one of the surveys {', '.join(sorted(surveys)) or '(none)'}, found survey "
            f"{content.get('survey')!r}; point survey.folder to where that survey was built."
        )
    participant = content.get("participant")
    if not isinstance(participant, str) or not re.fullmatch("[0-9a-f]{32}", participant):
        raise _wrong(path, "a participant id of 32 hex digits", participant)
    return Sheet(survey.id, participant, *_checked_trials(path, content, survey))


def _checked_trials(
    path: Path, content: Mapping[str, Any], survey: AnySurvey
) -> tuple[bool, tuple[Trial | Matched, ...]]:
    raw, complete = content.get("trials"), content.get("complete")
    if not isinstance(raw, list) or not isinstance(complete, bool):
        raise _wrong(path, "a list of trials and whether it is complete", type(raw).__name__)
    answer = _matches(survey) if isinstance(survey, InvertedSurvey) else _odd_ones(survey)
    seen: set[tuple[int, ...]] = set()
    trials = []
    for number, item in enumerate(raw):
        shown, trial = _checked_trial(f"{path}, trial {number}", item, survey, answer)
        if shown in seen:
            raise _wrong(f"{path}, trial {number}", "each question once", "one that was asked before")
        seen.add(shown)
        trials.append(trial)
    if complete != (len(trials) == survey.length):
        said = "complete" if complete else "incomplete"
        raise _wrong(path, f"{survey.length} trials of a complete survey", f"{len(trials)}, called {said}")
    return complete, tuple(trials)


# pictures as on screen, the place chosen, the response time, early clicks -> what names the question, the answer;
# KeyError where the survey asks no such question
Reading = Callable[[list[int], int, float, int], tuple[tuple[int, ...], Trial | Matched]]


def _checked_trial(
    where: str, item: Any, survey: AnySurvey, answer: Reading
) -> tuple[tuple[int, ...], Trial | Matched]:
    """What names the question, and the trial."""
    if not isinstance(item, dict):
        raise _wrong(where, "pictures, choice and rt", item)
    pictures, place, rt = item.get("pictures"), item.get("choice"), item.get("rt")
    if not isinstance(pictures, list) or [type(number) for number in pictures] != [int] * survey.shown:
        raise _wrong(where, f"{'three' if survey.shown == 3 else 'four'} picture numbers", pictures)
    if type(place) is not int or not 0 <= place < survey.places:
        raise _wrong(where, f"choice {'0 or 1' if survey.places == 2 else '0, 1 or 2'}", place)
    if isinstance(rt, bool) or not isinstance(rt, (int, float)) or not 0 <= rt < LONGEST:
        raise _wrong(where, "a response time in ms of at least 0", rt)
    early = item.get("early", 0)
    if type(early) is not int or early < 0:
        raise _wrong(where, "a number of early clicks of at least 0", early)
    if not all(0 <= number < len(survey.pictures) for number in pictures):
        raise _wrong(where, f"picture numbers 0..{len(survey.pictures) - 1}", pictures)
    try:
        return answer(pictures, place, float(rt), early)
    except KeyError:
        raise _wrong(where, "pictures that the survey asks about together", pictures) from None


def _odd_ones(survey: Survey) -> Reading:
    """How an answer to this survey is read; the three pictures in ascending order name the question."""
    questions = set(survey.triplets)
    catch = {tuple(sorted(row)): row[2] for row in survey.catch}

    def answer(pictures: list[int], place: int, rt: float, early: int) -> tuple[tuple[int, ...], Trial]:
        shown = tuple(sorted(pictures))
        objects = [survey.pictures[number] for number in pictures]
        first, second = sorted(objects[other] for other in range(3) if other != place)
        if shown not in catch and tuple(sorted(objects)) not in questions:
            raise KeyError(shown)
        right = catch[shown] == pictures[place] if shown in catch else None
        return shown, Trial((first, second), objects[place], place, rt, right, early)

    return answer


def _matches(survey: InvertedSurvey) -> Reading:
    """How an answer to this survey is read; the picture asked about and its options, ascending, name the question."""

    def answer(pictures: list[int], place: int, rt: float, early: int) -> tuple[tuple[int, ...], Matched]:
        number, *choices = pictures
        question = (number, *sorted(choices))
        check = survey.questions[question]
        row, options = survey.pictures[number], tuple(survey.pictures[one] for one in choices)
        right = options[place] == (row if check else Shown(row.object, -1, "target"))
        return question, Matched(row, options, right, place, rt, right if check else None, early)

    return answer


def _wrong(where: object, expected: str, found: object) -> ValueError:
    return ValueError(
        f"{where}: expected {expected}, found {str(found)[:80]}; the file was changed or cut off: ask for it again."
    )


_APART = (
    "move the folder of one of them, page and survey.json, into a folder of its own, and import its answers with "
    "survey.folder=<that folder>: what is imported replaces what was imported before into the same survey.folder"
)


def _one_object_list(surveys: Sequence[AnySurvey]) -> tuple[str, ...]:
    """The objects of all, which must be about the same: images in one order, or identically represented inputs."""
    first = surveys[0]
    for other in surveys:
        if getattr(other, "source", None) != getattr(first, "source", None):
            raise ValueError(
                f"survey import: expected surveys about the same inverted images, or all about odd ones out, found "
                f"{first.id} and {other.id}, which differ; {_APART}."
            )
        if other.objects != first.objects:
            raise ValueError(
                f"survey import: expected surveys about the same images in the same order, found {first.id} and "
                f"{other.id}, which differ; {_APART}."
            )
    return first.objects


def _once_each(sheets: Sequence[Sheet]) -> tuple[list[Sheet], int, list[tuple[str, str]]]:
    """The longest sheet of each participant, how many others there were, and who contradicts themselves."""
    longest: dict[tuple[str, str], Sheet] = {}
    quarrels = set()
    for sheet in sorted(sheets, key=lambda sheet: -len(sheet.trials)):
        key = (sheet.survey, sheet.participant)
        known = longest.setdefault(key, sheet)
        if (
            known.trials[: len(sheet.trials)] != sheet.trials
        ):  # an earlier save is the beginning of a later one
            quarrels.add(key)
    kept = [longest[key] for key in sorted(longest) if key not in quarrels]
    return kept, len(sheets) - len(longest), sorted(quarrels)


def _judge(sheet: Sheet, rules: Rules, has_catch: bool) -> dict[str, Any]:
    catch = [trial.catch for trial in sheet.trials if trial.catch is not None]
    times = [trial.rt for trial in sheet.trials]
    misses = sum(not rules.fast_ms <= rt <= rules.slow_ms for rt in times)
    why = ""
    if not sheet.complete and rules.incomplete == "set_aside":
        why = "incomplete"
    elif has_catch and not catch:
        why = "no catch trial met"
    elif catch and sum(catch) / len(catch) < rules.catch_accuracy:
        why = "catch trials"
    elif misses > rules.max_misses:
        why = "misses"
    return {
        "survey": sheet.survey, "participant": sheet.participant, "complete": sheet.complete,
        "trials": len(sheet.trials),
        "early_clicks": sum(trial.early for trial in sheet.trials), "catch": len(catch),
        "catch_right": sum(catch), "misses": misses,
        "median_rt_ms": round(statistics.median(times), 1) if times else None, "set_aside": why,
    }  # fmt: skip


def _count(values: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        if value:
            counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))
