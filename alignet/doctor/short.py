"""Networks whose weights are not here, built with few blocks: what one adds is measured instead of 27 loaded.

A vision transformer's blocks are alike, so its time, its parameters and what its backward pass keeps are linear in
their number. A network with BLOCKS of them, of the same width, heads and preprocessing, is measured in the place of the
whole; `Short.whole` gives what the whole has of anything that was measured with one block and with BLOCKS.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from alignet.config import ModelSettings

BLOCKS = 2  # of the network that is built
SMALL = 100_000_000  # bytes of parameters below which a network is taken whole


@dataclass(frozen=True)
class Short:
    """A network to be built with few blocks. model: its settings; blocks: where they stand in the module; depth: how
    many the whole has; tower_of_timm: whether open_clip takes its image tower from timm, without a say in its depth."""

    model: ModelSettings
    blocks: str
    depth: int
    weights: int  # bytes of the whole's parameters
    tower_of_timm: bool = False

    def whole(self, first: float, few: float) -> float:
        """What the whole has, from what a network of one block has and what one of BLOCKS has."""
        return few + (self.depth - BLOCKS) * max(few - first, 0) / (BLOCKS - 1)

    @contextmanager
    def building(self) -> Iterator[None]:
        """While the network is built."""
        if not self.tower_of_timm:
            yield
            return
        import timm

        with patch.object(timm, "create_model", functools.partial(timm.create_model, depth=BLOCKS)):
            yield

    @contextmanager
    def one_block(self, module: Any) -> Iterator[None]:
        """The built network with its first block alone."""
        place, _, name = self.blocks.rpartition(".")
        owner = module.get_submodule(place)
        every = getattr(owner, name)
        setattr(owner, name, every[:1])
        try:
            yield
        finally:
            setattr(owner, name, every)


def shortened(model: ModelSettings) -> Short | None:
    """How to build a network with few blocks; None where it is small, or not known to be a stack of like blocks."""
    import torch

    build = {"timm": _timm, "open_clip": _open_clip}.get(model.library)
    if build is None:
        return None
    try:
        with torch.device("meta"):
            return build(model)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return None  # loading the whole says what is wrong with it


def _timm(model: ModelSettings) -> Short | None:
    from dataclasses import replace

    import timm

    if not timm.is_model(model.architecture) or "depth" in model.model_args:
        return None
    whole = timm.create_model(model.architecture, **model.model_args)
    depth = _alike(whole, "blocks")
    if depth is None:
        return None
    args = {**model.model_args, "depth": BLOCKS}
    if not _can_be_built(lambda: timm.create_model(model.architecture, **args)):
        return None
    return Short(replace(model, model_args=args), "blocks", depth, _bytes(whole))


def _open_clip(model: ModelSettings) -> Short | None:
    from dataclasses import replace

    import open_clip

    config = dict(open_clip.get_model_config(model.architecture) or {}) | dict(model.model_args)
    if not config or "hf_model_name" in config.get("text_cfg", {}):
        return None
    custom = config.pop("custom_text", False)
    whole = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    of_timm = hasattr(whole.visual, "trunk")
    blocks = "visual.trunk.blocks" if of_timm else "visual.transformer.resblocks"
    depth = _alike(whole, blocks)
    if depth is None:
        return None
    args = {**model.model_args, "text_cfg": {**config["text_cfg"], "layers": 1, "vocab_size": 2}}
    if not of_timm:
        args["vision_cfg"] = {**config["vision_cfg"], "layers": BLOCKS}
    return Short(replace(model, model_args=args), blocks, depth, _bytes(whole), of_timm)


def _alike(module: Any, place: str) -> int | None:
    """How many blocks stand there, if the network is large and they are more than BLOCKS, of equal shapes."""
    try:
        blocks = list(module.get_submodule(place))
    except (AttributeError, TypeError):
        return None
    shapes = [[tuple(value.shape) for value in block.parameters()] for block in blocks]
    alike = len(blocks) > BLOCKS and all(one == shapes[0] for one in shapes)
    return len(blocks) if alike and _bytes(module) > SMALL else None


def _can_be_built(build: Callable[[], Any]) -> bool:
    try:
        build()
    except (TypeError, ValueError, AssertionError):
        return False
    return True


def _bytes(module: Any) -> int:
    return sum(value.numel() * value.element_size() for value in module.parameters())
