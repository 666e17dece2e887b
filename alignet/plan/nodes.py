"""What every node of a configuration's graph costs on a machine: FLOPs, bytes, seconds, memory and disk.

    graph + sizes -> formulas -> machines -> a Cost for each node

Seconds are of the algorithm as it runs here. Where the number of epochs of VICE is not known it is assumed as `doctor`
does. Evaluations, reports and exports have the seconds that they took on a few hundred images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from alignet.config import Config
from alignet.doctor.estimate_base import KEPT, SMALL, of_role
from alignet.doctor.estimate_results import ASSUMED
from alignet.doctor.estimates import EPOCHS
from alignet.doctor.models import base_of
from alignet.pipeline.graph import TRAINED, Node, build_graph, row_of
from alignet.plan import formulas
from alignet.plan.attack import AttackCosts
from alignet.plan.costs import CONTEXT, IDENTITY, NAME, PROCESS, Cost, embed_bytes, kept_bytes, pass_images
from alignet.plan.formulas import Work
from alignet.plan.harmonizer import HarmonizerCosts
from alignet.plan.invert import InversionCosts
from alignet.plan.machines import Machine
from alignet.plan.sizes import MissingSize, Sizes

CLASSES = 1000  # of a classifier whose logits are embedded [assumed: ImageNet-1k]
REPORT = 20.0  # seconds of the page, its tables and figures
FAMILIES = ASSUMED | {  # seconds of an evaluation on a few hundred images and thousands of triplets [measured there]
    "odd_one_out": 0.7, "agreement": 1.0, "teacher_labels": 1.0, "top1": 2.0, "linear_probe": 3.0, "few_shot": 4.0,
    "breeds": 5.0, "transfer": 5.0,
}  # fmt: skip


def plan_nodes(config: Config, machine: Machine) -> list[Cost]:
    """The cost of every node of a configuration, in the order in which they run. ValueError lists all missing sizes."""
    planner = _Planner(config, machine, Sizes(config))
    costs: list[Cost] = []
    missing: dict[str, MissingSize] = {}  # by option
    for node in build_graph(config).values():
        try:
            costs.append(planner.of(node))
        except MissingSize as error:
            missing.setdefault(error.option, error)
    if missing:
        what = ", ".join(error.what for error in missing.values())
        raise ValueError(f"plan: expected the number of {what}, found none; add {' '.join(missing)}")
    return costs


@dataclass
class _Planner(HarmonizerCosts, AttackCosts, InversionCosts):
    def of(self, node: Node) -> Cost:
        kinds: Mapping[str, Callable[[Node], Cost]] = {
            "index": self._index, "vice": self._vice, "reliability": self._reliability,
            "soft_labels": self._soft_labels, "embed": self._embed, "distill": self._distill, "cluster": self._cluster,
            "triplets": self._triplets, "smooth": self._smooth, "finetune": self._finetune, "pretrain": self._pretrain,
            "world": self._world, "evaluate": self._evaluate, "export": self._export, "report": self._report,
            "saliency": self._saliency, "stimuli": self._stimuli, "harmonize": self._harmonize,
            "attack": self._attack, "robust": self._robust, "invert": self._invert, "perceptual": self._perceptual,
        }  # fmt: skip
        return kinds.get(node.stage, self._other)(node)

    # ---- data and people

    def _index(self, node: Node) -> Cost:
        one = self.config.data.sets[node.role]
        if one.kind not in ("images", "shards"):
            return self._fixed(node, 0.1, "one file to hash")
        images, size = self.sizes.images(node.role), self.sizes.image_bytes(node.role)
        late = max(0.0, images * size / self.machine.settings.disk - self._of(formulas.hashed(images * size)))
        return self._cost(
            node, formulas.hashed(images * size), f"{images:,} images", host=images * (NAME + IDENTITY),
            disk=images * IDENTITY, waiting=late,
        )  # fmt: skip

    def _vice(self, node: Node) -> Cost:
        vice = self.config.vice
        assert vice is not None
        if vice.published is not None:
            return self._fixed(node, 1.0, "a published embedding is checked")
        m, n = self.sizes.objects(), self.sizes.triplets(str(vice.train))
        work, how = self._fit(m, n, n / vice.settings.batch)
        held = self.sizes.triplets(str(vice.val)) if vice.val else 0
        measured = formulas.probabilities(m, vice.settings.dim / 2, held).times(vice.settings.samples)
        arrays = 8 * m * vice.settings.dim * formulas.ENTRY_ARRAYS
        copied = 24 * n if self.machine.gpu else 0
        return self._cost(node, work + measured, how, on_gpu=True, host=24 * n, gpu=copied + arrays,
                          disk=24 * m * vice.settings.dim)  # fmt: skip

    def _fit(self, m: int, n: int, steps: float) -> tuple[Work, str]:
        """A fit of VICE of so many steps an epoch."""
        vice = self.config.vice
        assert vice is not None
        one = vice.settings
        earliest = min(one.earliest, one.max_epochs)
        epochs = round(earliest + EPOCHS * (one.max_epochs - earliest))
        epoch = formulas.vice_step(m, one.dim, min(one.batch, n)).times(math.ceil(steps))
        work = (epoch + formulas.vice_epoch(m, one.dim)).times(epochs)
        how = f"{epochs} epochs (assumed) of {math.ceil(steps):,} steps; {n:,} triplets, {m:,} objects"
        return work, how

    def _reliability(self, node: Node) -> Cost:
        vice = self.config.vice
        assert vice is not None
        m, n = self.sizes.objects(), self.sizes.triplets(str(vice.train))
        work, how = self._fit(m, n, n / 2 / vice.settings.batch)
        arrays = 8 * m * vice.settings.dim * formulas.ENTRY_ARRAYS
        return self._cost(node, work.times(2), f"two fits on halves: {how}", on_gpu=True, host=24 * n,
                          gpu=12 * n + arrays)  # fmt: skip

    def _soft_labels(self, node: Node) -> Cost:
        vice, samples = self.config.vice, self.config.soft_labels.samples
        assert vice is not None
        m, n = self.sizes.objects(), self.sizes.triplets(node.role)
        work = formulas.probabilities(m, vice.settings.dim / 2, n).times(samples)
        how = f"{samples} posterior samples of {n:,} triplets"
        return self._cost(node, work, how, host=60 * n + 4 * m * m, disk=12 * n)

    def _distill(self, node: Node) -> Cost:
        role = self.config.distill.base(node.role)
        p = self.sizes.width(role)
        disk = 4 * p * (p + 1)
        if "published" in node.inputs:
            return self._fixed(node, 0.2, "a published map is checked", disk)
        source, settings = self.config.distill.sources[role], self.config.distill.settings[role]
        images = self.sizes.images(source.images) if self._has(source.images) else self.sizes.objects()
        m, n = min(images, self.sizes.objects()), self.sizes.triplets(source.triplets)
        inside = 1 - 1 / settings.folds  # of the objects; of the triplets its cube
        fits = settings.folds * len(settings.penalties) * len(settings.lrs)
        each = formulas.map_fit(m * inside, p, n * inside**3, settings.batch, settings.steps)
        work = each.times(fits) + formulas.map_fit(m, p, n, settings.batch, settings.steps)
        how = f"{fits + 1} fits of {settings.steps:,} steps; {n:,} triplets of {m:,} objects, {p:,} features"
        host = 4 * (4 * p * p + 3 * m * m + 2 * m * p) + 60 * n + 60 * settings.batch
        return self._cost(node, work, how, host=host, disk=disk)

    # ---- features

    def _embed(self, node: Node) -> Cost:
        name, feature, images = of_role(node.role)
        model = base_of(name)
        library, many = self.config.models[model].library, self._rows(images)
        embed = self.config.embed
        width = self.sizes.width(model) if feature != "logits" else self._classes(model)
        stored = 2 if embed.precision == "float16" else 4
        disk = many * (width * stored + 40)
        shard = min(embed.shard, many)
        if library == "features":
            return self._fixed(node, disk / 4e8, f"{many:,} rows are copied", disk)
        if library in ("pixels", "histogram"):
            return self._read(node, many, self.sizes.image_bytes(images), Work(), disk, 8 * shard * width)
        network = self.sizes.network(model)
        work = formulas.forward(many, network.forward, network.kind)
        threads, on_gpu = self.config.runtime.threads, self.machine.gpu is not None
        ahead = threads + (1 + 2 * self.workers if self.workers else 0)  # passes whose pixels are held
        host = (
            8 * shard * width + ahead * pass_images(embed.batch, on_gpu) * 3 * network.size**2 + NAME * many
        )
        gpu = embed_bytes(network, embed.batch, threads, on_gpu)
        return self._read(node, many, self.sizes.image_bytes(images), work, disk, host, gpu)

    def _classes(self, model: str) -> int:
        return int(self.config.models[model].model_args.get("num_classes", CLASSES))

    # ---- the AligNet data set

    def _cluster(self, node: Node) -> Cost:
        settings, images, p = self.config.cluster, self.sizes.images("pool"), self.sizes.width("teacher")
        numbers = [k for k in settings.grid if k <= images]
        if settings.clusters == "elbow" and not numbers:
            raise ValueError(
                f"cluster.grid: expected numbers of clusters of at most the pool's {images:,} images, found "
                f"{list(settings.grid)}; add smaller ones"
            )
        tried = (
            [*numbers, numbers[len(numbers) // 2]]
            if settings.clusters == "elbow"
            else [int(settings.clusters)]
        )
        work = formulas.mapped(images, p) if node.role == "alignet" else Work()
        each = settings.rows_per_cluster
        rows = images if each is None else min(images, each * max(tried))
        for k in tried:
            work += formulas.clustering(images, p, k, settings.iterations, settings.redo, rows)
        how = f"{len(tried)} fits x {settings.redo} starts x {settings.iterations} iterations on {rows:,} x {p:,}"
        return self._cost(node, work, how, host=8 * rows * p, disk=8 * images + 4 * max(tried) * p)

    def _triplets(self, node: Node) -> Cost:
        count, images, p = self.sizes.drawn_triplets(), self.sizes.part(), self.sizes.width("teacher")
        disk = 36 * count + 40 * images
        if self.config.triplets.published:
            return self._fixed(node, 1e-6 * count, f"{count:,} triplets are copied", disk)
        stored = 2 if self.config.embed.precision == "float16" else 4
        work = formulas.draw(count, images) + formulas.label(count, p, stored)
        held = 0
        if (
            node.role == "alignet"
        ):  # mapped rows are held in memory, or in a file until the triplets are answered
            work += formulas.mapped(images, p)
            held = 4 * images * p
        waiting = 0.0
        if held > self.machine.settings.memory / 4:  # written once, and read once
            waiting, disk, held = 2 * held / self.machine.settings.disk, disk + held, 0
        how = f"{count:,} triplets of {images:,} images, {p:,} features"
        host = held + 150 * count + NAME * images
        return self._cost(node, work, how, host=host, disk=disk, waiting=waiting)

    def _smooth(self, node: Node) -> Cost:
        images, p, q = self.sizes.images("pool"), self.sizes.width("teacher"), self.sizes.width("student")
        host = 8 * 4 * images * (p + q)
        return self._cost(node, formulas.ridge(images, q, p), f"{images:,} x {q:,} and {p:,} features", host=host,
                          disk=images * (4 * p + 40))  # fmt: skip

    # ---- the student

    def _finetune(self, node: Node) -> Cost:
        one = self.config.finetune.settings
        network = self.sizes.network("student", frozen=True)
        in_batch = one.sampling == "in_batch" and node.role != "direct"
        batch = (
            one.batch
            if node.role != "direct" or self.config.finetune.direct is None
            else (self.config.finetune.direct.batch)
        )
        images = distinct_images(batch, one.accumulate, in_batch, self.sizes.part())
        triplets = one.accumulate * math.comb(one.batch, 3) if in_batch else batch
        reduced = one.precision == "bf16"
        recompute, training = self.config.runtime.recompute, network.training
        kept = kept_bytes(network, reduced, recompute, products=self.machine.gpu is None)
        if recompute:
            training += (training - network.forward) / 2  # the forward pass of what trains, once more
        step = formulas.finetune_step(images, training, network.trained, triplets, kept, network.kind)
        work, passes = step.times(one.steps), one.steps * images
        pixels = 3 * network.size**2
        held = pixels * self.sizes.part() <= self.machine.settings.memory / 4
        reading = formulas.read(self.sizes.part() if held else passes, self.sizes.image_bytes("pool"))
        seconds, bound = self._while_reading(work, reading, held, reduced)
        at_once = math.ceil(images / one.accumulate)
        weights = 4 * network.parameters
        parts = self.machine.count if self.config.runtime.sharding == "fsdp2" else 1
        gpu = finetune_bytes(network.trained, weights, kept, at_once / self.machine.count, reduced, parts)
        host = (pixels * self.sizes.part() if held else (1 + 2 * self.workers) * at_once * pixels) + weights
        if not in_batch:
            host += 36 * self.sizes.drawn_triplets()
        else:
            host += 4 * self.sizes.part() * self.sizes.width("teacher")
        how = f"{one.steps:,} steps of {images:,} images and {triplets:,} triplets"
        how += "" if held else "; images are read anew in each step"
        how += f"; shared by {self.machine.count}" if self.machine.count > 1 else ""
        on = self.machine.gpu is not None
        disk = weights + 4 * KEPT * network.trained  # with the checkpoints while it runs
        return Cost(node.stage, node.role, work + reading, SMALL + seconds, bound, PROCESS + host + (0 if on else gpu),
                    CONTEXT + gpu if on else 0, disk, how)  # fmt: skip

    def _pretrain(self, node: Node) -> Cost:
        assert self.config.pretrain is not None
        network = self.sizes.network(node.role)
        settings = getattr(self.config.pretrain, node.role)
        step = formulas.finetune_step(
            settings.batch, network.training, network.trained, 0, network.kept32, network.kind
        )
        host = 4 * 4 * network.trained + settings.batch * network.kept32
        return self._cost(node, step.times(settings.steps), f"{settings.steps:,} steps of {settings.batch:,} pictures",
                          host=host, disk=4 * network.parameters)  # fmt: skip

    def _world(self, node: Node) -> Cost:
        from alignet.pipeline.pool import world_pictures

        world = self.config.world
        assert world is not None
        files = world_pictures(world)
        number = files + world.teacher_images + world.student_images
        size = number * world.size**2 * 3
        return self._cost(
            node, Work(0, size, {"picture": number * world.size**2}), f"{number:,} pictures", disk=size
        )

    # ---- what came of it

    def _evaluate(self, node: Node) -> Cost:
        family, dataset = node.section["family"], self.config.evaluate.datasets[node.section["dataset"]]
        work = Work()
        if family == "odd_one_out" and self._counted(dataset.data["triplets"]):
            m = self.sizes.objects() if "objects" in dataset.data else self._rows(dataset.images["test"])
            n = self.sizes.triplets(dataset.data["triplets"])
            work = formulas.answers(m, self._width(node.section["setting"]), n)
        return self._cost(node, work, f"family {family}: assumed", more=FAMILIES.get(family, 5.0))

    def _counted(self, triplets: str) -> bool:
        return triplets in self.sizes.assumed or self.config.data.drawn(triplets)

    def _width(self, setting: str) -> int:
        model = (row_of(setting) or (None, None))[0]
        return self.sizes.width("student" if model is None else base_of(model))

    def _export(self, node: Node) -> Cost:
        if node.role == "dataset":
            count = self.sizes.drawn_triplets()
            return self._fixed(node, 1e-6 * count, "triplets with file names", 100 * count)
        if node.role in TRAINED:
            weights = 4 * self.sizes.network("student").parameters
            return self._fixed(node, 2 + weights / 1e8, "written, loaded again and compared", weights)
        p = self.sizes.width("teacher" if node.role == "teacher" else "student")
        return self._fixed(node, 0.1, "a map", 4 * p * (p + 1))

    def _report(self, node: Node) -> Cost:
        return self._fixed(node, REPORT, "page, tables and figures: assumed", 3_000_000)

    def _other(self, node: Node) -> Cost:
        return self._fixed(node, 2.0, "assumed")


def distinct_images(batch: int, accumulate: int, in_batch: bool, pool: int) -> int:
    """Images that a step embeds; of drawn triplets, as many as distinct ones occur in each part of it."""
    if in_batch:
        return batch * accumulate
    part = 3 * batch / accumulate
    return round(pool * -math.expm1(-part / pool) * accumulate)


def finetune_bytes(
    trained: int, weights: int, kept: float, images: float, reduced: bool, parts: int = 1
) -> float:
    """Bytes that fine-tuning needs at its peak beside pixels: weights, where they began, gradient, two moments of what
    trains (in so many parts), copies in bfloat16, and what the backward pass of so many images keeps."""
    return (weights + 16 * trained) / parts + (2 * trained if reduced else 0) + images * kept
