"""A harmonising step and saliency, against how one would write them with torch alone.

    random 224-pixel images and maps -> one step: cross-entropy and the distance of maps, all images with a map

The plain step is cross-entropy alone, channels last. The straightforward double backward is torch.autograd.grad with
create_graph=True on the whole batch, attention by products where it must be. Ours is `harmonizer.train`'s objective, in
parts of PART images. Memory is that of a process of its own, which does one kind of step (python -m
benchmarks.harmonizer WHAT NETWORK): its peak beside what it had before the step.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.frame import Case, Limit, Side

NETWORKS = ("tf_efficientnet_lite0", "vit_tiny_patch16_224")
GOALS = {
    "tf_efficientnet_lite0": 3.5,
    "vit_tiny_patch16_224": 2.2,
}  # plain steps that a harmonising one may take
BATCH, PART = 8, 2


def cases(quick: bool) -> Iterator[Case | Limit]:
    """Steps, their memory, and saliency of images."""
    batch = 4 if quick else BATCH
    for name in NETWORKS:
        run = {what: step(name, what, batch) for what in ("plain", "double", "ours")}
        sides = {what: Side(what, run[what], batch) for what in run}
        ours = Side(f"harmonising step, parts of {PART}", run["ours"], batch)
        double = Side("straightforward double backward", run["double"], batch)
        goal = {"tf_efficientnet_lite0": 1.2, "vit_tiny_patch16_224": 1.0}[name]
        yield Case(
            f"harmonising step, {name}", "image", ours, double, goal, check=lambda name=name: agree(name)
        )
        yield Case(
            f"the same against the plain step, {name}", "image", ours, Side("cross-entropy alone", run["plain"], batch),
            1 / GOALS[name], note=f"at most {GOALS[name]} plain steps",
        )  # fmt: skip
        del sides
        if not quick:
            peaks = {what: peak(name, what) for what in ("double", "ours")}
            yield Limit(
                f"memory of a step of {BATCH}, {name}: ours over the double backward's", "ratio",
                [peaks["ours"] / peaks["double"]], 0.5,
                note=f"{peaks['ours'] / 1e6:,.0f} MB and {peaks['double'] / 1e6:,.0f} MB beside the process",
            )  # fmt: skip
    count = 32 if quick else 96
    torch.set_num_threads(2)  # ours takes a pass on each, the loop both for each image
    for name in NETWORKS:
        loop, stage = saliency(name, count)
        yield Case(
            f"saliency, {name}", "image", Side("alignet", stage, count), Side("a loop over images", loop, count), 1.5,
            note="2 threads; the loop as a tutorial has it: one image at a time, a backward pass through everything",
            rounds=3,
        )  # fmt: skip


def network(name: str) -> Any:
    """An encoder with random weights and the same pixels and maps for all."""
    from alignet.backbones import Backbone, load_encoder

    return load_encoder(Backbone("timm", name, "random", {"num_classes": 1000}, 224, "pooled"), seed=0)


def material(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels (b, 3, 224, 224) in [0, 1], labels (b,) and maps (b, 224, 224)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, 224, 224, generator=generator)
    return images, torch.arange(batch), torch.rand(batch, 224, 224, generator=generator)


def step(name: str, what: str, batch: int) -> Callable[[], Any]:
    """A function that does one step and leaves its gradients: plain | double | ours."""
    from alignet.backbones.gradients import Classifier
    from alignet.harmonizer.loss import map_distance

    encoder = network(name)
    images, labels, maps = material(batch)
    classify = Classifier(encoder, frozen=False)
    encoder.module.requires_grad_(True)
    how = {"order": "pyramid_first", "norm": "mean_squares", "levels": 5}
    if what == "ours":
        training, targets = objective(classify, batch), F.one_hot(labels, 1000).float()

        def ours() -> None:
            classify.encoder.module.zero_grad(set_to_none=True)
            training.add_gradients(images, targets, maps)

        return ours
    for module in encoder.module.modules():
        if hasattr(module, "fused_attn") and what == "double":
            module.fused_attn = False

    def run() -> None:
        encoder.module.zero_grad(set_to_none=True)
        if what == "plain":
            F.cross_entropy(classify(images), labels).backward()
            return
        first = images.detach().requires_grad_()
        logits = classify(first)
        score = logits.gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, first, create_graph=True)
        distance = map_distance(gradient.mean(1), maps, **how).mean()  # type: ignore[arg-type]
        (F.cross_entropy(logits, labels) + distance).backward()

    return run


def objective(classify: Any, batch: int) -> Any:
    """The training's own objective, all images with a map."""
    from alignet.config import HarmonizeSettings
    from alignet.harmonizer.batches import Labelled, Source
    from alignet.harmonizer.train import Harmonizer
    from alignet.runtime.distributed import Processes

    settings = HarmonizeSettings(
        steps=1, batch=batch, mapped=1.0, part=PART, map_weight=1.0, scalar="label", order="pyramid_first",
        norm="mean_squares", levels=5, reduction="mean", blur="none", decay=0.0, decay_form="squares",
        decay_of="kernels", optimizer="sgd", lr=0.1, momentum=0.9, nesterov=True, warmup=0, schedule="cosine",
        drops=(), smoothing=0.0, flip=0.0, crop=1.0, mixup=0.0, mixup_alpha=1.0, batch_norm="frozen",
        precision="float32", seed=0,
    )  # fmt: skip
    source = Source(Labelled(None, torch.zeros(batch).numpy()), batch, (0, 1))
    return Harmonizer(classify, settings, [source], 1000, Processes(), use_maps=True)


