"""Attacks find perturbations that are known; what they claim is verified; gradients that mislead are told."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from alignet.attacks.attack import attack, verified
from alignet.attacks.minimum_norm import minimum_norm
from alignet.attacks.perturbation import MARGIN, norms, project
from alignet.attacks.pgd import pgd, random_start
from alignet.attacks.pgd_search import bisections, pgd_search
from alignet.attacks.stored import exact_norms
from alignet.config import AttackMethod, PgdSearch
from tests.makers.toy_networks import (
    Broken,
    Constant,
    Linear,
    Sphere,
    Staircase,
    classifier,
    convolutional,
    pictures,
)

FAST = AttackMethod("minimum_norm", "l2", 20, 10.0, 0)
SEARCH = PgdSearch("ball", 0.25, True, 1e-4, 1e-3, 1, "bound")
SPHERE = PgdSearch("sphere", 0.5, False, 0.001, 0.01, 1, "midpoint")


def own(classify, images):
    """The network's own answers."""
    return classify(images).argmax(1)


def least(classify, images, labels, norm):
    """The smallest norm that lets another class lead a linear network by MARGIN, without a border: closed form."""
    weights = classify.encoder.module.head.weight.detach().double()
    logits = classify(images).double()
    rows = torch.arange(len(images))
    difference = weights[labels][:, None] - weights[None]
    margin = logits[rows, labels][:, None] - logits + MARGIN
    dual = difference.norm(dim=2) if norm == "l2" else difference.abs().sum(2)
    return torch.where(dual > 0, margin / dual, torch.inf).amin(1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_smallest_perturbation_of_a_linear_network_is_found(norm):
    classify, images = classifier(Linear()), pictures()
    labels = own(classify, images)
    known = least(classify, images, labels, norm)
    fast = minimum_norm(classify, images, labels, norm=norm, high=10.0)
    searched = pgd_search(classify, images, labels, norm=norm, steps=10, high=2.0, search=SEARCH)
    assert fast.broken.all()
    np.testing.assert_allclose(norms(fast.images - images, norm).double() / known, 1, atol=0.01)
    found = norms(searched.images - images, norm).double()
    assert (found <= known + 0.001 + 0.01 * known).all()
    assert (found >= known * (1 - 1e-3)).all()  # nothing is nearer than the nearest


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_among_many_classes_the_nearest_is_found(norm):
    """But for ties: the class of the next largest logit may be a little farther than another."""
    classify, images = classifier(Linear(20)), pictures(64)
    labels = own(classify, images)
    found = minimum_norm(classify, images, labels, norm=norm, high=10.0)
    ratio = norms(found.images - images, norm).double() / least(classify, images, labels, norm)
    assert (ratio < 1.01).double().mean() > 0.95
    assert ratio.min() > 1 - 1e-3
    assert ratio.max() < 1.05


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_smallest_perturbation_of_a_two_layer_network_is_found(norm):
    """Out of a sphere: in l2 along the radius; in l-inf every pixel away from its middle by t, a quadratic in t."""
    classify, images = classifier(Sphere()), pictures()
    away = (images - 0.5).double().flatten(1)
    radius = (classify.encoder.module.radius**2 + MARGIN) ** 0.5
    if norm == "l2":
        known = radius - away.norm(dim=1)
    else:
        n, first = away.shape[1], away.abs().sum(1)
        known = (-first + (first**2 + n * (radius**2 - (away**2).sum(1))).sqrt()) / n
    found = minimum_norm(classify, images, torch.zeros(8, dtype=torch.int64), norm=norm, steps=30, high=10.0)
    np.testing.assert_allclose(norms(found.images - images, norm).double() / known, 1, atol=0.01)


def test_at_the_border_of_the_pixels_the_smallest_one_is_found():
    """With pixels at 0 and 1 a part cannot move: the nearest point of a half space within the box, by bisection."""
    classify = classifier(Linear())
    images = pictures(low=-0.5, high=1.5).clamp(0, 1)
    labels = own(classify, images)
    weights = classify.encoder.module.head.weight.detach().double()
    for image, label, got in zip(
        images, labels, minimum_norm(classify, images, labels, steps=40, high=10.0).images
    ):
        direction = (weights[1 - label] - weights[label]).view(3, 8, 8)
        low, high = 0.0, 1e3
        for _ in range(100):  # clip(x + lambda w) is the nearest point for each plane: the multiplier of KKT
            middle = (low + high) / 2
            point = (image.double() + middle * direction).clamp(0, 1)
            led = (direction * point).sum() + classify.encoder.module.head.bias.diff().double().sum() * (
                1 - 2 * label
            )
            low, high = (low, middle) if led > MARGIN else (middle, high)
        known = ((image.double() + high * direction).clamp(0, 1) - image.double()).norm()
        assert (got - image).double().norm() == pytest.approx(known.item(), rel=0.01)


def test_pgd_is_foolboxs_at_equal_settings():
    foolbox = pytest.importorskip("foolbox")
    from alignet.attacks.foolbox_attacks import _Module

    classify, images = convolutional(), pictures(low=0.0, high=1.0)
    labels = own(classify, images)
    model = foolbox.PyTorchModel(_Module(classify).eval(), bounds=(0, 1), device="cpu")
    for norm, kind in (("l2", foolbox.attacks.L2PGD), ("linf", foolbox.attacks.LinfPGD)):
        eps = 0.5 if norm == "l2" else 0.03
        theirs = kind(abs_stepsize=0.3 * eps, steps=7, random_start=False)(
            model, images, labels, epsilons=eps
        )[1]
        ours = pgd(classify, images, labels, torch.full((8,), eps), norm=norm, steps=7, step=0.3)
        assert (ours - theirs).abs().max() < 5e-3 * eps
        # foolbox's cut results may overshoot the ball a little, ours not
        assert norms(ours - images, norm).max() <= eps * (1 + 1e-6)


@pytest.mark.parametrize("algorithm", ["ddn", "fmn", "deepfool", "carlini_wagner"])
def test_foolbox_attacks_answer_otherwise_and_are_no_nearer_than_the_nearest(algorithm):
    pytest.importorskip("foolbox")
    classify, images = classifier(Linear()), pictures()
    method = AttackMethod(algorithm, "l2", 50, 10.0, 0)
    found = attack(classify, images, own(classify, images), method)
    found |= verified(classify, found, method, 8)
    nothing = attack(classify, images, own(classify, images), replace(method, high=1e-3))
    np.testing.assert_array_equal(nothing["attacked"], nothing["image"])  # what is too far is not kept
    assert found["broken"].all()
    known = least(classify, images, own(classify, images), "l2").numpy()
    ratio = exact_norms(found["image"], found["attacked"], "l2") / known
    assert ratio.min() > 0.99
    assert np.median(ratio) < 1.05


def plain_search(classify, image, label, steps, step, low, high, threshold):
    """Algorithm 1 as printed, for one image: PGD on the sphere in every round, and once more at the end."""

    def attacked(eps):
        moved = torch.zeros_like(image)
        for _ in range(steps):
            pixels = (image + moved).requires_grad_()
            loss = F.cross_entropy(classify(pixels), label)
            (gradient,) = torch.autograd.grad(loss, pixels)
            moved = moved + step * gradient / gradient.norm()
            moved = (image + moved * eps / moved.norm()).clamp(0, 1) - image
        return (image + moved).clamp(0, 1)

    while high - low >= threshold:
        middle = low + (high - low) / 2
        logits = classify(attacked(middle))[0]
        if logits.argmax() != label[0]:
            high = middle
        else:
            low = middle
    return attacked(middle), attacked(high)


def test_the_search_is_algorithm_1_of_single_images():
    classify, images = convolutional(), pictures()
    labels = own(classify, images)
    at_middle = pgd_search(classify, images, labels, norm="l2", steps=3, high=10.0, search=SPHERE)
    at_bound = pgd_search(
        classify, images, labels, norm="l2", steps=3, high=10.0, search=replace(SPHERE, keep="bound")
    )
    for row in range(len(images)):
        one = slice(row, row + 1)
        middle, bound = plain_search(classify, images[one], labels[one], 3, 0.5, 0.001, 10.0, 0.01)
        torch.testing.assert_close(at_middle.images[one], middle, rtol=0, atol=1e-5)
        torch.testing.assert_close(at_bound.images[one], bound, rtol=0, atol=1e-5)
    assert at_bound.broken.all()
    assert not at_middle.broken.all()  # where the last midpoint failed, what is printed is no attack
    assert bisections(SPHERE, 10.0) == 10


def test_the_two_stages_of_the_published_code_bisect_on_the_right_side():
    classify, images = classifier(Sphere(2.6)), pictures()
    labels = torch.zeros(8, dtype=torch.int64)
    known = 2.6 - (images - 0.5).flatten(1).norm(dim=1)
    search = replace(SPHERE, stages=2, keep="bound")
    assert known.min() < 1 < known.max()
    found = norms(
        pgd_search(classify, images, labels, norm="l2", steps=3, high=10.0, search=search).images - images,
        "l2",
    )
    assert ((found - known)[known < 1] < 0.01 + 1e-4).all()
    assert ((found - known)[known > 1] < 0.1 + 1e-4).all()
    unbroken = pgd_search(
        classify, images, labels, norm="l2", steps=3, high=float(known.median()), search=search
    )
    assert (unbroken.broken == (known < known.median())).all()


@pytest.mark.parametrize(
    ("search", "method", "message"),
    [
        ({"step": float("inf")}, {}, "^attack.methods.search.step: expected a finite number, found inf$"),
        ({"low": float("nan")}, {}, "^attack.methods.search.low: expected a finite number, found nan$"),
        ({"threshold": float("inf")}, {}, "^attack.methods.search.threshold: expected a finite number, found inf$"),
        (
            {"threshold": 9e-6}, {},
            r"^attack.methods.search.threshold: expected at least 1e-06 of high \(10\), since norms are float32, found "
            "9e-06$",
        ),
        (
            {"stages": 2}, {"high": 2e5},
            "^attack.methods.high: expected at most 100000 with search.stages=2, whose bisection ends at a width of "
            "0.1 and whose norms are float32, found 200000$",
        ),
        ({}, {"high": float("inf")}, "^attack.methods.high: expected a finite number, found inf$"),
    ],
)  # fmt: skip
def test_a_search_that_would_not_end_is_refused(search, method, message):
    with pytest.raises(ValueError, match=message):
        replace(AttackMethod("pgd", "l2", 1, 10.0, 0, SPHERE), **method, search=replace(SPHERE, **search))


@pytest.mark.parametrize(
    ("search", "high"),
    [
        (replace(SPHERE, threshold=1e-5), 10.0),
        (replace(SPHERE, stages=2), 1e5),
        (replace(SPHERE, threshold=0.1), 1e5),
    ],
)
def test_the_finest_search_that_is_allowed_ends(search, high):
    """Between norms that float32 still tells apart, on images that are broken and on one that nothing breaks."""
    method = AttackMethod("pgd", "l2", 1, high, 0, replace(search, keep="bound"))
    for network, broken in ((Linear(), True), (Constant(), False)):
        classify, images = classifier(network), pictures(2)
        found = pgd_search(
            classify,
            images,
            own(classify, images),
            norm="l2",
            steps=1,
            high=method.high,
            search=method.search,
        )
        assert found.broken.tolist() == [broken] * 2


def test_projections_and_random_starts_stay_within():
    drawn = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    eps = torch.linspace(0.1, 20, 6)
    for norm in ("l2", "linf"):
        inside = project(drawn, eps, norm)
        assert (norms(inside, norm) <= eps * (1 + 1e-6)).all()
        torch.testing.assert_close(project(inside, eps, norm), inside)
        torch.testing.assert_close(norms(project(drawn, eps, norm, "sphere"), norm), eps)
        images = pictures(6)
        start = random_start(images, torch.full((6,), 0.1), norm, torch.Generator().manual_seed(0))
        assert (norms(start, norm) <= 0.1 + 1e-6).all()
        assert ((images + start >= 0) & (images + start <= 1)).all()


def test_eight_bit_has_a_search_of_its_own():
    """At the norm found in float, rounding undoes the perturbation; what is stored in 8 bit is answered otherwise."""
    classify = classifier(Linear(scale=0.5))
    images = (pictures() * 255).round().to(torch.uint8)
    found = attack(classify, images, own(classify, classify.pixels(images)), FAST)
    found |= verified(classify, found, FAST, 3)
    rounded = np.round(found["attacked"] * 255).astype(np.uint8)
    undone = verified(classify, found | {"attacked8": rounded}, FAST, 3)["broken8"]
    assert found["broken"].all()
    assert found["broken8"].all()
    assert not undone.all()
    longer = exact_norms(found["image"], found["attacked8"], "l2") / exact_norms(
        found["image"], found["attacked"], "l2"
    )
    assert (longer[~undone] > 1).all()
    assert longer.max() < 10
    assert found["attacked8"].dtype == np.uint8


def test_only_what_is_right_at_first_is_attacked():
    classify, images = classifier(Linear(5)), pictures()
    labels = own(classify, images)
    labels[2], labels[5] = -1, (labels[5] + 1) % 5
    found = attack(classify, images, labels, FAST)
    found |= verified(classify, found, FAST, 8)
    assert np.flatnonzero(~found["tried"]).tolist() == [2, 5]
    np.testing.assert_array_equal(found["attacked"][2], found["image"][2])
    assert (found["broken"] == found["tried"]).all()
    assert attack(classify, images, labels, FAST, any_answer=True)["tried"].all()
    with pytest.raises(ValueError, match=r"expected classes in 0\.\.4, found 5"):
        attack(classify, images, labels + 2, FAST)


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_how_sure_a_network_is_changes_nothing(scale):
    """The cross-entropy's gradient of a sure network is 0 in float32; its direction is not."""
    classify, images = classifier(Linear(5)), pictures()
    labels = own(classify, images)
    known = least(classify, images, labels, "l2")
    with torch.no_grad():
        for held in classify.encoder.module.parameters():
            held *= scale
    fast = minimum_norm(classify, images, labels, high=10.0)
    np.testing.assert_allclose(norms(fast.images - images, "l2").double() / known, 1, atol=0.01)
    searched = pgd_search(classify, images, labels, norm="l2", steps=3, high=10.0, search=SPHERE)
    assert not searched.no_gradient.any()


def test_a_network_without_finite_answers_is_refused():
    classify, images = classifier(Linear()), pictures()
    with torch.no_grad():
        classify.encoder.module.head.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="expected finite logits, found NaN or infinity for 8 of 8 images"):
        attack(classify, images, torch.zeros(8, dtype=torch.int64), FAST)


