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

from alignet.checkpoints import Checkpoints
from alignet.config import ViceSettings
from alignet.progress import progress
from alignet.triplets import check_triplets
from alignet.vice.engine import evaluate
from alignet.vice.gradient import cross_entropy
from alignet.vice.prior import SpikeSlab
from alignet.vice.pruning import kept_dimensions
from alignet.vice.soft_labels import heldout_metrics

_CURVES = ("nll", "complexity", "kept", "val_nll")
_STREAMS = {"start": 0, "order": 1, "noise": 2, "validation": 3, "halves": 4}


def spike_slab(settings: ViceSettings) -> SpikeSlab:
    """The prior that the settings describe."""
    return SpikeSlab(settings.prior, settings.spike, settings.slab, settings.pi)


@dataclass(frozen=True)
class ViceFit:
    """A fitted posterior. loc, scale: (m, d) float32, all dimensions, as fitted.

    kept: (kept,) int64, the dimensions that survive pruning, by descending L1 norm. curves: per epoch
    `nll` and `complexity` (nats per triplet), `kept`, and `val_nll` (nats, one posterior sample).
    validation: `heldout_metrics` of the pruned posterior, empty without validation triplets.
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
    once the number of kept dimensions, at least one, was the same for `window` epochs after `burn_in`;
    otherwise at `max_epochs`, which is reported in `warning` and printed. Every random draw depends on
    the seed and the step alone, so a fit resumed from `checkpoints` ends in the same bytes.
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
        )
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

    order = torch.randperm(len(triplets), generator=_generator(settings.seed, "halves", 0))
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


class _Run:
    """The state of one fit: parameters, optimizer, step and curves; a checkpoint holds all of it."""

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
        start = self._normal(shape, "start", 0).abs() * settings.init_loc
        self.loc = start.requires_grad_()
        self.log_scale = torch.full(shape, math.log(settings.init_scale), device=self.device).requires_grad_()
        self.optimizer = torch.optim.Adam([self.loc, self.log_scale], lr=settings.lr, fused=True)
        self.step = 0
        self.sums = [0.0, 0.0]  # of nll and complexity over the epoch's steps so far
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
                    generator = _generator(self.settings.seed, "order", epoch, self.device)
                    order = torch.randperm(len(self.train), generator=generator, device=self.device)
                rows = order[index * self.settings.batch : (index + 1) * self.settings.batch]
                self._advance(self.train[rows])
                if index == self.steps - 1:
                    self._close_epoch(epoch)
                advance(1, self._note())
                if self.checkpoints is not None and self.checkpoints.due():
                    self._save(self.checkpoints)
        self.loc, self.log_scale = self.loc.detach(), self.log_scale.detach()
        return self._converged()

    def _advance(self, batch: Tensor) -> None:
        noise = self._normal(self.loc.shape, "noise", self.step)
        prior = spike_slab(self.settings)
        found = evaluate(self.loc, self.log_scale, noise, batch, n=len(self.train), prior=prior)
        nll, complexity = found.nll.item(), found.complexity.item()
        if not math.isfinite(nll + complexity):
            raise ValueError(
                f"VICE: expected a finite loss, found nll {nll} and complexity {complexity} at step "
                f"{self.step}; lower lr (now {self.settings.lr})."
            )
        self.loc.grad, self.log_scale.grad = found.grad_loc, found.grad_log_scale
        self.optimizer.step()
        self.sums = [self.sums[0] + nll, self.sums[1] + complexity]
        self.step += 1

    def _close_epoch(self, epoch: int) -> None:
        settings = self.settings
        kept = kept_dimensions(self.loc, self.log_scale.exp(), k=settings.k, alpha=settings.alpha)
        val_nll = math.nan
        if self.val is not None:
            noise = self._normal(self.loc.shape, "validation", epoch)
            draw = self.loc + self.log_scale.exp() * noise
            val_nll = cross_entropy(draw.relu(), self.val, None)[0].item()
        for name, value in zip(_CURVES, [*(s / self.steps for s in self.sums), float(len(kept)), val_nll]):
            self.curves[name].append(value)
        self.sums = [0.0, 0.0]

    def _converged(self) -> bool:
        settings, kept = self.settings, self.curves["kept"]
        recent = kept[-settings.window :]
        return len(kept) >= settings.burn_in + settings.window and recent[0] > 0 and len(set(recent)) == 1

    def _note(self) -> str:
        if not self.curves["nll"]:
            return ""
        last = {name: values[-1] for name, values in self.curves.items()}
        val = "" if self.val is None else f", val {last['val_nll']:.4f}"
        return f"nll {last['nll']:.4f}{val}, kept {last['kept']:.0f}"

    def _normal(self, shape: tuple[int, ...], stream: str, index: int) -> Tensor:
        generator = _generator(self.settings.seed, stream, index, self.device)
        return torch.randn(shape, generator=generator, device=self.device)

    def _save(self, checkpoints: Checkpoints) -> None:
        tensors = {"loc": self.loc, "log_scale": self.log_scale}
        for name, parameter in (("loc", self.loc), ("log_scale", self.log_scale)):
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{name}.{key}"] = value
        checkpoints.save(self.step, tensors, {"sums": self.sums, "curves": self.curves})

    def _restore(self) -> None:
        if self.checkpoints is None or (saved := self.checkpoints.latest()) is None:
            return
        self.step, tensors, state = saved
        if tensors["loc"].shape != self.loc.shape:
            raise ValueError(
                f"VICE checkpoint: expected loc of shape {tuple(self.loc.shape)}, found "
                f"{tuple(tensors['loc'].shape)}; remove {self.checkpoints.folder} to start afresh."
            )
        self.sums, self.curves = state["sums"], state["curves"]
        with torch.no_grad():
            self.loc.copy_(tensors["loc"])
            self.log_scale.copy_(tensors["log_scale"])
        moments: dict[int, dict[str, Tensor]] = {0: {}, 1: {}}
        for index, name in enumerate(("loc", "log_scale")):
            prefix = f"adam.{name}."
            for key, value in tensors.items():
                if key.startswith(prefix):
                    moments[index][key.removeprefix(prefix)] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _generator(seed: int, stream: str, index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on these three alone, so that resuming needs no generator state."""
    mixed = np.random.SeedSequence([seed, _STREAMS[stream], index]).generate_state(1)[0]
    return torch.Generator(device).manual_seed(int(mixed))


def _not_converged(kept: list[float], settings: ViceSettings) -> str:
    recent = ", ".join(f"{count:.0f}" for count in kept[-settings.window :])
    return (
        f"VICE did not converge in {len(kept)} epochs: expected one number of kept dimensions (at least 1) "
        f"over {settings.window} epochs after {settings.burn_in} of burn-in, found {recent}; "
        "raise max_epochs, or loosen window."
    )
