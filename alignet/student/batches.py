"""The teacher's answers to the batches of fine-tuning: which images a step needs, and its loss on them.

    TripletAnswers   triplets that were drawn and answered beforehand
    PoolTeacher      features, from which every triplet of a batch of images is answered as it comes

Every batch follows from (seed, step) alone, so interrupted work needs no state of a generator.

Shape suffixes: b images in a batch, n triplets, m images in the pool, p features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignet.runtime.distributed import Processes
from alignet.student.in_batch_loss import Comparison, in_batch_loss
from alignet.teacher.sampling import InBatch
from alignet.triplets import check_triplets, similarities

_SAMPLE = 256  # images (or triplets) from which the student's temperature is estimated


@dataclass(frozen=True)
class TripletAnswers:
    """A teacher that has answered: sampling "triplets". Odd one last, similarities [s01, s02, s12]."""

    triplets: np.ndarray  # (n, 3) int64 rows of the images
    sims: np.ndarray  # (n, 3) float32


@dataclass(frozen=True)
class PoolTeacher:
    """A teacher that answers as the batch comes: sampling "in_batch"."""

    features: np.ndarray  # (m, p) float32, a row for each image, mapped where a map belongs to the teacher
    clusters: np.ndarray | None  # (m,) cluster of each image, for settings.clusters_per_batch


class AnsweredTriplets:
    """Batches of triplets that were drawn and answered beforehand; an epoch is a permutation of them."""

    def __init__(self, teacher: TripletAnswers, images: int, *, batch: int, parts: int, seed: int):
        """images: how many there are. batch: triplets of a step, computed in so many parts."""
        check_triplets(teacher.triplets, images, "finetune: the teacher's triplets")
        if teacher.sims.shape != teacher.triplets.shape or not np.isfinite(teacher.sims).all():
            raise ValueError(
                f"finetune: expected finite similarities {teacher.triplets.shape}, three for each triplet, found "
                f"{teacher.sims.shape} or some that are not finite; label the triplets again."
            )
        self.triplets, self.sims = teacher.triplets, teacher.sims
        self.batch, self.parts, self.seed = batch, parts, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)  # the last permutation, to save time

    def _chosen(self, step: int, part: int) -> np.ndarray:
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        places = np.array_split(places, self.parts)[part]
        epochs, within = np.divmod(places, len(self.triplets))
        chosen = np.empty_like(places)
        for epoch in np.unique(epochs):
            if epoch != self._epoch:
                generator = np.random.default_rng([self.seed, 0, epoch])
                self._epoch, self._order = epoch, generator.permutation(len(self.triplets))
            chosen[epochs == epoch] = self._order[within[epochs == epoch]]
        return chosen

    def rows(self, step: int, part: int) -> np.ndarray:
        """Images to load for one part of a step, each once, int64."""
        return np.unique(self.triplets[self._chosen(step, part)])

    def shares(self, step: int, part: int) -> Tensor:
        """How much each image of `rows` counts in a mean over the images of a step's triplets, (b,)."""
        _, counts = np.unique(self.triplets[self._chosen(step, part)], return_counts=True)
        return torch.from_numpy(counts / (3 * self.batch)).float()

    def sample(self, generator: np.random.Generator) -> tuple[np.ndarray, Tensor, Tensor]:
        """Rows of some images, triplets as places in them, and the teacher's similarities."""
        chosen = generator.choice(len(self.triplets), min(len(self.triplets), _SAMPLE), replace=False)
        rows, places = np.unique(self.triplets[chosen], return_inverse=True)
        return rows, torch.from_numpy(places.reshape(-1, 3)), torch.from_numpy(self.sims[chosen])

    def backward(
        self, features: Tensor, step: int, part: int, compare: Comparison, processes: Processes | None = None
    ) -> Tensor:
        """Add the gradient of features (b, p) of `rows`; returns this part's share of the step's mean loss.

        processes: share nothing here; each takes all triplets.
        """
        chosen = self._chosen(step, part)
        _, places = np.unique(self.triplets[chosen], return_inverse=True)
        triplets = torch.from_numpy(places.reshape(-1, 3)).to(features.device)
        answers = torch.from_numpy(self.sims[chosen]).to(features.device, torch.float32)
        loss = compare(answers, similarities(features, triplets)).sum() / self.batch
        loss.backward()
        return loss.detach().double()


class ImageBatches:
    """Batches of images, all of whose triplets the teacher answers from its features."""

    def __init__(
        self, teacher: PoolTeacher, images: int, *, batch: int, parts: int, clusters: int, seed: int
    ):
        """images: how many there are. batch: images; a step averages so many parts (batches)."""
        if teacher.features.ndim != 2 or len(teacher.features) != images:
            raise ValueError(
                f"finetune: expected a row of teacher features for each of {images} images, found "
                f"{teacher.features.shape}; embed the same images with the teacher."
            )
        if not np.isfinite(teacher.features).all():
            raise ValueError(
                "finetune: expected finite teacher features, found NaN or infinity; embed again."
            )
        self.features, self.parts = teacher.features, parts
        self.draw = InBatch(images, batch=batch, seed=seed, assignment=teacher.clusters, clusters=clusters)

    def rows(self, step: int, part: int) -> np.ndarray:
        """Images to load for one batch of a step, int64."""
        return self.draw.rows(step * self.parts + part)

    def shares(self, step: int, part: int) -> Tensor:
        """How much each image of `rows` counts in a mean over the images of a step, (b,)."""
        size = len(self.rows(step, part))
        return torch.full((size,), 1 / (size * self.parts))

    def sample(self, generator: np.random.Generator) -> tuple[np.ndarray, Tensor, Tensor]:
        """Rows of some images, triplets as places in them, and the teacher's similarities."""
        rows = generator.choice(len(self.features), min(len(self.features), _SAMPLE), replace=False)
        triplets = np.stack([generator.permutation(len(rows))[:3] for _ in range(1 << 13)])
        places = torch.from_numpy(triplets)
        return rows, places, similarities(torch.from_numpy(self.features[rows]).float(), places)

    def backward(
        self, features: Tensor, step: int, part: int, compare: Comparison, processes: Processes | None = None
    ) -> Tensor:
        """Add the gradient of features (b, p) of `rows`; returns this batch's share of the step's mean loss.

        processes: those that share the triplets; all call this with the same features.
        """
        answers = torch.from_numpy(np.ascontiguousarray(self.features[self.rows(step, part)], np.float32))
        answers = answers.to(features.device)
        gram = features @ features.T
        loss, gradient = in_batch_loss(gram, answers @ answers.T, compare, processes)
        gram.backward(gradient / self.parts)
        return loss / self.parts
