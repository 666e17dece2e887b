"""BREEDS: superclasses learned on some subclasses and tested on others (Santurkar et al. 2020; the paper's figure 4B).

Shape suffixes: n images, p features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignet.data.breeds import Superclass, check_split
from alignet.evaluate.bootstrap import Score, mean_draws, share_interval
from alignet.evaluate.linear_classifier import fit_readout
from alignet.evaluate.result import Result


def breeds(
    train_features: np.ndarray,
    train_wnids: np.ndarray,
    test_features: np.ndarray,
    test_wnids: np.ndarray,
    split: Sequence[Superclass],
    *,
    dataset: str,
    C: float,
    per_subclass: int | None,
    seed: int,
    bootstrap: int = 1000,
    note: str = "",
) -> Result:
    """Accuracy of a linear readout of the superclass on subclasses that it has never seen, and on those it has.

    Features are (n, p), the wnids (n,) their images' subclasses; images of other classes are ignored. Learned on the
    training images of source subclasses, at most `per_subclass` of each. Scores: `breeds` on the test images of
    target subclasses, whose interval resamples subclasses (other breeds might have been drawn) and whose note holds
    the one over images; `breeds_source` on those of source subclasses, over images. Table `breeds`: each subclass.
    """
    check_split(split, dataset)
    homes = {name: row for row, one in enumerate(split) for name in (*one.source, *one.target)}
    source = {name for one in split for name in one.source}
    _present(train_wnids, source, f"{dataset}: training")
    _present(test_wnids, set(homes), f"{dataset}: test")
    trained = np.isin(train_wnids, sorted(source))
    readout = fit_readout(
        train_features[trained], np.array([homes[name] for name in train_wnids[trained]]), C=C,
        per_label=per_subclass, groups=train_wnids[trained], seed=seed, dataset=dataset,
    )  # fmt: skip
    tested = np.isin(test_wnids, sorted(homes))
    names = test_wnids[tested]
    if not np.isfinite(test_features[tested]).all():
        raise ValueError(
            f"{dataset}: expected finite test features, found NaN or infinity; embed them again."
        )
    right = readout.predict(test_features[tested]) == np.array([homes[name] for name in names])
    seen = np.isin(names, sorted(source))
    scores = []
    for metric, rows in (("breeds", ~seen), ("breeds_source", seen)):
        values, over, text = (
            right[rows].astype(np.float64),
            "images",
            "; ".join(filter(None, [readout.note, note])),
        )
        low, high = share_interval(values, mean_draws(values, draws=bootstrap, seed=seed))
        if metric == "breeds":
            over, text = "subclasses", f"{text}; over images [{low:.3f}, {high:.3f}]"
            low, high = share_interval(
                values, _subclass_draws(values, names[rows], draws=bootstrap, seed=seed)
            )
        value, chance = float(values.mean()), 1 / len(split)
        scores.append(
            Score(metric, dataset, value, low, high, len(values), "images", over, chance, note=text)
        )
    return Result(scores, {"breeds": _by_subclass(split, homes, source, names, right)})


def _present(wnids: np.ndarray, needed: set[str], where: str) -> None:
    missing = sorted(needed - set(np.unique(wnids).tolist()))
    if missing:
        raise ValueError(
            f"{where}: expected images of all {len(needed)} subclasses of the split, found none of {len(missing)}, the "
            f"first {missing[0]}; add them, or take them out of the split."
        )


def _subclass_draws(values: np.ndarray, names: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """Bootstrap draws (B,) of the mean over images, resampling whole subclasses."""
    rows = np.unique(names, return_inverse=True)[1]
    counts = np.bincount(rows)
    sums = np.bincount(rows, weights=values)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(counts), size=(draws, len(counts)))
    return sums[drawn].sum(1) / counts[drawn].sum(1)


def _by_subclass(
    split: Sequence[Superclass], homes: dict[str, int], source: set[str], names: np.ndarray, right: np.ndarray
) -> dict[str, list[str] | np.ndarray]:
    subclasses = sorted(homes, key=lambda name: (homes[name], name not in source, name))
    return {
        "superclass": [split[homes[name]].name for name in subclasses],
        "subclass": subclasses,
        "domain": ["source" if name in source else "target" for name in subclasses],
        "images": np.array([int((names == name).sum()) for name in subclasses]),
        "accuracy": np.array([right[names == name].mean() for name in subclasses]),
    }
