"""Perceptual distances: the formula by loops, the packages' own forward passes, layers of all libraries, bad input."""

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from alignet.backbones import Backbone, Encoder, load_encoder
from alignet.invariances import trunks
from alignet.invariances.layers import EncoderLayers, default_layers
from alignet.invariances.perceptual import LayerDistance, Pixels, squared_distances
from alignet.invariances.trunks import lpips_distance, stlpips_distance

CONV = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")
VIT = Backbone(
    "timm", "test_vit", "random", {"num_classes": 4, "img_size": 32, "reg_tokens": 2}, 32, "pooled"
)
LIBRARIES = {
    "timm, convolutions": (CONV, "blocks.0"),
    "timm, tokens": (VIT, "blocks.0"),
    "timm, channels last": (
        Backbone(
            "timm", "swin_tiny_patch4_window7_224", "random",
            {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "img_size": 56, "num_classes": 3}, 56, "pooled",
        ),
        "layers.0",
    ),
    "open_clip": (
        Backbone(
            "open_clip", "ViT-B-32", "random",
            {"vision_cfg": {"layers": 3, "width": 64, "patch_size": 32, "image_size": 64}, "text_cfg": {"layers": 4}},
            0, "output",
        ),
        "visual.transformer.resblocks.0",
    ),
    "transformers": (
        Backbone(
            "transformers", "dinov2", "random",
            {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56}, 0, "pooled",
        ),
        "encoder.layer.0",
    ),
}  # fmt: skip


