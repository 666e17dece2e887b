"""What follows from the costs: the bottleneck, what fits a GPU, where one machine no longer serves, what to run next.

costs -> lines of text for the stage `plan`
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from alignet.config import Config
from alignet.doctor.findings import duration, size
from alignet.pipeline.runner import SHARED
from alignet.plan.costs import CONTEXT, Cost, embed_bytes, kept_bytes
from alignet.plan.machines import WORDS, Machine
from alignet.plan.networks import Network
from alignet.plan.nodes import finetune_bytes
from alignet.plan.sizes import Sizes

BATCHES = (48, 96, 192, 384, 512)  # images at once, for the table of what fits
PATIENCE = 86_400.0  # seconds of one node beyond which more GPUs are advised: a day
PART = 1_000_000  # images of a part, where a set is cut into parts that are embedded by themselves
LARGE = 1e12  # bytes of features that are no longer made, moved and kept as one artifact
NODE = 8  # GPUs of one machine, at most
CARD = "24gb"  # of plan.machines: whose GPU is asked about where the machine has none


def bottleneck(costs: Sequence[Cost]) -> str:
    """The node that takes longest, its share of the whole, and what it waits for."""
    total, longest = sum(cost.seconds for cost in costs), max(costs, key=lambda cost: cost.seconds)
    waits = f", which waits for {words(longest)}" if longest.bound else ""
    return f"{longest.key}: {duration(longest.seconds)} of {duration(total)} ({longest.seconds / total:.0%}){waits}"


def words(cost: Cost) -> str:
    """What a node waits for, in words."""
    return "the disk" if cost.bound == "disk" else WORDS.get(cost.bound, "")


def too_large(costs: Sequence[Cost], machine: Machine) -> Iterator[str]:
    """Nodes whose memory the machine does not have."""
    for cost in costs:
        for what, needed, there in (
            ("memory", cost.host, machine.settings.memory),
            ("GPU memory", cost.gpu, machine.gpu.memory if machine.gpu else 0.0),
        ):
            if needed > there:
                yield f"{cost.key} needs {size(needed)} of {what}, and {machine.name} has {size(there)}"


def fits(config: Config, machine: Machine, sizes: Sizes) -> Iterator[str]:
    """How many images fit at once on the machine's GPU, or on a card of 24 GB, in fine-tuning and in embedding."""
    gpu = machine.gpu or config.plan.machines[CARD].gpu
    assert gpu is not None
    room = gpu.memory - CONTEXT
    settings = config.finetune.settings
    batch = (
        settings.batch
        if settings.sampling == "in_batch"
        else math.ceil(3 * settings.batch / settings.accumulate)
    )
    where = "" if machine.gpu else f" ({CARD}; {machine.name} has none)"
    yield f"one GPU of {size(gpu.memory)}{where}; configured: {batch:,} images of the student at once"
    network = sizes.network("student", frozen=True)
    reduced = config.finetune.settings.precision == "bf16"
    precision = config.finetune.settings.precision
    ways = {precision: kept_bytes(network, reduced, False)}
    if network.kind == "transformer":
        ways[f"{precision}, runtime.recompute=true"] = kept_bytes(network, reduced, True)
    for how, bytes_each in ways.items():
        found = []
        for images in BATCHES:
            needed = _finetuned(network, bytes_each, images, reduced)
            found.append(f"{images}: {size(needed)}{'' if needed <= room else ' (does not fit)'}")
        most = int((room - _finetuned(network, bytes_each, 0, reduced)) / bytes_each)
        yield f"  fine-tuning {config.student.name}, {how}: {', '.join(found)}; at most {max(most, 0):,} images at once"
    for name in ("teacher", "student"):
        if config.models[name].library in ("features", "pixels", "histogram"):
            continue
        one, batch = sizes.network(name), config.embed.batch
        needed = embed_bytes(one, batch, config.runtime.threads, on_gpu=True)
        fit = "fits" if needed <= room else "does not fit"
        yield f"  embedding with {config.models[name].name}, {batch} images: {size(needed)}, {fit}"


