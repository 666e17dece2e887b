"""Which builder turns an evaluation's family into blocks of the page, and in what section they stand.

A builder takes the Gathered of one data set and returns blocks; one of TOGETHER takes those of all data sets of its
family. Families without one show their scores in the table of settings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alignet.report import generalisation
from alignet.report.attack import attack
from alignet.report.blocks import Block
from alignet.report.calibration import calibration
from alignet.report.dataset_results import Gathered
from alignet.report.examples import examples_blocks
from alignet.report.hierarchy import hierarchy, relations
from alignet.report.invariance import invariance
from alignet.report.levels import levels
from alignet.report.levels_people import levels_people
from alignet.report.masking import masking
from alignet.report.representations import projection, space
from alignet.report.similarity import nights, rsa
from alignet.report.where import where

Builder = Callable[[Gathered], Sequence[Block]]
Together = Callable[[Sequence[Gathered]], Sequence[Block]]

SECTIONS = {  # key -> title, in the order of the page
    "alignment": "Agreement with people",
    "uncertainty": "Uncertainty and response times",
    "people": "What people did",
    "similarity": "Similarity judgments",
    "where": "Where networks and people look",
    "attack": "Adversarial attacks: tolerance and alignment",
    "invariance": "Identically represented inputs: what may change unnoticed",
    "generalisation": "Generalisation",
    "representations": "Representations",
    "triplets": "Triplets",
    "examples": "Examples",
}

BUILDERS: dict[str, tuple[str, Builder]] = {  # family -> (key of its section, builder)
    "hierarchy": ("representations", hierarchy),
    "relations": ("triplets", relations),
    "space": ("representations", space),
    "projection": ("representations", projection),
    "few_shot": ("generalisation", generalisation.few_shot),
    "breeds": ("generalisation", generalisation.breeds),
    "transfer": ("generalisation", generalisation.transfer),
    "examples": ("examples", examples_blocks),
    "nights": ("similarity", nights),
    "calibration": ("uncertainty", calibration),
    "levels": ("uncertainty", levels),
    "levels_people": ("people", levels_people),
    "masking": ("where", masking),
}

TOGETHER: dict[
    str, tuple[str, Together]
] = {  # family -> the same, of builders that take all its data sets at once
    "rsa": ("similarity", rsa),
    "rsa_mean": ("similarity", rsa),
    "where": ("where", where),
    "attack": ("attack", attack),
    "invariance": ("invariance", invariance),
}