def pixels(count=3, side=32, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def conv():
    return load_encoder(CONV, seed=0)


def by_loops(first, second, weights=None):
    """The formula of LPIPS of two images' maps (c, h, w), one number at a time, in float64."""
    total = 0.0
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        channels, high, wide = one.shape
        layer = 0.0
        for y in range(high):
            for x in range(wide):
                a, b = (maps[:, y, x].double().numpy() for maps in (one, other))
                a, b = (vector / (np.sqrt((vector**2).sum()) + 1e-10) for vector in (a, b))
                scale = np.ones(channels) if weights is None else weights[number].double().numpy()
                layer += sum(scale[c] * (a[c] - b[c]) ** 2 for c in range(channels))
        total += layer / (high * wide)
    return total


@pytest.mark.parametrize("weighted", [False, True])
def test_the_formula_by_loops(conv, weighted):
    names, given = ["blocks.0", "blocks.2"], pixels(4)
    held = {}
    for name in names:
        conv.module.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: held.update({name: out})
        )
    mean, std = (torch.tensor(conv.data_config[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        conv.module((given - mean) / std)
    weights = [torch.rand(held[name].shape[1]) for name in names] if weighted else None
    maps = [held[name].clone() for name in names]
    distance = LayerDistance("conv", EncoderLayers(conv, names), weights)
    found = distance(given[:2], given[2:])
    for row in range(2):
        wanted = by_loops([one[row] for one in maps], [one[row + 2] for one in maps], weights)
        assert found[row].item() == pytest.approx(wanted, rel=1e-5)
        assert wanted > 1e-3
    kept = distance.embed(given)
    between = distance.between(kept, kept)
    torch.testing.assert_close(between[:2, 2:].diagonal(), found, rtol=1e-5, atol=0)
    assert torch.equal(between, between.T)
    assert (between.diagonal() == 0).all()


def test_pixels_are_root_mean_squares():
    first, second = pixels(3), pixels(3, seed=1)
    wanted = ((first - second).double() ** 2).flatten(1).mean(1).sqrt()
    distance = Pixels()
    torch.testing.assert_close(distance(first, second).double(), wanted, rtol=1e-6, atol=0)
    found = distance.between(distance.embed(first), distance.embed(second)).diagonal()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)
    assert distance(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)).item() == pytest.approx(1)


def test_a_pair_does_not_depend_on_the_others():
    """To the last bit, whatever stands beside it; so equal images are equally far from everything."""
    generator = torch.Generator().manual_seed(0)
    a, b = [torch.rand(n, 9001, generator=generator) for n in (7, 5)]
    b[3] = b[1]
    whole = squared_distances([a], [b])
    alone = [[squared_distances([a[i : i + 1]], [b[j : j + 1]]).item() for j in range(5)] for i in range(7)]
    assert whole.tolist() == alone
    assert torch.equal(whole[:, 3], whole[:, 1])
    near = a + 1e-4 * torch.randn(a.shape, generator=generator)
    wanted = (a.double() - near.double()).square().sum(1)
    torch.testing.assert_close(squared_distances([a], [near]).diagonal(), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("of", ["pixels", "layers"])
def test_gradients_are_those_of_the_distance_and_finite_where_nothing_differs(conv, of):
    distance = Pixels() if of == "pixels" else LayerDistance("conv", EncoderLayers(conv, ["blocks.0"]))
    first, second = pixels(1).requires_grad_(), pixels(1, seed=1).requires_grad_()
    made = torch.autograd.grad(distance(first, second).sum(), (first, second))
    for number, gradient in enumerate(made):
        step = 1e-2 * gradient / gradient.norm()
        ends = []
        for sign in (1, -1):
            moved = [first.detach(), second.detach()]
            moved[number] = moved[number] + sign * step
            ends.append(distance(*moved).item())
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(gradient.norm().item(), rel=0.02)
    (same,) = torch.autograd.grad(distance(first, first.detach()).sum(), first)
    assert (same == 0).all()


def test_positions_without_any_signal_have_a_gradient():
    """After a ReLU all channels of a position may be 0, where LPIPS divides 0 by 0."""
    relu = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    nn.init.constant_(relu[0].bias, -0.5)
    nn.init.normal_(relu[0].weight, generator=torch.Generator().manual_seed(0))
    distance = LayerDistance("silent", lambda given: [relu(given).flatten(2)])
    images = pixels(2, 8).requires_grad_()
    with torch.no_grad():
        assert (relu(images).sum(1) == 0).any()
        assert (relu(images).sum(1) > 0).any()
    (gradient,) = torch.autograd.grad(distance(images, pixels(2, 8, 1)).sum(), images)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", LIBRARIES)
def test_layers_of_each_library(name):
    backbone, layer = LIBRARIES[name]
    encoder = load_encoder(backbone, seed=0)
    held = []
    module = encoder.module.get_submodule(layer)
    module.register_forward_hook(lambda _, __, out: held.append(out[0] if isinstance(out, tuple) else out))
    (found,) = EncoderLayers(encoder, [layer])(pixels(2, encoder.data_config["input_size"][1]))
    out = held[-1]
    if name == "timm, convolutions":
        wanted = out.flatten(2)
    elif name == "timm, channels last":
        wanted = out.permute(0, 3, 1, 2).flatten(2)
    else:
        before = 3 if name == "timm, tokens" else 1  # class token, and here two registers
        wanted = out[:, before:].permute(0, 2, 1)
    assert torch.equal(found, wanted)
    assert found.shape[2] == {"timm, channels last": 14 * 14, "transformers": 16}.get(name, found.shape[2])
    chosen = default_layers(encoder)
    assert layer in chosen
    assert 2 <= len(chosen) <= 5
    assert [len(one) for one in EncoderLayers(encoder)(pixels(1, 40))] == [1] * len(chosen)


def test_blocks_are_taken_evenly_from_the_first_to_the_last():
    encoder = load_encoder(VIT, seed=0)
    assert default_layers(encoder) == tuple(f"blocks.{row}" for row in (0, 1, 3, 4, 5))


def test_a_layer_is_what_its_module_gave_even_if_the_next_one_works_in_place():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 2))
    module.forward_features, module.forward_head = module.forward, lambda out, pre_logits: out
    config = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    toy = Encoder(Backbone("timm", "toy", "random", {}, 8, "pooled"), module, None, None, config, 2)
    given = pixels(2, 8)
    (found,) = EncoderLayers(toy, ["0"])(given)
    assert (found < 0).any()
    torch.testing.assert_close(found, module[0]((given - 0.5) / 0.5).flatten(2))


def test_wrong_layers(conv):
    with pytest.raises(
        ValueError, match=r"expected modules of test_efficientnet, found 'block.0'; .*blocks.0"
    ):
        EncoderLayers(conv, ["block.0"])
    with pytest.raises(
        ValueError, match="expected modules of test_efficientnet that images pass, found classifier"
    ):
        EncoderLayers(conv, ["classifier"])
    swin = load_encoder(LIBRARIES["timm, channels last"][0], seed=0)
    with pytest.raises(ValueError, match=r"expected a module that gives .*layers.0.blocks.0.attn"):
        EncoderLayers(swin, ["layers.0.blocks.0.attn"])


