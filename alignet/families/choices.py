"""Families of odd-one-out choices: people's, a teacher's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.families.material import Material, Options


def odd_one_out(material: Material, options: Options) -> list[Score]:
    """Odd-one-out accuracy on `triplets` over the features `test`; see evaluate.odd_one_out.

    With an object table, triplets count objects; otherwise they count the rows of `test`. options:
    ceiling (or the file `probabilities`, exact), unit_column of the table `labels` for the interval.
    """
    from alignet.evaluate.odd_one_out import odd_one_out as measure

    features, ids = material.features["test"]
    rows = material.object_rows
    triplets = material.triplets("triplets", len(features) if rows is None else len(rows))
    left_out = ""
    exact = material.array("probabilities") if "probabilities" in material.files else None
    if rows is not None:
        kept = (rows[triplets] >= 0).all(1)
        left_out = (
            "" if kept.all() else f"{int((~kept).sum()):,} triplets of objects without features left out"
        )
        triplets = rows[triplets][kept]
        exact = exact[kept] if exact is not None else None
    units, over = None, "objects"
    if "labels" in material.files:
        over = options["unit_column"]
        units = np.unique(material.column("labels", over, ids), return_inverse=True)[1]
        over += "s"
    return measure(
        features, triplets, dataset=material.dataset, tau="spread", seed=material.seed,
        bootstrap=material.bootstrap, probabilities=exact, ceiling=options.get("ceiling"), units=units, over=over,
        note=left_out,
    )  # fmt: skip


def _centred(space: Callable[[np.ndarray], np.ndarray], middle: np.ndarray) -> Any:
    """A space with what is in the middle (1, p) of its rows as its origin; an affine map takes means to means."""
    return lambda rows: space(rows) - space(middle)


def teacher_labels(material: Material, options: Options) -> list[Score]:
    """How often mapped and raw teacher answer pool triplets differently, and how unsure each is.

    Names: raw node `raw`, the features that teach, which this setting maps (any of its features bring its map
    along); node `clusters`, whose assignment gives the cluster-boundary triplets. options: count of triplets for
    each sampling, tau_alignet, tau_distillation, center (whether the pool's mean is subtracted first).
    """
    from alignet.labelling import disagreement, label_entropy, teacher_similarities
    from alignet.sampling import cluster_boundary, random_triplets

    raw = material.raw["raw"][0]
    spaces = {"alignet": material.transform, "distillation": lambda rows: rows}
    if options["center"]:
        middle = raw.mean(0, dtype=np.float64, keepdims=True).astype(np.float32)
        spaces = {role: _centred(space, middle) for role, space in spaces.items()}
    with np.load(material.nodes["clusters"] / "clusters.npz", allow_pickle=False) as clusters:
        assignment = clusters["assignment"]
    drawn = {
        "random": random_triplets(len(raw), options["count"], material.seed),
        "cluster_boundary": cluster_boundary(assignment, options["count"], material.seed),
    }
    scores = []
    for sampling, triplets in drawn.items():

        def score(metric: str, value: float, note: str, n: int = len(triplets)) -> Score:
            return Score(metric, material.dataset, value, None, None, n, "triplets", "", note=note)

        used, rows = np.unique(triplets, return_inverse=True)  # of a large pool few rows are asked about
        few = raw[used].astype(np.float32)
        mine, control = (
            teacher_similarities(space(few), rows.reshape(triplets.shape)) for space in spaces.values()
        )
        apart = disagreement(mine, control)
        scores.append(score(f"teachers_disagree_{sampling}", apart, "mapped against raw teacher"))
        for role, sims in (("alignet", mine), ("distillation", control)):
            tau = options[f"tau_{role}"]
            value = label_entropy(sims, tau)
            scores.append(score(f"label_entropy_{role}_{sampling}", value, f"nats, at tau' = {tau:g}"))
    return scores


def agreement(material: Material, options: Options) -> list[Score]:
    """How often this setting's odd one out is the teacher's, where nobody asked people; see evaluate.agreement.

    Names: features `test`; nodes `teacher`, an embedding of the same images, and `map`, its distill node; or the
    node `triplets`, answered triplets of these images; `trained_on`, the index of what was trained on. options:
    count of triplets.
    """
    from alignet.evaluate.agreement import agreement as measure
    from alignet.evaluate.agreement import answered, asked

    features, ids = material.features["test"]
    if "triplets" in material.nodes:
        sims, triplets = answered(material.nodes["triplets"], ids, options["count"], material.seed)
    else:
        sims, triplets = asked(
            *material.raw["teacher"], ids, material.nodes["map"] / "map.npz", options["count"], material.seed
        )
    listing = json.loads((material.nodes["trained_on"] / "listing.json").read_text(encoding="utf-8"))
    known = set(listing["files"])
    met = sum(name in known for name in ids)
    note = f"{met:,} of {len(ids):,} images were trained on (by name)" if met else ""
    return measure(
        features,
        triplets,
        sims,
        dataset=material.dataset,
        bootstrap=material.bootstrap,
        seed=material.seed,
        note=note,
    )
