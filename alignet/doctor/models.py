"""The models: are their weights there, do they fit, is the preprocessing the library's own, does the device exist?"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignet.config import ModelSettings
from alignet.doctor.files import open_one, sample
from alignet.doctor.findings import Finding, fault, ok, plain, warning
from alignet.doctor.short import BLOCKS, Short, shortened
from alignet.doctor.sources import Sources
from alignet.pipeline.graph import TRAINED, Node, stage_of
from alignet.runtime.memory import memory_left

NETWORKS = ("timm", "open_clip", "transformers")  # libraries whose models are networks
_TOLERANCE = {"cpu": 1e-4, "cuda": 5e-3}  # of the largest feature; a GPU adds up in another order
_IMAGES = 2  # that both embed


def base_of(model: str) -> str:
    """The configured model that a name is of: the student for what is trained from it."""
    return "student" if stage_of(model) else model


@dataclass
class Models:
    """The networks of a configuration, each loaded once: with its weights where they are here; otherwise at random,
    and of large stacks of blocks only the first few (`short`)."""

    sources: Sources
    failed: dict[str, str] = field(default_factory=dict)  # model -> why it cannot be loaded
    seconds: dict[str, float] = field(default_factory=dict)  # model -> how long loading it took
    _held: dict[str, Any] = field(default_factory=dict)
    _short: dict[str, Short | None] = field(default_factory=dict)

    def short(self, name: str) -> Short | None:
        """How a network is built with few blocks, where that is done: its weights are not here, it is large and no part
        of it is frozen, of which few blocks would say nothing."""
        if name not in self._short:
            config, model = self.sources.config, self.sources.config.models[name]
            away = model.weights in ("hub", "file") and self.weights(name) is None
            whole = name == "student" and config.finetune.settings.frozen
            self._short[name] = None if whole or not (away or model.weights == "random") else shortened(model)
        return self._short[name]

    def networks(self) -> dict[str, ModelSettings]:
        """Models that the graph embeds with or trains, and that are networks."""
        nodes = self.sources.graph.values()
        stages = ("embed", "saliency", "attack", "invert")
        used = {re.split("[.:]", node.role)[0] for node in nodes if node.stage in stages}
        compared = self.sources.config.perceptual.distances
        used |= {compared[name].model for node in nodes for name in distances_of(node)}
        if any(node.stage in TRAINED.values() for node in nodes) or any(map(stage_of, used)):
            used.add("student")
        models = {name: model for name, model in self.sources.config.models.items() if name in used}
        return {name: model for name, model in models.items() if model.library in NETWORKS}

    def classes(self, name: str) -> int:
        """How many classes a network's own classifier tells apart; 0 where it has none, or cannot be loaded."""
        from alignet.backbones.gradients import has_classifier

        encoder = self.encoder(name)
        if encoder is None or not has_classifier(encoder):
            return 0
        return int(getattr(encoder.module, "num_classes", 0))

    def weights(self, name: str) -> str | None:
        """What Backbone.weights would be: a path, '' (cached from a hub), 'random'; None if they are not here."""
        model = self.sources.config.models[name]
        if model.weights == "random":
            return "random"
        if model.weights == "file":
            there = (
                self.sources.read(model.weights_set)
                if model.weights_set in self.sources.config.data.sets
                else None
            )
            return str(self.sources.path(model.weights_set)) if there is not None else None
        if model.weights == "pretrain" and f"pretrain[{name}]" not in self.sources.graph:
            return "random"  # every training begins with new ones
        if model.weights == "pretrain":
            from alignet.pipeline.payloads import weights_of

            artifact = self.sources.state(f"pretrain[{name}]").artifact
            return str(weights_of(artifact)) if artifact is not None else None
        return "" if _absent(model) == [] else None

    def encoder(self, name: str) -> Any:
        """The loaded Encoder, or None (then `failed` says why). Absent weights are replaced by random ones."""
        if name not in self._held:
            self._held[name] = None
            began = time.perf_counter()
            try:
                model, weights, short = self.sources.config.models[name], self.weights(name), self.short(name)
                if short is None:
                    self.check_memory(model)
                with contextlib.nullcontext() if short is None else short.building():
                    self._held[name] = load(
                        model if short is None else short.model, "random" if weights is None else weights,
                        device(self.sources),
                    )  # fmt: skip
            except MemoryError:
                raise
            except Exception as error:
                self.failed[name] = str(error) or type(error).__name__
            self.seconds[name] = time.perf_counter() - began
        return self._held[name]

    def check_memory(self, model: ModelSettings) -> None:
        """ValueError where a network is too large to be loaded twice, as the check of its preprocessing does."""
        try:
            needed = parameter_bytes(model)
        except (RuntimeError, TypeError, ValueError, AttributeError):
            return  # loading says what is wrong with the architecture
        if needed is not None and 2 * needed > memory_left():
            raise ValueError(
                f"{model.architecture}: its parameters take {needed / 1e9:,.1f} GB, a check takes them twice, and "
                f"{memory_left() / 1e9:,.1f} GB of memory are free; check and measure on a larger machine"
            )


