"""From the files that participants hand in to triplets: who and what counts, who and what is set aside, and why.

    answers-*.json, survey.json -> triplets (n, 3), odd one last; a row for every trial; a summary

A file is {"format": "alignet-survey-answers", "version": 1, "survey": id, "participant": 32 hex digits, "complete":
bool, "trials": [{"pictures": [a, b, c] as they stood on screen, "choice": 0..2, "rt": ms}, ...]}. Nothing in it says
which trials are catch trials; the survey does. Nothing depends on the order or the names of the files.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignet.survey.survey import Survey

FORMAT = "alignet-survey-answers"


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
class Sheet:
    """One participant's answers, checked."""

    survey: str
    participant: str
    complete: bool
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Imported:
    """triplets: int64 (n, 3), rows of `objects`, odd one last; by participant, in the order they answered.

    trials: a row for every trial of every participant, see `trial_rows`. summary: counts and, by participant, why.
    """

    objects: tuple[str, ...]
    triplets: np.ndarray
    trials: list[dict[str, Any]]
    summary: dict[str, Any]


def import_answers(
    files: Sequence[Path], surveys: Mapping[str, Survey], *, rules: Rules, damaged: Literal["stop", "skip"]
) -> Imported:
    """Check every file and turn the answers of believed participants into triplets.

    surveys: by id; several are taken together where they are about the same objects. Of several files of one
    participant the longest counts, once. damaged: `stop` raises ValueError, naming the first file that is not what
    it should be; `skip` counts and names such files in the summary and imports the others.
    """
    if not files:
        raise ValueError(
            "survey import: expected files of answers, found none; name them, as answers/*.json."
        )
    sheets, refused = _read_all(files, surveys, damaged)
    objects = _one_object_list([surveys[sheet.survey] for sheet in sheets])
    kept, copies, quarrels = _once_each(sheets)
    if quarrels and damaged == "stop":
        raise ValueError(
            f"survey import: expected one set of answers of each participant, found files of {quarrels[0][1]} that "
            "contradict each other; remove the wrong one, or set survey.damaged=skip to leave this participant out."
        )
    people = [_judge(sheet, rules, bool(surveys[sheet.survey].catch)) for sheet in kept]
    rows = [row for sheet, person in zip(kept, people) for row in trial_rows(sheet, person, rules)]
    used = [row for row in rows if row["used"] == "yes"]
    triplets = np.array([[*row["pair"], row["odd"]] for row in used], dtype=np.int64).reshape(-1, 3)
    summary = {
        "files": len(files), "damaged": refused, "repeated_files": copies,
        "contradictory_participants": [name for _, name in quarrels],
        "participants": len(kept), "used_participants": sum(not person["set_aside"] for person in people),
        "set_aside": _count(person["set_aside"] for person in people), "trials": _count(row["used"] for row in rows),
        "triplets": len(triplets), "questions": len(np.unique(np.sort(triplets, 1), axis=0)) if len(used) else 0,
        "objects": len(objects), "objects_judged": len(np.unique(triplets)), "by_participant": people,
    }  # fmt: skip
    return Imported(objects, triplets, rows, summary)


def trial_rows(sheet: Sheet, person: Mapping[str, Any], rules: Rules) -> list[dict[str, Any]]:
    """What became of each trial: `used` is yes, catch trial, too fast, too slow or participant set aside."""
    rows = []
    for number, trial in enumerate(sheet.trials):
        used = "yes"
        if trial.catch is not None:
            used = "catch trial"
        elif person["set_aside"]:
            used = "participant set aside"
        elif trial.rt < rules.fast_ms:
            used = "too fast"
        elif trial.rt > rules.slow_ms:
            used = "too slow"
        rows.append(
            {
                "survey": sheet.survey, "participant": sheet.participant, "trial": number, "pair": trial.pair,
                "odd": trial.odd, "place": trial.place, "rt_ms": trial.rt, "used": used,
            }
        )  # fmt: skip
    return rows


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
    files: Sequence[Path], surveys: Mapping[str, Survey], damaged: str
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


def read_sheet(path: Path, surveys: Mapping[str, Survey]) -> Sheet:
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


def _checked_trials(path: Path, content: Mapping[str, Any], survey: Survey) -> tuple[bool, tuple[Trial, ...]]:
    raw, complete = content.get("trials"), content.get("complete")
    if not isinstance(raw, list) or not isinstance(complete, bool):
        raise _wrong(path, "a list of trials and whether it is complete", type(raw).__name__)
    questions = set(survey.triplets)
    catch = {tuple(sorted(row)): row[2] for row in survey.catch}
    seen: set[tuple[int, ...]] = set()
    trials = []
    for number, item in enumerate(raw):
        shown, trial = _checked_trial(f"{path}, trial {number}", item, survey, questions, catch)
        if shown in seen:
            raise _wrong(f"{path}, trial {number}", "each question once", "one that was asked before")
        seen.add(shown)
        trials.append(trial)
    if complete != (len(trials) == survey.length):
        said = "complete" if complete else "incomplete"
        raise _wrong(path, f"{survey.length} trials of a complete survey", f"{len(trials)}, called {said}")
    return complete, tuple(trials)


def _checked_trial(
    where: str,
    item: Any,
    survey: Survey,
    questions: set[tuple[int, int, int]],
    catch: Mapping[tuple[int, ...], int],
) -> tuple[tuple[int, ...], Trial]:
    """The pictures in ascending order, which name the question, and the trial."""
    if not isinstance(item, dict):
        raise _wrong(where, "pictures, choice and rt", item)
    pictures, place, rt = item.get("pictures"), item.get("choice"), item.get("rt")
    if not isinstance(pictures, list) or [type(number) for number in pictures] != [int] * 3:
        raise _wrong(where, "three picture numbers", pictures)
    if type(place) is not int or not 0 <= place <= 2:
        raise _wrong(where, "choice 0, 1 or 2", place)
    if isinstance(rt, bool) or not isinstance(rt, (int, float)) or not (math.isfinite(rt) and rt >= 0):
        raise _wrong(where, "a response time in ms of at least 0", rt)
    early = item.get("early", 0)
    if type(early) is not int or early < 0:
        raise _wrong(where, "a number of early clicks of at least 0", early)
    if not all(0 <= number < len(survey.pictures) for number in pictures):
        raise _wrong(where, f"picture numbers 0..{len(survey.pictures) - 1}", pictures)
    shown = tuple(sorted(pictures))
    odd_picture = pictures[place]
    objects = [survey.pictures[number] for number in pictures]
    first, second = sorted(objects[other] for other in range(3) if other != place)
    asked = tuple(sorted(objects))
    if shown not in catch and asked not in questions:
        raise _wrong(where, "three pictures that the survey asks about together", pictures)
    right = catch[shown] == odd_picture if shown in catch else None
    return shown, Trial((first, second), objects[place], place, float(rt), right, early)


def _wrong(where: object, expected: str, found: object) -> ValueError:
    return ValueError(
        f"{where}: expected {expected}, found {str(found)[:80]}; the file was changed or cut off: ask for it again."
    )


def _one_object_list(surveys: Sequence[Survey]) -> tuple[str, ...]:
    first = surveys[0]
    for other in surveys:
        if other.objects != first.objects:
            raise ValueError(
                f"survey import: expected surveys about the same images in the same order, found {first.id} and "
                f"{other.id}, which differ; import them apart."
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
