"""The families of metrics: each turns named features and files into scores, and tables behind its figures.

FAMILIES is the only place that lists them. To add one, write a function (Material, options) in a file of this package
and add it here, with the names of its options in OPTIONS; if its page is to show more than its scores, add a builder in
alignet/report/sections.py. What a family is given is named in the configuration (evaluate.datasets): the graph knows
the names of families and options, and no more.
"""

from __future__ import annotations

from alignet.families.calibration import calibration
from alignet.families.choices import agreement, odd_one_out, teacher_labels
from alignet.families.classification import linear_probe, top1, zero_shot
from alignet.families.examples import examples
from alignet.families.generalisation import breeds, few_shot, transfer
from alignet.families.levels import levels, levels_people
from alignet.families.material import Family, Material
from alignet.families.representations import hierarchy, projection, relations, space
from alignet.families.similarity import nights, rsa, rsa_mean

__all__ = ["FAMILIES", "OPTIONS", "Family", "Material", "check_options", "family"]

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
}


_LEVELS = "labels hierarchy wordnet"  # how to read files; which of them are needed hangs on the data
_JUDGED = "format kind key set under order_column sorted note"

OPTIONS: dict[
    str, tuple[str, str]
] = {  # family -> names of options that it must be given, and of those that it may
    "odd_one_out": ("", "ceiling unit_column"),
    "rsa": ("", f"{_JUDGED} mean_over"),
    "rsa_mean": ("", _JUDGED),
    "nights": ("split min_votes is_imagenet", ""),
    "calibration": ("tau bins grid", "unit_column note"),
    "linear_probe": ("label C", ""),
    "top1": ("architecture", ""),
    "zero_shot": ("label templates library architecture tag model_args weights", ""),
    "teacher_labels": ("count tau_alignet tau_distillation center", ""),
    "agreement": ("count", ""),
    "few_shot": ("shots draws C few labels", "label id_column id_prefix merge split images_of"),
    "breeds": ("C per_subclass", "task images_of"),
    "transfer": ("C per_class", "images_of"),
    "hierarchy": ("distance pairs categories", _LEVELS),
    "relations": ("count", _LEVELS),
    "space": ("points rsm_images", _LEVELS),
    "projection": ("points", _LEVELS),
    "examples": ("count pixels name", ""),
    "levels": ("tau missing", "fit_column fit_prefix"),
    "levels_people": ("", ""),
}


def check_options(dataset: str, name: str, options: Mapping[str, object]) -> None:
    """ValueError for an option of the evaluation `dataset` that its family does not know, or that it lacks.

    And for one whose value is of another kind, see families.options.
    """
    family(name, dataset)
    needed, known = (set(names.split()) for names in OPTIONS.get(name, ("", "")))
    strange, missing = sorted(options.keys() - needed - known), sorted(needed - options.keys())
    if strange or missing:
        found = [f"the unknown {', '.join(strange)}"] * bool(strange) + [f"no {', '.join(missing)}"] * bool(
            missing
        )
        valid = ", ".join([*sorted(needed), *(f"{one} (or not)" for one in sorted(known))])
        raise ValueError(
            f"evaluate.datasets.{dataset}.options: expected for the family {name} {valid or 'none'}; found "
            f"{' and '.join(found)}."
        )
    check_values(dataset, name, options)


def family(name: str, dataset: str = "<name>") -> Family:
    """The family's function; ValueError lists the valid names. dataset: the evaluation that asks for it."""
    if name not in FAMILIES:
        raise ValueError(
            f"evaluate.datasets.{dataset}.family: expected one of {', '.join(FAMILIES)}, found {name!r}; name "
            "one of them."
        )
    return FAMILIES[name]
