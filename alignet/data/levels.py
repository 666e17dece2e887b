"""From raw trials to tidy data: which participants and trials count, what people agree on, how long they took.

    Trials -> trials.parquet, triplets.parquet -> alignet.evaluate.levels

The recipe is that of the data set Levels (the AligNet paper, section A.3):
1. participants with too few right answers to catch trials, or too many misses, are left out;
2. of participants with the same set of triplets only the first in the table counts for response times and
   disagreement; the answers of the others still count for the majority. (The paper keeps 448 of 473 participants with
   448 different sets for this, so one of each set stays.) A study in which many answer one list wants all of them;
3. response times above slow_ms do not count; the others are log(rt / 1000);
4. the majority answer of a triplet is the most frequent one; where several are, there is none: a modal tie.

Two trials are about one triplet if they show the same three images in any order.
Shape suffixes: t trials, n triplets, p participants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignet.data.trials import LEVELS, Trials

TABLES = ("trials", "triplets")
SHARED_SETS = ("first", "all")
MOST_SHARING = 0.2  # of the participants who count, left out for sharing a set, before it must be chosen


@dataclass(frozen=True)
class Tidy:
    """What counts. trials: a row for each answer of a kept participant; triplets: one for each different triplet.

    trials: participant, trial, triplet (row of `triplets`), level, answer (which of the triplet's image1..image3, from
    0), rt_ms, log_rt (of seconds; NaN above slow_ms), unique (whether the participant counts for response times and
    disagreement), timed (unique and not slow).
    triplets: image1, image2, image3 (sorted), level, answers1..3 (how often each was the odd one), odd (the majority's,
    0..2, -1 at a tie), unique1..3 (as answers, of participants that are `unique`), entropy (of those, nats; NaN below
    two), mean_log_rt (over `timed` trials; NaN without any), timed (their number).
    """

    trials: Mapping[str, np.ndarray]
    triplets: Mapping[str, np.ndarray]
    summary: Mapping[str, Any]  # counts: who and what was left out, and why


def tidy(
    trials: Trials, *, catch_accuracy: float, max_misses: int, slow_ms: float, shared_sets: str = "first",
    name: str = "trials",
) -> Tidy:  # fmt: skip
    """Apply the recipe. catch_accuracy: least share of right answers to catch trials, a miss being wrong; 0 judges
    nobody. max_misses: most trials without an answer, catch trials among them. shared_sets: who of those with one set
    of triplets counts for response times and disagreement, the `first` or `all`.

    Raises ValueError where the right answer to a catch trial is unknown, where there are no catch trials to judge by,
    where a triplet has two levels, where nobody is left, and where `first` would leave out more than MOST_SHARING of
    those who count.
    """
    reasons = _reasons(trials, catch_accuracy, max_misses, name)
    kept = reasons == ""
    if not kept.any():
        raise ValueError(
            f"{name}: expected at least one participant who counts, found none of {len(kept)} "
            f"({_told(reasons)}); check the answers to catch trials, or set levels.catch_accuracy, levels.max_misses."
        )
    ordinary = ~trials.catch & kept[trials.participant]
    if not ordinary.any():
        out = f"; {len(kept) - kept.sum()} were left out ({_told(reasons)})" if not kept.all() else ""
        raise ValueError(
            f"{name}: expected trials beside the catch trials of {kept.sum()} of {len(kept)} participants who count, "
            f"found none{out}; check participant and exp_trial_type."
        )
    rows, shown, number = _distinct(trials, ordinary)
    level = _one_level(trials.level[rows], number, len(shown), trials, shown, name)
    unique = _unique(trials.participant[rows], number, kept, shared_sets, name)
    first, repeated = _first_answers(trials, rows, number)
    table = _trial_table(trials, rows[first], number[first], shown, unique, slow_ms)
    triplets = _triplet_table(table, shown, level, trials.images)
    answered = triplets["answers1"] + triplets["answers2"] + triplets["answers3"] > 0
    table["triplet"] = (np.cumsum(answered) - 1)[table["triplet"]]
    table["level"] = np.array(LEVELS, dtype=object)[level][number[first]]
    table["participant"] = np.array(trials.participants, dtype=object)[table["participant"]]
    triplets = {column: values[answered] for column, values in triplets.items()}
    summary = {
        "participants": len(kept), "kept": int(kept.sum()), "left_out": _counted(reasons),
        "sharing_a_set": int(kept.sum() - unique.sum()), "shared_sets": shared_sets,
        "trials": len(table["trial"]), "misses": int((trials.selected[rows] < 0).sum()), "repeated_by_one": repeated,
        "slow": int(np.isnan(table["log_rt"]).sum()), "timed": int(table["timed"].sum()),
        "triplets": len(triplets["level"]), "without_answer": int((~answered).sum()),
        "modal_ties": int((triplets["odd"] < 0).sum()), "by_level": _by_level(table, triplets),
    }  # fmt: skip
    return Tidy(table, triplets, summary)


def entropy_of_counts(counts: np.ndarray) -> np.ndarray:
    """Shannon entropy in nats, within [0, ln 3], of answers counted in (n, 3); NaN below two answers.

    The entropy of few answers is too low, and the fewer the lower: compare triplets with equally many.
    """
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum(1, keepdims=True)
    shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 1)
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1) + 0.0  # no negative zero


def majority(counts: np.ndarray) -> np.ndarray:
    """Position of the most frequent answer of (n, 3) counts, -1 where several are: int64 (n,)."""
    tied = (counts == counts.max(1, keepdims=True)).sum(1) > 1
    return np.where(tied, -1, counts.argmax(1))


def write_tidy(folder: Path, found: Tidy) -> None:
    """Write trials.parquet and triplets.parquet, each through a temporary name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in TABLES:
        table = pa.table({column: pa.array(values) for column, values in getattr(found, name).items()})
        temporary = folder / f"{name}.parquet.tmp"
        pq.write_table(table, temporary)
        temporary.replace(folder / f"{name}.parquet")


