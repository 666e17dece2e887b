"""What a node will take, and the numbers that estimates of all nodes share: rows and widths of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignet.doctor.measure import Measurements
from alignet.doctor.models import NETWORKS, base_of
from alignet.doctor.sources import Count, Sources
from alignet.doctor.timing import cores

KEPT = 9  # a checkpoint holds what trains and Adam's two moments, and three lie there while one is written
WIDTH = 1024  # features of a model that is not here
SMALL = 0.15  # seconds: locks, checksums of the inputs, the manifest
HASH = 400e6  # bytes a second that checksums of artifacts are made with


def of_role(role: str) -> tuple[str, str, str]:
    """Of a role of `embed` or `saliency`: the model, the feature behind its colon ('' without), the images."""
    named, _, images = role.partition(".")
    model, _, feature = named.partition(":")
    return model, feature, images


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

    def width(self, model: str, feature: str = "") -> int:
        """p: features of a model; of `logits`, the classes of its classifier."""
        base = base_of(model)
        settings = self.sources.config.models[base]
        if settings.library in NETWORKS:
            if feature == "logits":
                return self.measured.models.classes(base) or WIDTH
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
        stage, _, maps = images.partition(".")
        if stage == "stimuli" and maps:
            shown, levels = self.shown(maps), self.sources.config.stimuli.settings.levels
            return Count(shown.number * (levels + 1), shown.how)
        rows = self.sources.config.models[base_of(model)].rows.get(images)
        if images in self.sources.config.data.sets:
            return self.sources.images(images)
        if rows is not None and (held := self.sources.read(rows.features)) is not None:
            return Count(len(held.ids), "counted")
        return self.sources.objects()

    def shown(self, maps: str) -> Count:
        """Images of which `stimuli` draws pictures: with a map that is not constant; all where maps are unread."""
        images = self.sources.config.stimuli.maps[maps]
        whole = self.sources.images(images)
        ids, held = self.sources.read(images), self.sources.read(maps)
        if not ids or not held:
            return whole
        from alignet.data.importance_maps import maps_for

        found = next(iter(held.values()))
        try:
            rows = maps_for(found, ids)[0]
        except ValueError:  # the check of maps says so
            return whole
        return Count(sum(bool(np.ptp(found.maps[row]) > 0) for row in rows if row >= 0), whole.how)

    def among(self, images: str, triplets: str, m: int, n: int) -> tuple[int, int]:
        """Objects that occur in the triplets, and triplets, where those without features are left out."""
        from alignet.data.triplets import restrict, rows_of_objects

        names, ids = self.sources.object_names(images), self.sources.set_ids(images)
        held = self.sources.read(triplets)
        if names is None or ids is None or held is None or held.max() >= len(names):
            return m, n
        kept = restrict(held, rows_of_objects(names, ids)).triplets
        return len(set(kept.ravel().tolist())), len(kept)

    # ---- times

    def streamed(self, images: int, reading: float, computing: float) -> float:
        """Seconds of `alignet.backbones.inference.stream` for images that cost so much each to read and to compute.

        On a CPU every thread does both; `computing` was measured with all threads on one pass.
        """
        runtime, here = self.sources.config.runtime, cores()
        threads = min(runtime.threads, here)
        if self.measured.device == "cuda":
            return images * max(reading / min(runtime.workers or threads, here), computing)
        return images * (reading + computing * threads) / min(threads + runtime.workers, here)

    def while_reading(self, images: int, reading: float, computing: float) -> float:
        """Seconds for images that cost so much each to read and to compute; runtime.workers read ahead of the network.

        On a CPU both want its cores, and no core does two things at once.
        """
        runtime, here = self.sources.config.runtime, cores()
        if not runtime.workers:
            return images * (reading + computing)
        each = max(reading / min(runtime.workers, here), computing)
        if self.measured.device == "cpu":
            each = max(each, (reading + computing * min(runtime.threads, here)) / here)
        return images * each


def processes(sources: Sources) -> int:
    """How many processes of this run share a machine, as alignet/pipeline/launch.py starts them."""
    runtime = sources.config.runtime
    if runtime.launcher == "local":
        return 1
    if runtime.processes or runtime.device == "cpu":
        return max(runtime.processes, 1)
    import torch

    return max(torch.cuda.device_count(), 1)