def agree(name: str) -> dict[str, float]:
    """The largest difference of a gradient between ours and the double backward, relative to the largest gradient."""
    found = []
    for what in ("double", "ours"):
        torch.manual_seed(0)
        run = step(name, what, 4)
        run()
        cells = {
            cell.cell_contents for cell in run.__closure__ or () if hasattr(cell.cell_contents, "encoder")
        }
        module = next(iter(cells)).encoder.module
        found.append(
            torch.cat([held.grad.flatten() for held in module.parameters() if held.grad is not None])
        )
    apart = ((found[0] - found[1]).abs().max() / found[0].abs().max()).item()
    assert apart < 1e-3, apart
    return {"largest difference of a gradient": apart}


def peak(name: str, what: str) -> float:
    """Bytes that a step of BATCH images adds to the peak of a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.harmonizer", what, name]
    made = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    return float(json.loads(made.stdout.splitlines()[-1]))


def saliency(name: str, count: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The loop of one image at a time, and the passes of the stage, on `count` images in memory."""
    from alignet.backbones.gradients import Classifier, input_gradient
    from alignet.backbones.inference import stream

    encoder, plain = network(name), network(name)
    images = torch.randint(
        0, 256, (count, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean, std = (torch.tensor(encoder.data_config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    classify = Classifier(encoder)

    def loop() -> None:
        for image in images:
            pixels = ((image[None] / 255 - mean) / std).requires_grad_()
            logits = plain.module(pixels)
            logits[0, logits.argmax()].backward()
            assert pixels.grad is not None
            plain.module.zero_grad()

    def stage() -> None:
        names = [str(row) for row in range(count)]
        passes = stream(
            names, lambda name: images[int(name)], lambda batch: input_gradient(classify, batch / 255).gradient.numpy(),
            batch=16, threads=torch.get_num_threads(),
        )  # fmt: skip
        assert sum(len(one.ids) for one in passes) == count

    return loop, stage


def main() -> None:
    """In a process of its own: the bytes that one step adds to the peak."""
    what, name = sys.argv[1:]
    torch.set_num_threads(1)
    run = step(name, what, BATCH)
    # ru_maxrss begins with the peak of the process that started this one; the kernel's own mark can be set back
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _resident("VmHWM")
    run()
    run()
    print(json.dumps(_resident("VmHWM") - before))


def _resident(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


if __name__ == "__main__":
    main()