def read_tidy(folder: Path, name: str) -> dict[str, np.ndarray]:
    """One of TABLES of a folder that write_tidy wrote, by column."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / f"{name}.parquet")
    return {column: table[column].to_numpy(zero_copy_only=False) for column in table.column_names}


def _reasons(trials: Trials, catch_accuracy: float, max_misses: int, name: str) -> np.ndarray:
    """Why each participant is left out, '' for those who count: objects (p,)."""
    p = len(trials.participants)
    misses = np.bincount(trials.participant, weights=trials.selected < 0, minlength=p)
    reasons = np.full(p, "", dtype=object)
    reasons[misses > max_misses] = "misses"
    if catch_accuracy > 0:
        asked, right = _caught(trials, p, name)
        reasons[asked == 0] = "no catch trial"
        reasons[right < catch_accuracy * asked - 1e-9] = "catch trials"
    return reasons


def _caught(trials: Trials, p: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Catch trials and right answers to them of each participant (p,)."""
    if not trials.catch.any():
        raise ValueError(
            f"{name}: expected catch trials (exp_trial_type catch_trial) to judge participants by, found none; set "
            "levels.catch_accuracy=0 if nobody was asked any."
        )
    unknown = np.flatnonzero(trials.catch & (trials.right < 0))
    if len(unknown):
        images = ", ".join(trials.images[image] for image in trials.shown[unknown[0]])
        raise ValueError(
            f"{name}: expected the right answer to every catch trial, found none for {len(unknown)}, the first in row "
            f"{unknown[0] + 1} ({images}): there is no correct_image, and no two of its images are the same; add the "
            "column correct_image, or set levels.catch_accuracy=0 to judge nobody by them."
        )
    who = trials.participant[trials.catch]
    right = trials.selected[trials.catch] == trials.right[trials.catch]
    return np.bincount(who, minlength=p), np.bincount(who, weights=right, minlength=p)


