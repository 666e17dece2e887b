"""Inversion where the set of identically represented inputs is known, and the terms of its loss by other routes."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn

from alignet.backbones import Backbone, Encoder, load_encoder
from alignet.config import InvertMethod, Noise, Transformations
from alignet.invariances.invert import invert, noise, relative_error, verified
from alignet.invariances.optimizers import REACH, WARM, _QuasiNewton
from alignet.invariances.perceptual import Pixels
from alignet.invariances.regularisers import Fourier, blurred, regulariser, total_variation, transformed
from alignet.invariances.representation import Representation

SIDE, WIDTH = 8, 12
FREE = InvertMethod("adam", 0.03, "linear", 300, 0, 1e-3, Noise(0.0, 1.0))
FAR = replace(FREE, finish=150, weight=0.2, distance="pixels")


def represented(module):
    """A `Representation` whose g is the module's output."""
    config = {"input_size": (3, SIDE, SIDE), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    backbone = Backbone("timm", "toy", "random", {}, SIDE, "output")
    return Representation(
        Encoder(backbone, module.eval(), lambda image: image, lambda image: image, config, 2)
    )


def linear(outputs=WIDTH):
    """A layer of known rows on all pixels."""
    layer = nn.Linear(3 * SIDE * SIDE, outputs)
    nn.init.normal_(layer.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    return nn.Sequential(nn.Flatten(), layer)


def images(count, seed=0):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def starts(count, settings=FREE.start):
    drawn = np.stack([noise(settings, (3, SIDE, SIDE), 5, row) for row in range(count)])
    return torch.from_numpy(drawn).float() / 255


def share_in_rows(difference, weight):
    """How much of (b, 3, H, W) lies in the row space of (f, 3HW), by its orthonormal basis: shares of the norm (b,)."""
    rows = torch.linalg.qr(weight.double().T)[0]
    flat = difference.flatten(1).double()
    return (flat @ rows).norm(dim=1) / flat.norm(dim=1)


def test_of_a_linear_layer_the_difference_lies_in_its_null_space():
    module, targets, begin = linear(), images(6), starts(6)
    found = invert(represented(module), targets, begin, FREE)
    weight = module[1].weight
    assert (share_in_rows(found.images - targets, weight) < 5e-3).all()
    assert (share_in_rows(begin - targets, weight) > 0.1).all()  # the starts do not lie there
    assert 0 <= found.images.min() <= found.images.max() <= 1
    assert (found.images - targets).flatten(1).norm(dim=1).min() > 1
    assert (found.steps > 0).all()
    assert (found.steps < FREE.steps).all()


def test_the_adversarial_one_lies_there_too_and_farther_away():
    module, targets, begin, distance = linear(), images(6), starts(6), Pixels()
    free = invert(represented(module), targets, begin, FREE)
    far = invert(represented(module), targets, begin, FAR, distance=distance)
    assert (share_in_rows(far.images - targets, module[1].weight) < 5e-3).all()
    assert (distance(far.images, targets) > 1.1 * distance(free.images, targets)).all()
    assert 0 <= far.images.min() <= far.images.max() <= 1


def test_an_encoder_that_keeps_everything_gives_the_target_and_one_that_keeps_nothing_the_start():
    targets, begin, distance = images(4), starts(4), Pixels()
    kept = invert(represented(nn.Flatten()), targets, begin, FREE).images
    assert (distance(kept, targets) < 1e-3).all()
    assert (distance(kept, targets) < distance(kept, begin)).all()

    class Nothing(nn.Module):
        def forward(self, pixels):
            return 0 * pixels.flatten(1)[:, :3] + torch.tensor([1.0, 2.0, 3.0])

    lost = invert(represented(Nothing()), targets, begin, FREE)
    assert torch.equal(lost.images, begin)
    assert (lost.steps == 0).all()


@pytest.mark.parametrize("change", [
    {"optimizer": "sgd", "lr": 20.0}, {"optimizer": "unit", "lr": 0.1}, {"fourier": True, "lr": 0.02},
    {"schedule": "cosine"}, {"optimizer": "quasi_newton"}, {"optimizer": "quasi_newton", "fourier": True},
    {"optimizer": "quasi_newton", "weight": 0.1, "tv": 1.0, "finish": 200},
    {"weight": 0.1, "tv": 1.0, "l_p": 0.5, "finish": 200},
    {"weight": 0.1, "blur": 5.0, "finish": 200},
    {"transform": Transformations(0.1, 0.1, 5.0, 0.1), "finish": 200}, {"start": Noise(0.0, 0.01)},
])  # fmt: skip
def test_every_method_finds_a_match(change):
    method = replace(FREE, stop=0.02, **change)
    found = invert(represented(linear()), images(3), starts(3, method.start), method, keys=[(0,), (1,), (2,)])
    assert (
        relative_error(represented(linear())(found.images), represented(linear())(images(3))) <= 0.02
    ).all()
    assert 0 <= found.images.min() <= found.images.max() <= 1


def test_a_regulariser_does_what_it_says():
    module, method = represented(linear()), replace(FREE, stop=0.02)
    smooth = replace(method, weight=0.3, tv=1.0, finish=150)
    plain, found = (
        total_variation(invert(module, images(4), starts(4), one).images) for one in (method, smooth)
    )
    assert (found < plain).all()


def test_without_a_match_the_iterate_of_the_lowest_error_is_kept():
    module, targets, begin = represented(linear()), images(3), starts(3)
    method = replace(FREE, optimizer="sgd", lr=2000.0, schedule="constant", stop=0.0)  # it jumps about
    errors = []
    for steps in range(1, 12):
        found = invert(module, targets, begin, replace(method, steps=steps)).images
        errors.append(relative_error(module(found), module(targets)))
    for before, after in pairwise(errors):
        assert (after <= before).all()


def test_each_image_is_as_it_is_alone():
    module, targets, begin = represented(linear()), images(5), starts(5)
    method = replace(FREE, steps=40, transform=Transformations(0.1, 0.1, 5.0, 0.1), finish=10)
    keys = [(3, row) for row in range(5)]
    together = invert(module, targets, begin, method, keys=keys)
    for row in (1, 4):
        alone = invert(module, targets[row, None], begin[row, None], method, keys=keys[row : row + 1])
        torch.testing.assert_close(alone.images[0], together.images[row], atol=1e-4, rtol=0)
    other = invert(module, targets[:1], begin[:1], method, keys=[(4, 0)])
    assert not torch.allclose(other.images[0], together.images[0], atol=1e-3)


def test_errors_are_those_of_what_is_stored():
    module, targets = linear(), images(3)
    seed = np.stack([[noise(FREE.start, (3, SIDE, SIDE), row, k) for k in range(2)] for row in range(3)])
    begin = torch.from_numpy(seed).flatten(0, 1).float() / 255
    found = invert(represented(module), targets.repeat_interleave(2, 0), begin, FREE).images
    inverted = found.numpy().reshape(seed.shape)
    eight = np.round(inverted * 255).astype(np.uint8)
    arrays = {"image": targets.numpy(), "seed": seed, "inverted": inverted, "inverted8": eight}
    made = verified(represented(module), arrays, 4)
    weight, bias = (value.detach().double().numpy() for value in (module[1].weight, module[1].bias))

    def g(pixels):
        return pixels.reshape(*pixels.shape[:-3], -1).astype(np.float64) @ weight.T + bias

    wanted = g(arrays["image"])[:, None]
    for name, stored in (("error", inverted), ("error8", eight / 255), ("begin", seed / 255)):
        expected = np.linalg.norm(g(stored) - wanted, axis=2) / np.linalg.norm(wanted, axis=2)
        np.testing.assert_allclose(made[name], expected, atol=2e-6)
    assert (made["error"] <= FREE.stop).all()
    assert (made["error8"] > made["error"]).any()
    shuffled = verified(represented(module), arrays | {"image": targets.numpy()[[1, 2, 0]]}, 4)
    assert (shuffled["error"] > 0.1).all()


def test_noise_is_normal_cut_and_follows_from_its_key():
    drawn = noise(Noise(0.5, 2.0), (3, 64, 64), 1, 2)
    assert drawn.dtype == np.uint8
    assert abs((drawn == 0).mean() - 0.401) < 0.02  # Phi(-.25), and half of the lowest level
    assert abs((drawn == 255).mean() - 0.401) < 0.02
    assert np.array_equal(drawn, noise(Noise(0.5, 2.0), (3, 64, 64), 1, 2))
    assert not np.array_equal(drawn, noise(Noise(0.5, 2.0), (3, 64, 64), 1, 3))


def test_terms_of_the_regulariser_by_other_routes():
    pixels = images(2)
    values = pixels.numpy()
    across, down = np.abs(np.diff(values, axis=3)), np.abs(np.diff(values, axis=2))
    np.testing.assert_allclose(
        total_variation(pixels), (across.sum((1, 2, 3)) + down.sum((1, 2, 3))) / (3 * SIDE * SIDE), rtol=1e-5
    )
    smooth = scipy.ndimage.gaussian_filter(values, (0, 0, 1, 1), mode="mirror", radius=(0, 0, 3, 3))
    np.testing.assert_allclose(blurred(pixels, 1.0), smooth, atol=1e-6)
    method = replace(FREE, weight=1.0, tv=2.0, l_p=3.0, p=2.0, blur=4.0, distance="pixels")
    expected = 2 * total_variation(pixels).numpy() + 3 * np.sqrt(((values - 0.5) ** 2).mean((1, 2, 3)))
    expected += 4 * ((values - smooth) ** 2).mean((1, 2, 3)) - np.sqrt(((values - 0.25) ** 2).mean((1, 2, 3)))
    found = regulariser(method, pixels, Pixels(), Pixels().embed(torch.full_like(pixels, 0.25)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_blurred_copy_has_no_gradient():
    pixels = images(1).requires_grad_()
    method = replace(FREE, weight=1.0, blur=1.0)
    regulariser(method, pixels).sum().backward()
    expected = 2 * (pixels - blurred(pixels, 1.0)) / pixels[0].numel()
    torch.testing.assert_close(pixels.grad, expected.detach())


def test_fourier_coefficients_are_the_image_and_low_frequencies_weigh_more():
    basis = Fourier(9, 12, torch.device("cpu"))
    pixels = torch.rand(2, 3, 9, 12)
    torch.testing.assert_close(basis.decode(basis.encode(pixels)), pixels)
    flat = basis.encode(torch.zeros(1, 1, 9, 12))
    steps = []
    for y, x in ((0, 1), (0, 5)):
        place = flat.clone()
        place[0, 0, y, x, 0] = 1
        steps.append(basis.decode(place).norm())
    torch.testing.assert_close(steps[0] / steps[1], torch.tensor(5.0))


def test_transformations_move_scale_and_turn():
    pixels = images(1)
    still = transformed(pixels, Transformations(0, 0, 0, 0), [0])
    torch.testing.assert_close(still, pixels)
    draws = [torch.rand(7, generator=torch.Generator().manual_seed(one)) * 2 - 1 for one in range(3)]
    x, y = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy")
    many = torch.stack([x, y, x + y])[None].expand(3, -1, -1, -1) / 128
    moved = transformed(many, Transformations(0.125, 0, 0, 0), [0, 1, 2])
    for row, drawn in enumerate(draws):  # a picture of its own places shows where each pixel came from
        torch.testing.assert_close(moved[row, 0, 30, 30] * 128 - 30, 8 * drawn[0], atol=1e-3, rtol=0)
        torch.testing.assert_close(moved[row, 1, 30, 30] * 128 - 30, 8 * drawn[1], atol=1e-3, rtol=0)
    turned = transformed(many, Transformations(0, 0.1, 20.0, 0), [0, 1, 2])
    for row, drawn in enumerate(draws):
        a = turned[row, :2, 30, 40] * 128 - turned[row, :2, 30, 30] * 128
        torch.testing.assert_close(a.norm(), 10 * 1.1 ** -drawn[2], atol=1e-2, rtol=0)
        torch.testing.assert_close(torch.atan2(a[1], a[0]).rad2deg(), 20 * drawn[3], atol=1e-1, rtol=0)
    grey = torch.full((1, 3, SIDE, SIDE), 0.4)
    coloured = transformed(grey, Transformations(0, 0, 0, 0.3), [0])
    torch.testing.assert_close(coloured, 0.4 * (1 + 0.3 * draws[0][4]).expand_as(grey))


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_vit", "test_resnet"])
def test_a_folded_network_represents_alike(architecture):
    backbone = Backbone("timm", architecture, "random", {"num_classes": 0}, 0, "pooled")
    encoder = load_encoder(backbone, seed=0)
    for module in encoder.module.modules():  # statistics that folding has to carry over
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.1)
    whole = Representation(encoder)
    search = whole.searching()
    assert (search is whole) == (architecture == "test_vit")
    norms = [one for one in search.module.modules() if isinstance(one, nn.BatchNorm2d)]
    assert not norms
    pixels = torch.rand(2, *whole.side)
    torch.testing.assert_close(search(pixels), whole(pixels), rtol=1e-3, atol=1e-5)
    assert not any(one.requires_grad for one in search.module.parameters())


def test_a_convolution_whose_output_is_asked_for_stays_as_it_is():
    encoder = load_encoder(Backbone("timm", "test_efficientnet", "random", {}, 0, "pooled"), seed=0)
    whole = Representation(encoder, "conv_stem")
    pixels = torch.rand(1, *whole.side)
    assert whole(pixels).shape[0] == 1
    assert whole(pixels).ndim == 2
    torch.testing.assert_close(whole.searching()(pixels), whole(pixels), rtol=1e-4, atol=1e-5)
    logits = Representation(encoder, "classifier")(pixels)
    mean, std = (torch.tensor(encoder.data_config[name]).view(-1, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(logits, encoder.module((pixels - mean) / std))


def test_normalisation_that_does_not_follow_is_not_folded():
    class Both(nn.Module):
        """The convolution's output is read by the normalisation and beside it."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            nn.init.constant_(self.norm.running_var, 9.0)

        def forward(self, pixels):
            out = self.conv(pixels)
            return (self.norm(out) + out).flatten(1)

    whole = represented(Both())
    assert whole.searching() is whole


def test_a_network_of_nan_is_one_message():
    module = linear()
    with torch.no_grad():
        module[1].weight[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match="invert: expected a finite representation, found NaN or infinity for 2 of 2"
    ):
        invert(represented(module), images(2), starts(2), FREE)


def test_wrong_calls_are_refused():
    module = represented(linear())
    with pytest.raises(ValueError, match="expected a distance for this method, found none"):
        invert(module, images(1), starts(1), FAR)
    with pytest.raises(ValueError, match="expected keys to draw transformations by"):
        invert(module, images(1), starts(1), replace(FREE, transform=Transformations(0, 0, 0, 0)))
    with pytest.raises(ValueError, match="reach of 9 pixels"):
        blurred(images(1), 3.0)
    with pytest.raises(ValueError, match="expected a module of toy, found 'on'"):
        Representation(module.encoder, "on")


@pytest.mark.parametrize(("change", "message"), [
    ({"steps": 0}, "invert.methods.steps: expected at least 1, found 0"),
    ({"lr": 0.0}, "invert.methods.lr: expected a positive number"),
    ({"weight": 1.0}, "invert.methods.weight: expected above 0 where one of tv"),
    ({"tv": 1.0}, "invert.methods.weight: expected above 0 where .*found 0 with tv"),
    ({"finish": 10}, "invert.methods.finish: expected 0 without a regulariser"),
    ({"finish": 300}, "invert.methods.finish: expected fewer than steps"),
    ({"stop": float("nan")}, "invert.methods.stop: expected a finite number"),
])  # fmt: skip
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        replace(FREE, **change)


def stretched():
    """A linear layer without bias whose rows differ a hundredfold in length: Adam creeps along the short ones."""
    module = linear()
    with torch.no_grad():
        module[1].weight.mul_(torch.logspace(0, -2, WIDTH)[:, None])
        module[1].bias.zero_()
    return module


def test_quasi_newton_matches_where_adam_does_not():
    module, targets, begin = represented(stretched()), images(5), starts(5)
    method = replace(FREE, schedule="constant", steps=150)
    errors = {}
    for optimizer in ("adam", "quasi_newton"):
        found = invert(module, targets, begin, replace(method, optimizer=optimizer))
        errors[optimizer] = relative_error(module(found.images), module(targets))
        assert (found.steps > WARM).all()
    assert (errors["quasi_newton"] <= FREE.stop).all()
    assert (errors["adam"] > 5 * FREE.stop).all()


def test_a_step_of_l_bfgs_is_that_of_its_two_loops():
    """Against the textbook recursion on one image at a time in float64; both images have bounds that hold."""
    generator = torch.Generator().manual_seed(3)
    square = torch.rand(2, 3, 2, 2, generator=generator) + 0.1
    newton = _QuasiNewton(square, bounded=True)
    places = torch.rand(2, 3, 2, 2, generator=generator)
    curvature = torch.rand(2, 3, 2, 2, generator=generator) + 0.5
    history = []
    for step in range(4):
        gradient = curvature * (places - 0.4)
        places = places.clone()
        places[:, 0, 0, 0], gradient[:, 0, 0, 0] = 0.0, 1.0  # at a bound and pushed out: stays
        error = torch.tensor([0.5, 0.7]) * 0.9**step
        change = newton.change(places, gradient, error)
        history.append((places.double().numpy(), gradient.double().numpy()))
        for row in range(2):
            expected = two_loops(
                [(x[row], g[row]) for x, g in history], square[row].double().numpy(), error[row].item()
            )
            np.testing.assert_allclose(change[row], expected, rtol=2e-4, atol=1e-6)
        assert (change[:, 0, 0, 0] == 0).all()
        places = (places + change).clamp(0, 1)


def two_loops(history, square, error):
    """What L-BFGS adds to the last place; history: places and gradients of an image, of which the last counts."""
    (place, gradient), longest = history[-1], REACH * np.sqrt(square.size / (3 * 224 * 224))
    reach = longest  # no step raised the error
    guess = 1 / (np.sqrt(square) + 1e-10)
    guess = guess / guess.mean()
    pairs = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(history)]
    pairs = [(s, y) for s, y in pairs if (s * y).sum() > 1e-8 * np.linalg.norm(s) * np.linalg.norm(y)]
    free = ~(((place <= 0) & (gradient > 0)) | ((place >= 1) & (gradient < 0)))
    step, shares = gradient * free, []
    for s, y in reversed(pairs):
        shares.append((s * step).sum() / (s * y).sum())
        step = step - shares[-1] * y
    length = error**2 / (gradient * guess * gradient).sum()
    if pairs:
        s, y = pairs[-1]
        length = (s * y).sum() / (y * guess * y).sum()
    step = length * guess * step
    for (s, y), share in zip(pairs, reversed(shares), strict=True):
        step = step + s * (share - (y * step).sum() / (s * y).sum())
    step = step * free
    return -step * min(1, reach / np.linalg.norm(step))


def test_targets_of_a_distance_are_embedded_once_and_images_where_they_match_alone():
    """How often an adversarial search runs the distance's network, in images."""

    seen = []

    class Counted(Pixels):
        def embed(self, pixels):
            seen.append((len(pixels), pixels.requires_grad))
            return super().embed(pixels)

    distance = Counted()
    invert(represented(linear()), images(6), starts(6), replace(FAR, stop=0.0), distance=distance)
    pushed = FAR.steps - FAR.finish
    assert seen == [(6, False), *[(6, True)] * pushed]  # nothing matches
    seen.clear()
    invert(represented(linear()), images(6), starts(6), FAR, distance=distance)
    matches = [count for count, wanted in seen if not wanted][1:]
    assert 0 < sum(matches) <= 2 * 6  # of each image when it matches


def test_a_layer_of_a_normalisation_that_would_be_folded_stays():
    encoder = load_encoder(Backbone("timm", "test_efficientnet", "random", {}, 0, "pooled"), seed=0)
    whole = Representation(encoder, "bn1.act")
    pixels = torch.rand(2, *whole.side)
    search = whole.searching()
    assert search is not whole
    torch.testing.assert_close(search(pixels), whole(pixels), rtol=1e-4, atol=1e-5)


def test_layers_that_give_no_row_for_each_image_are_refused():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.whole = nn.Identity(), nn.Identity()

        def forward(self, pixels):
            self.whole({"found": pixels})
            return self.parts(pixels.reshape(4 * len(pixels), -1)).reshape(len(pixels), -1)

    made = represented(Windows())
    pixels = images(2)
    with pytest.raises(
        ValueError, match=r"gives a row for each image, found 'parts', which makes \(8, 48\) of 2"
    ):
        Representation(made.encoder, "parts")(pixels)
    with pytest.raises(ValueError, match="that gives a tensor, found 'whole', which does not; name another"):
        Representation(made.encoder, "whole")(pixels)


def test_transformations_are_finite_numbers():
    with pytest.raises(
        ValueError, match=r"invert.methods.transform.scale: expected a finite number, found nan"
    ):
        Transformations(0.1, float("nan"), 0.0, 0.0)
