"""The family of calibration: whether triplet probabilities are true."""

from __future__ import annotations

import numpy as np

from alignet.evaluate.families.choices import choices_of, exact_probabilities
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.result import Result


def calibration(material: Material, options: Options) -> Result:
    """Calibration of the triplet distribution softmax(S / tau) on `triplets`; see evaluate.calibration.

    Names: features `test`; `triplets` as of odd_one_out, with `objects` or without; people's own distributions as the
    file `probabilities` or the node `soft_labels[<the same triplets>]`, or neither. options: tau, a number or `fit`;
    bins; grid, temperatures in units of the spread; unit_column of the table `labels`; note, a sentence that each
    score's note ends in. tau is fitted to the data
    `fit_triplets` over the same features, or over the features `fit`, whose rows they then count; without them to the
    other half of `triplets`.
    """
    from alignet.evaluate.calibration import calibration as measure

    asked = choices_of(material, options)
    fit, note = _others(material, options, asked.triplets)
    return measure(
        asked.features, asked.triplets, dataset=material.dataset, tau=options["tau"], bins=options["bins"],
        grid=options["grid"], seed=material.seed, bootstrap=material.bootstrap, fit=fit,
        probabilities=exact_probabilities(material, asked), units=asked.units, over=asked.over,
        note="; ".join(text for text in (asked.note, note, options.get("note", "")) if text),
    )  # fmt: skip


def _others(
    material: Material, options: Options, reported: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray] | None, str]:
    """Features and choices to fit tau to, none of them about three objects that are reported on."""
    from alignet.evaluate.temperature import object_sets

    if "fit_triplets" not in material.files:
        if "fit" in material.features:
            raise ValueError(f"{material.dataset}: expected data.fit_triplets beside images.fit, found none")
        return None, ""
    if "fit" in material.features:
        features = material.features["fit"][0]
        return (features, material.triplets("fit_triplets", len(features))), ""
    other = choices_of(material, options, "fit_triplets")
    met = np.isin(object_sets(other.triplets), object_sets(reported))
    if met.all():
        raise ValueError(
            f"{material.dataset}: expected triplets in data.fit_triplets that are not reported on, found none; leave "
            "them out, and tau is fitted to the other half."
        )
    note = f"{int(met.sum()):,} triplets that are reported on were not fitted to" if met.any() else ""
    return (other.features, other.triplets[~met]), note