def test_pixels_between_levels_are_rounded_before_8_bit_is_measured():
    """Rounding the image itself is no perturbation; an image that rounding alone turns is not attacked in 8 bit."""
    classify, images = classifier(Linear()), pictures()
    found = attack(classify, images, own(classify, images), FAST)
    found |= verified(classify, found, FAST, 8)
    levels = np.round(found["image"] * 255).astype(np.uint8)
    np.testing.assert_allclose(found["length8"], exact_norms(levels, found["attacked8"], "l2"))
    turned = found["top1"] != own(classify, torch.from_numpy(levels).float() / 255).numpy()
    assert not (found["broken8"] & turned).any()
    unchanged = verified(classify, found | {"attacked8": levels}, FAST, 8)
    assert not unchanged["broken8"].any()


def test_a_claim_is_not_a_success():
    """Out of range, too far, not a number, unchanged, or the same answer: each is found from what is stored."""
    classify, images = classifier(Linear()), pictures()
    found = attack(classify, images, own(classify, images), FAST)
    assert verified(classify, found, FAST, 8)["broken"].all()
    wrong = {name: value.copy() for name, value in found.items()}
    wrong["attacked"][0, 0, 0, 0] = 1 + 1e-6
    wrong["attacked"][1, 0, 0, 0] = np.nan
    wrong["attacked"][2] = wrong["image"][2]
    wrong["attacked"][3] = (wrong["attacked"][3] + 99 * wrong["image"][3]) / 100
    wrong["tried"][4] = False
    assert verified(classify, wrong, FAST, 8)["broken"].tolist() == [False] * 5 + [True] * 3
    length = exact_norms(found["image"], found["attacked"], "l2")
    near = replace(FAST, high=float(np.sort(length)[3]))
    assert verified(classify, found, near, 8)["broken"].sum() == 4


