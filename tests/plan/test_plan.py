"""What `plan` reckons: closed forms against counted ones, machines against each other, the command line."""

import dataclasses
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from alignet.doctor.measure_attacks import forward_passes
from alignet.pipeline.cli import conf_folder, load
from alignet.pipeline.graph import build_graph
from alignet.plan import advice, costs, formulas
from alignet.plan.constants import REFERENCE, UNITS
from alignet.plan.costs import embed_bytes, kept_bytes
from alignet.plan.formulas import Work
from alignet.plan.machines import machine_of
from alignet.plan.networks import counted, network_of, saved, vit_of
from alignet.plan.nodes import distinct_images, plan_nodes
from alignet.plan.sizes import Sizes
from alignet.stages.plan import main, rows

TRANSFORMERS = {  # by timm's names; published: multiply-adds (10^9) and parameters (10^6)
    "vit_small_patch16_224.augreg_in1k": (
        4.6,
        22.1,
    ),  # Touvron et al. 2021, DeiT, table 5, with its classifier
    "vit_base_patch16_224.augreg_in1k": (17.6, 86.6),  # the same
    "vit_large_patch16_224.augreg_in21k_ft_in1k": (61.6, 304.3),  # Touvron et al. 2022, DeiT III
    "vit_so400m_patch14_siglip_224": (
        None,
        428,
    ),  # Zhai et al. 2023: 400 million, pooling by attention included
    "vit_base_patch16_siglip_224": (None, 92.9),
    "vit_base_patch14_dinov2.lvd142m": (None, 86.6),  # at 224 px
    "vit_base_patch16_dinov3": (None, 85.7),
}


def planned(*overrides: str):
    config = load(list(overrides))
    plan = config.plan
    machine = machine_of(plan.machine, plan.machines, plan.count)
    return {cost.key: cost for cost in plan_nodes(config, machine)}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_closed_form_of_transformers_is_what_torch_counts(name: str) -> None:
    size = 224 if "dinov2" in name else 0
    vit = vit_of("timm", name, size)
    assert vit is not None
    network, found = vit.network(), counted(name, {"img_size": 224} if size else {}, size)
    assert network.forward == found.forward
    assert network.parameters == pytest.approx(found.parameters, rel=0.003)  # layer scale, rotary embeddings
    assert (network.width, network.size, network.kind) == (found.width, found.size, "transformer")
    multiply_adds, parameters = TRANSFORMERS[name]
    if multiply_adds is not None:
        assert network.forward / 2e9 == pytest.approx(multiply_adds, rel=0.01)
    assert network.parameters / 1e6 == pytest.approx(parameters, rel=0.02)


@pytest.mark.parametrize(("reduced", "products"), [(False, False), (True, False), (True, True)])
def test_activations_of_a_transformer_are_what_autograd_keeps(reduced: bool, products: bool) -> None:
    import timm

    module = timm.create_model("vit_small_patch16_224", num_classes=0, depth=2).eval()
    for part in module.modules():
        if products and hasattr(part, "fused_attn"):
            part.fused_attn = False
    kept = []
    for images in (1, 3):  # copies of weights in bfloat16 are kept once
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
            kept.append(saved(module, torch.zeros(images, 3, 224, 224))[0])
    each = (kept[1] - kept[0]) / 2
    vit = vit_of("timm", "vit_small_patch16_224", 0)
    assert vit is not None
    network = vit.network()
    assert kept_bytes(network, reduced, False, products=products) / 6 == pytest.approx(each, rel=0.12)


def test_frozen_layers_cost_no_backward_pass() -> None:
    blocks = [f"blocks.{number}." for number in range(6)]
    whole = counted("vit_small_patch16_224", {})
    half = counted("vit_small_patch16_224", {}, frozen=("patch_embed", "cls_token", "pos_embed", *blocks))
    assert whole.training == 3 * whole.forward
    assert half.forward == whole.forward
    assert half.training == pytest.approx(2 * whole.forward, rel=0.05)
    assert half.trained == pytest.approx(whole.trained / 2, rel=0.05)
    assert half.kept32 == pytest.approx(whole.kept32 / 2, rel=0.05)


