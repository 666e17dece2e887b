"""What people did in trials with response times, by level: how long they took, how much they disagree.

    triplets.parquet, trials.parquet (alignet.data.levels) -> people: scores, and the tables behind the figures

The AligNet paper's sections 2.2.1 and A.3 and its figure 5. Shape suffixes: t trials, n triplets, p participants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignet.data.trials import LEVELS
from alignet.evaluate.bootstrap import Score, interval, mean_draws
from alignet.evaluate.item_correlation import Correlation, correlation
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
    frequent ones of the others: `wrong` is nothing, `shared` is its share of them. NaN for fewer than two answers.
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


def people(trials: Table, triplets: Table, *, dataset: str, seed: int, bootstrap: int) -> Result:
    """Response times, disagreement, their correlation and the noise ceiling, by level.

    trials, triplets: as data.levels.Tidy has them. Scores, each for `<dataset> <level>`: response_time (median, s, over
    trials that count for times; its interval resamples participants), answer_entropy (nats, mean over triplets),
    rt_spearman (people's entropy with the mean log response time, over triplets), human_ceiling (leave-one-out over all
    triplets, an answer that meets a tie being wrong).
    Tables: levels (everything by level), tests (paired t-tests over participants' mean log RT), rt (histogram of
    log RT), items (entropy, mean log RT), entropies (how often each value).
    """
    present = [name for name in LEVELS if (triplets["level"] == name).any()]
    rows, scores, items = [], [], []
    for level in present:
        row, correlated = _people_of(trials, triplets, level, seed=seed, bootstrap=bootstrap)
        rows.append(row)
        scores += _people_scores(row, correlated, f"{dataset} {level}")
        mine = triplets["level"] == level
        items.append(
            [
                np.full(mine.sum(), level, dtype=object),
                triplets["entropy"][mine],
                triplets["mean_log_rt"][mine],
            ]
        )
    tables = {"levels": columns_of(rows)}
    tables["tests"] = _paired(trials, present)
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
    mean = interval(mean_draws(nats, draws=bootstrap, seed=seed)) if len(nats) else (nan, nan)
    found = correlation(
        triplets["entropy"][mine], triplets["mean_log_rt"][mine], bootstrap=bootstrap, seed=seed
    )
    counts = counts_of(triplets, mine)
    ceiling = ceilings(counts)
    agrees = leave_one_out(counts[counts.sum(1) > 1], tied="wrong")
    bounds = interval(mean_draws(agrees, draws=bootstrap, seed=seed)) if len(agrees) else (nan, nan)
    row = {
        "level": level, "participants": len(set(who)), "timed": len(seconds), "triplets": int(mine.sum()),
        "answers": int(counts.sum()), "modal_ties": int((triplets["odd"][mine] < 0).sum()),
        "rt_median": float(np.median(seconds)) if len(seconds) else nan,
        "rt_se": float(seconds.std(ddof=1) / np.sqrt(len(seconds))) if len(seconds) > 1 else nan,
        "rt_low": median[0], "rt_high": median[1],
        "entropy": float(nats.mean()) if len(nats) else nan, "entropy_low": mean[0], "entropy_high": mean[1],
        "entropy_n": len(nats), "rho": found.rho, "rho_sd": found.sd, "rho_low": found.low, "rho_high": found.high,
        "rho_n": found.n, "ceiling": ceiling["wrong"], "ceiling_low": bounds[0], "ceiling_high": bounds[1],
        "ceiling_untied": ceiling["wrong_untied"], "ceiling_shared": ceiling["shared"],
        "ceiling_shared_untied": ceiling["shared_untied"], "ceiling_n": int(ceiling["n"]),
    }  # fmt: skip
    return row, found


def _people_scores(row: Mapping[str, Any], found: Correlation, dataset: str) -> list[Score]:
    scores = []
    if row["timed"]:
        note = f"median, s; SE over trials {row['rt_se']:.3f}; {row['participants']} participants"
        scores.append(
            Score("response_time", dataset, row["rt_median"], row["rt_low"], row["rt_high"], row["timed"], "trials",
                  "participants", note=note)
        )  # fmt: skip
    if row["entropy_n"]:
        scores.append(
            Score("answer_entropy", dataset, row["entropy"], row["entropy_low"], row["entropy_high"], row["entropy_n"],
                  "triplets", "triplets", note="people's answers, nats; at most ln 3 = 1.099")
        )  # fmt: skip
    if np.isfinite(found.rho):
        parts = ["people's own disagreement with their mean log RT", found.note]
        parts += [f"SD {found.sd:.3f}"] if np.isfinite(found.sd) else []
        over = "triplets" if np.isfinite(found.low) else ""
        scores.append(Score("rt_spearman", dataset, found.rho, *found.ends, found.n, "triplets", over,
                            chance=0.0, note="; ".join(filter(None, parts))))  # fmt: skip
    if row["ceiling_n"]:
        note = f"leave-one-out, all triplets; without {row['modal_ties']:,} modal ties {row['ceiling_untied']:.3f}"
        scores.append(Score("human_ceiling", dataset, row["ceiling"], row["ceiling_low"], row["ceiling_high"],
                            row["ceiling_n"], "triplets", "triplets", chance=1 / 3, note=note))  # fmt: skip
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


def _paired(trials: Table, present: list[str]) -> dict[str, np.ndarray]:
    """Paired t-tests between levels over participants' mean log RT, of those who have both."""
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
    for first, second in PAIRS:
        both = sorted(means.get(first, {}).keys() & means.get(second, {}).keys())
        if len(both) < 2:
            continue
        a, b = (np.array([means[level][who] for who in both]) for level in (first, second))
        test = ttest_rel(a, b)
        rows.append({
            "first": first, "second": second, "difference": float((a - b).mean()), "t": float(test.statistic),
            "df": len(both) - 1, "p": float(test.pvalue),
        })  # fmt: skip
    return columns_of(rows)


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