def _finetuned(network: Network, kept: float, images: int, reduced: bool) -> float:
    return finetune_bytes(network.trained, 4 * network.parameters, kept, images, reduced)


def beyond(config: Config, machine: Machine, sizes: Sizes, costs: Sequence[Cost]) -> Iterator[str]:
    """Where one machine no longer serves, and which existing engine does."""
    slow = [cost for cost in costs if cost.stage in SHARED and cost.seconds > PATIENCE]
    what = "GPUs" if machine.gpu else "machines"
    how = "(torchrun, or runtime.launcher=slurm; docs/scaling.md)"
    for cost in slow:
        many = -(-int(cost.seconds * machine.count) // int(PATIENCE))
        takes = "a day"
        if cost.parts:
            counts = range(1, len(cost.parts) + 1)
            many = next((one for one in counts if dealt(cost.parts, one) <= PATIENCE), len(cost.parts))
            longest = dealt(cost.parts, many)
            takes = "a day" if longest <= PATIENCE else f"{duration(longest)}, a distance each"
        yield f"{cost.key} takes {duration(cost.seconds)}: {many:,} of these {what} would take {takes} {how}"
    images = sizes.images("pool")
    stored = 2 * images * sizes.width("teacher")
    lists = max(cost.host for cost in costs if cost.stage in ("index", "embed", "cluster", "triplets"))
    if stored < LARGE and lists < machine.settings.memory:
        return
    library = config.teacher.library
    teacher = "MODEL" if library == "features" else f"{library}:{config.teacher.architecture}"
    parts = -(-images // PART)
    few, settings = min(images, 10 * PART), config.finetune.settings
    passes = settings.steps * settings.batch * (settings.accumulate if settings.sampling == "in_batch" else 3)
    yield f"a list of {images:,} images and {size(stored)} of features (float16) are no longer one machine's work:"
    yield (
        f"  1. embed in {parts:,} parts of WebDataset shards, one job of a SLURM array each "
        f"(sbatch --array=0-{parts - 1}):"
    )
    yield (
        f"     python -m alignet.stages.embed images=PART model={teacher} precision=float16 device=cuda "
        "output=features-$SLURM_ARRAY_TASK_ID"
    )
    yield (
        "  2. k-means on a random sample of 256 rows for each centroid, which is what faiss itself trains on; then "
        "each part is assigned by itself. Beyond a sample faiss has its own, over several machines: "
        "benchs/distributed_ondisk/distributed_kmeans.py of its sources"
    )
    yield (
        f"  3. triplets and fine-tuning from a random part as the pool: {few:,} images have "
        f"{size(2 * few * sizes.width('teacher'))} of features, and fine-tuning passes {passes:,} images in all"
    )


def dealt(parts: Sequence[float], count: int) -> float:
    """Seconds of the slowest of so many processes, to which parts are dealt in turn."""
    return max(sum(parts[rank::count]) for rank in range(min(count, len(parts))))


def following(config: Config, machine: Machine, sizes: Sizes, given: str) -> Iterator[str]:
    """Commands to run next. given: the command line's own options, without those of plan."""
    count = sizes.drawn_triplets()
    given += f" triplets.count={count}" if count != config.triplets.count else ""
    device = f" runtime.device=cuda runtime.workers={machine.settings.cores}" if machine.gpu else ""
    yield f"python -m alignet.stages.doctor{given}{device}   # on that machine: measures, and checks the data"
    if machine.count > 1:
        nodes = -(-machine.count // NODE)
        launcher = f" runtime.launcher={'slurm' if nodes > 1 else 'torchrun'}"
        launcher += f" runtime.processes={min(machine.count, NODE)}"
        launcher += f" runtime.slurm.nodes={nodes}" if nodes > 1 else ""
        yield f"python -m alignet.stages.pipeline{given}{device}{launcher}"
        return
    yield f"python -m alignet.stages.pipeline{given}{device}"