def test_names_of_the_configured_models_are_understood() -> None:
    import yaml

    from alignet.config import ModelSettings
    from alignet.config.building import build
    from alignet.pipeline.cli import conf_folder, names_in

    for group in ("student", "teacher"):
        for name in names_in(group):
            text = (conf_folder() / group / f"{name}.yaml").read_text(encoding="utf-8")
            model = build(ModelSettings, yaml.safe_load(text), name)
            if model.library in ("timm", "open_clip"):
                assert network_of(model).forward > 1e7, name
    assert network_of(load(["teacher=siglip_so400m"]).teacher).forward == pytest.approx(2.2e11, rel=0.01)
    with pytest.raises(
        ValueError,
        match=r"known by its name.*, found transformers dinov2; give the model a shape known by its name",
    ):
        network_of(load(["student.library=transformers", "student.architecture=dinov2"]).student)


def test_products_are_what_torch_counts() -> None:
    from alignet.teacher.fit_affine_map import objective

    m, p, b = 30, 16, 500
    triplets = torch.stack([torch.randperm(m)[:3] for _ in range(b)])
    targets = torch.full((b, 3), 1 / 3)
    counter = FlopCounterMode(display=False)
    with counter:
        objective(torch.eye(p), torch.zeros(p), torch.randn(m, p), triplets, targets, penalty=0.1)
    assert formulas.map_step(m, p, b).units["product"] == counter.get_total_flops()
    with counter:
        torch.randn(m, p) @ torch.randn(p, b)
    assert formulas.product(m, p, b).flops == counter.get_total_flops()


def test_work_adds_up_and_grows_as_it_says() -> None:
    one, two = Work(1, 2, {"draw": 3}), Work(10, 20, {"draw": 1, "label value": 2})
    assert one + two == Work(11, 22, {"draw": 4, "label value": 2})
    assert two.times(2) == Work(20, 40, {"draw": 2, "label value": 4})
    assert formulas.label(10, 1152, 2).bytes == 10 * 3 * 1152 * 2
    assert formulas.kmeans(1000, 8, 5, 3).flops == 2 * 1000 * 8 * 5 * 3
    batches = formulas.vice_step(1854, 100, 256).flops - formulas.vice_step(1854, 100, 128).flops
    assert batches == 24 * 100 * 128


def test_a_unit_takes_longer_where_its_resource_is_slower() -> None:
    machines = load([]).plan.machines
    here, gpu = machine_of(REFERENCE, machines, 1), machine_of("h200", machines, 1)
    assert gpu.gpu is not None
    for name, unit in UNITS.items():
        assert here.seconds(Work(units={name: 1})) == pytest.approx(unit.seconds)
    assert here.seconds(Work(units={"transformer": 1e9}), reduced=True) == pytest.approx(
        1e9 * UNITS["transformer"].seconds * machines[REFERENCE].float32 / machines[REFERENCE].bfloat16
    )
    read = Work(units={"decoded byte": 1e6})
    assert gpu.seconds(read) == pytest.approx(here.seconds(read) * 2 / machines["h200"].cores)
    forward = Work(units={"transformer": 1e12})
    assert gpu.seconds(forward, on_gpu=True, reduced=True) == pytest.approx(
        1e12 / (gpu.gpu.bfloat16 * gpu.gpu.share)
    )
    assert gpu.seconds(Work(units={"draw": 1})) == here.seconds(Work(units={"draw": 1}))  # one core


def test_costs_follow_the_configuration() -> None:
    base = planned("experiment=paper", "plan.machine=h200")
    assert all(cost.seconds > 0 and cost.host > 0 for cost in base.values())
    assert set(base) == set(build_graph(load(["experiment=paper"])))
    teacher = base["embed[teacher.pool]"]
    assert teacher.work.flops == pytest.approx(1_281_167 * 2.2035e11, rel=1e-3)
    assert teacher.disk == pytest.approx(1_281_167 * (2 * 1152 + 40))
    assert base["triplets[alignet]"].disk == 36 * 10**7 + 40 * 1_281_167
    twice = planned("experiment=paper", "plan.machine=h200", "finetune.settings.steps=200000")
    assert twice["finetune[alignet]"].work.flops == pytest.approx(2 * base["finetune[alignet]"].work.flops)
    more = planned("experiment=paper", "plan.machine=h200", "plan.images=12811670", "plan.triplets=1000000")
    assert more["embed[teacher.pool]"].seconds == pytest.approx(10 * teacher.seconds, rel=0.01)
    assert more["triplets[distillation]"].work.units["draw"] == 10**6
    # people do not grow with images
    assert more["vice"] == base["vice"]
    eight = planned("experiment=paper", "plan.machine=h200", "plan.count=8")
    assert eight["embed[teacher.pool]"].seconds == pytest.approx(teacher.seconds / 8, rel=0.01)
    assert eight["cluster[alignet]"].seconds == base["cluster[alignet]"].seconds
    faster = planned("experiment=paper", "plan.machine=h200", "embed.compute=bf16")
    assert faster["embed[teacher.pool]"].seconds < teacher.seconds / 2
    slower = planned("experiment=paper", "plan.machine=24gb")
    assert slower["finetune[alignet]"].seconds > base["finetune[alignet]"].seconds


