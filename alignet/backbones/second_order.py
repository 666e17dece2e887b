"""Operations whose gradient by the input can itself be differentiated, and quickly.

A loss on a saliency map needs the gradient of a gradient. torch's own second derivative of a grouped convolution takes
the groups one by one, and its fused attention has none. Inside `second_order` a convolution's input gradient is an
operation of its own, whose derivatives are one convolution and one weight gradient, and attention is two products and
a softmax. Both are exact. The mode belongs to its thread; no module is changed.

Shape suffixes: b images, c channels, H and W pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

_aten: Any = torch.ops.aten


class second_order(TorchFunctionMode):
    """Within it, convolutions and attention have second derivatives. The first is to be taken by the images alone."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What torch calls in the place of each of its functions."""
        given = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **given)
        if func is torch.conv2d:
            return _convolve(*args, **given)
        return func(*args, **given)


def computed_again(block: nn.Module) -> None:
    """From now on keep only what enters a block, and compute the rest again where a gradient needs it.

    The same numbers as without, also of a second derivative. What is computed again is so within `second_order`.
    """
    if "forward" in vars(block):
        return
    forward = block.forward

    def within(*args: Any, **kwargs: Any) -> Any:
        with second_order():
            return forward(*args, **kwargs)

    block.forward = functools.partial(checkpoint, within, use_reentrant=False, preserve_rng_state=False)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What torch's documentation says that scaled_dot_product_attention computes, in the open."""
    if enable_gqa:
        key, value = (one.repeat_interleave(query.size(-3) // one.size(-3), -3) for one in (key, value))
    scores = (query * (1 / math.sqrt(query.size(-1)) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    if attn_mask is not None:
        unseen = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if unseen else scores + attn_mask
    weights = scores.softmax(-1)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value


def _convolve(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    # a kernel that is computed may depend on the images, which the rule below leaves out
    computed = weight.requires_grad and not weight.is_leaf
    plain = isinstance(padding, str) or images.ndim != 4 or torch.is_autocast_enabled(images.device.type)
    if plain or computed:
        return torch.conv2d(images, weight, bias, stride, padding, dilation, groups)
    how = (_pair(stride), _pair(padding), _pair(dilation), groups)
    return _Convolution.apply(images, weight, bias, how)


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _forward(images: Tensor, weight: Tensor, bias: Tensor | None, how: Any) -> Tensor:
    stride, padding, dilation, groups = how
    return _aten.convolution(images, weight, bias, stride, padding, dilation, False, [0, 0], groups)


def _backward(grad: Tensor, images: Tensor, weight: Tensor, how: Any, wanted: Sequence[bool]) -> Any:
    """Gradients by images, weight and bias, those that are wanted."""
    stride, padding, dilation, groups = how
    sizes = [len(weight)] if wanted[2] else None
    return _aten.convolution_backward(
        grad, images, weight, sizes, stride, padding, dilation, False, [0, 0], groups, list(wanted)
    )


class _Convolution(Function):
    """A convolution; when its gradient is to be differentiated, by its images alone."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, how: Any) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.how, ctx.biased = how, bias is not None
        return _forward(images, weight, bias, how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), (images, weight) = grads, ctx.saved_tensors
        if torch.is_grad_enabled():
            return _InputGradient.apply(grad, weight, images, ctx.how), None, None, None
        wanted = [*ctx.needs_input_grad[:2], ctx.biased and ctx.needs_input_grad[2]]
        return *_backward(grad, images, weight, ctx.how, wanted), None


class _InputGradient(Function):
    """The gradient of a convolution by its images: linear in the gradient behind it, and in the weight.

    <v, d images> = <grad, conv(v, weight)>, so its derivatives are a convolution of v and v's weight gradient.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, images: Tensor, how: Any) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.how = how
        return _backward(grad, images, weight, how, (True, False, False))[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (outer,), (grad, weight) = grads, ctx.saved_tensors
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a third derivative of a convolution was asked for, and only two are known here"
            )
        by_weight = None
        if ctx.needs_input_grad[1]:
            by_weight = _backward(grad, outer, weight, ctx.how, (False, True, False))[1]
        return _forward(outer, weight, None, ctx.how), by_weight, None, None
