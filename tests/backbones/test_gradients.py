"""Logits and layers with gradients by pixels, and which part of an image a network sees."""

import numpy as np
import pytest
import torch
from PIL import Image

from alignet.backbones import Backbone, load_encoder
from alignet.backbones.gradients import Classifier, geometry, input_gradient

TOY = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")
DEEP = {  # classifiers that are more than one linear layer, and a head of another name
    "convnext": Backbone(
        "timm", "convnext_atto", "random", {"num_classes": 5, "head_hidden_size": 8}, 64, "pooled"
    ),
    "vit": Backbone("timm", "test_vit", "random", {"num_classes": 5, "img_size": 32}, 32, "pooled"),
}


def pixels(size=32, count=3):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_logits_are_the_networks_own_for_its_own_preprocessing():
    encoder = load_encoder(TOY, seed=0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    expected = encoder.module(encoder.transform(image)[None])
    classify = Classifier(encoder)
    for given in (encoder.pixels(image)[None], encoder.transform(image)[None]):
        torch.testing.assert_close(classify(classify.pixels(given)), expected, rtol=1e-5, atol=1e-6)
    assert not any(held.requires_grad for held in encoder.module.parameters())
    assert not encoder.module.training


@pytest.mark.parametrize("backbone", DEEP.values(), ids=DEEP)
def test_the_gradient_is_that_of_finite_differences(backbone):
    encoder = load_encoder(backbone, seed=0)
    encoder.module.double()
    classify = Classifier(encoder)
    images = pixels(backbone.image_size, 2).double()
    found = input_gradient(classify, images, torch.tensor([3, 1]))
    assert found.chosen.tolist() == [3, 1]
    way = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-6
    with torch.no_grad():
        slope = (classify(images + step * way) - classify(images - step * way)) / (2 * step)
    expected = slope[[0, 1], [3, 1]]
    torch.testing.assert_close((found.gradient * way).sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-7)


def test_without_a_label_the_largest_logit_is_taken():
    classify = Classifier(load_encoder(TOY, seed=0))
    images = pixels()
    top = classify(images).argmax(1)
    assert torch.equal(input_gradient(classify, images).chosen, top)
    mixed = input_gradient(classify, images, torch.tensor([-1, 2, -1]))
    assert mixed.chosen.tolist() == [int(top[0]), 2, int(top[2])]
    with pytest.raises(ValueError, match=r"classes in 0\.\.3, found 7"):
        input_gradient(classify, images, torch.tensor([7, 0, 0]))


def test_a_head_takes_the_place_of_a_classifier():
    encoder = load_encoder(
        Backbone("timm", "test_efficientnet", "random", {"num_classes": 0}, 32, "pooled"), seed=0
    )
    with pytest.raises(ValueError, match="expected a network with a classifier"):
        Classifier(encoder)
    weights, bias = torch.randn(encoder.width, 2), torch.randn(2)
    images = pixels()
    found = input_gradient(Classifier(encoder, (weights, bias)), images, torch.tensor([0, 1, 0]))
    assert found.logits.shape == (3, 2)
    assert found.gradient.shape == images.shape
    assert found.gradient.abs().max() > 0


def test_layers_by_name_and_the_nearest_of_a_wrong_one():
    classify = Classifier(load_encoder(TOY, seed=0))
    images = pixels().requires_grad_()
    logits, held = classify.layers(images, ["blocks.1", "conv_head"])
    torch.testing.assert_close(logits, classify(images))
    (gradient,) = torch.autograd.grad(held["blocks.1"].square().sum(), images)
    assert gradient.abs().max() > 0
    with pytest.raises(ValueError, match=r"conv_haed.*conv_head"):
        classify.layers(images, ["conv_haed"])
    with pytest.raises(ValueError, match="expected a module"):
        classify.layers(images, [""])


LIBRARIES = {
    "timm, centre crop": Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 160, "pooled"),
    "timm, squash": Backbone(
        "timm", "test_vit", "random",
        {"num_classes": 4, "img_size": 160, "pretrained_cfg_overlay": {"crop_mode": "squash", "crop_pct": 1.0}},
        160, "pooled",
    ),
    "open_clip": Backbone(
        "open_clip", "ViT-B-32", "random",
        {"vision_cfg": {"layers": 1, "width": 64, "patch_size": 32, "image_size": 64}, "text_cfg": {"layers": 1}},
        0, "output",
    ),
    "transformers": Backbone(
        "transformers", "dinov2", "random",
        {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 56}, 0, "pooled",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("size", [(400, 300), (300, 400), (333, 333)])
def test_a_dot_stands_where_the_geometry_says(name, size):
    """Whatever the library does with an image: a dot drawn at a share of it lands at that share of the seen part."""
    encoder = load_encoder(LIBRARIES[name], seed=0)
    left, top, right, bottom = geometry(encoder, *size)
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    for x, y in ((0.4, 0.45), (0.6, 0.35)):
        drawn = np.zeros((size[1], size[0], 3), np.uint8)
        u, v = round(x * size[0]), round(y * size[1])
        drawn[v - 4 : v + 4, u - 4 : u + 4] = 255
        prepared = encoder.transform(Image.fromarray(drawn)).mean(0).numpy()
        weight = prepared - prepared.min()
        high, wide = weight.shape
        across = (weight.sum(0) * (np.arange(wide) + 0.5)).sum() / weight.sum() / wide
        down = (weight.sum(1) * (np.arange(high) + 0.5)).sum() / weight.sum() / high
        assert across == pytest.approx((u / size[0] - left) / (right - left), abs=0.01)
        assert down == pytest.approx((v / size[1] - top) / (bottom - top), abs=0.01)
