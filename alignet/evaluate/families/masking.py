"""The family of masked recognition: how much of an image's important pixels a model needs to decide rightly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from alignet.evaluate.bootstrap import Score, mean_draws, share_interval
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.result import Columns, Result

YES = ("1", "true", "yes", "animal")  # of a label, in lower case
NO = ("0", "false", "no", "non-animal", "nonanimal", "not animal", "no animal", "vehicle", "object")
INTACT = "intact"  # the folder of whole images


def masking(material: Material, options: Options) -> Result:
    """Accuracy of a two-sided decision (animal or not) by share of important pixels shown; see evaluate.masking.

    Names: the node `stimuli`, the pictures; the raw node `decisions`, logits (m, classes) of these pictures under their
    ids; the table `labels` where options.label is given; the file `human`, a CSV table with the columns share, in
    (0, 1], and accuracy, already over that on whole images. options: animals, class numbers and [first, last] ranges
    whose logits mean yes; label, the column of `labels` with the truth (YES or NO) of each image. Without it the truth
    is whether the image's ImageNet class, by the WordNet id of its name, is one of `animals`.

    Scores: `intact_accuracy`; `masked_area`, the area under accuracy / intact accuracy over the logarithm of the share,
    as a mean height; `human_distance`, the mean absolute difference from people's curve over levels, with people's
    curve taken as given. A draw of images adds noise to a distance, so its interval leans upwards; it is widened to
    hold the value. What answering with the commoner side at every level would give stands in a note. Tables: `curve`,
    and `human` where it is given.
    """
    from alignet.evaluate.masking import area, curve, members

    said = json.loads((material.nodes["stimuli"] / "stimuli.json").read_text(encoding="utf-8"))
    shares = np.array(said["shares"], dtype=np.float64)
    logits, ids = material.raw["decisions"]
    if not np.isfinite(logits).all():
        raise ValueError(f"{material.dataset}: expected finite logits of the stimuli, found NaN or infinity")
    animals = members(options["animals"], logits.shape[1])
    truth, known = _truth(material, options, list(said["images"]), animals)
    kept = [entry for entry, used in zip(said["images"].values(), known, strict=True) if used]
    rows = _rows(material.dataset, [entry["file"] for entry in kept], len(shares), ids)
    right = animals[np.asarray(logits).argmax(1)][rows] == truth[known][:, None]
    truth, whole, left_out = truth[known], right[:, -1], int((~known).sum())
    note = f"{int(truth.sum()):,} animals, {int((~truth).sum()):,} others"
    note += f"; {left_out:,} images of no class left out" if left_out else ""
    found = curve(right[:, :-1], whole, bootstrap=material.bootstrap, seed=material.seed)
    commoner = float(max(truth.mean(), 1 - truth.mean()))
    draws = mean_draws(whole, draws=material.bootstrap, seed=material.seed)
    intact = Score(
        "intact_accuracy", material.dataset, found.intact, *share_interval(whole, draws), found.n, "images", "images",
        commoner, note=note,
    )  # fmt: skip
    value = float(area(found.normalised, shares))
    # what chance is of the area is each row's own, since it is divided by the row's accuracy on whole images
    said_chance = f"{note}; the commoner side at every level would give {commoner / found.intact:.3f}"
    under = _score(material, "masked_area", value, area(found.draws, shares), found.n, said_chance)
    pixels = np.array([entry["pixels"] for entry in kept], dtype=np.float64)
    tables: dict[str, Columns] = {
        "curve": {
            "share": shares, "pixels": pixels.mean(0), "accuracy": found.accuracy, "normalised": found.normalised,
            "low": found.low, "high": found.high, "n": np.full(len(shares), found.n),
        }
    }  # fmt: skip
    scores = [intact, under]
    if "human" in material.files:
        tables["human"] = people = read_human(material.files["human"])
        scores.append(_human_distance(material, people, shares, found.normalised, found.draws, found.n, note))
    return Result(scores, tables)


def _rows(dataset: str, files: list[str], count: int, ids: list[str]) -> np.ndarray:
    """Row in `ids` of the pictures of each image, int64 (n, count + 1): by level, the whole one last."""
    folders = [*(f"{level:02d}" for level in range(count)), INTACT]
    place = {name: row for row, name in enumerate(ids)}
    wanted = [[f"{folder}/{file}" for folder in folders] for file in files]
    missing = [one for row in wanted for one in row if one not in place]
    if missing:
        raise ValueError(
            f"{dataset}: expected logits of all {sum(map(len, wanted)):,} stimuli, found none for {len(missing):,}, "
            f"the first {missing[0]}; let `decisions` embed the images of `stimuli`."
        )
    return np.array([[place[one] for one in row] for row in wanted], dtype=np.int64)


def _truth(
    material: Material, options: Options, names: list[str], animals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image is an animal, bool (n,), and of which that is known, bool (n,)."""
    from alignet.evaluate.top1 import UNKNOWN, imagenet_labels

    if options.get("label"):
        if "labels" not in material.files:
            raise ValueError(
                f"{material.dataset}: expected a table data.labels with options.label={options['label']}, found none; "
                "add it, or leave label out for images whose names carry WordNet ids."
            )
        values = [str(one).strip().lower() for one in material.column("labels", options["label"], names)]
        strange = sorted(set(values) - set(YES) - set(NO))
        if strange:
            raise ValueError(
                f"{material.files['labels']}: expected {', '.join(YES)} or {', '.join(NO)} in the column "
                f"{options['label']}, found {strange[0]!r}; say of each image whether it is an animal."
            )
        truth, left_out = np.isin(values, YES), np.zeros(len(names), dtype=bool)
    else:
        classes = imagenet_labels(names)
        left_out = classes == UNKNOWN
        if classes.max() >= len(animals):
            raise ValueError(
                f"{material.dataset}: expected logits of the 1,000 classes of ImageNet-1k, found {len(animals)}; give "
                "options.label and a table of labels for another network."
            )
        truth = animals[classes] & ~left_out
    sides = truth[~left_out]
    if sides.all() or not sides.any():
        found = "animals alone" if sides.all() else "no animal"
        raise ValueError(
            f"{material.dataset}: expected images of animals and of others, found {found}; a decision needs both."
        )
    return truth, ~left_out


