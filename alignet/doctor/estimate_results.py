"""Estimates of the nodes behind the models: evaluations, exports and the report."""

from __future__ import annotations

from alignet.config import DatasetSettings
from alignet.doctor.estimate_attack import attacked_of, method_of
from alignet.doctor.estimate_base import HASH, SMALL, BaseEstimates, Estimate, of_role
from alignet.doctor.models import base_of
from alignet.pipeline.graph import Node, row_of

ASSUMED = {  # seconds of an evaluation, as measured on a few hundred images and thousands of triplets
    "rsa": 0.1, "rsa_mean": 0.2, "nights": 1.0, "calibration": 0.1, "levels": 0.8, "hierarchy": 0.6, "space": 0.2,
    "projection": 15.0, "examples": 0.1, "where": 5.0, "masking": 0.5,
    "attack": 5.0,
}  # fmt: skip
SIDE = 64  # pixels a side of maps that are not here
RANKED = 2.5e-7  # seconds of a pixel of a map and a reduction: ranked at all scales and compared [measured]
COMPARED = 4e-7  # seconds of a pixel value of an attacked image: norms, magnitude, ranks [assumed]
ROW, PICTURES = (
    200,
    90_000,
)  # bytes of an image in the tables of attacks, and of the pictures that are shown [assumed]
HALVED = 1.2e-8  # seconds of a pixel of an image's maps and a split of its raters [measured]


class ResultEstimates(BaseEstimates):
    """Estimates of what is made of models."""

    # ---- what came of it

    def evaluate(self, node: Node) -> Estimate:
        setting, _, name = node.role.partition(".")
        dataset = self.sources.config.evaluate.datasets[name]
        model = (row_of(setting) or (None, None))[0]
        if dataset.family == "where":
            return self._where(node, dataset)
        if dataset.family == "attack":
            return self._attack(node, dataset)
        if model is None:
            return self.small("what is said without a model", 1.0)
        width = self.width(model)
        draws = self.sources.config.evaluate.bootstrap
        if dataset.family == "odd_one_out":
            triplets = dataset.data["triplets"]
            m, n = self.sources.objects_of(triplets).number, self.sources.triplets(triplets).number
            if "objects" in dataset.data:
                m, n = self.among(dataset.images["test"], triplets, m, n)
            seconds = self.measured.bootstrap(m, n) if m and n and m < 2**31 else 0.0
            return self.small(f"{n:,} triplets, {draws:,} draws", seconds + n * 1e-6)
        if dataset.family == "agreement":
            count, images = int(dataset.options["count"]), self.sources.images(dataset.images["test"]).number
            seconds = self.measured.bootstrap(images, count) if images else 0.0
            return self.small(f"{count:,} triplets, {draws:,} draws", seconds + 0.5)
        if dataset.family == "teacher_labels":
            pool, count = self.sources.images(dataset.images["pool"]).number, int(dataset.options["count"])
            seconds = 2 * self.measured.drawing(pool, width, count, True) if pool else 0.0
            return self.small(f"2 x {count:,} triplets", seconds)
        if dataset.family == "top1":
            pool = self.sources.images(dataset.images["pool"]).number
            forward = self.measured.forward("student")
            seconds = (self.measured.refit(pool, width) if pool else 0.0) + (forward.load if forward else 1.0)
            return self.small(f"a classifier refitted on {pool:,} images", seconds)
        if dataset.family == "linear_probe":
            images = self.sources.images(dataset.images["train"]).number
            tried = dataset.options.get("C", 1.0)
            fits = 1 if isinstance(tried, (int, float)) else 3 * len(tried) + 1
            return self.small(
                f"{fits} logistic regressions on {images:,} images", fits * images * width * 1e-5
            )
        if dataset.family in ("few_shot", "breeds", "transfer"):
            return self._readouts(dataset, width)
        return self.small(f"family {dataset.family}: assumed", ASSUMED.get(dataset.family, 5.0))

    def _where(self, node: Node, dataset: DatasetSettings) -> Estimate:
        """Maps of the images ranked at every scale, and halves of the raters where they give the ceiling."""
        options, held = dataset.options, self.sources.read(dataset.data["maps"])
        maps = next(iter(held.values())) if held else None
        saliency = node.inputs.get("node.saliency")
        if saliency is not None:
            model, _, images = of_role(self.sources.graph[saliency].role)
            count = self.rows(model, images).number
            encoder = self.measured.models.encoder(base_of(model))
            side = encoder.data_config["input_size"][-1] if encoder is not None else SIDE
        else:
            count, side = (len(maps) if maps is not None else 0), SIDE
        pixels = next(iter(maps.sizes)) if maps is not None else (SIDE, SIDE)
        kinds = max(len(held or ()), 1) if options["keys"] == "all" else 1
        seconds = RANKED * count * side**2 * len(options["reductions"]) * kinds
        if options["ceiling"] == "split_half":
            seconds += HALVED * count * pixels[0] * pixels[1] * options["splits"] * kinds
        return self.small(f"maps of {count:,} images", 0.3 + seconds)

    def _attack(self, node: Node, dataset: DatasetSettings) -> Estimate:
        """Norms of all attacks of the images, and their magnitudes beside people's maps."""
        values = images = 0
        for key in node.inputs.values():
            made = self.sources.graph[key]
            if made.stage == "attack":
                model, _, of = of_role(made.role)
                encoder = self.measured.models.encoder(base_of(model))
                shape = encoder.data_config["input_size"] if encoder is not None else (3, SIDE, SIDE)
                count = attacked_of(method_of(made.section), self.rows(model, of).number)
                images, values = max(images, count), values + count * shape[0] * shape[1] * shape[2]
        disk = 4_000 + ROW * images + (PICTURES if dataset.options.get("photographs") else 0)
        return self.small(f"attacks of {images:,} images", 0.5 + COMPARED * values, disk)

    def _readouts(self, dataset: DatasetSettings, width: int) -> Estimate:
        """Logistic regressions on frozen features: as many as there are draws, on as many images."""
        options, images = dataset.options, self.sources.images(next(iter(dataset.images.values()))).number
        if dataset.family == "few_shot":
            fits = len(options["shots"]) * options["draws"]
            return self.small(
                f"{fits} fits on a few images of each class", fits * (0.05 + images * width * 1e-8)
            )
        return self.small(f"a readout of {images:,} images", 1 + images * width * 1e-5)

    def levels(self, node: Node) -> Estimate:
        return self.small("trials are counted by triplet", 1.0, 2_000_000)

    def export(self, node: Node) -> Estimate:
        if node.role in ("alignet", "distillation"):
            forward = self.measured.forward("student")
            if forward is None:
                return Estimate(
                    SMALL, self.measured.baseline, 0, "the network cannot be loaded", unknown=True
                )
            seconds = 1 + 4 * forward.load + 4 * forward.seconds + forward.weights / HASH
            return self.small(
                "written, loaded again and compared", seconds, forward.weights, 3 * forward.weights
            )
        if node.role == "dataset":
            return self.small("triplets with file names", 1.0, 100 * self.sources.config.triplets.count)
        width = self.width("teacher" if node.role == "teacher" else "student")
        return self.small("a map", 0.0, 4 * width * (width + 1))

    def report(self, node: Node) -> Estimate:
        return self.small("page, tables and figures: assumed", 15.0, 3_000_000)
