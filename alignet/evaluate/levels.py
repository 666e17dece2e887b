"""Triplets at three levels of abstraction: a model's accuracy, and its uncertainty against people's.

    features, triplets.parquet (alignet.data.levels) -> model: scores, and the tables behind the figures

The AligNet paper's section 2.2.2, Table 3 and figures 8 to 11. Shape suffixes: n triplets, m images, p features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from alignet.data.trials import LEVELS
from alignet.evaluate.bootstrap import Score, interval, mean_draws
from alignet.evaluate.item_correlation import correlation
from alignet.evaluate.levels_people import Table, ceilings, columns_of, comparable, counts_of
from alignet.evaluate.odd_one_out import odd_one_out
from alignet.evaluate.result import Result
from alignet.evaluate.temperature import Temperature, fit_tau, said
from alignet.triplets import entropy, probabilities, similarities

FACTORS = tuple(
    2.0**power for power in range(-4, 5)
)  # of the temperature, to show how the result moves with it
_ODD_LAST = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])  # columns that put the odd one at 0, 1, 2 last


def model(
    features: np.ndarray,
    rows: np.ndarray,
    triplets: Table,
    *,
    dataset: str,
    tau: float | str,
    fit: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int,
    bootstrap: int,
    note: str = "",
) -> Result:
    """Accuracy and uncertainty of features against people, by level.

    features: (m, p). rows: (n, 3), rows of features of image1..image3 of each triplet. tau: a number, or `fit`: by
    maximum likelihood of the choices `fit` (features (m', p) and triplets (n', 3), odd one last), or without them of
    the answers to the other half of these triplets (cross-fitting: correlations are then means over the two halves,
    each ranked at its own temperature). A tie of similarities is wrong; modal ties are left out of the accuracy, whose
    interval is over triplets (an image occurs in few) and whose ceiling is people's, leave-one-out, with modal ties.
    Scores, each for `<dataset> <level>`: odd_one_out, odd_one_out_cosine, ties; rt_spearman and disagreement_spearman,
    the model's triplet entropy with the mean log RT and with the entropy of people's answers. For `<dataset>`:
    odd_one_out, the mean over the levels.
    Tables: levels, items (one row a triplet; right: 1, 0, -1 at a modal tie), tau (the correlations over FACTORS of the
    temperature), temperature.
    """
    triplets, asked = comparable(triplets)
    sims = _similarities(features, rows, dataset)
    temperature = _temperature(sims, triplets, tau, fit, seed=seed, dataset=dataset)
    nats = _entropy(sims, temperature.taus)
    right = np.full(len(rows), -1)
    scores, table, grid = [], [], []
    for level in (name for name in LEVELS if (triplets["level"] == name).any()):
        mine = np.flatnonzero(triplets["level"] == level)
        name = f"{dataset} {level}"
        found = _accuracy(features, rows, triplets, mine, name, seed=seed, bootstrap=bootstrap, note=note)
        scores += found
        row: dict[str, Any] = {"level": level, "triplets": len(mine), "entropy": float(nats[mine].mean())}
        row |= _accuracy_row(found, counts_of(triplets, mine), triplets["odd"][mine])
        for metric, values in (("rt", triplets["mean_log_rt"]), ("disagreement", triplets["entropy"])):
            one = correlation(
                nats[mine], values[mine], bootstrap=bootstrap, seed=seed, parts=temperature.parts[mine]
            )
            row |= {metric: one.rho, f"{metric}_sd": one.sd, f"{metric}_low": one.low, f"{metric}_high": one.high,
                    f"{metric}_n": one.n}  # fmt: skip
            if np.isfinite(one.rho):
                parts = (temperature.note, note, one.note, asked if metric == "disagreement" else "")
                told = "; ".join(text for text in parts if text)
                over = "triplets" if np.isfinite(one.low) else ""
                scores.append(Score(f"{metric}_spearman", name, one.rho, *one.ends, one.n, "triplets", over,
                                    chance=0.0, note=told))  # fmt: skip
        right[mine] = _right(sims[mine], triplets["odd"][mine])
        table.append(row)
        grid += _over_tau(sims[mine], temperature, triplets, mine, level)
    if (
        mean := _mean_accuracy(scores, right, triplets["level"], dataset, seed=seed, draws=bootstrap)
    ) is not None:
        scores.append(mean)
    tables: dict[str, Any] = {
        "levels": columns_of(table),
        "items": {
            "level": triplets["level"], "entropy": nats, "mean_log_rt": triplets["mean_log_rt"],
            "human_entropy": triplets["entropy"], "right": right,
        },
        "tau": columns_of(grid),
        "temperature": {"tau": np.array(temperature.fitted), "note": [temperature.note] * len(temperature.fitted)},
    }  # fmt: skip
    return Result(scores, tables)


def _similarities(features: np.ndarray, rows: np.ndarray, dataset: str) -> np.ndarray:
    """Dot products [s01, s02, s12] (n, 3) float64."""
    if len(rows) == 0:
        raise ValueError(f"{dataset}: expected at least one triplet with features, found none.")
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise ValueError(
            f"{dataset}: expected finite features, found NaN or infinity in {len(bad)} of {len(features)} rows, the "
            f"first {bad[0]}; embed those images again."
        )
    x = torch.from_numpy(np.asarray(features, dtype=np.float64))
    return similarities(x, torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))).numpy()


def _entropy(sims: np.ndarray, taus: np.ndarray) -> np.ndarray:
    return entropy(probabilities(torch.from_numpy(sims / taus[:, None]))).numpy()


def _temperature(
    sims: np.ndarray, triplets: Table, tau: float | str, fit: Any, *, seed: int, dataset: str
) -> Temperature:
    """The temperature of each triplet (n,), the fitted values, and how they came about."""
    n = len(sims)
    if not isinstance(tau, str):
        if not tau > 0:
            raise ValueError(f"{dataset}: expected tau above 0, or fit, found {tau}")
        return Temperature([float(tau)], np.zeros(n, dtype=np.int64), f"tau = {tau:g}, given")
    if tau != "fit":
        raise ValueError(f"{dataset}: expected tau to be a number or fit, found {tau!r}")
    if fit is not None:
        features, chosen = fit
        found = fit_tau(
            _similarities(features, chosen, dataset), np.array([[1, 0, 0]]).repeat(len(chosen), 0)
        )
        note = said([found], f"tau fitted to {len(chosen):,} other choices")
        return Temperature([found.tau], np.zeros(n, dtype=np.int64), note)
    answers = counts_of(triplets, np.ones(n, dtype=bool))[:, ::-1]  # of the pairs 01, 02, 12
    half = np.random.default_rng([seed, 1]).permutation(n) % 2
    if n < 2:
        raise ValueError(
            f"{dataset}: expected at least 2 triplets to fit tau on one half for the other, found {n}"
        )
    fits = [fit_tau(sims[half != part], answers[half != part]) for part in (0, 1)]
    note = said(
        fits, "tau fitted to the answers to the other half of the triplets, rho the mean of the halves"
    )
    return Temperature([one.tau for one in fits], half, note)


def _accuracy(
    features: np.ndarray, rows: np.ndarray, triplets: Table, mine: np.ndarray, name: str, *, seed: int, bootstrap: int,
    note: str,
) -> list[Score]:  # fmt: skip
    """odd_one_out, odd_one_out_cosine and ties on the triplets whose answers have one majority; [] without any."""
    odd = triplets["odd"][mine]
    held = mine[odd >= 0]
    if not len(held):
        return []
    last = np.take_along_axis(rows[held], _ODD_LAST[odd[odd >= 0]], 1)
    people = ceilings(counts_of(triplets, mine))
    told = f"{len(mine) - len(held):,} modal ties left out"
    if people["n"]:
        told += f"; ceiling leave-one-out with them, ties of the others by their share; as wrong {people['wrong']:.3f}"
    if people["n_untied"]:
        told += f"; without modal ties {people['shared_untied']:.3f}"
    value = people["shared"] if people["n"] and people["shared"] > 0 else None
    scores = odd_one_out(
        features, last, dataset=name, tau="spread", seed=seed, bootstrap=bootstrap, ceiling=value, over="triplets",
        note="; ".join(text for text in (told, note) if text),
    )  # fmt: skip
    return [score for score in scores if score.metric != "triplet_entropy"]


def _mean_accuracy(
    scores: list[Score], right: np.ndarray, level: np.ndarray, dataset: str, *, seed: int, draws: int
) -> Score | None:
    """The mean of the levels' odd_one_out, its interval over the triplets of each level; None for a single level."""
    found = [score for score in scores if score.metric == "odd_one_out"]
    if len(found) < 2:
        return None
    names = [score.dataset.removeprefix(f"{dataset} ") for score in found]
    parts = [right[(level == name) & (right >= 0)].astype(np.float64) for name in names]
    means = np.mean([mean_draws(part, draws=draws, seed=seed + place) for place, part in enumerate(parts)], 0)
    ceilings_of = [score.ceiling for score in found]
    ceiling = None if None in ceilings_of else float(np.mean(np.array(ceilings_of, dtype=np.float64)))
    return Score(
        "odd_one_out", dataset, float(np.mean([score.value for score in found])), *interval(means),
        sum(score.n for score in found), "triplets", "triplets", chance=1 / 3, ceiling=ceiling,
        note=f"mean of the levels {', '.join(names)}",
    )  # fmt: skip


