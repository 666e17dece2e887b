"""The families of metrics: each turns named features and files into a list of Score.

FAMILIES is the only place that lists them. To add one, write a function (Material, options) and add it.
What a family is given is named in the configuration (evaluate.datasets), so the graph knows none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score


@dataclass(frozen=True)
class Material:
    """What an evaluation may read, by the names that the configuration gives: features, files, nodes.

    features: name -> (float32 (m, p) as this setting sees them, ids). files: name -> path. nodes: name ->
    folder of another artifact. raw: name of a node -> its embedding (features, ids), where it is one. transform:
    what this setting does to raw float32 rows.
    object_rows: row in the features `test` of each object that triplets count, -1 for none.
    """

    dataset: str
    setting: str
    features: Mapping[str, tuple[np.ndarray, list[str]]]
    files: Mapping[str, Path]
    nodes: Mapping[str, Path]
    raw: Mapping[str, tuple[np.ndarray, list[str]]]
    transform: Callable[[np.ndarray], np.ndarray]
    triplets: Callable[[str, int], np.ndarray]
    object_rows: np.ndarray | None
    bootstrap: int
    seed: int

    def array(self, name: str) -> np.ndarray:
        """The array of the .npy file `name`."""
        from alignet.data.npy import read_npy

        return read_npy(self.files[name])

    def column(self, table: str, column: str, ids: list[str]) -> np.ndarray:
        """The column of a CSV table for each of `ids` (its column `id`), as text (m,)."""
        from alignet.data.tables import column_for

        return np.array(column_for(self.files[table], ids, column))


def odd_one_out(material: Material, options: Mapping[str, Any]) -> list[Score]:
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


def rsa(material: Material, options: Mapping[str, Any]) -> list[Score]:
    """Spearman correlation of the Pearson kernel of `test` with the square `matrix`; see evaluate.rsa.

    options: kind (similarity | dissimilarity). With a table `labels` and the option `mean_over`, features
    are first averaged over each value of that column, in the order of `order_column` of the table `order`.
    """
    from alignet.data.tables import read_column
    from alignet.evaluate.rsa import load_matrix
    from alignet.evaluate.rsa import rsa as measure

    features, ids = material.features["test"]
    note = ""
    if "labels" in material.files:
        column = material.column("labels", options["mean_over"], ids)
        names = read_column(material.files["order"], options["order_column"])
        features = np.stack([features[column == name].mean(0) for name in names])
        note = f"mean features of {len(names)} {options['mean_over']}s"
    matrix = load_matrix(material.files["matrix"], options["kind"])
    return measure(
        features,
        matrix,
        dataset=material.dataset,
        seed=material.seed,
        bootstrap=material.bootstrap,
        note=note,
    )


def linear_probe(material: Material, options: Mapping[str, Any]) -> list[Score]:
    """Logistic regression from `train` to `test` on the column `label` of their tables; see evaluate.probe."""
    from alignet.evaluate.probe import linear_probe as measure

    parts = []
    for part in ("train", "test"):
        features, ids = material.features[part]
        parts += [features, material.column(f"{part}_labels", options["label"], ids)]
    return measure(
        *parts, dataset=material.dataset, C=options["C"], seed=material.seed, bootstrap=material.bootstrap
    )


def top1(material: Material, options: Mapping[str, Any]) -> list[Score]:
    """ImageNet top-1 through the original head, and through one refitted on the pool; see evaluate.top1.

    Names: features `test` and `pool`; the raw node `original_pool`, the original network's pool features;
    the file `weights`, a safetensors state dict with the head. option architecture names the network.
    """
    from alignet.backbones import Backbone, classifier_head, load_encoder
    from alignet.evaluate.top1 import imagenet_labels, refit_head
    from alignet.evaluate.top1 import top1 as measure

    backbone = Backbone("timm", options["architecture"], str(material.files["weights"]), {}, 0, "pooled")
    head = classifier_head(load_encoder(backbone))
    if head is None:
        raise ValueError(
            f"{material.dataset}: {options['architecture']} has no linear classifier on pooled features"
        )
    weights, bias = (tensor.numpy() for tensor in head)
    features, ids = material.features["test"]
    if features.shape[1] != len(weights):
        raise ValueError(
            f"{material.dataset}: expected {len(weights)} features, as the head of {options['architecture']} "
            f"reads, found {features.shape[1]}; give the student's own architecture and weights."
        )
    labels = imagenet_labels(ids)
    shared: dict[str, Any] = {
        "dataset": material.dataset,
        "seed": material.seed,
        "bootstrap": material.bootstrap,
    }
    scores = measure(features, labels, weights, bias, note="original head", **shared)
    refitted = refit_head(material.features["pool"][0], material.raw["original_pool"][0] @ weights + bias)
    return scores + measure(
        features, labels, refitted.weights, refitted.bias, metric="top1_refit", note=refitted.note, **shared
    )


def zero_shot(material: Material, options: Mapping[str, Any]) -> list[Score]:
    """Zero-shot accuracy of `test` by class names; see evaluate.zero_shot.

    Names: features `test`; the table `labels`; the file or folder `weights` of the base network, unless it is the
    hub's. options: label (the column with the class name; its values are the classes), templates (texts with {} for
    the name), library, architecture, tag and model_args of the network whose text tower is used, weights
    (file | hub).
    """
    from alignet.backbones import Backbone, load_encoder, text_features
    from alignet.data.tables import read_column
    from alignet.evaluate.zero_shot import class_vectors
    from alignet.evaluate.zero_shot import zero_shot as measure

    if (options["weights"] == "file") != ("weights" in material.files):
        raise ValueError(
            f"{material.dataset}: expected options.weights=file with data.weights, or hub without, found "
            f"{options['weights']!r} and data {', '.join(material.files)}; set both alike."
        )
    backbone = Backbone(
        options["library"], options["architecture"], str(material.files.get("weights", "")), options["model_args"], 0,
        "output", options["tag"],
    )  # fmt: skip
    encoder = load_encoder(backbone)
    features, ids = material.features["test"]
    labels = material.column("labels", options["label"], ids).tolist()
    names = sorted(set(read_column(material.files["labels"], options["label"])))
    templates = list(options["templates"])
    vectors = class_vectors(lambda texts: text_features(encoder, texts).numpy(), names, templates)
    return measure(
        features, labels, names, vectors, dataset=material.dataset, seed=material.seed,
        bootstrap=material.bootstrap, note=f"{len(names)} class names in {len(templates)} templates",
    )  # fmt: skip


def _centred(space: Callable[[np.ndarray], np.ndarray], middle: np.ndarray) -> Any:
    """A space with what is in the middle (1, p) of its rows as its origin; an affine map takes means to means."""
    return lambda rows: space(rows) - space(middle)


def teacher_labels(material: Material, options: Mapping[str, Any]) -> list[Score]:
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


def agreement(material: Material, options: Mapping[str, Any]) -> list[Score]:
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


FAMILIES: dict[str, Callable[[Material, Mapping[str, Any]], list[Score]]] = {
    "odd_one_out": odd_one_out,
    "rsa": rsa,
    "linear_probe": linear_probe,
    "top1": top1,
    "zero_shot": zero_shot,
    "teacher_labels": teacher_labels,
    "agreement": agreement,
}


def family(name: str) -> Callable[[Material, Mapping[str, Any]], list[Score]]:
    """The family's function; ValueError lists the valid names."""
    if name not in FAMILIES:
        raise ValueError(f"unknown family of metrics {name!r}: expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
