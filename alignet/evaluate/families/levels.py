"""Families of choices with response times at three levels of abstraction: people's own, and a model's against them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alignet.evaluate.families.material import Material, Options

if TYPE_CHECKING:
    from alignet.evaluate.result import Result


def levels_people(material: Material, options: Options) -> Result:
    """Response times, disagreement and the noise ceiling of people (node `levels`); see evaluate.levels_people."""
    from alignet.data.levels import read_tidy
    from alignet.evaluate.levels_people import people

    trials, triplets = (read_tidy(material.nodes["levels"], name) for name in ("trials", "triplets"))
    return people(
        trials, triplets, dataset=material.dataset, seed=material.seed, bootstrap=material.bootstrap
    )


def levels(material: Material, options: Options) -> Result:
    """Accuracy and uncertainty of the features `test` on the node `levels`; see evaluate.levels.

    The images of the trials are found among the ids of `test` by name, or its last part, or that without suffix.
    options: tau, the temperature of the uncertainty, a number | fit; missing, what happens to triplets with an image
    that is not there, stop | drop. With tau=fit, the choices `fit_triplets` about the rows of the features `fit` are
    what it is fitted to; with the object table `fit_objects` they count its rows, and fit_column and fit_prefix say
    which column, behind which prefix, is the id of an object's image. Without them, half of the triplets serves the
    other.
    """
    from alignet.data.levels import read_tidy
    from alignet.evaluate.levels import model

    features, ids = material.features["test"]
    triplets = read_tidy(material.nodes["levels"], "triplets")
    rows, kept = _rows(material, triplets, ids, options["missing"])
    dropped = int((~kept).sum())
    return model(
        features, rows[kept], {name: values[kept] for name, values in triplets.items()}, dataset=material.dataset,
        tau=options["tau"], fit=_choices(material, options), seed=material.seed, bootstrap=material.bootstrap,
        note=f"{dropped:,} triplets of images without features left out" if dropped else "",
    )  # fmt: skip


def _rows(
    material: Material, triplets: dict[str, np.ndarray], ids: list[str], missing: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the features of each triplet's images (n, 3), -1 without; and whether all three are there (n,)."""
    from alignet.data.alignet_npz import rows_by_name

    if missing not in ("stop", "drop"):
        raise ValueError(f"{material.dataset}.options.missing: expected stop or drop, found {missing!r}")
    shown = np.stack([triplets[f"image{place}"] for place in (1, 2, 3)], 1)
    names, index = np.unique(shown.astype(str), return_inverse=True)
    found, _ = rows_by_name(material.nodes["levels"], names.tolist(), ids)
    rows = found[index.reshape(shown.shape)]
    kept = np.all(rows >= 0, axis=1)
    if not kept.any() or (missing == "stop" and not kept.all()):
        lacking = names[found < 0]
        fix = ", or set options.missing=drop" if kept.any() else ""
        raise ValueError(
            f"{material.dataset}: expected every image of the trials among the {len(ids):,} of `test`, found none for "
            f"{len(lacking):,} of {len(names):,} (the first {str(lacking[0])!r}, while an id is {ids[0]!r}); give "
            f"those images{fix}."
        )
    return rows, np.asarray(kept)


def _choices(material: Material, options: Options) -> tuple[np.ndarray, np.ndarray] | None:
    """Features and triplets (n, 3), odd one last, that the temperature is fitted to; None without."""
    if "fit_triplets" not in material.files:
        return None
    from alignet.data.concepts import load_concepts
    from alignet.data.triplets import restrict, rows_of_objects

    features, ids = material.features["fit"]
    if "fit_objects" not in material.files:
        return features, material.triplets("fit_triplets", len(features))
    column, prefix = options["fit_column"], options["fit_prefix"]
    named = [str(getattr(concept, column)) for concept in load_concepts(material.files["fit_objects"])]
    rows = rows_of_objects([prefix + name if name else "" for name in named], ids)
    chosen = restrict(material.triplets("fit_triplets", len(rows)), rows)
    if not len(chosen.triplets):
        raise ValueError(
            f"{material.dataset}: expected choices about objects among the features `fit`, found none; check "
            "fit_column and fit_prefix."
        )
    return features, chosen.triplets
