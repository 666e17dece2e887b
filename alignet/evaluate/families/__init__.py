"""The families of metrics: each turns named features and files into scores, and tables behind its figures.

In: Material, the names that evaluate.datasets gives; the graph knows the names of families and options, and no more.
Out: a Result. FAMILIES alone lists them. To add one: a function (Material, options) in a file here, its name in
FAMILIES, its options in OPTIONS; a builder in alignet/report/sections.py if its page is to show more than its scores.
Open first: material.py, then choices.py.
"""

from __future__ import annotations

from alignet.evaluate.families.attack import attack
from alignet.evaluate.families.calibration import calibration
from alignet.evaluate.families.choices import agreement, odd_one_out, teacher_labels
from alignet.evaluate.families.classification import linear_probe, top1, zero_shot
from alignet.evaluate.families.examples import examples
from alignet.evaluate.families.generalisation import breeds, few_shot, transfer
from alignet.evaluate.families.invariance import invariance
from alignet.evaluate.families.levels import levels, levels_people
from alignet.evaluate.families.masking import masking
from alignet.evaluate.families.material import Family, Material
from alignet.evaluate.families.representations import hierarchy, projection, relations, space
from alignet.evaluate.families.similarity import nights, rsa, rsa_mean
from alignet.evaluate.families.where import where

__all__ = ["FAMILIES", "Family", "Material", "family"]

FAMILIES: dict[str, Family] = {
    "odd_one_out": odd_one_out,
    "rsa": rsa,
    "rsa_mean": rsa_mean,
    "nights": nights,
    "calibration": calibration,
    "linear_probe": linear_probe,
    "top1": top1,
    "zero_shot": zero_shot,
    "teacher_labels": teacher_labels,
    "agreement": agreement,
    "few_shot": few_shot,
    "breeds": breeds,
    "transfer": transfer,
    "hierarchy": hierarchy,
    "relations": relations,
    "space": space,
    "projection": projection,
    "examples": examples,
    "levels": levels,
    "levels_people": levels_people,
    "where": where,
    "masking": masking,
    "attack": attack,
    "invariance": invariance,
}


def family(name: str, dataset: str = "<name>") -> Family:
    """The family's function; ValueError lists the valid names. dataset: the evaluation that asks for it."""
    if name not in FAMILIES:
        raise ValueError(
            f"evaluate.datasets.{dataset}.family: expected one of {', '.join(FAMILIES)}, found {name!r}; name "
            "one of them."
        )
    return FAMILIES[name]