def test_embedding_is_planned_as_it_streams() -> None:
    from alignet.backbones import inference

    assert (costs.PASS, costs.ON_DEVICE) == (inference.PASS, inference._ON_DEVICE)
    pool, machines = "embed[teacher.pool]", load([]).plan.machines
    images = 1_281_167

    def of(machine: str, *more: str):
        return planned("experiment=paper", f"plan.machine={machine}", *more)[pool]

    network = network_of(load(["experiment=paper"]).teacher)
    here, h200 = machine_of("2cores", machines, 1), machine_of("h200", machines, 1)
    read, forward = formulas.read(images, 115_000), formulas.forward(images, network.forward, network.kind)
    # cores do one thing at a time, whoever reads
    for workers in (0, 2):
        assert of("2cores", f"plan.workers={workers}").seconds == pytest.approx(
            here.seconds(read) + here.seconds(forward), rel=1e-3
        )
    # beside a GPU threads read
    cores = machines["h200"].cores
    alone = of("h200", "plan.workers=0", "runtime.threads=1", "embed.compute=bf16")
    assert alone.seconds == pytest.approx(h200.seconds(read) * cores, rel=1e-3)
    assert of("h200").seconds == pytest.approx(h200.seconds(forward, on_gpu=True), rel=1e-3)
    # memory: of a pass for each thread on a CPU, of two on a GPU
    more = of("2cores", "runtime.threads=3").host - of("2cores").host
    assert more == pytest.approx(16 * (network.working + 3 * network.size**2))
    assert of("2cores", "embed.batch=128").host == of("2cores").host
    assert of("h200").gpu == pytest.approx(costs.CONTEXT + embed_bytes(network, 64, 2, True))
    assert of("h200", "embed.batch=128").gpu - of("h200").gpu == pytest.approx(2 * 64 * network.working)


def test_memory_that_is_counted_once_and_files_that_are_waited_for() -> None:
    here, there = (planned("experiment=paper", f"plan.machine={name}") for name in ("2cores", "h200"))
    n, arrays = 4_120_663, 8 * 1854 * load(["experiment=paper"]).vice.settings.dim * formulas.ENTRY_ARRAYS
    assert there["vice"].gpu == pytest.approx(costs.CONTEXT + 24 * n + arrays, rel=0.01)
    assert here["vice"].host == pytest.approx(costs.PROCESS + 24 * n + arrays, rel=0.01)
    # mapped features beyond a quarter of the memory stand in a file, which is written and read
    drawn, disk = here["triplets[alignet]"], 1e9
    machine = machine_of("2cores", load([]).plan.machines, 1)
    mapped = 4 * 1_281_167 * 1152
    assert drawn.seconds == pytest.approx(machine.seconds(drawn.work) + 2 * mapped / disk, rel=0.02)


def test_the_world_and_photographs_need_no_numbers() -> None:
    world = planned()
    assert world["embed[teacher.pool]"].how.startswith("2,000 images")
    assert planned("world.pool=1500")["embed[teacher.pool]"].how.startswith("1,500 images")
    photos = planned("experiment=photos", "paths.photos=none")
    assert "17,296 triplets" in photos["finetune[alignet]"].how


def test_unknown_numbers_are_asked_for() -> None:
    own = ("experiment=own", "paths.images=none", "paths.map=none")
    with pytest.raises(ValueError, match=r"images of pool, found none; add plan.images=NUMBER"):
        planned(*own)
    assert planned(*own, "plan.images=5000")["embed[teacher.pool]"].how.startswith("5,000 images")
    with pytest.raises(
        ValueError, match=r"triplets of human_train, found none; add \+\+doctor.assume.human_train"
    ):
        planned(
            "experiment=own_triplets",
            "paths.images=x",
            "paths.people=x",
            "plan.images=50",
            "++doctor.assume.objects=9",
        )


