"""The labelled images of a step: some with people's map, the others without, each from an order of its own.

Every draw follows from (seed, step) alone, so interrupted work needs no state of a generator. Mixup takes partners
within a source: an image with a map is mixed with another that has one.

Shape suffixes: b images of a step, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignet.config import LabelledTraining
from alignet.runtime.distributed import Processes


@dataclass(frozen=True)
class Labelled:
    """Images with classes, and perhaps maps.

    images: a tensor or a dataset of m images (3, H, W), uint8 pixels or float32 and normalised. labels: (m,) int64.
    maps: people's map (H, W) float32 of an image by its row, as the network sees the image; None without maps.
    """

    images: Any
    labels: np.ndarray
    maps: Callable[[int], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """One source of a step: how many of the step's images are its, and how to draw them."""

    data: Labelled
    count: int
    seed: tuple[int, int]

    def rows(self, step: int) -> np.ndarray:
        """Rows (count,) int64 of a step: an epoch is a permutation."""
        places = np.arange(step * self.count, (step + 1) * self.count)
        epochs, within = np.divmod(places, len(self.data))
        rows = np.empty_like(places)
        for epoch in np.unique(epochs):
            order = np.random.default_rng([*self.seed, 0, epoch]).permutation(len(self.data))
            rows[epochs == epoch] = order[within[epochs == epoch]]
        return rows

    def partners(self, step: int, settings: LabelledTraining) -> tuple[np.ndarray, np.ndarray] | None:
        """(places (count,) of the images to mix with, share (count,) of the image itself), or None for a plain step."""
        rng = np.random.default_rng([*self.seed, 1, step])
        if rng.random() >= settings.mixup or self.count < 2:
            return None
        share = rng.beta(settings.mixup_alpha, settings.mixup_alpha, self.count)
        return rng.permutation(self.count), share.astype(np.float32)


@dataclass(frozen=True)
class Part:
    """This process's images of one source in one step, before they are changed at random.

    images (b, 3, H, W), labels (b,), maps (b, H, W) or None; places (b,): theirs among the source's of the step. The
    same of their partners, and the images' shares, where they are mixed.
    """

    places: Tensor
    images: Tensor
    labels: Tensor
    maps: Tensor | None
    partners: Part | None = None
    share: Tensor | None = None


class Steps(torch.utils.data.Dataset):
    """The parts of each step from `first` on, as this process needs them: a list with one for each source."""

    def __init__(
        self, sources: Sequence[Source], settings: LabelledTraining, first: int, everyone: Processes,
        order: np.ndarray | None, replays: int = 1,
    ):  # fmt: skip
        """order: whose map each image with one gets; its own, or another's in the control. replays: steps in a row
        that have the same images."""
        self.sources, self.settings = sources, settings
        self.first, self.everyone, self.order, self.replays = first, everyone, order, replays

    def __len__(self) -> int:
        return self.settings.steps - self.first

    def __getitem__(self, number: int) -> list[Part]:
        step = (self.first + number) // self.replays
        return [self._part(source, step) for source in self.sources]

    def _part(self, source: Source, step: int) -> Part:
        rows = source.rows(step)
        own = self.everyone.share(len(rows))
        places = np.arange(own.start, own.stop)
        part = self._load(source, rows, places)
        mixed = source.partners(step, self.settings)
        if mixed is None:
            return part
        partners = self._load(source, rows, mixed[0][places])
        return Part(
            part.places, part.images, part.labels, part.maps, partners, torch.from_numpy(mixed[1][places])
        )

    def _load(self, source: Source, rows: np.ndarray, places: np.ndarray) -> Part:
        chosen = rows[places]
        if isinstance(source.data.images, Tensor):
            images = source.data.images[torch.from_numpy(chosen)]
        else:
            images = (
                torch.stack([torch.as_tensor(source.data.images[int(row)]) for row in chosen])
                if len(chosen)
                else torch.empty(0)
            )
        maps = None
        if source.data.maps is not None:
            whose = chosen if self.order is None else self.order[chosen]
            held = [torch.from_numpy(source.data.maps(int(row))) for row in whose]
            maps = torch.stack(held) if held else torch.empty(0)
        return Part(torch.from_numpy(places), images, torch.from_numpy(source.data.labels[chosen]), maps)
