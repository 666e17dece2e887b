"""What a network makes of images at one of its layers, as a function of pixels in [0, 1] with gradients.

    pixels -> the network's own normalisation -> its features, or a named layer, in one row for each image

The network is in eval mode and frozen. `searching` is the same function on a copy whose normalisation layers are folded
into the convolutions before them, for the many passes of a search: about a third faster.

Shape suffixes: b images, f numbers of a representation, H and W pixels.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from alignet.backbones import Encoder
from alignet.backbones.encoder import features_of
from alignet.backbones.gradients import no_module

FOLDED = 1e-5  # relative difference up to which a folded network is the same; EfficientNet-Lite0 to 2: 1.1e-6 to 1.4e-6


class Representation:
    """g of an image: the vector that the classifier reads, or a named layer's output, flattened."""

    def __init__(self, encoder: Encoder, layer: str = "", module: nn.Module | None = None):
        """layer: "" for `Encoder.features`. module: a network to use in the place of the encoder's.

        ValueError for a name that no module has, and for one that images do not pass.
        """
        self.encoder, self.layer, self.device = encoder, layer, encoder.device
        self.module = encoder.module if module is None else module
        self.module.eval().requires_grad_(False)
        mean, std = (torch.tensor(encoder.data_config[name]).view(-1, 1, 1) for name in ("mean", "std"))
        self._mean, self._std = mean.to(self.device, torch.float32), std.to(self.device, torch.float32)
        modules = dict(self.module.named_modules())
        if layer and layer not in modules:
            raise no_module(
                f"invert.layer: expected a module of {encoder.backbone.architecture}", layer, modules
            )

    @property
    def side(self) -> tuple[int, int, int]:
        """Shape (3, H, W) of the images."""
        channels, high, wide = self.encoder.data_config["input_size"]
        return channels, high, wide

    def pixels(self, images: Tensor) -> Tensor:
        """Images as `Encoder.pixels` gives them, uint8 or normalised (b, 3, H, W), as float32 pixels in [0, 1]."""
        if images.dtype == torch.uint8:
            return images.to(torch.float32) / 255
        return (images * self._std + self._mean).clamp(0, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, f) float32 of pixels (b, 3, H, W) in [0, 1] on the network's device, with gradients where enabled."""
        images = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        if not self.layer:
            return features_of(self.module, images, self.encoder.backbone)
        held: list[Tensor] = []

        def keep(module: nn.Module, given: Any, out: Any) -> None:
            first = out[0] if isinstance(out, (tuple, list)) else out
            if isinstance(first, Tensor):
                held.append(first.clone())  # what follows may work in place

        hook = dict(self.module.named_modules())[self.layer].register_forward_hook(keep)
        try:
            features_of(self.module, images, self.encoder.backbone)
            if not held:
                self.module(images)  # the classifier is no part of the features
        finally:
            hook.remove()
        if not held:
            raise ValueError(
                f"invert.layer: expected a module that images pass and that gives a tensor, found {self.layer!r}, "
                f"which does not; name another."
            )
        if held[-1].ndim < 2 or len(held[-1]) != len(pixels):
            raise ValueError(
                f"invert.layer: expected a module that gives a row for each image, found {self.layer!r}, which makes "
                f"{tuple(held[-1].shape)} of {len(pixels)} images; name another."
            )
        return held[-1].flatten(1)

    def searching(self) -> Representation:
        """The same function, faster; this one itself where nothing can be folded or rounding would tell."""
        module = folded(self)
        return self if module is None else Representation(self.encoder, self.layer, module)


@torch.no_grad()
def folded(representation: Representation) -> nn.Module | None:
    """A copy of the network without the normalisation layers that follow a convolution; None where there are none.

    A layer counts as following where it is given the very tensor that a convolution returned in a pass; and the copy
    is taken only if it represents noise as the network does.
    """
    module, layer = representation.module, representation.layer
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((2, *representation.side), generator=generator).to(representation.device)
    pairs = {
        conv: norm
        for conv, norm in _followed(representation, noise)
        if conv != layer and not layer.startswith(f"{norm}.")  # what is asked for stays
    }
    if not pairs:
        return None
    made = copy.deepcopy(module)
    modules = dict(made.named_modules())
    for conv, norm in pairs.items():
        plain = fuse_conv_bn_eval(modules[conv], modules[norm])
        _put(made, conv, plain)
        _put(made, norm, getattr(modules[norm], "act", nn.Identity()))
    made.to(memory_format=torch.channels_last)
    expected = representation(noise)
    found = Representation(representation.encoder, layer, made)(noise)
    same = (found - expected).norm() <= FOLDED * expected.norm()
    return made if bool(same) else None


def _followed(representation: Representation, images: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the normalisation layers that are given their output, each used once."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are held, so that no address is given twice
    pairs: list[tuple[str, str]] = []
    used: list[str] = []

    def convolved(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Tensor) -> None:
            used.append(name)
            made[id(out)] = (name, out)

        return hook

    def normalised(name: str) -> Any:
        def hook(module: nn.Module, given: Any) -> None:
            used.append(name)
            if id(given[0]) in made:
                pairs.append((made[id(given[0])][0], name))

        return hook

    hooks = []
    for name, module in representation.module.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(convolved(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(normalised(name)))
    try:
        representation(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in pairs if used.count(conv) == used.count(norm) == 1]


def _put(module: nn.Module, name: str, value: nn.Module) -> None:
    above, _, last = name.rpartition(".")
    setattr(module.get_submodule(above), last, value)
