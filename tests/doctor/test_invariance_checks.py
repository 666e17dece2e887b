"""What the doctor says of identically represented inputs and of losses of training, and what both will take."""

import importlib.util
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from alignet.backbones import Backbone, load_encoder
from alignet.config import FileSet, InvertMethod, Noise, PerceptualDistance, Transformations
from alignet.doctor import attack_checks, invariance_checks, machine, origins
from alignet.doctor.estimate_invert import compared_of, distance_bytes, passes_of
from alignet.doctor.evaluations import check_evaluations
from alignet.doctor.measure_attacks import forward_passes, views
from alignet.doctor.models import Models, check_weights
from alignet.doctor.sources import Sources
from alignet.invariances import measure as measuring
from alignet.invariances.invert import invert
from alignet.invariances.measure import HELD
from alignet.invariances.perceptual import Pixels
from alignet.invariances.representation import Representation
from alignet.pipeline.cli import load
from alignet.pipeline.graph import upstream
from alignet.pipeline.runner import Pipeline
from alignet.rehearse.importance import names
from alignet.rehearse.pictures import write_folder
from tests.makers.doctor import QUICK, estimates_of
from tests.makers.inverted import write_choices
from tests.makers.worlds import INVARIANCE, TINY

WORLD = [*TINY, *INVARIANCE, *QUICK]
NODES = ("invert", "perceptual")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The configuration of the tiny world over an empty store, with a few images of outside, and its networks."""
    folder = tmp_path_factory.mktemp("own")
    write_folder(folder / "measured", names(labelled=True), 0)
    set_there = f"data.sets.mapped_test.path={folder / 'measured'}"
    config = load([*WORLD, set_there, "robust.settings.steps=20", f"paths.artifacts={folder / 'store'}"])
    return config, Models(Sources(config, (), Pipeline(config)))


def findings(world, **sections):
    """What is said of the configuration with other sections; a section is a function of its own."""
    config, models = world
    changed = {name: change(getattr(config, name)) for name, change in sections.items()}
    config = replace(config, **changed)
    sources = Sources(config, (), Pipeline(config))
    models = replace(models, sources=sources)
    return [
        *check_evaluations(sources), *attack_checks.check_robust(sources, models),
        *invariance_checks.check_inversions(sources, models), *invariance_checks.check_distances(sources, models),
        *invariance_checks.check_invariance(sources),
    ]  # fmt: skip


def evaluation(**changes):
    """A change of the evaluation `invariance`; of mappings, entries that are added or, with None, taken out."""

    def change(section):
        one = section.datasets["invariance"]
        for name, value in changes.items():
            held = getattr(one, name)
            if isinstance(value, dict):
                value = {key: entry for key, entry in {**held, **value}.items() if entry is not None}
            one = replace(one, **{name: value})
        return replace(section, datasets={**section.datasets, "invariance": one})

    return change


def methods(**changes):
    """A change of the method `adversarial`."""
    return lambda section: replace(
        section,
        methods={**section.methods, "adversarial": replace(section.methods["adversarial"], **changes)},
    )


def distance(name, use=("pixels",), **values):
    """A further distance, which is computed."""
    return lambda section: replace(
        section,
        distances={**section.distances, name: PerceptualDistance(**values)},
        use=(*use, "teacher", name),
    )


def role(name, **changes):
    """A change of a training."""
    return lambda section: replace(
        section, roles={**section.roles, name: replace(section.roles[name], **changes)}
    )


def test_nothing_is_wrong_with_what_fits(world):
    found = findings(world)
    assert {one.level for one in found} == {"ok"}, [one for one in found if one.level != "ok"]
    said = {one.about: one.found for one in found}
    assert said["invert.methods"].startswith(
        "free: quasi_newton, at most 4 steps, a match at 0.05; adversarial: "
    )
    assert said["invert.layer"].startswith("student: its features, ")
    assert said["invert.images"] == "4 of 20 images of mapped_test"
    assert said["perceptual.distances.teacher"].startswith("resnet10t after ")
    assert said["perceptual.distances.teacher"].endswith("layer4; images of 64 x 64 pixels")
    trained = [one.found for one in found if one.about == "robust.settings.steps"]
    assert "simclr-adversarial: 20 steps of 8 images, simclr: 5.3 times through mapped" in trained
    assert not [one for one in trained if "@" in one]


def from_random(section, batch_norm):
    """Trainings of which one begins with random weights."""
    settings = replace(section.settings, batch_norm=batch_norm)
    return replace(role("trades-6", begin="random")(section), settings=settings)


MISTAKES = {
    "layer": (
        {"invert": lambda one: replace(one, layer="blocks.99")},
        "invert.layer",
        "found 'blocks.99'; the nearest",
    ),
    "blur": (
        {"invert": methods(distance="", blur=1.0, sigma=30.0)},
        "invert.methods",
        "a blur whose reach of 3 sigma, 90 pixels, is less than the 64",
    ),
    "layers": (
        {"perceptual": distance("deep", kind="layers", model="teacher", layers=("layer9",))},
        "perceptual.distances.deep",
        "expected modules of resnet10t, found 'layer9'; the nearest are layer",
    ),
    "passed by": (
        {"perceptual": distance("deep", kind="layers", model="student", layers=("head",))},
        "perceptual.distances.deep",
        "that images pass, found head, which they do not",
    ),
    "reserved": (
        {"perceptual": distance("rho", kind="layers", model="teacher")},
        "evaluate.datasets.invariance",
        "do not begin with people, matched, hard, agree, rho, found rho",
    ),
    "node": (
        {"evaluate": evaluation(nodes={"perceptual_adversarial": None})},
        "evaluate.datasets.invariance",
        "found no `perceptual_adversarial`",
    ),
    "another role": (
        {"evaluate": evaluation(nodes={"perceptual_adversarial": "perceptual[{model}.mapped_test.free]"})},
        "evaluate.datasets.invariance",
        "expected one role in `invert_adversarial` and `perceptual_adversarial`, found student.mapped_test.adversarial",
    ),
    "distance": (
        {"evaluate": evaluation(options={"distances": ["pixels", "stlpips_vgg"]})},
        "evaluate.datasets.invariance",
        "expected options.distances among pixels, teacher, found stlpips_vgg",
    ),
    "statistics": (
        {"robust": lambda one: from_random(one, "frozen")},
        "robust.settings.batch_norm",
        "expected training for simclr-adversarial, trades-6, which begin with random weights, found frozen: the statis",
    ),
    "views": (
        {"robust": lambda one: replace(one, settings=replace(one.settings, batch=1))},
        "robust.settings.batch",
        "expected at least 2 images in a step of simclr-adversarial",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_has_one_message_and_what_to_do(world, name):
    changes, about, what = MISTAKES[name]
    found = [one for one in findings(world, **changes) if one.level == "fault"]
    mine = [one for one in found if one.about == about]
    assert len(mine) == len(found) == 1, found
    assert what in mine[0].found, mine


def test_statistics_are_asked_for_where_weights_are_random_and_batches_are_normalised(world):
    config, models = world

    def faults(section, module=None):
        sources = models.sources
        if module is None:
            return [one.about for one in findings(world, robust=lambda _: section) if one.level == "fault"]
        sources = Sources(replace(config, robust=section), (), Pipeline(replace(config, robust=section)))
        return [one.about for one in attack_checks._beginning(sources, list(section.roles), module)]

    frozen = from_random(config.robust, "frozen")
    assert faults(frozen) == ["robust.settings.batch_norm"]  # the student has it in its stem
    assert faults(from_random(config.robust, "training")) == []
    begun = {name: replace(one, begin="student") for name, one in frozen.roles.items()}
    assert faults(replace(frozen, roles=begun)) == []
    norms = (torch.nn.BatchNorm1d(2), torch.nn.BatchNorm2d(2), torch.nn.LayerNorm(2))
    assert [len(faults(frozen, torch.nn.Sequential(one))) for one in norms] == [1, 1, 0]


def test_what_will_have_no_score_or_few_matches_is_doubted(world):
    def warned(**changes):
        return [one.found for one in findings(world, **changes) if one.level == "warning"]

    assert "2 of mapped_test: clustering needs three targets, and has no score" in warned(
        invert=lambda one: replace(one, images=2)
    )
    assert "100 were asked for, mapped_test has 20" in warned(invert=lambda one: replace(one, images=100))
    alone = warned(invert=methods(distance="pixels"), perceptual=lambda one: replace(one, use=("pixels",)))
    assert alone == ["pixels was pushed up, and no other distance is computed: its 2AFC has no score"]
    few = warned(evaluate=evaluation(options={"matched": 0.01}))
    assert few[0].startswith("options.matched is 0.01, and searches of `invert` end at 0.05")


def test_a_distance_of_a_package_that_is_not_here(world, monkeypatch):
    change = {"perceptual": distance("st", kind="stlpips", net="alex")}
    there = {one.about: one for one in findings(world, **change)}
    assert there["perceptual.distances.st"].found == "stlpips alex; images of 64 x 64 pixels"
    here = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "stlpips_pytorch" else here(name, *rest),
    )
    (one,) = [one for one in findings(world, **change) if one.level == "fault"]
    assert one.found == "expected the package stlpips-pytorch for st, found none"
    assert "alignet[perceptual]" in one.fix
    assert not [one for one in findings(world) if one.level == "fault"]  # that nothing asks for


def test_a_trunk_that_is_not_there_and_one_of_another_network(world, tmp_path):
    from safetensors.torch import save_file
    from torchvision import models

    config, _ = world

    def given(path):
        sets = {**config.data.sets, "trunk": FileSet(kind="weights", path=str(path))}
        return {
            "data": lambda section: replace(section, sets=sets),
            "perceptual": distance("lp", kind="lpips", net="squeeze", trunk="trunk"),
        }

    about = [one.about for one in findings(world, **given(tmp_path / "none.safetensors"))]
    assert "perceptual.distances.lp" not in about  # the check of files says so
    for name, net in (("right", models.squeezenet1_1), ("wrong", models.squeezenet1_0)):
        save_file(net(weights=None).state_dict(), tmp_path / f"{name}.safetensors")
    right, wrong = (
        {one.about: one for one in findings(world, **given(tmp_path / f"{name}.safetensors"))}
        for name in ("right", "wrong")
    )
    assert right["perceptual.distances.lp"].found == "lpips squeeze; images of 64 x 64 pixels"
    assert wrong["perceptual.distances.lp"].level == "fault"
    assert "expected a state dict of torchvision's" in wrong["perceptual.distances.lp"].found


def test_answers_and_similarities_are_read_as_the_family_reads_them(world, tmp_path):
    config, _ = world
    ids = sorted(names(labelled=True))
    drawn = [
        ids[row] for row in sorted(np.random.default_rng(config.invert.seed).permutation(20)[:4].tolist())
    ]
    rows = [{"kind": "two", "image": name, "choice": "target", "right": 1} for name in drawn]
    write_choices(tmp_path / "choices.csv", rows)
    other = next(name for name in ids if name not in drawn)
    write_choices(tmp_path / "others.csv", [{**rows[0], "image": other}])
    np.save(tmp_path / "alike.npy", np.eye(4) + 0.1)
    np.save(tmp_path / "five.npy", np.eye(5))

    def told(part, name, **options):
        sets = {**config.data.sets, "given": FileSet(kind="file", path=str(tmp_path / name))}
        change = evaluation(data={part: "given"}, options=options)
        found = findings(world, data=lambda one: replace(one, sets=sets), evaluate=change)
        return {one.about: one for one in found if one.level != "ok" or one.about == "data.sets.given"}

    people = told("people", "choices.csv", people_of="original")
    assert people["data.sets.given"].found.endswith("choices.csv: answers that count: 4 of the kind two")
    wrong = told("people", "others.csv", people_of="original")["data.sets.given"]
    assert wrong.level == "fault"
    assert f"expected images that were inverted, found '{other}'" in wrong.found
    nobody = told("people", "choices.csv")["evaluate.datasets.invariance"]
    assert (
        "expected options.people_of to be one of its settings beside data.people, found none" in nobody.found
    )
    alike = told("similarity", "alike.npy", kind="similarity")["data.sets.given"]
    assert (alike.level, "similarities of 4 of 4 inverted images" in alike.found) == ("ok", True)
    assert told("similarity", "five.npy", kind="similarity")["data.sets.given"].level == "fault"


def test_every_inversion_and_training_is_estimated_and_measuring_changes_no_network(tmp_path):
    one = estimates_of(*WORLD, "doctor.seconds=0.3", f"paths.artifacts={tmp_path}")
    encoder = one.measured.models.encoder("student")
    before = {name: held.clone() for name, held in encoder.module.state_dict().items()}
    wants = {name: held.requires_grad for name, held in encoder.module.named_parameters()}
    mine = [key for key in one.sources.graph if key.startswith((*NODES, "robust")) or "invariance" in key]
    rows = {key: machine._row(one.sources, one, key) for key in mine}
    for row in rows.values():
        assert not row.failed, row
        assert not row.estimate.unknown, row
        assert "no estimate for" not in row.estimate.how
    assert all(torch.equal(held, before[name]) for name, held in encoder.module.state_dict().items())
    assert {name: held.requires_grad for name, held in encoder.module.named_parameters()} == wants
    assert not [part for part in encoder.module.modules() if "forward" in vars(part)]
    free, far = (rows[f"invert[student.mapped_test.{name}]"].estimate for name in ("free", "adversarial"))
    assert free.how.startswith("4 images x 2 draws x 4 forward and backward passes at most; ")
    assert far.how.startswith(
        "4 images x 2 draws x 4 forward and backward passes at most, 3 of them with teacher; "
    )
    weights = one.measured.forward("student").weights
    kept, plain = rows["robust[simclr-adversarial]"].estimate, rows["robust[trades-6]"].estimate
    assert (kept.disk, plain.disk) == (2 * weights, weights)
    assert rows["robust[simclr-adversarial@2]"].estimate.disk == weights
    assert "1 of PGD in each, trades" in plain.how
    longer = estimates_of(*WORLD, "invert.methods.free.steps=400", f"paths.artifacts={tmp_path}")
    longer._held = one.measured._held
    assert longer.of("invert[student.mapped_test.free]").seconds > free.seconds


def test_estimated_sizes_are_those_on_disk(world, tmp_path):
    given = [*WORLD, f"paths.artifacts={tmp_path}"]
    one, chain = estimates_of(*given), Pipeline(load(given))
    for stage in NODES:
        key = f"{stage}[student.mapped_test.free]"
        chain.make_all([*upstream(chain.graph, key), key])
        artifact = chain.state(key).artifact
        stored = sum(
            entry["size"] for name, entry in artifact.manifest["files"].items() if name.endswith(".npz")
        )
        beside = 2 * 4 * 400  # headers of arrays, as few as there are here
        assert abs(one.of(key).disk - stored) <= 0.02 * stored + beside, key


NOISE = Noise(0.5, 0.3)
KINDS = {
    "free": {}, "quasi_newton": {"optimizer": "quasi_newton", "steps": 64}, "fourier": {"fourier": True},
    "tv": {"weight": 1.0, "tv": 1.0, "finish": 3},
    "transform": {"transform": Transformations(0.1, 0.1, 5.0, 0.0)},
    "transform, finished": {"transform": Transformations(0.1, 0.1, 5.0, 0.0), "finish": 2},
    "adversarial": {"weight": 1.0, "distance": "pixels", "finish": 3},
    "adversarial, not finished": {"weight": 1.0, "distance": "pixels"},
    "adversarial, a match": {"weight": 1.0, "distance": "pixels", "stop": 10.0},
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_passes_are_those_that_a_search_makes(name):
    """Counted of one image that is never done: calls of the network and of the distance, with gradients and without."""
    usual = {"optimizer": "adam", "lr": 0.01, "schedule": "constant", "steps": 7, "finish": 0, "stop": 0.0}
    method = InvertMethod(**usual | {"start": NOISE} | KINDS[name])
    backbone = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")
    encoder, images = load_encoder(backbone, seed=0), torch.rand(2, 3, 32, 32)
    calls: list[bool] = []
    embedded: list[bool] = []
    encoder.module.conv_stem.register_forward_hook(lambda _, given, out: calls.append(given[0].requires_grad))

    class Counting(Pixels):
        def embed(self, pixels):
            embedded.append(pixels.requires_grad)
            return super().embed(pixels)

    pushed = Counting() if method.distance else None
    invert(Representation(encoder), images[:1], images[1:], method, distance=pushed, keys=[(0,)])
    passes = passes_of(method)
    assert (sum(calls), len(calls) - sum(calls)) == passes[:2]
    unlooked = (
        method.distance != "" and not method.stop
    )  # the loss of the end, which decides among matches alone
    assert (sum(embedded), len(embedded) - sum(embedded) + unlooked) == passes[2:]


def test_passes_and_pairs_of_a_distance_are_counted_in_blocks():
    whole, parts = compared_of(100, 2, 1000.0, 10, 100), compared_of(100, 2, HELD / 100, 10, 100)
    assert whole == (100 * 5, 100 * (200 + 100 + 2))
    # two blocks: each has every inverted image and target, beside targets once and seeds
    assert parts.passes == 2 * 100 * 3 + 100 + 200
    assert distance_bytes(5, 2) == sum(
        np.zeros(shape, np.float32).nbytes for shape in ((5, 2), (5, 2), (5, 2, 5), (5, 5))
    )


@pytest.mark.parametrize("images", [1, 3, 4, 5, 7, 8, 10, 99])
def test_passes_of_a_distance_are_those_that_it_makes(images, monkeypatch):
    """Counted of 10 targets in shards of 4; images: that are held at once."""
    draw, made = np.random.default_rng(0), [0]
    shards = [
        {
            name: draw.integers(0, 256, (many, *draws, 3, 8, 8)).astype(np.uint8)
            for name, draws in (("image", ()), ("seed", (2,)), ("inverted", (2,)))
        }
        for many in (4, 4, 2)
    ]

    class Counting(Pixels):
        def embed(self, pixels):
            made[0] += len(pixels)
            return super().embed(pixels)

    kept = Pixels().embed(torch.rand(1, 3, 8, 8))[0].nbytes
    monkeypatch.setattr(measuring, "HELD", 2 * images * kept)
    measuring.measure(
        Counting(),
        lambda: iter(shards),
        batch=3,
        device="cpu",
        advance=lambda count: None,
        held=measuring.HELD,
    )
    assert made[0] == compared_of(10, 2, kept, 3, 4).passes


def test_a_network_that_was_let_go_is_compared_by_the_layers_that_are_named(tmp_path, monkeypatch):
    six = [f"blocks.{row}" for row in range(6)]
    deep = f"+perceptual.distances.deep={{kind: layers, model: student, layers: [{','.join(six)}]}}"
    one = estimates_of(*WORLD, deep, f"paths.artifacts={tmp_path}").measured
    monkeypatch.setattr(one, "_let_go", lambda name: "student")
    width, shape = one.forward("student").width, one.models.encoder("student").data_config["input_size"]
    assert one.distance("deep", shape).kept == 4 * 6 * 256 * width
    assert (
        one.distance("teacher", shape).kept == 4 * 5 * 256 * width
    )  # without names, as many as there are by default


def test_passes_of_a_step_of_training_are_those_that_are_counted():
    from alignet.attacks.train import passes_of as of_role

    for name, one in load(["experiment=ingredients"]).robust.roles.items():
        attacked = one.steps * one.attacks
        looked = one.attacks and one.loss in ("trades", "simclr")
        assert views(one) == of_role(one) - attacked, name
        assert forward_passes(one, recompute=False) == looked + 2 * attacked + 3 * views(one), name
        assert forward_passes(one, recompute=True) == looked + 3 * attacked + 4 * views(one), name


def test_methods_and_distances_that_nothing_takes_are_no_assumption():
    composed = asdict(load(["experiment=invariance"]))
    given = {one.key for one in origins.values(composed, ["experiment=invariance"])}
    taken = {key.split(".")[2] for key in given if key.startswith("invert.methods.")}
    assert taken == {"free", "adversarial"}
    assert {key.split(".")[2] for key in given if key.startswith("perceptual.distances.")} == {
        "pixels",
        "teacher",
    }
    world = {one.key for one in origins.values(asdict(load([])), [])}
    assert not [key for key in world if key.startswith(("invert.", "perceptual."))]


def test_a_student_that_nothing_pretrains_is_built_with_new_weights(tmp_path):
    one = estimates_of("experiment=ingredients", *QUICK, f"paths.artifacts={tmp_path}")
    models = one.measured.models
    assert "pretrain[student]" not in one.sources.graph
    assert models.weights("student") == "random"
    (said,) = [found.found for found in check_weights(one.sources, models) if found.about == "student"]
    assert said.endswith("million parameters, random weights")
    kept = one.of("robust[simclr]")
    assert (kept.unknown, kept.disk) == (False, one.measured.forward("student").weights)
