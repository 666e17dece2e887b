"""Families of odd-one-out choices: people's, a teacher's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignet.data.npy import read_npy
from alignet.evaluate.bootstrap import Score
from alignet.evaluate.families.material import Material, Options


@dataclass(frozen=True)
class Choices:
    """Triplets as rows of features, and what the interval resamples."""

    features: np.ndarray  # (m, p)
    triplets: np.ndarray  # (n, 3), rows of features
    kept: np.ndarray  # bool: which of the file's triplets these are; the others show objects without features
    units: np.ndarray | None  # (m,) ids of what the interval resamples; None: the rows
    over: str  # its name
    note: str


def choices_of(material: Material, options: Options, name: str = "triplets") -> Choices:
    """The choices of the data `name` about the features `test`.

    With an object table, triplets count objects, and those of objects without features are left out and counted;
    otherwise they count the rows of `test`. option unit_column: of the table `labels`, whose values the interval
    resamples.
    """
    features, ids = material.features["test"]
    rows = material.object_rows
    triplets = material.triplets(name, len(features) if rows is None else len(rows))
    kept, note = np.ones(len(triplets), dtype=bool), ""
    if rows is not None:
        kept = (rows[triplets] >= 0).all(1)
        note = "" if kept.all() else f"{int((~kept).sum()):,} triplets of objects without features left out"
        triplets = rows[triplets[kept]]
    units, over = None, "objects"
    if "labels" in material.files:
        over = options["unit_column"]
        units = np.unique(material.column("labels", over, ids), return_inverse=True)[1]
        over += "s"
    return Choices(features, triplets, kept, units, over, note)


def odd_one_out(material: Material, options: Options) -> list[Score]:
    """Odd-one-out accuracy on `triplets` over the features `test`; see evaluate.odd_one_out and choices_of.

    options: ceiling, a share; or `repeated`, from the triplets of the set that several people answered, or of the set
    `ceiling_triplets` where that is given (see data.things.repeated_ceiling); or none, with the file `probabilities`
    (exact). unit_column of the table `labels` for the interval.
    """
    from alignet.evaluate.odd_one_out import odd_one_out as measure

    asked = choices_of(material, options)
    exact = exact_probabilities(material, asked)
    ceiling, said = options.get("ceiling"), ""
    if ceiling == "repeated":
        ceiling, said = _repeated(material, options, asked)
    elif isinstance(ceiling, str):
        raise ValueError(
            f"{material.dataset}: expected a share as options.ceiling, or repeated, found {ceiling!r}"
        )
    elif "ceiling_triplets" in material.files:
        raise ValueError(
            f"{material.dataset}: expected options.ceiling=repeated beside data.ceiling_triplets, found {ceiling}"
        )
    return measure(
        asked.features, asked.triplets, dataset=material.dataset, tau="spread", seed=material.seed,
        bootstrap=material.bootstrap, probabilities=exact, ceiling=ceiling, ceiling_note=said, units=asked.units,
        over=asked.over, note=asked.note,
    )  # fmt: skip


def exact_probabilities(material: Material, asked: Choices) -> np.ndarray | None:
    """The file `probabilities` or the node `soft_labels`, (n, 3) of the triplets that are asked; None without both."""
    if "probabilities" in material.files:
        exact, what = material.array("probabilities"), "data.probabilities"
    elif "soft_labels" in material.nodes:
        exact = read_npy(material.nodes["soft_labels"] / "probabilities.npy")
        what = "nodes.soft_labels, which belongs to the triplets that its role names,"
    else:
        return None
    if len(exact) != len(asked.kept):
        raise ValueError(
            f"{material.dataset}: expected a row of {what} for each of {len(asked.kept):,} triplets, found "
            f"{len(exact):,}; give those of the same set."
        )
    return exact[asked.kept]


def _repeated(material: Material, options: Options, asked: Choices) -> tuple[float, str]:
    """The ceiling of repeated triplets by THINGS' method, and the other ways to count it in words."""
    from alignet.data.things import repeated_ceiling

    other = "ceiling_triplets" in material.files
    triplets = choices_of(material, options, "ceiling_triplets").triplets if other else asked.triplets
    found = repeated_ceiling(triplets)
    said = (
        f"ceiling: mean share of the most frequent answer over {found.triplets:,} repeated triplets with "
        f"{found.answers:,} answers; {found.ties:,} of them with a tie for it{_without(found.share_untied)}; each "
        f"answer against the others' most frequent {found.leave_one_out:.3f}{_without(found.leave_one_out_untied)}"
    )
    return found.share, said + (
        f"; {found.single:,} triplets with one answer say nothing" if found.single else ""
    )


def _without(share: float) -> str:
    return "" if np.isnan(share) else f", without ties {share:.3f}"


def _centred(space: Callable[[np.ndarray], np.ndarray], middle: np.ndarray) -> Any:
    """A space with what is in the middle (1, p) of its rows as its origin; an affine map takes means to means."""
    return lambda rows: space(rows) - space(middle)


def teacher_labels(material: Material, options: Options) -> list[Score]:
    """How often mapped and raw teacher answer pool triplets differently, and how unsure each is.

    Names: raw node `raw`, the features that teach, which this setting maps (any of its features bring its map
    along); node `clusters`, whose assignment gives the cluster-boundary triplets. options: count of triplets for
    each sampling, tau_alignet, tau_distillation, center (whether the pool's mean is subtracted first).
    """
    from alignet.teacher.labelling import disagreement, label_entropy, teacher_similarities
    from alignet.teacher.sampling import cluster_boundary, random_triplets

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