def _accuracy_row(found: list[Score], counts: np.ndarray, odd: np.ndarray) -> dict[str, Any]:
    nan, every = float("nan"), ceilings(counts)
    score = found[0] if found else None
    return {
        "modal_ties": int((odd < 0).sum()), "n": score.n if score else 0,
        "accuracy": score.value if score else nan, "accuracy_low": score.low if score else nan,
        "accuracy_high": score.high if score else nan, "ceiling": every["shared"],
        "ceiling_untied": every["shared_untied"], "ceiling_wrong": every["wrong"],
        "ceiling_wrong_untied": every["wrong_untied"],
    }  # fmt: skip


def _right(sims: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """1 where the majority's pair is strictly the most similar, 0 where not, -1 at a modal tie: (n,)."""
    own = np.take_along_axis(sims, np.maximum(2 - odd, 0).clip(max=2)[:, None], 1)
    near = 1e-10 * np.abs(sims).max(1, keepdims=True)  # rounding error breaks no tie
    return np.where(odd < 0, -1, ((sims >= own - near).sum(1) == 1).astype(int))


def _over_tau(
    sims: np.ndarray, temperature: Temperature, triplets: Table, mine: np.ndarray, level: str
) -> list[dict[str, Any]]:
    """Both correlations of one level where the temperature is FACTORS times what it is."""
    found = []
    for factor in FACTORS:
        nats = _entropy(sims, temperature.taus[mine] * factor)
        row: dict[str, Any] = {"level": level, "factor": factor}
        for name, values in (("rt", triplets["mean_log_rt"]), ("disagreement", triplets["entropy"])):
            row[name] = correlation(
                nats, values[mine], bootstrap=0, seed=0, parts=temperature.parts[mine]
            ).rho
        found.append(row)
    return found
