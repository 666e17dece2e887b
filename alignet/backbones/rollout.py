"""Attention rollout of timm's vision transformers: how much each patch enters what the head reads, by attention alone.

Abnar and Zuidema, "Quantifying attention flow in transformers" (ACL 2020). It uses no gradient and no label.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

_ONE = threading.Lock()  # a hook sees every thread's pass


def attention_rollout(module: nn.Module, images: Tensor) -> Tensor:
    """Rollout (b, h, w) float32, at least 0, over the patches of images (b, 3, H, W) as the network takes them.

    In each block the heads' attention is averaged, half of it mixed with half of the identity (the residual way), and
    each row scaled to a sum of 1; the blocks' matrices are multiplied, the last one first. Taken is the row of the
    class token where the head reads it, else the mean of the patches' rows, as a head that averages them weighs them.
    The columns of the class token and of registers are dropped, so a map adds up to less than 1. A distilled
    network's second class token is treated as a register.

    module: a timm VisionTransformer in evaluation mode, whose blocks attend over all patches. ValueError names any
    other (windows, cross-covariance, rotary position, attention-pool heads, convolutions). Its fused attention is off
    in between.
    """
    refusal = rollout_refusal(module)
    if refusal:
        raise ValueError(
            f"attention rollout: expected a timm vision transformer whose blocks attend over all patches, found "
            f"{refusal}; leave rollout out for this network."
        )
    if module.training:
        raise ValueError(
            "attention rollout: expected evaluation mode, found training mode; call eval() first."
        )
    network: Any = module
    layers = [block.attn for block in network.blocks]
    flow: list[Tensor] = []

    def roll(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        attention = inputs[0].float().mean(1)  # (b, tokens, tokens), over heads
        mixed = 0.5 * attention + 0.5 * torch.eye(attention.shape[-1], device=attention.device)
        mixed = mixed / mixed.sum(-1, keepdim=True)
        flow[:] = [mixed @ flow[0] if flow else mixed]

    with _ONE, torch.no_grad():
        fused = [layer.fused_attn for layer in layers]
        hooks = [layer.attn_drop.register_forward_pre_hook(roll) for layer in layers]
        try:
            for layer in layers:
                layer.fused_attn = False
            network.forward_features(images)
        finally:
            for layer, before in zip(layers, fused, strict=True):
                layer.fused_attn = before
            for hook in hooks:
                hook.remove()
    prefix = network.num_prefix_tokens
    reads_class = network.has_class_token and network.global_pool in ("token", "")
    rows = flow[0][:, 0] if reads_class else flow[0][:, prefix:].mean(1)
    height, width = _grid(network, images)
    return rows[:, prefix:].reshape(len(images), height, width)


def _grid(network: Any, images: Tensor) -> tuple[int, int]:
    """Patches down and across."""
    embed = network.patch_embed
    if network.dynamic_img_size:
        return tuple(embed.dynamic_feat_size(tuple(images.shape[-2:])))
    return tuple(embed.grid_size)


def rollout_refusal(module: nn.Module) -> str:
    """What the network is, where its attention cannot be rolled out; "" where it can."""
    from timm.layers import Attention
    from timm.models.vision_transformer import VisionTransformer

    name = type(module).__name__
    if not isinstance(module, VisionTransformer):
        return name
    if not all(type(getattr(block, "attn", None)) is Attention for block in module.blocks):
        return f"{name} with blocks of another kind ({type(module.blocks[0]).__name__})"
    if module.attn_pool is not None:
        return f"{name} with an attention-pool head, whose own attention would have to be rolled out as well"
    return ""