def test_a_grid_of_clusters_that_a_small_pool_cannot_have() -> None:
    with pytest.raises(
        ValueError, match=r"cluster\.grid: expected numbers of clusters of at most the pool's 40 images"
    ):
        planned(
            "experiment=own",
            "paths.images=none",
            "paths.map=none",
            "cluster.grid=[100,200]",
            "plan.images=40",
        )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("plan.machine=laptop", "plan.machine: expected one of 2cores, 24gb, h200, found 'laptop'"),
        ("plan.size=trillion", "plan.size: expected one of imagenet, billion, found 'trillion'"),
        ("plan.images=2", "plan.images: expected at least 3, found 2"),
        ("plan.images=1e9", "plan.images: expected a whole number or null, found 1000000000.0"),
        ("plan.count=0", "plan.count: expected at least 1, found 0"),
        ("plan.machines.h200.gpu.share=0", "expected a positive number, found 0"),
    ],
)
def test_bad_values(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load([override])


def test_a_plan_is_no_part_of_what_an_artifact_is() -> None:
    assert build_graph(load([])) == build_graph(
        load(["plan.images=7", "plan.machine=h200", "plan.image_bytes=9"])
    )


def test_images_of_a_step() -> None:
    assert distinct_images(48, 2, True, 10**6) == 96
    assert distinct_images(512, 4, False, 10**9) == 1536
    # brute force: distinct numbers among 3 x 40 drawn from 100
    draws = torch.randint(100, (2000, 120), generator=torch.Generator().manual_seed(0))
    seen = sum(len(row.unique()) for row in draws) / len(draws)
    assert distinct_images(40, 1, False, 100) == pytest.approx(seen, abs=1)


def test_what_fits_a_gpu_of_24_gb() -> None:
    config = load(["experiment=paper", "plan.machine=24gb"])
    machine = machine_of("24gb", config.plan.machines, 1)
    lines = list(advice.fits(config, machine, Sizes(config)))
    assert "48: " in lines[1]
    assert "48: " in lines[2]
    whole, recomputed = lines[1], lines[2]
    assert re.search(r"512: [\d.]+ GB \(does not fit\)", whole)
    assert not re.search(r"96: [\d.]+ GB \(does", whole)
    assert "runtime.recompute=true" in recomputed
    assert "does not fit" not in recomputed
    assert all("fits" in line for line in lines[3:])
    costs = plan_nodes(config, machine)
    assert any("finetune[alignet]" in line for line in advice.too_large(costs, machine))


def test_table_adds_up() -> None:
    costs = list(planned("experiment=paper").values())
    lines = list(rows(costs))
    assert lines[-1][0] == "all"
    assert len({len(line) for line in lines}) == 1
    flops = sum(float(line[1]) for line in lines[:-1] if line[1])
    assert flops == pytest.approx(float(lines[-1][1]), rel=0.1)
    assert math.isclose(sum(cost.work.flops for cost in costs), float(lines[-1][1]), rel_tol=0.06)


def test_a_billion_images_on_the_command_line(capsys) -> None:
    main(["experiment=paper", "plan.size=billion", "plan.machine=h200", "plan.count=8"])
    printed = capsys.readouterr().out
    for said in (
        "1,000,000,000 images",
        "2.3 TB",
        "SLURM array",
        "distributed_kmeans.py",
        "bottleneck: ",
        "256 rows",
    ):
        assert said in printed
    command = re.search(r"alignet\.stages\.pipeline (.*)", printed)
    assert command is not None
    # what it says to run next composes
    assert load(command[1].split()).triplets.count == 10**8


def test_folders_may_be_left_out_and_mistakes_have_one_message(tmp_path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "alignet.stages.plan", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run("experiment=own", "plan.images=1000", "teacher=siglip_base", "student=vit_small_16")
    assert done.returncode == 0, done.stderr
    assert "paths.images=... paths.map=..." in done.stdout
    assert not list(tmp_path.iterdir())
    wrong = run("experiment=own", "plan.imags=1000")
    assert wrong.returncode == 1
    assert len(wrong.stderr.strip().splitlines()) == 1
    assert "plan.images" in wrong.stderr


def test_a_network_is_counted_once_for_all_nodes(monkeypatch) -> None:
    from alignet.plan import sizes

    count, seen = sizes.network_of, []

    def watched(model, frozen):
        seen.append((model.architecture, tuple(sorted(model.model_args)), tuple(frozen)))
        return count(model, frozen)

    monkeypatch.setattr(sizes, "network_of", watched)
    planned()
    assert (
        2 <= len(seen) <= 4
    )  # the teacher and the student, each at most twice: with and without frozen parts


EVERYTHING = ["experiment=paper", "+also=everything"]


def test_the_whole_of_the_paper_is_planned_from_published_sizes():
    costs = planned(*EVERYTHING)
    assert set(costs) == set(build_graph(load(EVERYTHING)))
    assert "3,750,000 images" in costs["embed[student.imagenet_c]"].how


def test_all_sizes_that_are_missing_are_told_at_once():
    with pytest.raises(
        ValueError, match="plan: expected the number of triplets of human_val, images of"
    ) as told:
        planned(
            *EVERYTHING, "~doctor.assume.cub_train", "~doctor.assume.king1_images", "~doctor.assume.human_val"
        )
    for name in ("cub_train", "king1_images", "human_val"):
        assert f"++doctor.assume.{name}=NUMBER" in str(told.value)


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_folder() / "also").glob("*.yaml")))
def test_every_set_that_a_group_adds_has_a_size(name):
    added = OmegaConf.to_container(OmegaConf.load(conf_folder() / f"also/{name}.yaml"), resolve=False)
    sets = added.get("data", {}).get("sets", {})
    images = {key for key, one in sets.items() if one["kind"] in ("images", "shards")}
    assert images == set(added.get("doctor", {}).get("assume", {}))


