"""What the doctor says of attacks and training against them, and what it reckons both to take."""

import importlib.util

import pytest
import torch

from alignet.attacks.attack import attack, verified
from alignet.attacks.train import passes_of as of_role
from alignet.doctor import attack_checks, harmonizer_checks, machine, measure_attacks, origins
from alignet.doctor.estimate_attack import POLISHED, passes_of
from alignet.doctor.findings import Finding
from alignet.doctor.measure_attacks import FORWARDS, forward_passes
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources
from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph, upstream
from alignet.pipeline.runner import Pipeline
from alignet.rehearse.importance import names, write_maps, write_table
from alignet.rehearse.pictures import write_folder
from tests.makers.doctor import QUICK, estimates_of
from tests.makers.toy_networks import convolutional, pictures
from tests.makers.worlds import ATTACK, TINY

WORLD = [*TINY, *ATTACK, "attack.logit=label", "robust.settings.steps=20", *QUICK]
SETS = {
    "mapped": "taught", "mapped_plain": "plain", "mapped_test": "measured", "mapped_labels": "classes.csv",
    "mapped_plain_labels": "classes.csv", "mapped_test_labels": "classes.csv", "mapped_maps": "maps.npz",
    "mapped_test_maps": "maps.npz",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images with classes and maps, as somebody's own."""
    folder, ids = tmp_path_factory.mktemp("own"), names(labelled=True)
    for name in ("taught", "plain", "measured"):
        write_folder(folder / name, ids, 0)
    write_maps(folder / "maps.npz", ids, ["gaze"], 0)
    write_maps(folder / "two.npz", ids, ["gaze", "clicks"], 0)
    write_table(folder / "classes.csv", ids, "class")
    return folder


def findings(folder, store, *more) -> list[Finding]:
    """What is said of the drawn world's student, trained and measured on those files."""
    lines = [f"data.sets.{name}.path={folder / file}" for name, file in SETS.items()]
    config = load([*WORLD, *lines, f"paths.artifacts={store}", *more])
    sources = Sources(config, (), Pipeline(config))
    models = Models(sources)
    return [
        *harmonizer_checks.check_maps(sources), *harmonizer_checks.check_classifiers(sources, models),
        *attack_checks.check_attacks(sources), *attack_checks.check_robust(sources, models),
    ]  # fmt: skip


def test_nothing_is_wrong_with_what_fits(files, tmp_path):
    found = findings(files, tmp_path)
    assert {one.level for one in found} == {"ok"}
    said = {one.about: one.found for one in found}
    assert said["attack.methods"] == "fast: l2 norms up to 10; linf: linf norms up to 0.5"
    assert said["attack.labels"] == said["robust.labels"].replace("mapped", "mapped_test")
    free = "robust-free: 20 steps of 8 images, each batch 4 times: 2.0 times through mapped"
    assert free in [one.found for one in found]


@pytest.mark.parametrize(
    ("more", "about", "what"),
    [
        (["student.model_args.num_classes=0"], "student", "and timm's xcit_nano_12_p16_224 has none"),
        (["student.model_args.num_classes=4"], "attack.labels", "expected classes in 0..3, found 4"),
        (["student.model_args.num_classes=4"], "robust.labels", "expected classes in 0..3, found 4"),
        (["~attack.labels.mapped_test"], "attack.labels", "expected images of known class, found none of 20"),
        (["attack.column=label"], "attack.labels", "label"),
        (["robust.labels=null"], "robust.labels", "expected a class for each image, found none for 20 of 20"),
        (
            ["evaluate.datasets.attack.options.eps=[0.5,20]"],
            "evaluate.datasets.attack",
            "of at most 10, the largest norm that is searched, found 20",
        ),
        (
            ["data.sets.mapped_test_maps.path={files}/two.npz"],
            "evaluate.datasets.attack",
            "expected maps of one kind, found gaze, clicks",
        ),
        (
            ["evaluate.datasets.attack.options.key=touch"],
            "evaluate.datasets.attack",
            "expected maps touch, found gaze",
        ),
        (
            ["~evaluate.datasets.attack.nodes.attack"],
            "evaluate.datasets.attack",
            "expected a node `attack` of the stage attack, found linf",
        ),
        (
            ["runtime.launcher=torchrun", "runtime.processes=9"],
            "robust.settings.batch",
            "expected an image for each of 9 processes in a step, found 8",
        ),
    ],
)
def test_each_mistake_has_one_message_and_what_to_do(files, tmp_path, more, about, what):
    given = (one.replace("{files}", str(files)) for one in more)
    found = [one for one in findings(files, tmp_path, *given) if one.level == "fault"]
    mine = [one for one in found if one.about == about]
    assert len(mine) == 1, found
    assert what in mine[0].found


def test_any_answer_needs_no_classes(files, tmp_path):
    found = findings(files, tmp_path, "~attack.labels.mapped_test", "attack.logit=top1")
    assert not [one for one in found if one.level != "ok"]


def test_norms_in_units_of_255_are_doubted(files, tmp_path):
    found = findings(files, tmp_path, "robust.roles.robust-linf.eps=8", "robust.roles.robust-l2.eps=5")
    (one,) = [one for one in found if one.level == "warning"]
    assert one.about == "robust.roles.robust-linf.eps"
    assert "8 levels of 255 are 0.031" in one.fix


def test_a_method_of_a_package_that_is_not_here(files, tmp_path, monkeypatch):
    more = ['+evaluate.datasets.attack.nodes.cw="attack[{model}:cw.mapped_test]"']
    (one,) = [one for one in findings(files, tmp_path, *more) if one.about == "attack.methods"]
    assert one.level == "ok"
    here = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "foolbox" else here(name, *rest)
    )
    (one,) = [one for one in findings(files, tmp_path, *more) if one.level == "fault"]
    assert one.found == "expected the package foolbox for cw, found none"
    assert "alignet[attacks]" in one.fix
    assert not [one for one in findings(files, tmp_path) if one.level == "fault"]  # that nothing asks for


