"""What people did in trials with response times, by level: how long they took, how much they disagree.

    triplets.parquet, trials.parquet (alignet.data.levels) -> people: scores, and the tables behind the figures

The AligNet paper's sections 2.2.1 and A.3 and its figure 5. Shape suffixes: t trials, n triplets, p participants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alignet.data.levels import entropy_of_counts
from alignet.data.trials import LEVELS
from alignet.evaluate.bootstrap import Score, clopper_pearson, interval
from alignet.evaluate.item_correlation import Correlation, correlation
from alignet.evaluate.participants import participants_interval
from alignet.evaluate.result import Result

PAIRS = (
    ("fine", "boundary"),
    ("coarse", "fine"),
    ("coarse", "boundary"),
)  # of levels whose times are compared
BIN = 0.1  # width of the histogram of log response times

Table = Mapping[str, np.ndarray]


def leave_one_out(counts: np.ndarray, *, tied: str) -> np.ndarray:
    """How often an answer is the most frequent one of a triplet's other answers: (n,) within [0, 1].

    counts: (n, 3) answers by position of the odd one. tied: what an answer is worth that is one of several most
    frequent ones of the others: `wrong` is nothing, `shared` is its share of them, with which people who answer at
    random come to exactly 1/3 (with `wrong` to 0.26 of five answers). NaN for fewer than two answers.
    """
    if tied not in ("wrong", "shared"):
        raise ValueError(f"leave_one_out: expected tied to be wrong or shared, found {tied!r}")
    counts = np.asarray(counts, dtype=np.int64)
    agrees = np.zeros(len(counts))
    for odd in range(3):
        others = counts.copy()
        others[:, odd] -= 1
        most = others == others.max(1, keepdims=True)
        ways = most.sum(1)
        worth = np.where(ways == 1, 1.0, 0.0 if tied == "wrong" else 1 / ways)
        agrees += counts[:, odd] * most[:, odd] * worth
    total = counts.sum(1)
    return np.divide(agrees, total, out=np.full(len(counts), np.nan), where=total > 1)


def ceilings(counts: np.ndarray) -> dict[str, float]:
    """Mean of leave_one_out over triplets with at least two answers, by convention; `_untied` without modal ties.

    `shared` is the ceiling; its chance is 1/3. Leaving out modal ties keeps the triplets on which people happened to
    agree: those who answer at random come to 0.53 (`shared`) or 0.41 (`wrong`) of five answers, so no chance is known.
    NaN where no triplet is left. `n`, `n_untied`: triplets behind each.
    """
    counts = counts[counts.sum(1) > 1]
    untied = (counts == counts.max(1, keepdims=True)).sum(1) == 1
    found = {"n": float(len(counts)), "n_untied": float(untied.sum())}
    for tied in ("wrong", "shared"):
        agrees = leave_one_out(counts, tied=tied)
        found[tied] = float(agrees.mean()) if len(agrees) else float("nan")
        found[f"{tied}_untied"] = float(agrees[untied].mean()) if untied.any() else float("nan")
    return found


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Rows with the same names as columns; no rows, no columns."""
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}


def counts_of(triplets: Table, mine: np.ndarray, name: str = "answers") -> np.ndarray:
    """Answers (n, 3) by position of some triplets of a table; name: answers, or unique."""
    return np.stack([triplets[f"{name}{place}"][mine] for place in (1, 2, 3)], 1)


def comparable(triplets: Table) -> tuple[dict[str, np.ndarray], str]:
    """The triplets with the entropy of those alone that have the commonest number of answers behind it; and a note.

    Entropies of unequally many answers do not compare (see data.levels.entropy_of_counts): those of other triplets
    become NaN. The number is the same for all levels, at least 2, the larger of equally common ones.
    """
    number = counts_of(triplets, np.arange(len(triplets["level"])), "unique").sum(1)
    many = number[number > 1]
    if not len(many):
        return dict(triplets), "no triplet has two answers"
    commonest = int(many.max() - np.bincount(many)[::-1].argmax())
    held = number == commonest
    entropy = np.where(held, triplets["entropy"], np.nan)
    told = f"of the {held.sum():,} of {len(number):,} triplets with {commonest} answers, the commonest number"
    return {**triplets, "entropy": entropy}, told


