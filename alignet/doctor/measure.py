"""Short measurements of the real code on this machine, from which `estimates` reckons whole nodes.

Each runs the function that the stage runs, on made-up data of the real shape where that takes no longer than about
`doctor.seconds`, and on less otherwise; then it says so. Every measurement is made once.

Shape suffixes: b images in a batch, m objects, n triplets, p features.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np

from alignet.doctor.measure_inversions import InversionMeasurements
from alignet.doctor.memory import Memory, watched
from alignet.doctor.timing import rate, seconds_of


def random_rows(m: int, n: int) -> np.ndarray:
    """n triplets of m objects at random, int64 (n, 3), each of three different ones."""
    draw = np.random.default_rng(0)
    rows = draw.integers(0, m, (n, 3))
    while len(same := np.flatnonzero((np.diff(np.sort(rows, axis=1), axis=1) == 0).any(1))):
        rows[same] = draw.integers(0, m, (len(same), 3))
    return rows


class Measurements(InversionMeasurements):
    """All measurements of one run of doctor, with those of maps, triplets, evaluations and the drawn world."""

    # ---- people

    def vice(self, m: int, n: int) -> tuple[float, float, Memory]:
        """Seconds of a step and of the end of an epoch of VICE for m objects, and the peak memory."""
        return self.once(("vice", m, n), lambda: self._vice(m, n))

    def _vice(self, m: int, n: int) -> tuple[float, float, Memory]:
        import torch

        from alignet.vice.fit import fit_vice

        vice = self.sources.config.vice
        assert vice is not None
        settings = dataclasses.replace(vice.settings, burn_in=0, window=1, max_epochs=1, k=0)
        batch = min(settings.batch, n)

        def run(steps: int) -> float:
            triplets = random_rows(m, batch * steps)
            rows = torch.from_numpy(triplets)
            return seconds_of(lambda: fit_vice(rows, None, objects=m, settings=settings, device=self.device))

        with watched(self.device) as peak:
            step, rest = rate(run, 3, self.budget / 2, 60)
        return step, rest, peak.memory

    def soft_labels(self, m: int, d: int, n: int) -> float:
        """Seconds of one posterior sample over n triplets."""
        import torch

        from alignet.vice.soft_labels import mean_probabilities

        def measure() -> float:
            less = min(n, 200_000)
            triplets = torch.from_numpy(random_rows(m, less))
            loc, scale = torch.rand(m, d), torch.full((m, d), 0.1)

            def run() -> Any:
                return mean_probabilities(loc, scale, triplets, samples=2, seed=0)

            run()
            return seconds_of(run) / 2 * n / less

        return self.once(("soft", m, d, n), measure)

    def distill(self, role: str, m: int, p: int, n: int) -> tuple[float, float, Memory]:
        """Seconds of a step, and of the rest of a fit of a map, for n triplets of m objects; peak memory."""
        return self.once(("distill", role, m, p, n), lambda: self._distill(role, m, p, n))

    def _distill(self, role: str, m: int, p: int, n: int) -> tuple[float, float, Memory]:
        import torch

        from alignet.teacher.fit_affine_map import fit_map

        settings = self.sources.config.distill.settings[role]
        less = min(n, max(settings.batch, 100_000))
        triplets = torch.from_numpy(random_rows(m, less))
        generator = torch.Generator().manual_seed(0)
        features = torch.randn((m, p), generator=generator)
        targets = torch.softmax(torch.randn((less, 3), generator=generator), 1)

        def run(steps: int) -> float:
            short = dataclasses.replace(settings, steps=steps)
            return seconds_of(
                lambda: fit_map(
                    features, triplets, targets, penalty=settings.penalties[0], lr=1e-6, settings=short
                )
            )

        with watched("cpu") as peak:
            step, rest = rate(run, 1, self.budget / 2, 20)
        return step * (n / less if settings.batch >= n else 1), rest * n / less, peak.memory

    # ---- the data set, the measurements of it, the world

    def kmeans(self, n: int, p: int, k: int) -> float:
        """Seconds of one iteration of k-means from one start, over n images."""
        from alignet.teacher.clusters import fit_clusters

        def measure() -> float:
            less = min(n, max(4 * k, 20_000 if p * k < 10**6 else 4_000))
            rows = np.random.default_rng(0).standard_normal((less, p)).astype(np.float32)
            threads = self.sources.config.runtime.threads

            def run(iterations: int) -> float:
                return seconds_of(
                    lambda: fit_clusters(
                        rows, k=min(k, less), seed=0, iterations=iterations, redo=1, threads=threads
                    )
                )

            return rate(run, 1, self.budget / 4, 8)[0] * n / less

        return self.once(("kmeans", n, p, k), measure)

    def drawing(self, pool: int, p: int, count: int, mapped: bool) -> float:
        """Seconds to draw and answer `count` triplets of the pool."""
        from alignet.teacher.labelling import label
        from alignet.teacher.sampling import random_triplets

        def measure() -> float:
            m, less = min(pool, 8_000), min(count, 20_000)  # a large pool is not answered by one Gram matrix
            features = np.random.default_rng(0).standard_normal((m, p)).astype(np.float32)

            def run() -> None:
                label(
                    features,
                    random_triplets(m, min(less, m), 0),
                    transform=(lambda rows: rows) if mapped else None,
                )

            run()
            return seconds_of(run) * count / min(less, m)

        return self.once(("drawing", pool, p, count, mapped), measure)

    def bootstrap(self, m: int, n: int) -> float:
        """Seconds of the bootstrap over m objects of the accuracy on n triplets."""
        from alignet.evaluate.bootstrap import object_draws

        def measure() -> float:
            less = min(n, 4_000)
            units, values = random_rows(max(m, 3), less), np.random.default_rng(0).random((less, 3))
            draws = self.sources.config.evaluate.bootstrap
            object_draws(values[:8], units[:8], draws=draws, seed=0)
            return seconds_of(lambda: object_draws(values, units, draws=draws, seed=0)) * n / less

        return self.once(("bootstrap", m, n), measure)

    def refit(self, n: int, p: int, classes: int = 1000) -> float:
        """Seconds to refit a classifier of p features to the logits of n images."""
        from alignet.evaluate.top1 import refit_head

        def measure() -> float:
            less = min(n, 2_000)
            draw = np.random.default_rng(0)
            return seconds_of(
                lambda: refit_head(draw.standard_normal((less, p)), draw.standard_normal((less, classes)))
            ) * n / less  # fmt: skip

        return self.once(("refit", n, p, classes), measure)

    def smoothing(self, n: int, q: int, p: int, classes: int = 1000) -> float:
        """Seconds of the smoothing of n images with q student and p teacher features."""
        from alignet.teacher.smoothing import class_expectations, smooth

        def measure() -> float:
            less = min(n, 2_000)
            draw = np.random.default_rng(0)
            seen, taught = (draw.standard_normal((less, width)).astype(np.float32) for width in (q, p))
            weights, bias = (
                draw.standard_normal((q, classes)).astype(np.float32) / q**0.5,
                np.zeros(classes, np.float32),
            )
            return (
                seconds_of(lambda: smooth(class_expectations(seen, weights, bias), taught, [0.3])) * n / less
            )

        return self.once(("smoothing", n, q, p), measure)

    def picture(self) -> float:
        """Seconds to draw a picture of the world and write it."""
        from alignet.world.concepts import make_concepts
        from alignet.world.drawing import BACKGROUNDS, draw

        def measure() -> float:
            settings = self.sources.config.world
            assert settings is not None
            looks, rng = make_concepts(settings).looks, np.random.default_rng(0)

            def run() -> None:
                for row in range(60):
                    image = draw(looks[row % len(looks)], row % len(BACKGROUNDS), settings.size, rng)
                    image.save(io.BytesIO(), "PNG")

            run()
            return seconds_of(run) / 60

        return self.once("picture", measure)

    def pretraining(self, role: str) -> tuple[float, Memory]:
        """Seconds of a step of the world's own pretraining, and the peak memory."""
        from alignet.world.pretrain import pretrain_student, pretrain_teacher

        def measure() -> tuple[float, Memory]:
            config = self.sources.config
            assert config.pretrain is not None
            assert config.world is not None
            settings = getattr(config.pretrain, role)
            draw, size, n = np.random.default_rng(0), config.world.size, 2 * settings.batch
            images = draw.integers(0, 256, (n, size, size, 3)).astype(np.uint8)

            def run(steps: int) -> float:
                short = dataclasses.replace(settings, steps=steps, warmup=0, lr=1e-6)
                if role == "teacher":
                    said = draw.integers(0, 50, (n, 4))
                    return seconds_of(lambda: pretrain_teacher(images, said, words=60, settings=short))
                return seconds_of(lambda: pretrain_student(images, draw.integers(0, 2, n), settings=short))

            with watched("cpu") as peak:
                step = rate(run, 1, self.budget, 10)[0]
            return step, peak.memory

        return self.once(("pretraining", role), measure)