def test_a_method_that_does_not_exist_is_told_before_anything_is_read():
    with pytest.raises(ValueError, match=r"expected a method out of attack\.methods .*, found 'best'"):
        build_graph(load([*WORLD, 'evaluate.datasets.attack.nodes.linf="attack[{model}:best.mapped_test]"']))


def test_every_attack_of_the_world_is_estimated(tmp_path):
    one = estimates_of(*WORLD, f"paths.artifacts={tmp_path}")
    rows = {row.key: row for row in machine.table(one.sources, one)}
    mine = {key: row for key, row in rows.items() if "attack" in key or key.startswith("robust")}
    assert {key.partition("[")[0] for key in mine} == {"attack", "robust", "evaluate"}
    for row in mine.values():
        assert not row.failed, row
        assert not row.estimate.unknown, row
        assert "no estimate for" not in row.estimate.how
    attacked, robust = (rows[key].estimate for key in ("attack[student.mapped_test]", "robust[robust-l2]"))
    assert attacked.how.startswith("20 images, all attacked: assumed; at most 10 forward and backward passes")
    assert attacked.disk == pytest.approx(20 * 6 * 3 * 64**2, rel=0.01)
    assert robust.disk == one.measured.forward("student").weights
    free = rows["robust[robust-free]"].estimate
    assert free.extra_disk - robust.extra_disk == 3 * 4 * 8 * 3 * 64**2  # perturbations that are carried on
    assert "of PGD in each" in robust.how
    assert "each batch 4 times" in free.how
    longer = estimates_of(*WORLD, f"paths.artifacts={tmp_path}", "attack.methods.fast.steps=400")
    longer._held = one.measured._held
    assert longer.of("attack[student.mapped_test]").seconds > attacked.seconds


def test_estimated_sizes_are_those_on_disk(tmp_path):
    given = [*WORLD, "attack.logit=top1", "attack.methods.fast.steps=20", f"paths.artifacts={tmp_path}"]
    one = estimates_of(*given)
    chain = Pipeline(load(given))
    for key in ("attack[student.mapped_test]", "robust[robust-free]"):
        chain.make_all([*upstream(chain.graph, key), key])
        assert one.of(key).disk == pytest.approx(chain.state(key).artifact.size, rel=0.02), key


