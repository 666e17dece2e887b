"""What `plan` reckons of inversions, perceptual distances and the losses of training: against what torch counts."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from alignet.backbones import Backbone, load_encoder
from alignet.doctor.estimate_base import SMALL
from alignet.doctor.findings import duration
from alignet.doctor.measure_attacks import forward_passes
from alignet.invariances.layers import EncoderLayers
from alignet.invariances.optimizers import MEMORY, Optimizer
from alignet.invariances.perceptual import LayerDistance
from alignet.invariances.trunks import stlpips_distance
from alignet.pipeline.cli import load
from alignet.plan.advice import beyond, dealt
from alignet.plan.invert import QUASI
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
    assert "x 20 forward and backward passes at most, 15 of them with teacher; " in far.how
    assert "with teacher" not in free.how
    # 15 steps with a gradient; the target and the end without
    assert far.work.flops - free.work.flops == pytest.approx(40 * 2 * (15 * 2 + 2) * teacher.forward)


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
    assert trunk.kind == "convolution"
    assert trunk.weights == pytest.approx(4 * 2.47e6, rel=0.01)
    assert own._trunk("pixels", 80).kept == images.nbytes


def test_layers_of_a_transformer_are_those_that_are_named():
    size, six = 32, tuple(f"blocks.{row}" for row in range(0, 12, 2))
    own = planner(
        "experiment=paper", "student.architecture=vit_tiny_patch16_224", f"student.image_size={size}"
    )
    backbone = Backbone("timm", "vit_tiny_patch16_224", "random", {"num_classes": 4}, size, "pooled")
    encoder = load_encoder(backbone, seed=0)
    for layers in (six, six[:2], ()):
        kept = LayerDistance("student", EncoderLayers(encoder, layers)).embed(torch.rand(1, 3, size, size))
        assert len(kept) == (len(layers) or 5)
        assert 4 * own._values("student", layers) == sum(one.nbytes for one in kept)


def test_distances_are_dealt_whole_among_processes():
    given = ("experiment=invariance", "perceptual.use=[stlpips_alex,pixels,stlpips_vgg,teacher]")
    key = "perceptual[student.mapped_test.free]"
    one, two, many = (planned(*given, f"plan.count={count}")[key] for count in (1, 2, 9))
    assert one.work == two.work == many.work
    alex, pixels, vgg, teacher = one.parts
    assert alex + vgg > pixels + teacher > 0
    assert one.seconds == pytest.approx(SMALL + sum(one.parts))
    assert two.seconds == pytest.approx(SMALL + alex + vgg)  # the first process has every second distance
    assert many.seconds == pytest.approx(SMALL + max(one.parts))


def test_no_more_machines_are_advised_than_there_are_distances():
    config = load(["experiment=invariance", "plan.count=2"])
    machine, sizes = machine_of("2cores", config.plan.machines, 2), Sizes(config)
    every, day = planned("experiment=invariance", "plan.count=2"), 86_400.0
    key = "perceptual[student.mapped_test.free]"

    def advised(*days):
        parts = tuple(day * one for one in days)
        slow = dataclasses.replace(every[key], seconds=dealt(parts, 2), parts=parts)
        return [
            line for line in beyond(config, machine, sizes, [*(every | {key: slow}).values()]) if key in line
        ]

    (line,) = advised(0.9, 0.2, 0.9, 0.2)
    assert (
        f"{key} takes {duration(1.8 * day)}: 4 of these machines would take a day" in line
    )  # 3 take 1.1 days
    (line,) = advised(3.0, 0.2, 0.2)
    assert f"3 of these machines would take {duration(3 * day)}, a distance each" in line
    assert not advised(0.9, 0.9)


def test_arrays_of_a_step_of_the_optimizer_are_those_that_it_reads_and_writes():
    method, places = load(["experiment=invariance"]).invert.methods["free"], torch.rand(2, 3, 64, 64)
    assert method.optimizer == "quasi_newton"
    optimizer, error = Optimizer(method, places, MEMORY, last=True), torch.ones(2)

    class Counter(TorchDispatchMode):
        moved = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if not function.is_view and "view" not in str(function):
                held = [one for one in tree_leaves((args, kwargs, out)) if isinstance(one, torch.Tensor)]
                self.moved += sum(one.nbytes for one in held)
            return out

    for row in range(MEMORY + 2):  # until it keeps all the changes that it keeps
        gradient = places - 0.5 + torch.rand(places.shape, generator=torch.Generator().manual_seed(row)) / 100
        with Counter() as counter:
            places = optimizer.move(places, gradient, error, True)
        places = places.clamp(0, 1)
    assert counter.moved / places.nbytes == pytest.approx(QUASI, rel=0.01)


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