@pytest.fixture
def undrawn(monkeypatch):
    """Networks are made without drawing their weights, of which large classifiers have a hundred million."""
    for kind in (nn.Linear, nn.Conv2d):
        monkeypatch.setattr(kind, "reset_parameters", lambda self: None)
    for name in ("kaiming_normal_", "normal_", "kaiming_uniform_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


@torch.no_grad()
def trunk(net):
    """A network of torchvision with drawn features."""
    from torchvision import models

    whole = {"squeeze": models.squeezenet1_1, "alex": models.alexnet}[net](weights=None)
    generator = torch.Generator().manual_seed(0)
    for value in whole.features.parameters():
        scale = (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
        value.copy_(scale * torch.randn(value.shape, generator=generator))
    return whole


@pytest.mark.parametrize("net", ["squeeze", "alex"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_is_the_package_over_the_same_network(net, undrawn):
    import lpips

    whole = trunk(net)
    package = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for number in range(package.net.N_slices):
        for name, part in getattr(package.net, f"slice{number + 1}").named_children():
            part.load_state_dict(whole.features[int(name)].state_dict())
    distance = lpips_distance("lpips", net, whole.state_dict())
    first, second = pixels(2, 64).requires_grad_(), pixels(2, 64, 1)
    wanted = package(first, second, normalize=True).flatten()
    found = distance(first, second)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    assert found.min() > 0.01
    gradients = [torch.autograd.grad(one.sum(), first)[0] for one in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)
    with pytest.raises(ValueError, match="the network of lpips: expected a state dict of torchvision's"):
        lpips_distance("lpips", "vgg", whole.state_dict())


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_shift_tolerant_lpips_is_the_package(net, undrawn, monkeypatch):
    for needed, name in (
        ("IPython", "embed"),
        ("torchsummary", "summary"),
    ):  # imported, never used, not declared
        if importlib.util.find_spec(needed) is None:
            stub = types.ModuleType(needed)
            setattr(stub, name, None)
            monkeypatch.setitem(sys.modules, needed, stub)
    from stlpips_pytorch import stlpips

    package = stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False)
    first, second = torch.rand(2, 3, 64, 70), torch.rand(2, 3, 64, 70)
    with torch.no_grad():
        wanted = package(first, second, normalize=True).flatten()
        found = stlpips_distance("stlpips", net)(first, second)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)
    assert found.min() > 0.01


def test_small_images_are_enlarged_for_the_packages_networks():
    distance = stlpips_distance("stlpips", "alex")
    assert distance.embed(pixels(1, 9))[0].shape == distance.embed(pixels(1, 64))[0].shape
    assert distance.embed(pixels(1, 96))[0].shape[1] > distance.embed(pixels(1, 64))[0].shape[1]


def test_a_missing_or_damaged_package_is_one_message(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(
            ValueError, match=r"package stlpips-pytorch .* found none; .*'alignet\[perceptual\]'"
        ):
            stlpips_distance("stlpips", "alex")
        with pytest.raises(ValueError, match=r"package lpips .* found none"):
            lpips_distance("lpips", "squeeze", trunk("squeeze").state_dict())
    place = tmp_path / "weights" / "vST0.0" / "alex_shift_tolerant.pth"
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="found the package without it"):
        stlpips_distance("stlpips", "alex")
    place.parent.mkdir(parents=True)
    for content in (b"", b"no weights", b"PK\x03\x04 half a file"):
        place.write_bytes(content)
        with pytest.raises(ValueError, match="expected a readable file of weights"):
            stlpips_distance("stlpips", "alex")
    torch.save({"net.slice1.0.weight": torch.zeros(1)}, place)
    with pytest.raises(
        ValueError, match=r"the network of stlpips: expected stlpips-pytorch 0.0.2, found .*missing"
    ):
        stlpips_distance("stlpips", "alex")


def test_code_in_a_package_s_weights_is_not_run(monkeypatch, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_run"), "w"))

    place = tmp_path / "weights" / "vST0.0" / "alex_shift_tolerant.pth"
    place.parent.mkdir(parents=True)
    torch.save({"weights": Payload()}, place)
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="expected a readable file of weights"):
        trunks.stlpips_distance("stlpips", "alex")
    assert not (tmp_path / "was_run").exists()


def test_negative_channel_weights_are_refused():
    with pytest.raises(ValueError, match="finite and at least 0, found others in layer 1"):
        LayerDistance(
            "planted", lambda given: [given.flatten(2)], [torch.ones(3), torch.tensor([1.0, -1.0, 0.0])]
        )