@pytest.mark.parametrize(
    "name", ["fast", "linf", "algorithm1", "published", "pgd", "ddn", "fmn", "deepfool", "cw"]
)
def test_passes_are_those_that_a_search_makes(name):
    """Counted of one image: calls of the network with a gradient and without."""
    method = load([]).attack.methods[name]
    classify, image = convolutional(), pictures(1)
    calls: list[bool] = []
    classify.encoder.module.register_forward_hook(
        lambda module, given, out: calls.append(given[0].requires_grad)
    )
    made = attack(classify, image.to(torch.float32), torch.tensor([-1]), method, any_answer=True)
    verified(classify, made, method, 1)
    passes, forwards = passes_of(method), len(calls) - sum(calls)
    if method.algorithm in ("deepfool", "carlini_wagner"):  # end early
        assert 0 < sum(calls) <= passes.gradients
        return
    assert sum(calls) == passes.gradients
    beside = 5  # the first answer, two steps without a gradient, both attacked images at the end
    assert passes.forwards + beside <= forwards <= passes.forwards + beside + 17  # of 8 bit
    assert beside + POLISHED <= FORWARDS <= beside + POLISHED + 17


def test_passes_of_a_step_of_training_are_those_that_are_counted():
    for role in load(["experiment=attack"]).robust.roles.values():
        attacks = of_role(role) - 1  # lead back to the pixels alone: twice a forward pass
        assert forward_passes(role, recompute=False) == 2 * attacks + 3
        assert forward_passes(role, recompute=True) == 3 * attacks + 4


@pytest.mark.parametrize("more", [[], ["runtime.recompute=true"]])
def test_measuring_leaves_the_network_as_it_was(tmp_path, more, monkeypatch):
    one = estimates_of(*WORLD, *more, "doctor.seconds=1", f"paths.artifacts={tmp_path}")
    encoder, roles = one.measured.models.encoder("student"), one.sources.config.robust.roles
    before = {name: held.clone() for name, held in encoder.module.state_dict().items()}
    wants = {name: held.requires_grad for name, held in encoder.module.named_parameters()}
    passes: list[bool] = []
    encoder.module.register_forward_hook(lambda module, given, out: passes.append(given[0].requires_grad))

    def counted(act):
        before = len(passes)
        act()
        return float(len(passes) - before)  # in the place of seconds

    assert one.measured.forward("student").seconds > 0
    monkeypatch.setattr(measure_attacks, "seconds_of", counted)
    monkeypatch.setattr(type(one.measured), "budget", 1000.0)  # whole batches, however slow this machine is
    steps = {name: one.measured.robust(role) for name, role in roles.items()}
    search = one.measured.attacking("student")
    # a step is forward and backward once, and some of what 8 bit take. The rest is the first answer, two steps without
    # a gradient, both attacked images at the end, and what 8 bit take of an attack of one step
    assert 1 <= search.step * search.batch < 2
    assert 5 <= round(search.rest * search.batch) <= 5 + 17
    for name, role in roles.items():
        assert steps[name].how == "8 steps of 8 images"
        assert steps[name].seconds == pytest.approx(of_role(role)), name
    assert all(torch.equal(held, before[name]) for name, held in encoder.module.state_dict().items())
    assert {name: held.requires_grad for name, held in encoder.module.named_parameters()} == wants
    assert not [part for part in encoder.module.modules() if "forward" in vars(part)]


def test_methods_that_nothing_takes_are_no_assumption():
    from dataclasses import asdict

    composed = asdict(load(["experiment=attack"]))
    given = {one.key: one.mark for one in origins.values(composed, ["experiment=attack"])}
    methods = {key.split(".")[2] for key in given if key.startswith("attack.methods.")}
    assert methods == {"fast", "linf"}
    assert "ours" in given["attack.methods.fast.steps"]
    assert not [key for key in given if key.startswith("attack.batch.")]
    world = {one.key for one in origins.values(asdict(load([])), [])}
    assert not [key for key in world if key.startswith(("attack.", "robust."))]
