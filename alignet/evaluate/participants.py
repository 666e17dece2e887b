"""Intervals of what is counted over triplets, for other participants: each brings all of their answers.

    who answered which triplet how -> influence of each participant -> interval

People differ (some answer with care, some at random), so the answers of one person are not independent, and an
interval over triplets is too narrow: in a simulation of 50 people who answer at random in up to 40% of their trials,
it covers in 63-69% of studies what this one covers in 97-99%.
Shape suffixes: t answers, n triplets, p participants.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from alignet.evaluate.bootstrap import LEVEL


def participants_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    triplet: np.ndarray,
    person: np.ndarray,
    answer: np.ndarray,
    n: int,
) -> tuple[float, float, int]:
    """Low, high of the mean over triplets of statistic(counts), and the number of participants behind them.

    statistic: from counts (n, 3) of answers to a value of each triplet (n,), NaN where it has none. triplet, person,
    answer: (t,) int, the triplet 0..n-1, the participant and the answer 0..2 of each answer.
    A delete-one jackknife: what a triplet's value changes by when one participant's answer is taken out, beside the
    mean of all such changes (which is what one answer fewer does, whosever it is), summed over their triplets.
    Student's t with one degree of freedom fewer than participants. The triplets are the same in every such study.
    NaN where there are fewer than two participants.
    """
    from scipy.stats import t as student

    counts = np.bincount(triplet * 3 + answer, minlength=3 * n).reshape(n, 3)
    values = statistic(counts)
    held = np.isfinite(values)[triplet]
    number = np.unique(person[held], return_inverse=True)[1].reshape(-1)
    people = int(number.max(initial=-1)) + 1
    if people < 2:
        return float("nan"), float("nan"), people
    rows, change = triplet[held], np.zeros(len(number))
    for place in range(3):
        fewer = counts.copy()
        fewer[:, place] -= 1
        without = np.nan_to_num(statistic(np.maximum(fewer, 0)))  # of a triplet with one answer: nothing
        mine = answer[held] == place
        change[mine] = (values - without)[rows[mine]]
    influence = np.bincount(number, weights=change - change.mean(), minlength=people)
    error = np.sqrt((influence**2).sum() * people / (people - 1)) / np.isfinite(values).sum()
    margin = float(error * student.ppf((1 + LEVEL) / 2, people - 1))
    mean = float(np.nanmean(values))
    return mean - margin, mean + margin, people