def people(trials: Table, triplets: Table, *, dataset: str, seed: int, bootstrap: int) -> Result:
    """Response times, disagreement, their correlation and the noise ceiling, by level.

    trials, triplets: as data.levels.Tidy has them. Scores, each for `<dataset> <level>`: response_time (median, s, over
    trials that count for times; its interval resamples participants), answer_entropy (nats, mean over triplets with the
    commonest number of answers, for other participants), rt_spearman (people's entropy with the mean log response time,
    over those triplets), human_ceiling (leave-one-out over all triplets, an answer that meets a tie counting by its
    share; for other participants).
    Tables: levels (everything by level), tests (paired t-tests over participants' mean log RT), rt (histogram of
    log RT), items (entropy, mean log RT), entropies (how often each value).
    """
    triplets, asked = comparable(triplets)
    present = [name for name in LEVELS if (triplets["level"] == name).any()]
    paired, untested = _paired(trials, present)
    rows, scores, items = [], [], []
    for level in present:
        row, correlated = _people_of(trials, triplets, level, seed=seed, bootstrap=bootstrap)
        rows.append(row)
        scores += _people_scores(row, correlated, f"{dataset} {level}", asked, untested.get(level, ""))
        mine = triplets["level"] == level
        items.append(
            [
                np.full(mine.sum(), level, dtype=object),
                triplets["entropy"][mine],
                triplets["mean_log_rt"][mine],
            ]
        )
    tables = {"levels": columns_of(rows)}
    tables["tests"] = paired
    tables["rt"] = _histogram(trials, present)
    tables["items"] = dict(
        zip(("level", "entropy", "mean_log_rt"), map(np.concatenate, zip(*items)), strict=True)
    )
    tables["entropies"] = _entropies(triplets, present)
    return Result(scores, tables)


def _people_of(
    trials: Table, triplets: Table, level: str, *, seed: int, bootstrap: int
) -> tuple[dict[str, Any], Correlation]:
    """One row of the table `levels`."""
    mine = triplets["level"] == level
    timed = trials["timed"] & (trials["level"] == level)
    seconds, who = trials["rt_ms"][timed] / 1000, trials["participant"][timed]
    nats = triplets["entropy"][mine]
    nats = nats[np.isfinite(nats)]
    nan = float("nan")
    median = _median_interval(seconds, who, bootstrap=bootstrap, seed=seed) if len(seconds) else (nan, nan)
    mean = _over_people(entropy_of_counts, trials, np.isfinite(triplets["entropy"]) & mine, trials["unique"])
    found = correlation(
        triplets["entropy"][mine], triplets["mean_log_rt"][mine], bootstrap=bootstrap, seed=seed
    )
    counts = counts_of(triplets, mine)
    ceiling = ceilings(counts)
    bounds = _over_people(_shared, trials, mine, np.ones(len(trials["triplet"]), dtype=bool))
    if bounds[0] == bounds[1] == ceiling["shared"] == 1:
        bounds = clopper_pearson(
            int(ceiling["n"]), int(ceiling["n"])
        )  # nobody ever disagrees: nothing can vary
    row = {
        "level": level, "participants": len(set(who)), "timed": len(seconds), "triplets": int(mine.sum()),
        "answers": int(counts.sum()), "modal_ties": int((triplets["odd"][mine] < 0).sum()),
        "rt_median": float(np.median(seconds)) if len(seconds) else nan,
        "rt_se": float(seconds.std(ddof=1) / np.sqrt(len(seconds))) if len(seconds) > 1 else nan,
        "rt_low": median[0], "rt_high": median[1],
        "entropy": float(nats.mean()) if len(nats) else nan,
        "entropy_low": max(mean[0], 0.0), "entropy_high": min(mean[1], math.log(3)),
        "entropy_n": len(nats), "rho": found.rho, "rho_sd": found.sd, "rho_low": found.low, "rho_high": found.high,
        "rho_n": found.n, "ceiling": ceiling["shared"], "ceiling_low": max(bounds[0], 0.0),
        "ceiling_high": min(bounds[1], 1.0), "ceiling_untied": ceiling["shared_untied"],
        "ceiling_wrong": ceiling["wrong"], "ceiling_wrong_untied": ceiling["wrong_untied"],
        "ceiling_shared": ceiling["shared"], "ceiling_shared_untied": ceiling["shared_untied"],
        "ceiling_n": int(ceiling["n"]),
    }  # fmt: skip
    return row, found


def _shared(counts: np.ndarray) -> np.ndarray:
    return leave_one_out(counts, tied="shared")


def _over_people(
    statistic: Callable[[np.ndarray], np.ndarray], trials: Table, triplets: np.ndarray, counted: np.ndarray
) -> tuple[float, float]:
    """Interval for other participants of the mean of statistic over some triplets (n,) and trials (t,), by flags."""
    counted = counted & triplets[trials["triplet"]]
    number = (np.cumsum(triplets) - 1)[trials["triplet"][counted]]
    low, high, _ = participants_interval(
        statistic, number, trials["participant"][counted], trials["answer"][counted], int(triplets.sum())
    )
    return low, high


def _ends(low: float, high: float, over: str) -> dict[str, Any]:
    """The interval of a score; none where nothing was found."""
    held = math.isfinite(low) and math.isfinite(high)
    return {"low": low, "high": high, "over": over} if held else {"low": None, "high": None, "over": ""}