def distances_of(node: Node) -> list[str]:
    """Perceptual distances that a node computes or pushes up, by name."""
    if node.stage == "perceptual":
        return list(node.section["distances"])
    return (
        [node.section["method"]["distance"]] if node.stage == "invert" and "distance" in node.section else []
    )


def parameter_bytes(model: ModelSettings) -> int | None:
    """Bytes of a network's parameters, from its architecture alone; None where only building it can tell."""
    module = on_meta(model)
    if module is None:
        return None
    return sum(value.numel() * value.element_size() for value in module.parameters())


def on_meta(model: ModelSettings) -> Any:
    """A network as a module without memory for its weights; None where only building it can tell what it is."""
    import torch

    with torch.device("meta"):
        if model.library == "timm":
            import timm

            known = timm.is_model(model.architecture)
            return timm.create_model(model.architecture, **model.model_args) if known else None
        if model.library != "open_clip":
            return None
        import open_clip

        config = dict(open_clip.get_model_config(model.architecture) or {}) | dict(model.model_args)
        if not config or "hf_model_name" in config.get("text_cfg", {}):
            return None
        kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
        return kind(**config)


def load(model: ModelSettings, weights: str, where: str) -> Any:
    """The Encoder of a model with these weights."""
    from alignet.backbones import Backbone, load_encoder

    names = ("library", "architecture", "model_args", "image_size", "feature", "tag")
    backbone = Backbone(weights=weights, **{name: getattr(model, name) for name in names})
    return load_encoder(backbone, device=where, seed=0)


def device(sources: Sources) -> str:
    """The device that was asked for, or the CPU where this machine lacks it (which is a fault of its own)."""
    import torch

    wanted = sources.config.runtime.device
    return wanted if wanted == "cpu" or torch.cuda.is_available() else "cpu"


# ---- checks


def check_weights(sources: Sources, models: Models) -> Iterator[Finding]:
    """Are the weights here, and are they this architecture's?"""
    for name, model in models.networks().items():
        if model.weights == "hub":
            yield _hub(name, model)
        if model.weights == "pretrain" and models.weights(name) is None:
            yield ok(name, f"{model.architecture}, pretrained by the stage pretrain[{name}]")
        if model.weights == "file" and model.weights_set not in sources.config.data.sets:
            yield fault(name, f"weights=file, and weights_set={model.weights_set!r} is no set of data.sets")
            continue
        if model.weights == "file" and models.weights(name) is None:
            continue  # the check of files has a line about it
        encoder = models.encoder(name)
        if encoder is None:
            yield fault(name, models.failed[name])
        elif model.weights in ("file", "random") or models.weights(name) in ("", "random"):
            short = models.short(name)
            count = sum(value.numel() for value in encoder.module.parameters())
            count = count if short is None else short.weights // 4
            new = models.weights(name) == "random"
            said = "random weights" if new else f"weights fit ({model.weights})"
            yield ok(name, f"{model.architecture}, {count / 1e6:,.1f} million parameters, {said}")


def _absent(model: ModelSettings) -> list[str] | None:
    """Repositories whose files the hub's cache lacks; None for a model without weights on the hub."""
    from alignet.backbones import hub

    try:
        wanted = hub.wanted(model.library, model.architecture, model.tag)
    except ValueError:
        return None
    return list(dict.fromkeys(one.repo for one in wanted if hub.present(one) is None))


def _hub(name: str, model: ModelSettings) -> Finding:
    from alignet.backbones import hub

    try:
        hub.wanted(model.library, model.architecture, model.tag)
    except ValueError as error:
        return fault(name, str(error))
    absent = _absent(model)
    if not absent:
        return ok(name, f"{model.architecture}: weights are in the cache")
    found = f"{model.architecture}: files of {', '.join(absent)} are not in the cache"
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return fault(
            name, f"{found}, and HF_HUB_OFFLINE=1 forbids fetching them",
            "Run `python -m alignet.stages.prefetch` with the same options where there is internet, and copy its "
            "cache (HF_HOME) here",
        )  # fmt: skip
    return warning(
        name, f"{found}; they are fetched when first needed",
        "On a machine without internet run `python -m alignet.stages.prefetch` with the same options elsewhere first "
        "and copy its cache (HF_HOME) here",
    )  # fmt: skip


