"""LPIPS (Zhang et al., 2018) and shift-tolerant LPIPS (Ghildyal and Liu, 2022) with the weights of their packages.

files of the installed packages `lpips` and `stlpips-pytorch` -> layers of AlexNet, SqueezeNet or VGG, channel weights

Weights are read from the packages' files, as tensors alone; their code is not run: parts of stlpips-pytorch's are
licensed for non-commercial use only, and importing it needs packages that it does not name. lpips holds the linear
layers alone, and makes up a random network below them if it is told to; here the network's weights must be given.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from alignet.invariances.layers import resized
from alignet.invariances.perceptual import LayerDistance

SMALLEST = 64  # pixels of the shorter side, to which smaller images are enlarged: the patches that people judged had 64
# after which modules the maps are taken: the last ReLU before each pooling, and more of AlexNet and SqueezeNet
LPIPS_TAPS = {"alex": (1, 4, 7, 9, 11), "squeeze": (1, 4, 7, 9, 10, 11, 12), "vgg": (3, 8, 15, 22, 29)}
STLPIPS_TAPS = {"alex": (2, 6, 10, 12, 14), "vgg": (3, 9, 17, 25, 33)}
SHIFT, SCALE = (
    (-0.030, -0.088, -0.188),
    (0.458, 0.448, 0.450),
)  # of pixels in [-1, 1], as both packages have them


def lpips_distance(
    name: str, net: str, trunk: Mapping[str, Tensor], device: torch.device | str = "cpu"
) -> LayerDistance:
    """LPIPS 0.1 over a network of torchvision.

    net: alex | squeeze | vgg. trunk: state dict of torchvision's alexnet, squeezenet1_1 or vgg16, of which `features`
    are read. ValueError where the package lpips is not installed, or weights are missing or of another shape.
    """
    features = _features("lpips", net)
    state = {
        key.removeprefix("features."): value for key, value in trunk.items() if key.startswith("features.")
    }
    _load(features, state, f"the network of {name}", "a state dict of torchvision's network of that name")
    linear = _read("lpips", f"weights/v0.1/{net}.pth")
    return _distance(name, features, LPIPS_TAPS[net], linear, device)


def stlpips_distance(name: str, net: str, device: torch.device | str = "cpu") -> LayerDistance:
    """Shift-tolerant LPIPS, calibrated on people: its package holds the whole network.

    net: alex | vgg. ValueError where the package stlpips-pytorch is not installed.
    """
    state = _read("stlpips_pytorch", f"weights/vST0.0/{net}_shift_tolerant.pth")
    features = _features("stlpips", net)
    own = {key.split(".", 2)[2]: value for key, value in state.items() if key.startswith("net.slice")}
    _load(features, own, f"the network of {name}", "stlpips-pytorch 0.0.2")
    return _distance(name, features, STLPIPS_TAPS[net], state, device)


def empty_trunk(kind: str, net: str) -> Trunk:
    """The network of a distance on the device meta, without weights: for what it costs. kind: lpips | stlpips."""
    with torch.device("meta"):
        return Trunk(_features(kind, net), (LPIPS_TAPS if kind == "lpips" else STLPIPS_TAPS)[net])


def _features(kind: str, net: str) -> nn.Sequential:
    from torchvision import models

    with torch.device("meta"):
        if kind == "stlpips":
            return _tolerant_alexnet() if net == "alex" else _tolerant_vgg()
        whole = {"alex": models.alexnet, "squeeze": models.squeezenet1_1, "vgg": models.vgg16}[net]
        features: nn.Sequential = whole(weights=None).features
        return features


class Trunk(nn.Module):
    """A chain of modules, what some of them give for pixels in [0, 1], and nothing after the last of these."""

    shift: Tensor
    scale: Tensor

    def __init__(self, features: nn.Sequential, taps: Sequence[int]):
        super().__init__()
        self.features, self.taps = features[: taps[-1] + 1], frozenset(taps)
        for key, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(key, torch.tensor(values).view(-1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Maps (b, c, positions). Images whose shorter side has less than 64 pixels are enlarged to that (bilinear)."""
        height, width = pixels.shape[-2:]
        grow = max(1.0, SMALLEST / min(height, width))
        images = 2 * resized(pixels, (round(height * grow), round(width * grow))) - 1
        out, maps = (images - self.shift) / self.scale, []
        for number, module in enumerate(self.features):
            out = module(out)
            if number in self.taps:
                maps.append(out.flatten(2))
        return maps


class _Blur(nn.Module):
    """Every second value of a blurred map, whose edge is mirrored first."""

    filt: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("filt", torch.zeros(channels, 1, 3, 3))

    def forward(self, maps: Tensor) -> Tensor:
        mirrored = nn.functional.pad(maps, (2, 2, 2, 2), mode="reflect")
        return nn.functional.conv2d(mirrored, self.filt, stride=2, groups=len(self.filt))


def _tolerant_alexnet() -> nn.Sequential:
    """AlexNet whose first convolution goes pixel by pixel, and which blurs where it leaves values out."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, padding=2), _Blur(64), nn.ReLU(), nn.MaxPool2d(3, 1), _Blur(64),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 1), _Blur(192),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _tolerant_vgg() -> nn.Sequential:
    """VGG-16 with a blur after each pooling, which itself goes value by value."""
    modules: list[nn.Module] = []
    before = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if modules:
            modules += [nn.MaxPool2d(2, 1), _Blur(before)]
        for _ in range(depth):
            modules += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
    return nn.Sequential(*modules)


def _distance(
    name: str, features: nn.Sequential, taps: Sequence[int], state: Mapping[str, Tensor], device: torch.device | str
) -> LayerDistance:  # fmt: skip
    trunk = Trunk(features, taps).to(device)
    weights = [state[f"lin{number}.model.1.weight"].flatten().to(device) for number in range(len(taps))]
    return LayerDistance(name, trunk, weights)


def _load(module: nn.Module, state: Mapping[str, Tensor], what: str, expected: str) -> None:
    from alignet.backbones.weights import differences

    wrong = differences(module, state)
    if wrong:
        raise ValueError(f"weights of {what}: expected {expected}, found {wrong}; take another file.")
    module.load_state_dict(state, strict=True, assign=True)


def _read(package: str, name: str) -> dict[str, Tensor]:
    """The tensors of a file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    where = [Path(one) / name for one in (spec.submodule_search_locations or ())] if spec else []
    found = [path for path in where if path.is_file()]
    if not found:
        raise ValueError(
            f"perceptual.distances: expected the package {package.replace('_', '-')} with the file {name}, found "
            f"{'the package without it' if spec else 'none'}; install it with pip install 'alignet[perceptual]', or "
            f"take these distances out of perceptual.use."
        )
    try:
        state: dict[str, Tensor] = torch.load(found[0], map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"perceptual.distances: expected a readable file of weights, found {found[0]}: {error}; install the "
            f"package anew."
        ) from error
    return state