MAPS = [  # what a group with people's maps adds to an experiment
    '++data.sets.clicked={kind: images, path: /data/clicked, under: ""}',
    '++data.sets.clicks={kind: maps, path: /data/clicks.npz, key: ""}',
    "++stimuli.maps={clicks: clicked}",
    "++evaluate.datasets.where={family: where, images: {}, data: {maps: clicks}, settings: [original, alignet], "
    'nodes: {saliency: "saliency[{model}.clicked]"}, options: {keys: "", ceiling: clickme, splits: 100, '
    "reductions: [max], scales: [1], blur: none}}",
    "++evaluate.datasets.masking={family: masking, images: {}, data: {}, settings: [original, alignet], nodes: "
    '{stimuli: "stimuli[clicks]", decisions: "embed[{model}:logits.stimuli.clicks]"}, options: {animals: [[0, 397]]}}',
]


def test_where_models_look_is_planned():
    found = planned("experiment=paper", *MAPS, "++doctor.assume.clicked=4000", "plan.images=100000")
    student = network_of(load(["experiment=paper"]).student)
    assert found["saliency[alignet.clicked]"].work.flops == pytest.approx(4000 * 2 * student.forward)
    assert found["saliency[alignet.clicked]"].disk == 4000 * 4 * 3 * student.size**2
    assert found["index[clicks]"].how == "one file to hash"
    assert found["stimuli[clicks]"].seconds == pytest.approx(4000 * 0.15, rel=0.02)
    logits = found["embed[student:logits.stimuli.clicks]"]
    assert "44,000 images" in logits.how  # ten levels, and the whole one
    assert logits.disk == 44_000 * (1000 * 2 + 40)
    with pytest.raises(ValueError, match=r"doctor\.assume\.clicked=NUMBER"):
        planned("experiment=paper", *MAPS, "plan.images=100000")


def test_training_on_maps_is_planned_with_and_without_them():
    found = planned("experiment=harmonize", "harmonize.settings.steps=100", "harmonize.settings.batch=48")
    with_maps, without = found["harmonize[harmonized]"], found["harmonize[unharmonized]"]
    assert set(found) == set(build_graph(load(["experiment=harmonize"])))
    trained = 6 * network_of(load(["experiment=harmonize"]).student).parameters * 100
    reading = 0  # no products
    assert with_maps.work.flops - trained - reading == pytest.approx(
        1.5 * (without.work.flops - trained - reading)
    )
    assert with_maps.seconds > without.seconds
    assert found["harmonize[alignet-and-harmonized]"].seconds > with_maps.seconds
    # images with maps in parts: less memory, the same work
    part = planned("experiment=harmonize", "harmonize.settings.steps=100", "harmonize.settings.part=1")
    whole = planned("experiment=harmonize", "harmonize.settings.steps=100", "harmonize.settings.part=48")
    assert part["harmonize[harmonized]"].host < whole["harmonize[harmonized]"].host
    assert part["harmonize[harmonized]"].work.flops == whole["harmonize[harmonized]"].work.flops


