"""What named layers of an encoder make of pixels in [0, 1], as channels at positions.

pixels -> resized to what the network takes -> its own normalisation -> outputs of modules -> maps (b, c, positions)

Patches are a transformer's positions: the tokens before them (class, registers) are dropped. A vector (b, c) is one
position.

Shape suffixes: b images, c channels, t tokens, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alignet.backbones import Encoder
from alignet.backbones.gradients import no_module

DEFAULT = 5  # layers at most that stand for a network where none are named, as many as LPIPS takes of AlexNet


class EncoderLayers:
    """Layers of a network as a function of pixels."""

    def __init__(self, encoder: Encoder, names: Sequence[str] = ()):
        """names: of its modules; none takes `default_layers`. The network is frozen and in eval mode.

        ValueError for a name that no module has, with the nearest, and for modules that images do not pass or that do
        not give a row for each image.
        """
        self.encoder = encoder
        encoder.module.eval().requires_grad_(False)
        modules = dict(encoder.module.named_modules())
        for name in names:
            if not name or name not in modules:
                raise no_module(f"layers: expected modules of {encoder.backbone.architecture}", name, modules)
        self.names = tuple(names) or default_layers(encoder)
        self._modules = {name: modules[name] for name in self.names}
        mean, std = (torch.tensor(encoder.data_config[key]).view(-1, 1, 1) for key in ("mean", "std"))
        self._mean, self._std = mean.to(encoder.device, torch.float32), std.to(encoder.device, torch.float32)
        self.size: tuple[int, int] = tuple(encoder.data_config["input_size"][1:])
        with torch.no_grad():
            self(torch.zeros(3, 3, *self.size, device=encoder.device))

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """Maps (b, c, positions) of each layer in the order of `names`, of pixels (b, 3, H, W) in [0, 1], with
        gradients where enabled. Images of another size than the network's are resized (bilinear, with antialiasing)."""
        found = _outputs(self.encoder, (resized(pixels, self.size) - self._mean) / self._std, self._modules)
        unused = [name for name in self.names if name not in found]
        if unused:
            raise ValueError(
                f"layers: expected modules of {self.encoder.backbone.architecture} that images pass, found "
                f"{', '.join(unused)}, which they do not; name others."
            )
        return [self._positions(name, found[name], len(pixels)) for name in self.names]

    def _positions(self, name: str, out: Tensor, images: int) -> Tensor:
        if out.ndim not in (2, 3, 4) or len(out) != images:
            raise ValueError(
                f"layers: expected a module that gives (images, channels, height, width), (images, tokens, channels) "
                f"or (images, channels), found {name} of {self.encoder.backbone.architecture}, which makes "
                f"{tuple(out.shape)} of {images} images; name another."
            )
        if out.ndim == 2:
            return out.unsqueeze(2)
        if out.ndim == 3:
            return out[:, self._prefix(out.shape[1]) :].transpose(1, 2)
        channels_last = getattr(self.encoder.module, "output_fmt", "NCHW") == "NHWC"  # as timm marks Swin
        return out.flatten(1, 2).transpose(1, 2) if channels_last else out.flatten(2)

    def _prefix(self, tokens: int) -> int:
        """Tokens before the patches: as timm says, or as a square grid leaves them."""
        known = getattr(self.encoder.module, "num_prefix_tokens", None)
        return known if known is not None else tokens - math.isqrt(tokens) ** 2


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (b, 3, H, W) at another height and width, bilinear with antialiasing; as they are where they have it."""
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)


def default_layers(encoder: Encoder) -> tuple[str, ...]:
    """The ends of a network's stages, or some of its blocks, at most 5, evenly spaced from the first to the last.

    Those that timm calls its features; of other libraries the children of the longest list of equal blocks that images
    pass. ValueError where there is no such list.
    """
    module = encoder.module
    there = dict(module.named_modules())
    info: Any = getattr(module, "feature_info", None) or ()
    names = [one["module"] for one in info if one["module"] in there]
    if not names:
        lists = {
            prefix: [f"{prefix}.{name}" for name, _ in one.named_children()]
            for prefix, one in there.items()
            if isinstance(one, (nn.ModuleList, nn.Sequential)) and len({type(part) for part in one}) == 1
        }
        wanted = {name: there[name] for known in lists.values() for name in known if name in there}
        blank = torch.zeros(1, *encoder.data_config["input_size"], device=encoder.device)
        with torch.no_grad():
            passed = _outputs(encoder, blank, wanted).keys()
        names = max(
            (one for one in lists.values() if len(one) > 1 and set(one) <= passed), key=len, default=[]
        )
    if not names:
        raise ValueError(
            f"layers: expected a network with stages or a list of equal blocks, found {encoder.backbone.architecture} "
            f"without; name its layers, e.g. {', '.join(list(there)[1:4])}."
        )
    return tuple(names[row] for row in evenly(len(names)))


def evenly(count: int) -> list[int]:
    """At most 5 of so many rows, from the first to the last."""
    taken, last = min(DEFAULT, count), count - 1
    return [(2 * row * last + taken - 1) // (2 * max(taken - 1, 1)) for row in range(taken)]


def _outputs(encoder: Encoder, images: Tensor, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """What modules gave for normalised images (b, 3, H, W); a copy, since what follows may work in place."""
    held: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Any) -> None:
            first = out[0] if isinstance(out, (tuple, list)) else out
            if isinstance(first, Tensor):
                held[name] = first.clone()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        encoder.features(images)
    finally:
        for hook in hooks:
            hook.remove()
    return held
