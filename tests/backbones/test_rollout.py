"""Attention rollout: by hand from the weights, with registers and without a class token; refusals by name."""

import pytest
import timm
import torch

from alignet.backbones.rollout import attention_rollout, rollout_refusal

SMALL = {"img_size": 48, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


def network(**values):
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", **(SMALL | values)).eval()
    for block in module.blocks:  # attention that is not flat
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.7)
    return module


def attentions(module, images):
    """Attention (b, heads, n, n) of each block, computed from the weights."""
    tokens = module.norm_pre(module._pos_embed(module.patch_embed(images)))
    found = []
    for block in module.blocks:
        inputs = block.norm1(tokens)
        layer = block.attn
        width = inputs.shape[-1]
        weights = layer.qkv.weight.reshape(3, layer.num_heads, -1, width)
        bias = layer.qkv.bias.reshape(3, layer.num_heads, -1)
        q, k = (torch.einsum("bnw,hdw->bhnd", inputs, weights[i]) + bias[i][:, None] for i in (0, 1))
        q, k = layer.q_norm(q), layer.k_norm(k)
        found.append(torch.softmax(q @ k.transpose(2, 3) / (width / layer.num_heads) ** 0.5, -1))
        tokens = block(tokens)
    return found


@torch.no_grad()
def by_hand(module, images, rows):
    """The product of all blocks, one image and one matrix at a time; the mean of `rows` of it."""
    whole = []
    for number in range(len(images)):
        product = None
        for attention in attentions(module, images):
            mean = attention[number].double().mean(0)
            mixed = (mean + torch.eye(len(mean))) / 2
            product = mixed if product is None else mixed @ product
        whole.append(product[rows].mean(0))
    return torch.stack(whole)


@pytest.mark.parametrize(
    ("values", "rows", "prefix"),
    [
        ({}, slice(0, 1), 1),
        ({"reg_tokens": 4}, slice(0, 1), 5),
        ({"qk_norm": True, "init_values": 0.1}, slice(0, 1), 1),
        ({"class_token": False, "global_pool": "avg"}, slice(0, None), 0),
        ({"class_token": False, "global_pool": "avg", "reg_tokens": 2}, slice(2, None), 2),
        ({"global_pool": "avg"}, slice(1, None), 1),
        ({"dynamic_img_size": True}, slice(0, 1), 1),
        ({"depth": 4}, slice(0, 1), 1),
    ],
    ids=[
        "class token",
        "registers",
        "qk norm",
        "mean",
        "mean with registers",
        "class token unread",
        "dynamic",
        "four",
    ],
)
def test_rollout_by_hand(values, rows, prefix):
    module = network(**values)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    found = attention_rollout(module, images)
    assert found.shape == (2, 3, 3)
    assert not rollout_refusal(module)
    expected = by_hand(module, images, rows)
    torch.testing.assert_close(expected.sum(1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(found.reshape(2, -1).double(), expected[:, prefix:], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert found.std() > 0.01 * found.mean()


def test_another_size_and_shape_of_image():
    module = network(dynamic_img_size=True)
    assert attention_rollout(module, torch.randn(1, 3, 32, 64)).shape == (1, 2, 4)


def test_fused_attention_is_as_before_and_no_hook_stays_even_after_an_error():
    module = network()
    images = torch.randn(1, 3, 48, 48)
    module.blocks[0].attn.fused_attn = False
    before = [block.attn.fused_attn for block in module.blocks]
    with torch.no_grad():
        expected = module(images)
    attention_rollout(module, images)
    with pytest.raises(Exception, match="16"):
        attention_rollout(module, torch.randn(1, 3, 16, 16))
    assert [block.attn.fused_attn for block in module.blocks] == before
    assert not any(block.attn.attn_drop._forward_pre_hooks for block in module.blocks)
    with torch.no_grad():
        assert torch.equal(module(images), expected)
    with pytest.raises(ValueError, match="expected evaluation mode"):
        attention_rollout(module.train(), images)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("xcit_nano_12_p16_224", "Xcit"),
        ("test_efficientnet", "EfficientNet"),
        ("eva02_tiny_patch14_224", "Eva"),
        ("vit_relpos_small_patch16_224", "VisionTransformerRelPos"),
        ("vit_small_patch16_18x2_224", "ParallelThingsBlock"),
        ("vit_base_patch16_siglip_224", "attention-pool head"),
        ("cait_xxs24_224", "Cait"),
    ],
)
def test_others_are_refused_by_name(architecture, name):
    with torch.device("meta"):
        module = timm.create_model(architecture).eval()
    assert rollout_refusal(module)
    with pytest.raises(ValueError, match=f"(?s)attention rollout: expected.*{name}"):
        attention_rollout(module, torch.zeros(1, 3, 224, 224))
