"""The whole configuration: `Config` holds every section of conf/, and checks what one section asks of another.

Read by the pipeline, `doctor` and `plan`; a stage of the graph reads its node's section instead. Values and their
meaning are in conf/. Next to nothing here has a default, so nothing mirrors conf/. No file here imports torch or numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignet.config.attack import AttackSection
from alignet.config.building import build
from alignet.config.data import DataSettings
from alignet.config.doctor import DoctorSettings
from alignet.config.evaluate import AblationSettings, EvaluateSection
from alignet.config.harmonizer import HARMONIZED, HarmonizeSection, SaliencySettings, StimuliSection
from alignet.config.invert import InvertSection
from alignet.config.models import EmbedSettings, ModelSettings, PixelsSettings
from alignet.config.paths import PathsSettings
from alignet.config.people import LevelsSection, SoftLabelsSettings, SurveySettings, ViceSection
from alignet.config.perceptual import PerceptualSection
from alignet.config.plan import PlanSettings
from alignet.config.rehearse import RehearseSettings
from alignet.config.report import ReportSettings
from alignet.config.robust import RobustSection, trained_role
from alignet.config.runtime import RuntimeSettings
from alignet.config.student import ExportSection, FinetuneSection
from alignet.config.teacher import ClusterSettings, DistillSection, SmoothSettings, TripletsSettings
from alignet.config.world import PretrainSection, WorldSettings


@dataclass(frozen=True)
class Config:
    """Everything that a command line configures."""

    experiment_name: str
    banner: str
    seed: int
    seeds: tuple[int, ...]
    role: str | None
    force: bool
    data: DataSettings
    world: WorldSettings | None
    pretrain: PretrainSection | None
    teacher: ModelSettings
    student: ModelSettings
    baselines: Mapping[str, ModelSettings]
    vice: ViceSection | None
    soft_labels: SoftLabelsSettings
    pixels: PixelsSettings
    embed: EmbedSettings
    distill: DistillSection
    cluster: ClusterSettings
    triplets: TripletsSettings
    smooth: SmoothSettings | None
    finetune: FinetuneSection
    saliency: SaliencySettings
    harmonize: HarmonizeSection | None
    stimuli: StimuliSection
    attack: AttackSection
    robust: RobustSection | None
    invert: InvertSection
    perceptual: PerceptualSection
    export: ExportSection
    levels: LevelsSection
    evaluate: EvaluateSection
    ablation: AblationSettings | None
    report: ReportSettings
    doctor: DoctorSettings
    plan: PlanSettings
    rehearse: RehearseSettings
    survey: SurveySettings
    paths: PathsSettings
    runtime: RuntimeSettings

    @property
    def models(self) -> dict[str, ModelSettings]:
        """Every model by the name that a node's role gives it."""
        return {"teacher": self.teacher, "student": self.student} | dict(self.baselines)

    @property
    def said(self) -> str:
        """The banner, and which models have random weights."""
        drawn = [name for name in ("teacher", "student") if self.models[name].weights == "random"]
        return f"{self.banner}; random weights of {' and '.join(drawn)}" if drawn else self.banner

    def __post_init__(self) -> None:
        taken = {"teacher", "student"} & set(self.baselines)
        if taken:
            raise ValueError(
                f"baselines: expected names beside teacher and student, found {', '.join(taken)}"
            )
        for name in self.data.needs:
            if not getattr(self.paths, name):
                raise ValueError(
                    f"paths.{name}: experiment={self.experiment_name} needs it and it has no default; data/README.md "
                    f"says what belongs there: add paths.{name}=<where it is>"
                )
        for name in self.export.scores:
            if name not in self.evaluate.datasets:
                raise ValueError(
                    f"export.scores: expected names of evaluate.datasets ({', '.join(self.evaluate.datasets)}), "
                    f"found {name!r}"
                )
        known = {setting for dataset in self.evaluate.datasets.values() for setting in dataset.settings}
        unmade = known & {"alignet", "distillation"} - set(self.finetune.roles)
        if unmade:
            raise ValueError(
                f"evaluate.datasets: expected settings that finetune.roles makes, found {', '.join(sorted(unmade))} as "
                f"well; add it to finetune.roles or take it out of the data sets"
            )
        made = self.harmonize.roles if self.harmonize else {}
        _check_made("harmonize", known & set(HARMONIZED) - set(made))
        for name in made:
            if name not in HARMONIZED:
                raise ValueError(f"harmonize.roles: expected some of {', '.join(HARMONIZED)}, found {name!r}")
        trained = {setting for setting in known if trained_role(setting)}
        _check_made(
            "robust", {one for one in trained if self.robust is None or self.robust.of_row(one) is None}
        )
        for name, role in (self.harmonize.roles if self.harmonize else {}).items():
            if role.start == "alignet" and "alignet" not in self.finetune.roles:
                raise ValueError(
                    f"harmonize.roles.{name}.start: expected original where finetune.roles lacks alignet, found "
                    f"alignet; add alignet to finetune.roles"
                )
        if self.smooth and self.finetune.settings.sampling != "in_batch":
            raise ValueError(
                "smooth: expected null where finetune.settings.sampling is triplets, whose answers come from the "
                "teacher as it is; add smooth=null"
            )


def _check_made(section: str, missing: set[str]) -> None:
    """ValueError for rows of evaluations that no training makes."""
    if missing:
        raise ValueError(
            f"evaluate.datasets: expected settings that {section}.roles makes, found {', '.join(sorted(missing))} as "
            f"well; add it to {section}.roles or take it out of the data sets"
        )


def parse(values: Mapping[str, Any]) -> Any:
    """The configuration from plain values; ValueError names the key, what was expected and found."""
    return build(Config, values, "")
