"""Families of similarity matrices."""

from __future__ import annotations

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.families.material import Material, Options


def rsa(material: Material, options: Options) -> list[Score]:
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
