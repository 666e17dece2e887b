"""What a forward and a backward pass of one image cost: in closed form for vision transformers, counted for others.

A multiply-add is two FLOPs. Only products (of matrices, convolutions, attention) are counted, as published figures do.

Shape suffixes: t tokens, w width, h hidden units of the MLP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignet.config import ModelSettings


@dataclass(frozen=True)
class Network:
    """What one image costs. Bytes are those of activations that the backward pass keeps of one image."""

    kind: str  # transformer | convolution: how near a machine comes to its rate of matrix products
    forward: float  # FLOPs
    training: float  # FLOPs of forward and backward through what trains
    parameters: int
    trained: int  # parameters that train
    width: int  # features
    size: int  # pixels on a side
    kept32: float  # bytes in float32
    kept16: float  # bytes under autocast to bfloat16
    recomputed16: (
        float  # bytes under autocast where only the input of each block is kept (activation checkpointing)
    )
    working: float  # bytes of the widest layer of a forward pass in float32, in and out
    attention16: float = (
        0.0  # bytes more than kept16 where attention is by products (counted networks: within kept16)
    )


@dataclass(frozen=True)
class Vit:
    """A vision transformer. pooling: `cls`, or `attention` (SigLIP's); projection: features of a last linear layer."""

    depth: int
    width: int
    hidden: int
    patch: int
    size: int
    extra: int = 1  # tokens beside those of patches: CLS, registers
    pooling: str = "cls"
    projection: int = 0

    @property
    def patches(self) -> int:
        """Tokens of patches."""
        return (self.size // self.patch) ** 2

    @property
    def forward(self) -> float:
        """FLOPs of a forward pass."""
        t, w, h = self.patches + self.extra, self.width, self.hidden
        block = (
            2 * t * (4 * w * w + 2 * w * h) + 4 * t * t * w
        )  # qkv and projection, MLP; scores and their values
        total = self.depth * block + 2 * self.patches * 3 * self.patch**2 * w
        if self.pooling == "attention":
            total += 2 * t * 2 * w * w + 2 * (2 * w * w) + 4 * t * w + 2 * (2 * w * h)
        return total + 2 * w * self.projection

    @property
    def parameters(self) -> int:
        """Weights and biases up to the features, position embedding included."""
        w, h = self.width, self.hidden
        block = 4 * w * w + 4 * w + 2 * w * h + h + w + 4 * w
        total = self.depth * block + 3 * self.patch**2 * w + w + (self.patches + self.extra) * w + 2 * w
        total += self.extra * w
        if self.pooling == "attention":
            total += 4 * w * w + 4 * w + 2 * w * h + h + w + 2 * w + w
        return total + w * self.projection

    def network(self) -> Network:
        """All of it trains."""
        t, w, h = self.patches + self.extra, self.width, self.hidden
        tokens = self.depth * t
        # of each block and token. float32: inputs and outputs of both norms, q k v, attention's output, the MLP's two
        # hidden arrays. bfloat16: the stream that norms read stays float32, what matrices read is bfloat16
        kept32 = tokens * (4 * (8 * w + 2 * h) + 4 * 4)
        kept16 = tokens * (2 * 4 * w + 2 * (6 * w + 2 * h) + 4 * 4)
        one = t * (2 * 4 * w + 2 * (6 * w + 2 * h))
        # shares of attention, in place of the fused kernel's sums and of a copy of its output
        heads = min(w // 64, 16)
        by_products = tokens * (2 * heads * t - 2 * w - 4 * heads) if self.patches <= PATCHES else 0
        return Network(
            "transformer", self.forward, 3 * self.forward, self.parameters, self.parameters,
            self.projection or w, self.size, kept32, kept16, tokens * 4 * w + one, 4 * t * (3 * w + max(3 * w, h)),
            by_products,
        )  # fmt: skip


PATCHES = 256  # beyond so many, attention is never computed by products (alignet.student.network.attend_by_products)
# depth, width, hidden units. Touvron et al. 2021 (Ti, S), Dosovitskiy et al. 2021, table 1 (B, L, H), Alabdulmohsin et
# al. 2023, "Getting ViT in Shape" (So400m)
SHAPES = {
    "tiny": (12, 192, 768), "small": (12, 384, 1536), "base": (12, 768, 3072), "large": (24, 1024, 4096),
    "so400m": (27, 1152, 4304), "huge": (32, 1280, 5120),
}  # fmt: skip
_OPEN_CLIP = {
    "Ti": "tiny",
    "S": "small",
    "B": "base",
    "L": "large",
    "H": "huge",
    "SO400M": "so400m",
}
HALF = 0.55  # what autocast to bfloat16 leaves of the activations kept in float32, as for transformers (36 of 64)
_PROJECTED = {
    "small": 384,
    "base": 512,
    "large": 768,
    "huge": 1024,
}  # CLIP's common space (Radford et al. 2021)


def vit_of(library: str, architecture: str, size: int) -> Vit | None:
    """The vision transformer that a library's name means, None for other names. size: pixels, 0 the model's own."""
    found = re.match(r"(?:vit|deit3?)_(\w+?)_patch(\d+)_?(\w*)", architecture) if library == "timm" else None
    if found and found[1] in SHAPES:
        rest = architecture[found.end(2) :]
        own = re.search(r"_(\d{3})\b", rest)
        pixels = int(own[1]) if own else 518 if "dinov2" in rest else 256 if "dinov3" in rest else 224
        registers = 4 if "reg4" in rest or "dinov3" in rest else 0
        pooled = "siglip" in rest and "gap" not in rest
        extra = 0 if "siglip" in rest else 1 + registers
        return Vit(*SHAPES[found[1]], int(found[2]), size or pixels, extra, "attention" if pooled else "cls")
    found = (
        re.match(r"ViT-(\w+?)-(\d+)(-\w+)*?(?:-(\d{3}))?$", architecture) if library == "open_clip" else None
    )
    if found and found[1] in _OPEN_CLIP:
        shape = _OPEN_CLIP[found[1]]
        pixels, patch = size or int(found[4] or 224), int(found[2])
        if "SigLIP" in architecture:
            return Vit(*SHAPES[shape], patch, pixels, 0, "attention")
        if shape in _PROJECTED:
            return Vit(*SHAPES[shape], patch, pixels, 1, "cls", _PROJECTED[shape])
    return None


def network_of(model: ModelSettings, frozen: Sequence[str] = ()) -> Network:
    """What an image costs a configured model. frozen: how names of parameters begin that do not train.

    ValueError for a model that is no vision transformer known by its name and that timm does not build.
    """
    vit = vit_of(model.library, model.architecture, model.image_size)
    if vit is not None and not frozen and not {"depth", "embed_dim"} & set(model.model_args):
        return vit.network()
    if model.library != "timm":
        raise ValueError(
            f"plan: expected a vision transformer known by its name ({', '.join(SHAPES)}) or a network of timm, found "
            f"{model.library} {model.architecture}; give the model a shape known by its name"
        )
    return counted(model.architecture, dict(model.model_args), model.image_size, tuple(frozen))


def counted(
    architecture: str, model_args: dict[str, Any], size: int = 0, frozen: tuple[str, ...] = ()
) -> Network:
    """A network of timm, built without memory for its weights and run once, operations counted."""
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if not timm.is_model(architecture.partition(".")[0]):
        raise ValueError(f"plan: expected a network of timm, found {architecture!r}; check the name")
    with torch.device("meta"):
        module: Any = timm.create_model(
            architecture, pretrained=False, **({"num_classes": 0} | model_args)
        ).eval()
    pixels = size or module.pretrained_cfg["input_size"][-1]
    module.requires_grad_(False)
    images = torch.zeros((1, 3, pixels, pixels), device="meta")
    counter = FlopCounterMode(display=False)
    with counter:
        module(images)
    forward = counter.get_total_flops()
    kept_still = _flops_below(counter.get_flop_counts(), module, frozen)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not (frozen and name.startswith(frozen)))
    kept, features = saved(module, images)
    sizes = [parameter.numel() for parameter in module.parameters()]
    trained = [parameter.numel() for parameter in module.parameters() if parameter.requires_grad]
    convolutions = any(isinstance(part, torch.nn.Conv2d) and part.groups > 1 for part in module.modules())
    kind = "convolution" if convolutions else "transformer"
    # a pass without backward holds few layers at once; a tenth of what backward would keep is more than that
    return Network(
        kind, forward, forward + 2 * (forward - kept_still), sum(sizes), sum(trained), features.shape[-1],
        pixels, kept, HALF * kept, HALF * kept, kept / 10,
    )  # fmt: skip


def _flops_below(counts: Any, module: Any, frozen: tuple[str, ...]) -> float:
    """FLOPs of the layers whose names begin with one of `frozen`; counts: FLOPs by operation, by module."""
    leaves = {name for name, part in module.named_modules() if not list(part.children())}
    below = 0.0
    for key, operations in counts.items():
        name = key.partition(".")[2]
        if frozen and name in leaves and name.startswith(frozen):
            below += sum(operations.values())
    return below


def saved(module: Any, images: Any) -> tuple[float, Any]:
    """Bytes that the backward pass of these images keeps of activations, and the features."""
    import torch

    own = {value.untyped_storage()._cdata for value in module.state_dict(keep_vars=True).values()}
    held: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        held[tensor.untyped_storage()._cdata] = tensor  # alive, so that no number comes twice
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = module(images)
    kept = [tensor.untyped_storage().nbytes() for number, tensor in held.items() if number not in own]
    return float(sum(kept)), features
