"""Attacks and training against them: methods and the package that some need, norms, maps, images of a step."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from typing import Any

from alignet.config import FOOLBOX, DatasetSettings
from alignet.doctor.estimate_attack import method_of
from alignet.doctor.estimate_base import processes
from alignet.doctor.findings import Finding, fault, ok, plain, warning
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources

MAIN = "attack"  # the node of an evaluation whose scores have no name before them
LARGE = 0.25  # change of each pixel value beyond which training looks like one in units of 0..255


def check_attacks(sources: Sources) -> Iterator[Finding]:
    """Can every method run here, and does every evaluation of attacks name what it needs?"""
    nodes = [node for node in sources.graph.values() if node.stage == "attack"]
    if not nodes:
        return
    default, used = sources.config.attack.method, {}
    for node in nodes:
        named, _, _ = node.role.partition(".")
        used[named.partition(":")[2] or default] = method_of(node.section)
    asking = [name for name, method in used.items() if method.algorithm in FOOLBOX]
    if asking and importlib.util.find_spec("foolbox") is None:
        yield fault(
            "attack.methods", f"expected the package foolbox for {', '.join(asking)}, found none",
            "Install it with pip install 'alignet[attacks]', or take a method of algorithm=minimum_norm or pgd",
        )  # fmt: skip
    else:
        said = (f"{name}: {one.norm} norms up to {one.high:g}" for name, one in used.items())
        yield ok("attack.methods", "; ".join(said))
    for name, dataset in sources.config.evaluate.datasets.items():
        if dataset.family == "attack" and dataset.settings:
            yield from _evaluation(sources, name, dataset)


def _evaluation(sources: Sources, name: str, dataset: DatasetSettings) -> Iterator[Finding]:
    """Its first attack, the norms at which accuracy is asked for, and the kind of map."""
    about = f"evaluate.datasets.{name}"
    role = sources.graph[f"evaluate[{dataset.settings[0]}.{name}]"].inputs.get(f"node.{MAIN}")
    if role is None or sources.graph[role].stage != "attack":
        found = ", ".join(dataset.nodes) or "none"
        yield fault(
            about, f"expected a node `{MAIN}` of the stage attack, found {found}", f"Add nodes.{MAIN}"
        )
        return
    high = method_of(sources.graph[role].section).high
    beyond = [float(eps) for eps in dataset.options.get("eps") or () if float(eps) > high]
    if beyond:
        yield fault(
            about, f"expected options.eps of at most {high:g}, the largest norm that is searched, found {beyond[0]:g}",
            "Raise the method's high, or take it out",
        )  # fmt: skip
    held = sources.read(dataset.data["maps"]) if "maps" in dataset.data else None
    key = str(dataset.options.get("key") or "")
    if held and (key not in held if key else len(held) > 1):
        listed = ", ".join(one for one in held if one) or "one kind of map without a name"
        wanted = f"maps {key}" if key else "maps of one kind"
        yield fault(about, f"expected {wanted}, found {listed}", "Set options.key")


def check_robust(sources: Sources, models: Models) -> Iterator[Finding]:
    """Images for every process of a step, passes over them, norms that are of pixels in [0, 1]."""
    section = sources.config.robust
    made = [
        node for node in sources.graph.values() if node.stage == "robust" and "snapshot" not in node.section
    ]
    roles = [node.role for node in made]
    if section is None or not roles:
        return
    settings, runtime = section.settings, sources.config.runtime
    sharing = processes(sources) * (runtime.slurm.nodes if runtime.launcher == "slurm" else 1)
    if settings.batch < sharing:
        yield fault(
            "robust.settings.batch", f"expected an image for each of {sharing} processes in a step, found "
            f"{settings.batch}", f"Set it to at least {sharing}",
        )  # fmt: skip
    encoder = models.encoder("student") if "student" in models.networks() else None
    if encoder is not None:
        yield from _norms(sources, roles, math.prod(encoder.data_config["input_size"]))
        yield from _beginning(sources, roles, encoder.module)
    few = [role for role in roles if section.roles[role].loss == "simclr"]
    if few and settings.batch < 2:
        yield fault(
            "robust.settings.batch", f"expected at least 2 images in a step of {', '.join(few)}, which tells the views "
            f"of an image from those of others, found {settings.batch}", "Set it to at least 2",
        )  # fmt: skip
    number = sources.images(section.images).number
    for role in roles:
        replays = max(section.roles[role].replays, 1)
        if number:
            passes = settings.steps / replays * settings.batch / number
            said = f"{role}: {settings.steps:,} steps of {settings.batch:,} images"
            said += f", each batch {replays} times" if replays > 1 else ""
            said += (
                f", {section.roles[role].loss.replace('_', '-')}"
                if section.roles[role].loss != "adversarial"
                else ""
            )
            said += f": {passes:,.1f} times through {section.images}"
            about = "robust.settings.steps"
            fix = "Few images are seen at all: more steps, or more images a step"
            yield warning(about, said, fix) if passes < 0.5 else ok(about, said)


def _beginning(sources: Sources, roles: list[str], module: Any) -> Iterator[Finding]:
    """Whether batch normalisation has statistics where a training begins with random weights."""
    from torch.nn.modules.batchnorm import _BatchNorm

    section = sources.config.robust
    assert section is not None
    new = [role for role in roles if section.roles[role].begin == "random"]
    normed = any(isinstance(one, _BatchNorm) for one in module.modules())
    if new and normed and section.settings.batch_norm == "frozen":
        yield fault(
            "robust.settings.batch_norm", f"expected training for {', '.join(new)}, which begin with random weights, "
            "found frozen: the statistics are those of no images", "Set it to training",
        )  # fmt: skip


def _norms(sources: Sources, roles: list[str], values: int) -> Iterator[Finding]:
    """Whether the norms that are trained against are of pixels in [0, 1]. values: of an image's pixels."""
    section = sources.config.robust
    assert section is not None
    for role in roles:
        one = section.roles[role]
        each = one.eps if one.norm == "linf" else one.eps / math.sqrt(values)
        if each > LARGE:
            yield warning(
                f"robust.roles.{role}.eps", f"{one.norm} norm {one.eps:g} is a change of {plain(each)} a pixel value",
                "Norms are of pixels in [0, 1]: 8 levels of 255 are 0.031",
            )  # fmt: skip