@pytest.mark.parametrize(("network", "blind"), [(Staircase, True), (Broken, None), (Constant, False)])
def test_gradients_that_mislead_are_told(network, blind):
    """Rounded logits: no gradient, while a blind step breaks some. A constant network: nothing breaks it."""
    classify, images = classifier(network(scale=1.0)), pictures()
    found = attack(classify, images, own(classify, images), FAST)
    found |= verified(classify, found, FAST, 8)
    assert found["no_gradient"].all()
    assert not found["broken"].any()
    if blind is not None:
        assert found["blind"].any() == blind
    assert np.isfinite(found["attacked"]).all()
    honest = attack(classifier(Linear()), images, own(classifier(Linear()), images), FAST)
    assert not honest["blind"].any()
    assert not honest["no_gradient"].any()


def test_what_is_unbroken_within_the_largest_norm_is_not_broken():
    classify, images = classifier(Linear()), pictures()
    labels = own(classify, images)
    known = least(classify, images, labels, "l2").numpy()
    method = replace(FAST, high=float(np.median(known)))
    found = attack(classify, images, labels, method)
    found |= verified(classify, found, method, 8)
    np.testing.assert_array_equal(found["broken"], known < np.median(known))
    np.testing.assert_array_equal(found["attacked"][~found["broken"]], found["image"][~found["broken"]])


def test_the_same_attack_twice_is_the_same_and_hardly_depends_on_the_batch():
    classify, images = convolutional(), pictures()
    labels = own(classify, images)
    first, second = (attack(classify, images, labels, FAST) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    alone = [attack(classify, images[row : row + 1], labels[row : row + 1], FAST) for row in range(8)]
    for row, one in enumerate(alone):
        assert exact_norms(one["image"], one["attacked"], "l2") == pytest.approx(
            exact_norms(first["image"], first["attacked"], "l2")[row : row + 1], rel=0.01
        )


def test_foolbox_is_asked_for_where_it_is_lacking(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "foolbox", None)
    classify, images = classifier(Linear()), pictures()
    with pytest.raises(ValueError, match=r"expected the package foolbox for ddn.*alignet\[attacks\]"):
        attack(classify, images, own(classify, images), AttackMethod("ddn", "l2", 5, 10.0, 0))
