"""What `plan` reckons of inversions, perceptual distances and the losses of training: against what torch counts."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from alignet.backbones import Backbone, load_encoder
from alignet.doctor.measure_attacks import forward_passes
from alignet.invariances.layers import EncoderLayers
from alignet.invariances.perceptual import LayerDistance
from alignet.invariances.trunks import stlpips_distance
from alignet.pipeline.cli import load
from alignet.plan.machines import machine_of
from alignet.plan.networks import network_of
from alignet.plan.nodes import _Planner
from alignet.plan.sizes import Sizes
from tests.makers.toy_networks import SIDE, classifier
from tests.plan.test_plan import planned

STEPS = "invert.methods.free.steps=50"


def planner(*given):
    config = load(list(given))
    plan = config.plan
    return _Planner(config, machine_of(plan.machine, plan.machines, plan.count), Sizes(config))


def test_inversions_are_planned():
    given = ("experiment=paper", "+also=four", "plan.images=100000", "doctor.assume.attack_images=50")
    given += ("doctor.assume.where_images=50", STEPS, "invert.images=40")
    found = planned(*given)
    (key,) = [key for key in found if key.startswith("invert[alignet.")]
    student = network_of(load(["experiment=paper"]).student)
    values = 3 * student.size**2
    # of each draw 50 forward and backward passes by pixels alone, the target and the end; of each target itself and
    # three images of each draw, checked
    passes = 40 * 2 * (2 * 50 + 2) + 40 * (1 + 3 * 2)
    assert found[key].work.flops == pytest.approx(passes * student.forward)
    assert found[key].disk == 40 * (values * (1 + 2 * 6) + 400)
    fewer = planned(*given, "invert.images=10", "invert.draws=1")[key]
    assert fewer.disk == 10 * (values * (1 + 6) + 400)
    compared = found[key.replace("invert", "perceptual")]
    assert compared.disk == 4 * (40 * 2 * 2 + 40 * 2 * 40 + 40 * 40)
    on_gpu = planned(*given, "plan.machine=24gb")[key]
    assert on_gpu.seconds < found[key].seconds
    assert on_gpu.gpu > 0


def test_a_distance_that_is_pushed_up_is_counted_in_each_step():
    given = (
        "experiment=invariance",
        "invert.methods.adversarial.steps=20",
        "invert.methods.adversarial.finish=5",
    )
    found = planned(*given, "invert.methods.free.steps=20")
    free, far = (found[f"invert[student.mapped_test.{name}]"] for name in ("free", "adversarial"))
    teacher = network_of(load(["experiment=invariance"]).teacher)
    # 15 steps with a gradient and the target; 6 looks of two images each without
    assert far.work.flops - free.work.flops == pytest.approx(40 * 2 * (15 * 2 + 15 + 12) * teacher.forward)


def test_what_a_distance_keeps_and_computes_is_what_it_makes():
    own = planner("experiment=four")
    teacher = own.config.teacher
    backbone = Backbone("timm", teacher.architecture, "random", dict(teacher.model_args), 64, "output")
    encoder = load_encoder(backbone, seed=0)
    for layers in ((), ("layer2", "layer4")):
        kept = LayerDistance("teacher", EncoderLayers(encoder, layers)).embed(torch.rand(1, 3, 64, 64))
        assert 4 * own._values("teacher", layers) == sum(one.nbytes for one in kept)
    trunk, distance = own._trunk("stlpips_alex", 80), stlpips_distance("alex", "alex")
    images, counter = torch.rand(1, 3, 80, 80), FlopCounterMode(display=False)
    with counter, torch.no_grad():
        kept = distance.embed(images)
    assert (trunk.flops, trunk.kept) == (counter.get_total_flops(), sum(one.nbytes for one in kept))
    assert trunk.weights == pytest.approx(4 * 2.47e6, rel=0.01)
    assert own._trunk("pixels", 80).kept == images.nbytes


@pytest.mark.parametrize("name", ["standard", "trades-6", "mart-6", "simclr", "simclr-adversarial"])
def test_losses_are_planned(name):
    given = [
        "experiment=ingredients",
        "robust.settings.steps=50",
        "robust.settings.batch=8",
        "robust.settings.warmup=0",
    ]
    student, role = network_of(load(given).student), load(given).robust.roles[name]
    for more, again in (([], False), (["runtime.recompute=true"], True)):
        cost = planned(*given, *more)[f"robust[{name}]"]
        flops = cost.work.flops - 6 * student.parameters * 50
        assert flops == pytest.approx(50 * 8 * forward_passes(role, recompute=again) * student.forward)
    kept = f"+robust.roles.{name}.snapshots=[10, 50]"
    rows = f"evaluate.datasets.fine.settings=[{name}, {name}@10]"
    found = planned(*given, kept, rows)
    assert found[f"robust[{name}@10]"].disk == 4 * student.parameters
    assert found[f"robust[{name}]"].disk == cost.disk + 4 * 4 * student.parameters


class Deep(nn.Module):
    """Products alone, so that a backward pass has twice those of a forward pass; by pixels alone once."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        width = 3 * SIDE * SIDE
        self.body = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(40)))
        self.head = nn.Linear(width, 2)

    def get_classifier(self):
        return self.head

    def forward_features(self, images):
        return self.body(images.flatten(1))

    def forward_head(self, features, pre_logits=False):
        return features if pre_logits else self.head(features)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


def test_passes_of_a_step_of_every_loss_are_what_torch_counts():
    from alignet.attacks.train import adversarial_training
    from alignet.harmonizer.batches import Labelled

    config = load(["experiment=ingredients"]).robust
    settings = dataclasses.replace(config.settings, steps=1, warmup=0, batch=4, lr=0.0)
    classify = classifier(Deep())
    classify.encoder = dataclasses.replace(classify.encoder, width=3 * SIDE * SIDE)
    data = Labelled(torch.zeros(8, 3, SIDE, SIDE, dtype=torch.uint8), np.arange(8) % 2)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        classify(torch.zeros(4, 3, SIDE, SIDE))
    forward, counted = counter.get_total_flops(), {}
    for name, role in config.roles.items():
        if role.loss in counted and role.attacks == (role.loss != "simclr"):
            continue
        with counter:
            adversarial_training(classify.encoder, data, settings, role)
        counted[role.loss] = counter.get_total_flops() / forward
        assert counted[role.loss] == pytest.approx(forward_passes(role, recompute=False), rel=0.04), name
    assert set(counted) == {"cross_entropy", "adversarial", "trades", "mart", "simclr"}
