"""Logits and layers of a network as functions of pixels in [0, 1], with gradients.

    pixels -> the network's own normalisation -> logits, named layers -> gradient of one logit by the pixels

The network is in eval mode and its parameters are frozen, so that a gradient by pixels costs no gradient by weights.

Shape suffixes: b images, c classes, p features, H and W pixels.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alignet.backbones.backbone import LoadedBackbone
from alignet.backbones.encoder import Encoder, classifier_layer

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of an image's width and height


class InputGradient(NamedTuple):
    """Of each image: d logit / d pixel (b, 3, H, W), all logits (b, c), and which was differentiated (b,) int64."""

    gradient: Tensor
    logits: Tensor
    chosen: Tensor


class Classifier:
    """A network that gives logits for pixels in [0, 1]."""

    def __init__(self, encoder: Encoder, head: tuple[Tensor, Tensor] | None = None, frozen: bool = True):
        """head: (W (p, c), b (c,)) on the features, in the place of the network's own classifier. frozen: its
        parameters get no gradients. ValueError where there is neither a classifier nor a head."""
        self.encoder, self.head = encoder, head
        if head is None and not has_classifier(encoder):
            raise ValueError(
                f"backbone: expected a network with a classifier, found {encoder.backbone.library}'s "
                f"{encoder.backbone.architecture} without one; name one of timm that was trained on classes, or give "
                f"a head (W, b) on its features."
            )
        self.device = encoder.device
        mean, std = (torch.tensor(encoder.data_config[name]).view(-1, 1, 1) for name in ("mean", "std"))
        self._mean, self._std = mean.to(self.device, torch.float32), std.to(self.device, torch.float32)
        encoder.module.eval()
        if frozen:
            encoder.module.requires_grad_(False)

    def pixels(self, images: Tensor) -> Tensor:
        """Images as `Encoder.pixels` gives them, uint8 or normalised (b, 3, H, W), as float32 pixels in [0, 1]."""
        if images.dtype == torch.uint8:
            return images.to(torch.float32) / 255
        return images * self._std + self._mean

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits (b, c) of pixels (b, 3, H, W) in [0, 1], on the network's device, with gradients where enabled."""
        images = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        if self.head is None:
            return self.encoder.module(images)
        weights, bias = self.head
        return self.encoder.features(images) @ weights + bias

    def features(self, pixels: Tensor) -> Tensor:
        """Features (b, p) of pixels (b, 3, H, W) in [0, 1], on the network's device, with gradients where enabled."""
        return self.encoder.features((pixels - self._mean) / self._std)

    def layers(self, pixels: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and what the named modules gave; ValueError for a name that no module has, with the nearest."""
        modules = dict(self.encoder.module.named_modules())
        held: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, given: Any, out: Any) -> None:
                held[name] = out[0] if isinstance(out, (tuple, list)) else out

            return hook

        hooks = []
        try:
            for name in names:
                if name not in modules or not name:
                    raise no_module(
                        f"layer: expected a module of {self.encoder.backbone.architecture}", name, modules
                    )
                hooks.append(modules[name].register_forward_hook(keep(name)))
            logits = self(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        unused = [name for name in names if name not in held]
        if unused:
            raise ValueError(
                f"layer: expected modules on the way to the logits, found {', '.join(unused)} that images do not pass; "
                f"name another."
            )
        return logits, held


def has_classifier(encoder: Encoder) -> bool:
    """Whether the network itself gives logits of classes."""
    layer = classifier_layer(encoder)
    return layer is not None and not isinstance(layer, nn.Identity)


def input_gradient(classify: Classifier, pixels: Tensor, labels: Tensor | None = None) -> InputGradient:
    """Gradient of one logit of each image by its pixels, in the units of pixels in [0, 1].

    pixels: (b, 3, H, W) float32 in [0, 1]. labels: (b,) int64, the class of each; -1 or no labels at all takes the
    largest logit (top-1).
    """
    images = pixels.detach().to(classify.device).requires_grad_()
    with torch.enable_grad():
        logits = classify(images)
        chosen = logits.detach().argmax(1)
        if labels is not None:
            labels = labels.to(chosen.device)
            if len(labels) and int(labels.max()) >= logits.shape[1]:
                raise ValueError(
                    f"labels: expected classes in 0..{logits.shape[1] - 1}, found {int(labels.max())}; number them as "
                    f"the network's classifier does."
                )
            chosen = torch.where(labels < 0, chosen, labels)
        score = logits.gather(1, chosen[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, images)
    return InputGradient(gradient, logits.detach(), chosen)


def geometry(encoder: LoadedBackbone, width: int, height: int) -> Box:
    """What part of an image of width x height pixels the network sees: (left, top, right, bottom), shares in [0, 1].

    The library resizes the shorter side to input size / crop_pct and cuts the middle out; with `squash` it ignores the
    sides' ratio. ValueError where it pads images instead of cutting them.
    """
    config: Mapping[str, Any] = encoder.data_config
    high, wide = config["input_size"][1:]
    share = float(config.get("crop_pct") or 1)
    resized_h, resized_w = math.floor(high / share), math.floor(wide / share)
    if "squash" not in (config.get("crop_mode"), config.get("resize_mode")):
        if config.get("crop_mode") == "border" or config.get("resize_mode") == "longest":
            raise ValueError(
                f"backbone {encoder.backbone.architecture}: expected a network that sees a part of an image, found one "
                f"whose preprocessing pads it; its maps cannot be brought to people's: take another."
            )
        if high != wide:  # timm keeps the ratio and covers the input
            scale = max(resized_h / height, resized_w / width)
            resized_h, resized_w = round(height * scale), round(width * scale)
        elif width <= height:
            resized_h = int(resized_w * height / width)
        else:
            resized_w = int(resized_h * width / height)
    top, left = round((resized_h - high) / 2), round((resized_w - wide) / 2)
    return left / resized_w, top / resized_h, (left + wide) / resized_w, (top + high) / resized_h


def no_module(expected: str, name: str, modules: Iterable[str]) -> ValueError:
    """What to raise where no module has that name. expected: how the message begins; it ends with the nearest names."""
    near = difflib.get_close_matches(name, [one for one in modules if one], n=3, cutoff=0.3)
    return ValueError(f"{expected}, found {name!r}; the nearest are {', '.join(near) or 'none'}.")
