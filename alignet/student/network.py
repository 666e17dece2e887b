"""The student in fine-tuning: images in, vectors out whose dot products are its similarities.

pixels -> augmentation -> encoder (in parts that may be computed again, compiled, or spread over processes) -> head
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignet.backbones import Encoder
from alignet.config import FinetuneSettings
from alignet.student.augmentation import augment, recolour


class Student:
    """The encoder and its optional triplet head. Parameters that do not train have their gradients switched off."""

    def __init__(
        self, encoder: Encoder, settings: FinetuneSettings, *, recompute: bool = False, compiled: bool = False
    ):
        """recompute: keep only what enters each block and compute the rest again for the gradient: the same numbers,
        a third more work, a fraction of the memory. compiled: by torch.compile, whose last bits differ."""
        self.encoder, self.settings = encoder, settings
        encoder.module.eval()
        self.head: nn.Module = nn.Sequential()
        if settings.head:
            self.head = _random_head(encoder.width, settings).to(encoder.device)
        self.trained = tuple(_unfrozen(encoder, settings.frozen))  # names, without the random head's
        if settings.precision == "bf16":
            attend_by_products(encoder)
        self.network = Network(encoder)
        if recompute:
            for block in blocks(encoder):
                _compute_again(block)
        self._forward = torch.compile(self.network) if compiled else self.network

    def features(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Vectors (b, p or head) float32 whose dot products are the student's similarities."""
        return self.head(self.encode(batch, generator))

    def encode(
        self, batch: Tensor, generator: torch.Generator | None = None, among: tuple[int, slice] | None = None
    ) -> Tensor:
        """The encoder's own features (b, p) float32, before the triplet head.

        generator: of random changes to the images; none without it. among: see `augment`.
        """
        images = self.encoder.normalise(batch.to(self.encoder.device, non_blocking=True))
        if generator is not None:
            images = augment(images, self.settings.flip, self.settings.crop, generator, among)
            images = recolour(images, self.settings.colour, self.settings.grey, generator, among)
        reduced = self.settings.precision == "bf16"
        with torch.autocast(self.encoder.device.type, dtype=torch.bfloat16, enabled=reduced):
            features = self._forward(images)
        return features.float()


def attend_by_products(encoder: Encoder) -> None:
    """On a CPU, compute a small timm ViT's attention by two matrix products and a softmax, not by torch's fused kernel.

    In bfloat16 forward and backward of 197 tokens take half the time (docs/decisions.md), for the memory of the
    attention matrices; with more than 256 patches that would be most of all memory, and the fused kernel stays.
    """
    patches = getattr(getattr(encoder.module, "patch_embed", None), "num_patches", math.inf)
    if encoder.device.type == "cpu" and patches <= 256:
        for module in encoder.module.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # type: ignore[assignment]


class Network(nn.Module):
    """The encoder's way from normalised images (b, 3, H, W) to features (b, p), as a module."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.module = encoder.module
        self._encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Features (b, p), in memory of their own: FSDP2 hooks what comes out."""
        return self._encoder.features(images).clone()


def blocks(encoder: Encoder) -> list[nn.Module]:
    """The parts that a network is a chain of: the members of its outermost lists and sequences that hold parameters
    on the way to the features. A ViT's transformer layers, a convolutional network's stages."""
    used = {id(parameter) for parameter in encoder.trainable().values()}
    return list(_members(encoder.module, used))


def _members(module: nn.Module, used: set[int]) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(child) > 1:
            yield from (one for one in child if any(id(held) in used for held in one.parameters()))
        else:
            yield from _members(child, used)


def _compute_again(block: nn.Module) -> None:
    if "forward" not in vars(block):  # a student of the same encoder may have done it
        # nothing is drawn inside: dropout is as at test time
        again = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        block.forward = again


def _unfrozen(encoder: Encoder, frozen: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters to train by name; gradients of the others are switched off."""
    trainable = encoder.trainable()
    for prefix in frozen:
        if not any(name.startswith(prefix) for name in trainable):
            parts = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in trainable))
            raise ValueError(
                f"finetune.frozen: expected the beginning of a parameter's name, found {prefix!r}; they are {parts}"
            )
    trained = {name: held for name, held in trainable.items() if not name.startswith(tuple(frozen))}
    if not trained:
        raise ValueError("finetune.frozen: expected to leave something to train, found everything frozen")
    kept = {id(held) for held in trained.values()}
    for held in encoder.module.parameters():
        held.requires_grad_(id(held) in kept)
    return trained


CUT_DEVIATION = 0.8796256610342398  # standard deviation of a standard normal that is cut at two deviations


def _random_head(width: int, settings: FinetuneSettings) -> nn.Linear:
    generator = torch.Generator().manual_seed(settings.seed)
    head = nn.Linear(width, settings.head)
    with torch.no_grad():
        if settings.head_start == "isometric":  # similarities keep their scale
            values = torch.randn(head.weight.shape, generator=generator) / math.sqrt(settings.head)
        else:  # LeCun's initialisation as flax has it: a normal cut at two deviations, of variance 1 / features
            values = torch.empty(head.weight.shape)
            nn.init.trunc_normal_(values, std=1.0, a=-2.0, b=2.0, generator=generator)
            values /= CUT_DEVIATION * math.sqrt(width)
        head.weight.copy_(values)
        head.bias.zero_()
    return head