def check_preprocessing(sources: Sources, models: Models) -> Iterator[Finding]:
    """Are the features those of the library's own documented way, on real images of the pool?

    And do the 8-bit pixels that fine-tuning keeps become the numbers that the network was given?
    """
    import torch

    from alignet.doctor.documented import documented_features

    for name in models.networks():
        if models.failed.get(name) or (encoder := models.encoder(name)) is None:
            continue
        images = _pictures(sources, encoder)
        prepared = torch.stack([encoder.transform(image) for image in images])
        kept = torch.stack([encoder.normalise(encoder.pixels(image)) for image in images])
        with torch.no_grad():
            found = encoder.features(prepared.to(encoder.device))
            found, expected = documented_features(encoder, images, found)
        away = max(_apart(kept, prepared), _apart(found.float().cpu(), expected.float().cpu()))
        what = f"features equal {encoder.backbone.library}'s own"
        span = f"{prepared.min():.2f}..{prepared.max():.2f} on {len(images)} pictures"
        said = f"{in_words(encoder.data_config)} ({span})"
        tolerance = _TOLERANCE[encoder.device.type]
        if away <= tolerance:
            short = models.short(name)
            tried = "" if short is None else f" (random weights in {BLOCKS} of {short.depth} blocks)"
            yield ok(name, f"{said}; {what}, to {plain(tolerance)} of the largest{tried}")
        else:
            yield fault(
                name,
                f"{said}; expected that {what}, found {plain(away)} of the largest between them",
                "The preprocessing or the weights are not the model's own; check model_args and image_size",
            )


def check_export(sources: Sources, models: Models) -> Iterator[Finding]:
    """Does the student's library load what would be exported of it?"""
    import tempfile
    from pathlib import Path

    from alignet.student.export import rehearse

    trained = any(node.stage == "finetune" for node in sources.graph.values())
    if not trained or models.failed.get("student") or (encoder := models.encoder("student")) is None:
        return
    short = models.short("student")
    with tempfile.TemporaryDirectory() as folder:
        try:
            if short is not None and short.tower_of_timm:  # open_clip builds its whole depth again
                models.check_memory(sources.config.student)
                encoder = load(sources.config.student, "random", device(sources))
            rehearse(encoder, Path(folder) / "student")
        except ValueError as error:
            yield fault("student", str(error))
        else:
            yield ok("student", f"{encoder.backbone.library} loads an export of it")


def _apart(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest number that is expected."""
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()


def in_words(config: Mapping[str, Any]) -> str:
    """A model's preprocessing in words."""
    size = config.get("input_size", (3, 0, 0))
    low = [(0 - mean) / std for mean, std in zip(config["mean"], config["std"])]
    high = [(1 - mean) / std for mean, std in zip(config["mean"], config["std"])]
    how = f", {config['interpolation']}" if config.get("interpolation") else ""
    crop = f", crop {config['crop_pct']:g}" if config.get("crop_pct") else ""
    return f"input {size[1]} x {size[2]}{how}{crop}, pixels mapped to {min(low):.2f}..{max(high):.2f}"


def _pictures(sources: Sources, encoder: Any) -> list[Any]:
    """Some images of the pool; where there are none yet, pictures of noise of another size than the input."""
    ids = sources.read("pool") if "pool" in sources.sets() else None
    if ids:
        found = []
        for identity in sample(ids, 8 * _IMAGES, sources.config.doctor.seed):
            try:
                found.append(open_one(sources, "pool", identity))
            except ValueError:
                continue  # reported by the check of files
            if len(found) == _IMAGES:
                return found
    import numpy as np
    from PIL import Image

    side = int(encoder.data_config["input_size"][1])
    draw = np.random.default_rng(sources.config.doctor.seed)
    shape = (side + side // 4, side + side // 8, 3)
    return [Image.fromarray(draw.integers(0, 256, shape).astype(np.uint8)) for _ in range(_IMAGES)]


def check_device(sources: Sources) -> Iterator[Finding]:
    """Is the device there, can it compute in the precision, and are the threads its cores?"""
    import torch

    runtime, settings = sources.config.runtime, sources.config.finetune.settings
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if runtime.device == "cuda" and not torch.cuda.is_available():
        yield fault(
            "runtime.device",
            "a CUDA device is asked for, and torch finds none here",
            "Set runtime.device=cpu",
        )
    elif runtime.device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory
        yield ok("runtime.device", f"{torch.cuda.get_device_name(0)}, {memory / 1e9:.0f} GB")
        if settings.precision == "bf16" and not torch.cuda.is_bf16_supported():
            yield fault("finetune.precision", "bf16 is asked for, and this GPU lacks it", "Set it to float32")
    else:
        seen = f"; {torch.cuda.get_device_name(0)} is there and not used" if torch.cuda.is_available() else ""
        yield ok("runtime.device", f"cpu{seen}")
        if settings.precision == "bf16":
            yield warning(
                "finetune.precision", "bf16 on a CPU is emulated on most machines and slower than float32"
            )
    if runtime.threads > cores:
        yield warning(
            "runtime.threads", f"{runtime.threads} threads for {cores} cores", f"Set runtime.threads={cores}"
        )
    else:
        unused = (
            f"; with {cores} it may be faster, and differs in the last bits"
            if runtime.threads < cores
            else ""
        )
        yield ok("runtime.threads", f"{runtime.threads} of {cores} cores{unused}")
