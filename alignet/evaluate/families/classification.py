"""Families of classification: what a readout of the features can tell apart."""

from __future__ import annotations

from typing import Any

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.families.material import Material, Options


def linear_probe(material: Material, options: Options) -> list[Score]:
    """Logistic regression from `train` to `test` on the column `label` of their tables; see evaluate.probe."""
    from alignet.evaluate.probe import linear_probe as measure

    parts = []
    for part in ("train", "test"):
        features, ids = material.features[part]
        parts += [features, material.column(f"{part}_labels", options["label"], ids)]
    return measure(
        *parts, dataset=material.dataset, C=options["C"], seed=material.seed, bootstrap=material.bootstrap
    )


def top1(material: Material, options: Options) -> list[Score]:
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


def zero_shot(material: Material, options: Options) -> list[Score]:
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
