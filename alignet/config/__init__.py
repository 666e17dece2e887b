"""The configuration as frozen dataclasses, one file for each section of conf/: names, types and checks, no values.

In: plain values, as Hydra composes them from conf/. Out: one `Config`, or a ValueError that names the key, what was
expected and found. Nothing here imports torch or numpy. Open first: config.py, whose `Config` holds every section.
"""

from alignet.config.attack import FOOLBOX, AttackMethod, AttackSection, PgdSearch
from alignet.config.building import build
from alignet.config.config import Config, parse
from alignet.config.data import (
    WORLD_FILES,
    DatasetSet,
    DataSettings,
    FeaturesSet,
    FileSet,
    ImagesSet,
    MapsSet,
    ObjectIds,
    SetSettings,
    TripletsSet,
)
from alignet.config.doctor import DoctorSettings
from alignet.config.evaluate import AblationSettings, DatasetSettings, EvaluateSection, Measure
from alignet.config.harmonizer import (
    HarmonizeRole,
    HarmonizeSection,
    HarmonizeSettings,
    LabelledTraining,
    SaliencySettings,
    StimuliSection,
    StimuliSettings,
)
from alignet.config.invert import InvertMethod, InvertSection, Noise, Transformations
from alignet.config.models import EmbedSettings, FeatureRows, ModelSettings, PixelsSettings
from alignet.config.paths import PathsSettings
from alignet.config.people import LevelsSection, SoftLabelsSettings, SurveySettings, ViceSection, ViceSettings
from alignet.config.perceptual import PerceptualDistance, PerceptualSection
from alignet.config.plan import GpuSettings, MachineSettings, PlanSettings, PlanSize
from alignet.config.rehearse import RehearseSettings
from alignet.config.report import ReportSettings
from alignet.config.robust import INGREDIENTS, ROBUST, Augmentation, RobustRole, RobustSection, trained_role
from alignet.config.runtime import RuntimeSettings, SlurmSettings
from alignet.config.student import DirectSettings, ExportSection, FinetuneSection, FinetuneSettings
from alignet.config.teacher import (
    ClusterSettings,
    DistillSection,
    DistillSettings,
    LocalSettings,
    MapSource,
    OtherMap,
    SmoothSettings,
    TripletsSettings,
)
from alignet.config.world import PretrainSection, TrainingSettings, WorldSettings

__all__ = [
    "FOOLBOX",
    "INGREDIENTS",
    "ROBUST",
    "WORLD_FILES",
    "AblationSettings",
    "AttackMethod",
    "AttackSection",
    "Augmentation",
    "ClusterSettings",
    "Config",
    "DataSettings",
    "DatasetSet",
    "DatasetSettings",
    "DirectSettings",
    "DistillSection",
    "DistillSettings",
    "DoctorSettings",
    "EmbedSettings",
    "EvaluateSection",
    "ExportSection",
    "FeatureRows",
    "FeaturesSet",
    "FileSet",
    "FinetuneSection",
    "FinetuneSettings",
    "GpuSettings",
    "HarmonizeRole",
    "HarmonizeSection",
    "HarmonizeSettings",
    "ImagesSet",
    "InvertMethod",
    "InvertSection",
    "LabelledTraining",
    "LevelsSection",
    "LocalSettings",
    "MachineSettings",
    "MapSource",
    "MapsSet",
    "Measure",
    "ModelSettings",
    "Noise",
    "ObjectIds",
    "OtherMap",
    "PathsSettings",
    "PerceptualDistance",
    "PerceptualSection",
    "PgdSearch",
    "PixelsSettings",
    "PlanSettings",
    "PlanSize",
    "PretrainSection",
    "RehearseSettings",
    "ReportSettings",
    "RobustRole",
    "RobustSection",
    "RuntimeSettings",
    "SaliencySettings",
    "SetSettings",
    "SlurmSettings",
    "SmoothSettings",
    "SoftLabelsSettings",
    "StimuliSection",
    "StimuliSettings",
    "SurveySettings",
    "TrainingSettings",
    "Transformations",
    "TripletsSet",
    "TripletsSettings",
    "ViceSection",
    "ViceSettings",
    "WorldSettings",
    "build",
    "parse",
    "trained_role",
]