def _people_scores(
    row: Mapping[str, Any], found: Correlation, dataset: str, asked: str, untested: str
) -> list[Score]:
    scores = []
    if row["timed"]:
        note = f"median, s; SE over trials {row['rt_se']:.3f}; {row['participants']} participants"
        note += f"; {untested}" if untested else ""
        scores.append(
            Score("response_time", dataset, row["rt_median"], row["rt_low"], row["rt_high"], row["timed"], "trials",
                  "participants", note=note)
        )  # fmt: skip
    if row["entropy_n"]:
        scores.append(
            Score("answer_entropy", dataset, row["entropy"], n=row["entropy_n"], unit="triplets",
                  note=f"people's answers, nats; at most ln 3 = 1.099; {asked}",
                  **_ends(row["entropy_low"], row["entropy_high"], "participants"))
        )  # fmt: skip
    if np.isfinite(found.rho):
        parts = ["people's own disagreement with their mean log RT", found.note]
        parts += [f"SD {found.sd:.3f}"] if np.isfinite(found.sd) else []
        over = "triplets" if np.isfinite(found.low) else ""
        scores.append(Score("rt_spearman", dataset, found.rho, *found.ends, found.n, "triplets", over,
                            chance=0.0, note="; ".join(filter(None, [*parts, asked]))))  # fmt: skip
    if row["ceiling_n"]:
        note = f"leave-one-out, all triplets, ties of the others by their share; as wrong {row['ceiling_wrong']:.3f}"
        if math.isfinite(row["ceiling_untied"]):
            note += f"; without {row['modal_ties']:,} modal ties {row['ceiling_untied']:.3f}"
        scores.append(Score("human_ceiling", dataset, row["ceiling"], n=row["ceiling_n"], unit="triplets", chance=1 / 3,
                            note=note, **_ends(row["ceiling_low"], row["ceiling_high"], "participants")))  # fmt: skip
    return scores


def _median_interval(
    values: np.ndarray, who: np.ndarray, *, bootstrap: int, seed: int
) -> tuple[float, float]:
    """Interval of the median of values (t,) when their participants are resampled."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    person = np.unique(who, return_inverse=True)[1].reshape(-1)[order]
    generator = np.random.default_rng(seed)
    p = int(person.max()) + 1
    draws = []
    for _ in range(bootstrap):
        held = np.cumsum(np.bincount(generator.integers(p, size=p), minlength=p)[person])
        draws.append(ranked[np.searchsorted(held, held[-1] / 2)])
    return interval(np.array(draws))


def _paired(trials: Table, present: list[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Paired t-tests between levels over participants' mean log RT, of those who have both.

    A pair whose differences are all the same has no t: it is left out, and the second value says so, by level.
    """
    from scipy.stats import ttest_rel

    means = {}
    for level in present:
        timed = trials["timed"] & (trials["level"] == level)
        who, index = np.unique(trials["participant"][timed].astype(str), return_inverse=True)
        sums = np.bincount(index.reshape(-1), weights=trials["log_rt"][timed], minlength=len(who))
        means[level] = dict(
            zip(who.tolist(), sums / np.bincount(index.reshape(-1), minlength=len(who)), strict=True)
        )
    rows: list[dict[str, Any]] = []
    untested: dict[str, list[str]] = {}
    for first, second in PAIRS:
        both = sorted(means.get(first, {}).keys() & means.get(second, {}).keys())
        if len(both) < 2:
            continue
        a, b = (np.array([means[level][who] for who in both]) for level in (first, second))
        if np.ptp(a - b) <= 1e-12 * np.abs([a, b]).max(initial=1e-300):
            for level, other in ((first, second), (second, first)):
                said = f"no t-test against {other}: all {len(both)} differences are equal"
                untested.setdefault(level, []).append(said)
            continue
        test = ttest_rel(a, b)
        rows.append({
            "first": first, "second": second, "difference": float((a - b).mean()), "t": float(test.statistic),
            "df": len(both) - 1, "p": float(test.pvalue),
        })  # fmt: skip
    return columns_of(rows), {level: "; ".join(said) for level, said in untested.items()}


def _histogram(trials: Table, present: list[str]) -> dict[str, np.ndarray]:
    """Density of log RT (of seconds) in bins of width BIN, by level."""
    rows = []
    for level in present:
        values = trials["log_rt"][trials["timed"] & (trials["level"] == level)]
        bins, counts = np.unique(np.floor(values / BIN + 1e-9).astype(int), return_counts=True)
        for place, count in zip(bins.tolist(), counts.tolist()):
            rows.append(
                {"level": level, "low": place * BIN, "count": count, "density": count / len(values) / BIN}
            )
    return columns_of(rows)


def _entropies(triplets: Table, present: list[str]) -> dict[str, np.ndarray]:
    """How many triplets of each level have each value of the entropy of answers."""
    rows = []
    for level in present:
        nats = triplets["entropy"][triplets["level"] == level]
        values, counts = np.unique(np.round(nats[np.isfinite(nats)], 6), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist()):
            rows.append({"level": level, "entropy": value, "count": count, "share": count / counts.sum()})
    return columns_of(rows)
