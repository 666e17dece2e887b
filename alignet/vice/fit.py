"""Fits VICE to odd-one-out choices: triplets in, a pruned posterior over embeddings out.

Shape suffixes: m objects, d dimensions, n triplets.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignet.config import ViceSettings
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.progress import progress
from alignet.triplets import check_triplets, hard_loss, similarities
from alignet.vice.engine import Engine
from alignet.vice.noise import generator, normal
from alignet.vice.prior import SpikeSlab
from alignet.vice.pruning import kept_dimensions
from alignet.vice.soft_labels import heldout_metrics, released_metrics

_CURVES = ("nll", "complexity", "kept", "val_nll")
_SHOWN = 5  # counts of a long window in a message
_EVERY = 100  # steps between two looks at the loss on a device that must be waited for


def spike_slab(settings: ViceSettings) -> SpikeSlab:
    """The prior that the settings describe."""
    return SpikeSlab(settings.prior, settings.spike, settings.slab, settings.pi)


@dataclass(frozen=True)
class ViceFit:
    """A fitted posterior. loc, scale: (m, d) float32, all dimensions, as fitted.

    kept: (kept,) int64, the dimensions that survive pruning, by descending L1 norm. curves: per epoch
    `nll` and `complexity` (nats per triplet), `kept`, and `val_nll` (nats, one posterior sample).
    validation: `heldout_metrics` of the pruned posterior and `released_metrics` of the whole, empty without validation
    triplets.
    warning: "" if the fit converged, else one line that says what happened.
    """

    loc: Tensor
    scale: Tensor
    kept: Tensor
    curves: dict[str, list[float]]
    converged: bool
    validation: dict[str, float]
    warning: str

    @property
    def pruned_loc(self) -> Tensor:
        """(m, kept) float32."""
        return self.loc[:, self.kept]

    @property
    def pruned_scale(self) -> Tensor:
        """(m, kept) float32."""
        return self.scale[:, self.kept]


def fit_vice(
    train: Tensor,
    val: Tensor | None,
    *,
    objects: int,
    settings: ViceSettings,
    checkpoints: Checkpoints | None = None,
    device: str = "cpu",
) -> ViceFit:
    """Fit the posterior to train (n, 3) int64, odd one last; `val` (n', 3) is only measured on.

    One posterior sample a step, Adam on loc and log scale at a constant rate (VICE, section 3). Stops
    once the number of kept dimensions, at least one, was the same for `window` epochs (`window_from`);
    otherwise at `max_epochs`, which is reported in `warning` and printed. Every random draw depends on
    the seed and the step alone, so a fit resumed from `checkpoints` ends in the same bytes (on a CPU).
    """
    check_triplets(train.numpy(), objects, "VICE training triplets")
    if val is not None:
        check_triplets(val.numpy(), objects, "VICE validation triplets")
    run = _Run(train.to(device), None if val is None else val.to(device), objects, settings, checkpoints)
    converged = run.until_converged()
    loc, scale = run.loc.cpu(), run.log_scale.exp().cpu()
    kept = kept_dimensions(loc, scale, k=settings.k, alpha=settings.alpha)
    validation = {}
    if val is not None:
        validation = heldout_metrics(
            loc[:, kept], scale[:, kept], val, samples=settings.samples, seed=settings.seed
        ) | released_metrics(loc, scale, val, seed=settings.seed)
    warning = "" if converged else _not_converged(run.curves["kept"], settings)
    if warning:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return ViceFit(loc, scale, kept, run.curves, converged, validation, warning)


def split_half_reliability(
    triplets: Tensor,
    *,
    objects: int,
    settings: ViceSettings,
    checkpoints: Sequence[Checkpoints | None] = (None, None),
    device: str = "cpu",
) -> dict[str, float]:
    """Spearman correlation between the similarity matrices of two fits on disjoint random halves.

    triplets: (n, 3) int64. Similarities are the dot products of the pruned posterior means, relu first;
    compared are the upper triangles over the objects that occur in both halves. Returns `spearman`,
    `objects`, `kept_first` and `kept_second` (dimensions), and `converged`, 1 if both fits did; NaN where a half
    keeps none. Epochs count passes over a half, so each fit makes half of the steps of a fit on all.
    checkpoints: of the two fits, to resume them.
    """
    from scipy.stats import spearmanr

    order = torch.randperm(len(triplets), generator=generator(settings.seed, "halves", 0))
    halves = [triplets[rows] for rows in order.tensor_split(2)]
    fits = [
        fit_vice(half, None, objects=objects, settings=settings, checkpoints=saved, device=device)
        for half, saved in zip(halves, checkpoints, strict=True)
    ]
    met = np.intersect1d(*[half.unique().numpy() for half in halves])
    upper = np.triu_indices(len(met), 1)
    first, second = ((fit.pruned_loc[met].relu().double().numpy()) for fit in fits)
    kept_first, kept_second = (float(len(fit.kept)) for fit in fits)
    rho = math.nan
    if kept_first and kept_second:
        rho = spearmanr((first @ first.T)[upper], (second @ second.T)[upper]).statistic
    return {
        "spearman": float(rho),
        "objects": float(len(met)),
        "kept_first": kept_first,
        "kept_second": kept_second,
        "converged": float(all(fit.converged for fit in fits)),
    }


def start(noise: Tensor, settings: ViceSettings) -> tuple[Tensor, Tensor]:
    """Where loc and log scale begin, (m, d) each, from standard normal noise (m, d).

    `released`: He's initialisation by the number of dimensions, and a scale that follows from how far loc spreads.
    """
    if settings.start == "half_normal":
        return noise.abs() * settings.init_loc, torch.full_like(noise, math.log(settings.init_scale))
    loc = noise * math.sqrt(2 / settings.dim)
    return loc, torch.full_like(noise, -1 / loc.std().item())


class _Run:
    """The state of one fit: the engine's parameters and moments, step and curves; a checkpoint holds all of it."""

    def __init__(
        self,
        train: Tensor,
        val: Tensor | None,
        objects: int,
        settings: ViceSettings,
        checkpoints: Checkpoints | None,
    ):
        self.train, self.val, self.settings, self.checkpoints = train, val, settings, checkpoints
        self.device = train.device
        shape = (objects, settings.dim)
        loc, log_scale = start(normal(shape, settings.seed, "start", 0, self.device), settings)
        self.engine = _engine(loc, log_scale, len(train), settings)
        self.loc, self.log_scale = loc, log_scale
        self.every = 1 if self.device.type == "cpu" else _EVERY
        self.step = 0
        self.curves: dict[str, list[float]] = {name: [] for name in _CURVES}
        self.steps = math.ceil(len(train) / settings.batch)  # in an epoch

    def until_converged(self) -> bool:
        """Run, or continue from the newest checkpoint; whether the fit converged."""
        self._restore()
        total = self.settings.max_epochs * self.steps
        order = torch.empty(0, dtype=torch.int64)
        with progress("vice", total, "steps", done=self.step) as advance, torch.no_grad():
            while self.step < total and not self._converged():
                epoch, index = divmod(self.step, self.steps)
                if index == 0 or len(order) == 0:
                    shuffle = generator(self.settings.seed, "order", epoch, self.device)
                    order = torch.randperm(len(self.train), generator=shuffle, device=self.device)
                rows = order[index * self.settings.batch : (index + 1) * self.settings.batch]
                self.engine.step(self.train.index_select(0, rows), self.step)
                self.step += 1
                if self.step % self.every == 0:
                    self._check_sums()
                if index == self.steps - 1:
                    self._close_epoch(epoch)
                advance(1, self._note())
                if self.checkpoints is not None and self.checkpoints.due():
                    self._save(self.checkpoints)
        return self._converged()

    def _check_sums(self) -> list[float]:
        """The sums of nll and complexity over the epoch's steps so far; ValueError unless they are finite."""
        sums = self.engine.sums()
        if not math.isfinite(sum(sums)):
            raise ValueError(
                f"VICE: expected a finite loss, found a sum of nll {sums[0]} and complexity {sums[1]} over the epoch "
                f"after step {self.step}; lower lr (now {self.settings.lr}). {self._kept_checkpoint()}"
            )
        return sums

    def _check_parameters(self) -> None:
        """ValueError unless they are finite: a step may spoil them of which the loss still was."""
        if not bool(self.loc.isfinite().all() & self.log_scale.isfinite().all()):
            raise ValueError(
                f"VICE: expected finite parameters, found NaN or infinity after step {self.step}; lower lr (now "
                f"{self.settings.lr}). {self._kept_checkpoint()}"
            )

    def _kept_checkpoint(self) -> str:
        newest = 0 if self.checkpoints is None else self.checkpoints.newest()
        return (
            f"The checkpoint of step {newest} is finite and was kept."
            if newest
            else "No checkpoint had been written."
        )

    def _close_epoch(self, epoch: int) -> None:
        settings = self.settings
        sums = self._check_sums()
        self._check_parameters()
        kept = kept_dimensions(self.loc, self.log_scale.exp(), k=settings.k, alpha=settings.alpha)
        val_nll = math.nan
        if self.val is not None:
            noise = normal(tuple(self.loc.shape), settings.seed, "validation", epoch, self.device)
            draw = self.loc + self.log_scale.exp() * noise
            sims = similarities(draw.relu(), self.val)
            val_nll = hard_loss(torch.log_softmax(sims, 1)).double().mean().item()
        for name, value in zip(_CURVES, [*(s / self.steps for s in sums), float(len(kept)), val_nll]):
            self.curves[name].append(value)
        self.engine.reset([0.0, 0.0])

    def _converged(self) -> bool:
        settings, kept = self.settings, self.curves["kept"]
        recent = kept[-settings.window :]
        return len(kept) >= settings.earliest and recent[0] > 0 and len(set(recent)) == 1

    def _note(self) -> str:
        if not self.curves["nll"]:
            return ""
        last = {name: values[-1] for name, values in self.curves.items()}
        val = "" if self.val is None else f", val {last['val_nll']:.4f}"
        return f"nll {last['nll']:.4f}{val}, kept {last['kept']:.0f}"

    def _save(self, checkpoints: Checkpoints) -> None:
        sums = self._check_sums()
        self._check_parameters()
        checkpoints.save(self.step, self.engine.state, {"sums": sums, "curves": self.curves})

    def _restore(self) -> None:
        if self.checkpoints is None or (saved := self.checkpoints.latest()) is None:
            return
        self.step, tensors, state = saved
        try:
            self.engine.load(tensors)
        except ValueError as error:
            raise ValueError(
                f"VICE checkpoint: {error}; remove {self.checkpoints.folder} to start afresh."
            ) from None
        self.curves = state["curves"]
        self.engine.reset(state["sums"])


def _engine(loc: Tensor, log_scale: Tensor, n: int, settings: ViceSettings) -> Engine:
    """The engine for the device of the parameters."""
    if loc.device.type == "cpu":
        from alignet.vice.compiled import CompiledEngine

        make: type[Engine] = CompiledEngine
    else:
        from alignet.vice.graphed import GraphedEngine

        make = GraphedEngine
    return make(loc, log_scale, n=n, prior=spike_slab(settings), lr=settings.lr, seed=settings.seed)


def _not_converged(kept: list[float], settings: ViceSettings) -> str:
    recent = [f"{count:.0f}" for count in kept[-settings.window :]]
    found = ", ".join(recent)
    if len(recent) > _SHOWN:
        found = f"{min(recent, key=int)} to {max(recent, key=int)}, last {', '.join(recent[-_SHOWN:])}"
    where = "the last of which ends after" if settings.window_from == "start" else "after"
    return (
        f"VICE did not converge in {len(kept)} epochs: expected one number of kept dimensions (at least 1) "
        f"over {settings.window} epochs {where} {settings.burn_in} of burn-in, found {found}; "
        "raise max_epochs, or loosen window."
    )
