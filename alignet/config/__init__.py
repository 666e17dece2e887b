"""The configuration as frozen dataclasses, one file for each section of conf/: names, types and checks, no values.

In: plain values, as Hydra composes them from conf/. Out: one `Config`, or a ValueError that names the key, what was
expected and found. Nothing here imports torch or numpy. Open first: config.py, whose `Config` holds every section.
"""

from alignet.config.building import build
from alignet.config.config import (
    WORLD_FILES,
    AblationSettings,
    Config,
    DatasetSet,
    DatasetSettings,
    DistillSettings,
    FeaturesSet,
    FinetuneSettings,
    ImagesSet,
    MapSource,
    Measure,
    ModelSettings,
    RuntimeSettings,
    SetSettings,
    TrainingSettings,
    TripletsSet,
    ViceSection,
    ViceSettings,
    WorldSettings,
    parse,
)

__all__ = [
    "WORLD_FILES",
    "AblationSettings",
    "Config",
    "DatasetSet",
    "DatasetSettings",
    "DistillSettings",
    "FeaturesSet",
    "FinetuneSettings",
    "ImagesSet",
    "MapSource",
    "Measure",
    "ModelSettings",
    "RuntimeSettings",
    "SetSettings",
    "TrainingSettings",
    "TripletsSet",
    "ViceSection",
    "ViceSettings",
    "WorldSettings",
    "build",
    "parse",
]
