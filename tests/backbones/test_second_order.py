"""Second derivatives: against torch's own, finite differences, and reverse over forward."""

import pytest
import timm
import torch
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from alignet.backbones.second_order import computed_again, second_order

NETWORKS = {
    "grouped convolutions": ("tf_efficientnet_lite0", {"num_classes": 5}),
    "attention": ("vit_tiny_patch16_224", {"num_classes": 5, "img_size": 32, "depth": 2, "reg_tokens": 1}),
    "cross-covariance": (
        "xcit_nano_12_p16_224", {"num_classes": 5, "img_size": 32, "depth": 1, "cls_attn_layers": 1},
    ),
    "windows": (
        "swin_tiny_patch4_window7_224", {"num_classes": 5, "img_size": 56, "depths": (1, 1), "num_heads": (3, 6)},
    ),
    "kernels that are computed": ("tf_efficientnet_cc_b0_4e", {"num_classes": 5}),
    "layer norm": ("convnext_atto", {"num_classes": 5, "depths": (1, 1, 1, 1)}),
}  # fmt: skip


def network(name, dtype=torch.float64):
    torch.manual_seed(0)
    architecture, args = NETWORKS[name]
    module = timm.create_model(architecture, **args).eval().to(dtype)
    with torch.no_grad():
        for held in module.parameters():  # some start at zero, where gradients of gradients vanish
            held.add_(0.02 * torch.randn_like(held))
    return module


def pictures(name, count=2):
    side = NETWORKS[name][1].get("img_size", 32)
    return torch.rand(count, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def map_loss(module, images):
    """A loss on the gradient of one logit of each image."""
    first = images.detach().requires_grad_()
    score = module(first)[:, 1].sum()
    (gradient,) = torch.autograd.grad(score, first, create_graph=True)
    return (gradient.mean(1) - 0.01).square().sum()


def gradients(module):
    return torch.cat([held.grad.flatten() for held in module.parameters() if held.grad is not None])


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_torchs_own_double_backward(name):
    """torch's own, attention by products: exact to rounding; computing blocks again changes nothing."""
    module, images = network(name), pictures(name)
    with sdpa_kernel(SDPBackend.MATH):
        map_loss(module, images).backward()
    expected = gradients(module)
    module.zero_grad()
    with second_order():
        map_loss(module, images).backward()
    torch.testing.assert_close(gradients(module), expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-8
    module.zero_grad()
    for block in [one for one in module.children() if list(one.parameters())][:2]:
        computed_again(block)
    with second_order():
        map_loss(module, images).backward()
    torch.testing.assert_close(gradients(module), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["layer norm", "attention"]
)  # smooth; the first has grouped convolutions too
def test_agrees_with_finite_differences(name):
    module, images = network(name), pictures(name)
    with second_order():
        map_loss(module, images).backward()
        held = {key: one for key, one in module.named_parameters() if one.grad is not None}
        rng = torch.Generator().manual_seed(2)
        for key in list(held)[::7]:
            way = torch.randn(held[key].shape, generator=rng, dtype=torch.float64)
            step = 1e-5 / way.norm()
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    held[key].add_(sign * step * way)
                values.append(map_loss(module, images).item())
                with torch.no_grad():
                    held[key].sub_(sign * step * way)
            slope = (values[0] - values[1]) / (2 * step.item())
            assert slope == pytest.approx((held[key].grad * way).sum().item(), rel=2e-3, abs=1e-9), key


def test_agrees_with_reverse_over_forward():
    """d/dtheta of L(grad f) is the gradient by theta of the directional derivative of f along dL/d(grad f)."""
    module, images = network("grouped convolutions"), pictures("grouped convolutions")
    with second_order():
        map_loss(module, images).backward()
    expected = gradients(module)
    module.zero_grad()
    first = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(module(first)[:, 1].sum(), first)
    held = gradient.detach().requires_grad_()
    (along,) = torch.autograd.grad((held.mean(1) - 0.01).square().sum(), held)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(module(forward_ad.make_dual(images, along))).tangent
    tangent[:, 1].sum().backward()
    torch.testing.assert_close(gradients(module), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_torchs(masked, causal):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 7, 6, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(7, 7) > 0.3 if masked and not causal else None
    if mask is not None:
        mask |= torch.eye(7, dtype=torch.bool)
    options = {"attn_mask": mask, "is_causal": causal, "scale": 0.3}
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    with second_order():
        torch.testing.assert_close(F.scaled_dot_product_attention(query, key, value, **options), expected)
        grouped = F.scaled_dot_product_attention(query, key[:, :2], value[:, :2], enable_gqa=True)
    torch.testing.assert_close(
        grouped, F.scaled_dot_product_attention(query, key[:, :2], value[:, :2], enable_gqa=True)
    )


def test_a_kernel_that_depends_on_the_image_keeps_its_part_of_the_first_gradient():
    module, images = (
        network("kernels that are computed"),
        pictures("kernels that are computed").requires_grad_(),
    )
    (expected,) = torch.autograd.grad(module(images)[:, 1].sum(), images, create_graph=True)
    with second_order():
        (found,) = torch.autograd.grad(module(images)[:, 1].sum(), images, create_graph=True)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_plain_gradient_inside_is_the_plain_gradient():
    module, images = network("grouped convolutions"), pictures("grouped convolutions")
    module(images).square().sum().backward()
    expected = gradients(module)
    module.zero_grad()
    with second_order():
        module(images).square().sum().backward()
    torch.testing.assert_close(gradients(module), expected, rtol=1e-10, atol=1e-12)


def test_a_third_derivative_is_refused():
    module, images = network("grouped convolutions"), pictures("grouped convolutions").requires_grad_()
    with second_order():
        (first,) = torch.autograd.grad(module(images).sum(), images, create_graph=True)
        with pytest.raises(RuntimeError, match="third derivative"):
            torch.autograd.grad(first.square().sum(), images, create_graph=True)