@pytest.mark.parametrize("name", ["test_vit", "resnet10t"])
def test_a_second_derivative_has_twice_the_products_and_a_gradient_by_pixels_two_thirds(name: str) -> None:
    import timm
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    from alignet.backbones.second_order import second_order

    class Counted(TorchDispatchMode):
        flops = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func._overloadpacket in flop_registry:
                self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
            return out

    module = timm.create_model(name, num_classes=10).eval()
    images = torch.rand((1, *module.pretrained_cfg["input_size"])).requires_grad_()

    def plain() -> None:
        module(images.detach()).logsumexp(1).sum().backward()

    def second() -> None:
        with second_order():
            logits = module(images)
            (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images, create_graph=True)
            (logits.logsumexp(1).sum() + gradient.square().sum()).backward()

    def saliency() -> None:
        module.requires_grad_(False)
        torch.autograd.grad(module(images)[:, 0].sum(), images)

    def flops(act) -> int:
        with Counted() as found:
            act()
        return found.flops

    once, twice, by_pixels = (flops(act) for act in (plain, second, saliency))
    assert 1.95 <= twice / once <= 2.25  # most where attention is much of it: it is computed in the open
    assert 0.62 <= by_pixels / once <= 0.8


def test_attacks_are_planned():
    given = ("experiment=paper", "+also=attack", "plan.images=100000", "doctor.assume.attack_images=50")
    found = planned(*given)
    student, key = network_of(load(["experiment=paper"]).student), "attack[alignet.attack_images]"
    values = 3 * student.size**2
    # 20 forward and backward passes by pixels alone; 21 forward ones
    assert found[key].work.flops == pytest.approx(50 * (20 * 2 + 21) * student.forward)
    assert found[key].disk == 50 * (6 * values + 200)
    assert found["attack[alignet:linf.attack_images]"].work.flops == found[key].work.flops
    fewer = planned(*given, "attack.methods.fast.images=10")[key]
    assert fewer.disk == found[key].disk / 5
    slow = planned(*given, "attack.method=algorithm1")[key]
    # 10 norms from .001 to 10, of which each has two gradients of its own and a forward pass
    assert slow.work.flops == pytest.approx(50 * ((1 + 10 * 2) * 2 + 10 + 16) * student.forward)


@pytest.mark.parametrize(
    ("name", "passes", "again_of"), [("robust-l2", 3 * 2 + 3, 3 * 3 + 4), ("robust-free", 3, 4)]
)
def test_training_against_attacks_is_planned(name, passes, again_of):
    given = [
        "experiment=attack",
        "robust.settings.steps=50",
        "robust.settings.batch=8",
        "robust.settings.warmup=0",
    ]
    given += ["robust.roles.robust-l2.steps=3"]
    key, student = f"robust[{name}]", network_of(load(given).student)
    sums = 6 * student.parameters * 50
    first, again = (
        planned(*given, *more)[key].work.flops - sums for more in ([], ["runtime.recompute=true"])
    )
    assert first == pytest.approx(50 * 8 * passes * student.forward)
    assert again == pytest.approx(50 * 8 * again_of * student.forward)


def test_passes_of_a_step_are_what_torch_counts():
    """A step of PGD and the training step, counted on a network of products alone."""
    from alignet.attacks.train import adversarial_training
    from alignet.harmonizer.batches import Labelled
    from tests.makers.toy_networks import Linear, classifier

    class Deep(Linear):
        def __init__(self):
            super().__init__()
            width = self.head.in_features
            self.body = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(20)))

        def forward(self, images):
            return self.head(self.body(images.flatten(1)))

    config = load(["experiment=attack"]).robust
    settings = dataclasses.replace(config.settings, steps=1, warmup=0, batch=4)
    classify = classifier(Deep())
    data = Labelled(torch.zeros(8, 3, 8, 8, dtype=torch.uint8), np.arange(8) % 2)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        classify(torch.zeros(4, 3, 8, 8))
    forward = counter.get_total_flops()
    for role in config.roles.values():
        with counter:
            adversarial_training(classify.encoder, data, settings, role)
        counted = counter.get_total_flops() / forward
        assert counted == pytest.approx(forward_passes(role, recompute=False), rel=0.02)
