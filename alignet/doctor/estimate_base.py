"""What a node will take, and the numbers that estimates of all nodes share: rows and widths of features."""

from __future__ import annotations

from dataclasses import dataclass

from alignet.doctor.measure import Measurements
from alignet.doctor.models import NETWORKS
from alignet.doctor.sources import Count, Sources
from alignet.pipeline.graph import FINETUNED

WIDTH = 1024  # features of a model that is not here
SMALL = 0.15  # seconds: locks, checksums of the inputs, the manifest
HASH = 400e6  # bytes a second that checksums of artifacts are made with


@dataclass(frozen=True)
class Estimate:
    """What a node will take: seconds, peak bytes of this machine's memory, bytes on disk, how that was reckoned."""

    seconds: float
    memory: int
    disk: int
    how: str
    extra_disk: int = 0  # bytes of checkpoints while it runs
    gpu: int = 0  # peak bytes of the GPU's memory
    unknown: bool = False  # a number that it depends on is not known: the estimate is a lower bound
    doubt: str = ""  # why the seconds are not to be trusted


@dataclass
class BaseEstimates:
    """The data and the measurements of one configuration, and what estimates of every kind read off them."""

    sources: Sources
    measured: Measurements

    # ---- numbers

    def small(self, how: str, seconds: float, disk: int = 4_000, memory: int = 0) -> Estimate:
        """The estimate of a node that takes little beside what every node takes."""
        return Estimate(SMALL + seconds, self.measured.baseline + memory, disk, how)

    def width(self, model: str) -> int:
        """p: features of a model."""
        base = "student" if model in FINETUNED else model
        settings = self.sources.config.models[base]
        if settings.library in NETWORKS:
            forward = self.measured.forward(base)
            return forward.width if forward is not None else WIDTH
        if settings.library == "features":
            known = self.sources.config.data.sets  # a teacher's file names the sets of every experiment
            names = sorted({rows.features for rows in settings.rows.values() if rows.features in known})
            for name in names:
                if (held := self.sources.read(name)) is not None:
                    return held.values.shape[1]
            return next((self.sources.config.doctor.assume[name] for name in names
                         if name in self.sources.config.doctor.assume), WIDTH)  # fmt: skip
        return 3072 if settings.library == "pixels" else 512

    def rows(self, model: str, images: str) -> Count:
        """Rows of the features that an `embed` node writes."""
        base = "student" if model in FINETUNED else model
        rows = self.sources.config.models[base].rows.get(images)
        if images in self.sources.config.data.sets:
            return self.sources.images(images)
        if rows is not None and (held := self.sources.read(rows.features)) is not None:
            return Count(len(held.ids), "counted")
        return self.sources.objects()

    def among(self, images: str, triplets: str, m: int, n: int) -> tuple[int, int]:
        """Objects that occur in the triplets, and triplets, where those without features are left out."""
        from alignet.data.triplets import restrict, rows_of_objects

        names, ids = self.sources.object_names(images), self.sources.set_ids(images)
        held = self.sources.read(triplets)
        if names is None or ids is None or held is None or held.max() >= len(names):
            return m, n
        kept = restrict(held, rows_of_objects(names, ids)).triplets
        return len(set(kept.ravel().tolist())), len(kept)