def read_human(path: Path) -> dict[str, np.ndarray]:
    """People's curve of a CSV table: `share` in (0, 1] ascending and `accuracy` at least 0, both float64 (k,)."""
    from alignet.data.tables import rows_with

    rows = rows_with(path, "share", "accuracy")
    try:
        values = np.array([[float(row["share"]), float(row["accuracy"])] for row in rows])
    except ValueError:
        raise ValueError(
            f"{path}: expected numbers in the columns share and accuracy, found something else; write 1% as 0.01."
        ) from None
    values = values[np.argsort(values[:, 0], kind="stable")]
    share, accuracy = values.T
    if len(share) < 2 or not (share > 0).all() or not (share <= 1).all() or not (np.diff(share) > 0).all():
        raise ValueError(
            f"{path}: expected two or more different shares in (0, 1], found {share.tolist()}; write 1% as 0.01."
        )
    if not (accuracy >= 0).all() or not np.isfinite(accuracy).all() or accuracy.max() > 2:
        raise ValueError(
            f"{path}: expected accuracy over that on whole images, about 0.5 to 1, found {accuracy.min():g} to "
            f"{accuracy.max():g}; divide it by people's accuracy on whole images, and give no percent."
        )
    return {"share": share, "accuracy": accuracy}


def _human_distance(
    material: Material, people: Mapping[str, np.ndarray], shares: np.ndarray, normalised: np.ndarray, draws: np.ndarray,
    n: int, note: str,
) -> Score:  # fmt: skip
    """How far the curve (l,) is from people's, at the levels that people's shares enclose."""
    from alignet.evaluate.masking import at_shares, distance

    given = people["share"]
    inside = (shares >= given[0] * (1 - 1e-3)) & (shares <= given[-1] * (1 + 1e-3))  # 0.0129 is 0.01291
    if inside.sum() < 2:
        raise ValueError(
            f"{material.files['human']}: expected shares that enclose at least two of the levels {shares.round(4)}, "
            f"found {given[0]:g} to {given[-1]:g}; give people's accuracy from {shares[0]:g} to {shares[-1]:g}."
        )
    levels = shares[inside]
    theirs = at_shares(given, people["accuracy"], levels)
    found = distance(normalised[inside], theirs, levels)
    texts = [
        f"area between the curves {float(found.area):.3f}",
        f"{int(inside.sum())} of {len(shares)} levels, those that people's shares enclose"
        if not inside.all()
        else "",
        note,
    ]
    resampled = distance(draws[:, inside], theirs, levels).mean
    said = "; ".join(text for text in texts if text)
    return _score(material, "human_distance", float(found.mean), resampled, n, said)


def _score(
    material: Material,
    metric: str,
    value: float,
    draws: np.ndarray,
    n: int,
    note: str,
) -> Score:
    """A score of the whole curve with the interval of its draws (B,), which holds the value."""
    from alignet.evaluate.masking import spread_of

    low, high, said = spread_of(draws)
    if low is not None and high is not None:
        low, high = min(low, value), max(high, value)
    return Score(
        metric, material.dataset, value, low, high, n, "images", "" if low is None else "images",
        note="; ".join(text for text in (note, said) if text),
    )  # fmt: skip