def _distinct(trials: Trials, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the wanted trials, the different triplets (n, 3) sorted by name, and each row's number among them."""
    rows = np.flatnonzero(wanted)
    shown, number = np.unique(np.sort(trials.shown[rows], axis=1), axis=0, return_inverse=True)
    return rows, shown, number.reshape(-1)


def _one_level(
    levels: np.ndarray, number: np.ndarray, n: int, trials: Trials, shown: np.ndarray, name: str
) -> np.ndarray:
    """The level of each triplet (n,)."""
    level = np.zeros(n, dtype=np.int64)
    level[number] = levels
    bad = np.flatnonzero(level[number] != levels)
    if len(bad):
        images = ", ".join(trials.images[image] for image in shown[number[bad[0]]])
        raise ValueError(
            f"{name}: expected one triplet_type for each triplet, found two for {images}; correct one of its rows."
        )
    return level


def _unique(
    participant: np.ndarray, number: np.ndarray, kept: np.ndarray, shared_sets: str, name: str
) -> np.ndarray:
    """Whether each participant (p,) counts for response times and disagreement."""
    if shared_sets not in SHARED_SETS:
        raise ValueError(
            f"{name}: expected shared_sets to be one of {', '.join(SHARED_SETS)}, found {shared_sets!r}"
        )
    if shared_sets == "all":
        return kept.copy()
    unique = _first_of_each_set(participant, number, kept)
    sharing, people = int(kept.sum() - unique.sum()), int(kept.sum())
    if sharing > MOST_SHARING * people:
        raise ValueError(
            f"{name}: expected most participants to have a set of triplets of their own, found {sharing} of {people} "
            "who share theirs with an earlier one and would not count for response times and disagreement; set "
            "levels.shared_sets=all, so that everybody counts."
        )
    return unique


def _first_of_each_set(participant: np.ndarray, number: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Whether each participant (p,) is kept and the first whose set of triplets this is."""
    unique, seen = np.zeros(len(kept), dtype=bool), set()
    order = np.argsort(participant, kind="stable")
    bounds = np.searchsorted(participant[order], np.arange(len(kept) + 1))
    for who in np.flatnonzero(kept):
        own = np.unique(number[order[bounds[who] : bounds[who + 1]]]).tobytes()
        unique[who] = own not in seen
        seen.add(own)
    return unique


def _first_answers(trials: Trials, rows: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, int]:
    """Which of `rows` hold an answer, the first of its participant to that triplet; and how many further ones do."""
    answered = np.flatnonzero(trials.selected[rows] >= 0)
    key = trials.participant[rows[answered]] * (number.max() + 1) + number[answered]
    _, first = np.unique(key, return_index=True)
    return answered[np.sort(first)], len(answered) - len(first)


def _trial_table(
    trials: Trials,
    rows: np.ndarray,
    number: np.ndarray,
    shown: np.ndarray,
    unique: np.ndarray,
    slow_ms: float,
) -> dict[str, np.ndarray]:
    odd = np.take_along_axis(trials.shown[rows], trials.selected[rows][:, None], 1)
    rt = trials.rt[rows]
    fast = rt <= slow_ms
    who = trials.participant[rows]
    return {
        "participant": who,
        "trial": trials.number[rows],
        "triplet": number,
        "level": number,  # replaced by the name
        "answer": (shown[number] == odd).argmax(1),
        "rt_ms": rt,
        "log_rt": np.where(fast, np.log(rt / 1000), np.nan),
        "unique": unique[who],
        "timed": unique[who] & fast,
    }


def _triplet_table(
    table: Mapping[str, np.ndarray], shown: np.ndarray, level: np.ndarray, images: tuple[str, ...]
) -> dict[str, np.ndarray]:
    n, number, cell = len(shown), table["triplet"], table["triplet"] * 3 + table["answer"]
    answers = np.bincount(cell, minlength=3 * n).reshape(n, 3)
    unique = np.bincount(cell[table["unique"]], minlength=3 * n).reshape(n, 3)
    timed = table["timed"]
    count = np.bincount(number[timed], minlength=n)
    total = np.bincount(number[timed], weights=table["log_rt"][timed], minlength=n)
    names = np.array(images, dtype=object)[shown]
    return {
        **{f"image{place + 1}": names[:, place] for place in range(3)},
        "level": np.array(LEVELS, dtype=object)[level],
        **{f"answers{place + 1}": answers[:, place] for place in range(3)},
        "odd": majority(answers),
        **{f"unique{place + 1}": unique[:, place] for place in range(3)},
        "entropy": entropy_of_counts(unique),
        "mean_log_rt": np.divide(total, count, out=np.full(n, np.nan), where=count > 0),
        "timed": count,
    }


def _by_level(table: Mapping[str, np.ndarray], triplets: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        name: {
            "trials": int((table["level"] == name).sum()),
            "triplets": int((triplets["level"] == name).sum()),
            "modal_ties": int(((triplets["level"] == name) & (triplets["odd"] < 0)).sum()),
        }
        for name in LEVELS
    }


def _counted(reasons: np.ndarray) -> dict[str, int]:
    return {why: int((reasons == why).sum()) for why in ("catch trials", "no catch trial", "misses")}


def _told(reasons: np.ndarray) -> str:
    return ", ".join(f"{count} for {why}" for why, count in _counted(reasons).items() if count)
