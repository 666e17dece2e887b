"""Fine-tuning a student on a teacher's answers to triplets of images, held near where it started.

    triplets with similarities, or features of the pool (mapped or raw)  -> the teacher
    pool images, an encoder with its initial weights                     -> weights, curves

The objective is AligNet's eq. 6: the triplet loss of eq. 5 plus lambda ||theta* - theta||^2. The second
term is applied as AdamW applies its decay, after the Adam step: theta -= lr * pull * (theta - theta*).
Inside the loss Adam would rescale it by the history of the gradient; under plain SGD pull = 2 lambda.

Batch normalisation, dropout and drop-path stay as at test time: running statistics are frozen (their
affine parameters train), so a batch in parts is the same batch, and the features that are trained are
the features that are evaluated.

Several processes share a step: each computes the features of its part of the images, the features are gathered, and
every process takes the loss of all triplets from them, so the objective is that of one process. Its gradient by
features flows back through each process's own part, and the parameters' gradients are summed once a step.
DistributedDataParallel would average gradients of losses that saw only their own process's images, and knows nothing of
a step in parts.

Shape suffixes: b images in a batch, n triplets, m images in the pool, p features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignet.backbones import Encoder
from alignet.config import FinetuneSettings
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes, current
from alignet.runtime.interrupt import ignore
from alignet.runtime.training import Training
from alignet.student.batches import AnsweredTriplets, ImageBatches, PoolTeacher, TripletAnswers
from alignet.student.in_batch_loss import Comparison
from alignet.student.learning_without_forgetting import Retention
from alignet.student.network import Student
from alignet.student.optimizer import Optimizer, whole
from alignet.triplets import similarities

# nats (eq. 5); nats, of `retain`, unweighted; Adam's rate; ||theta - theta*||_2 after the step
CURVES = ("loss", "retained", "lr", "distance")


Teacher = TripletAnswers | PoolTeacher
Batches = AnsweredTriplets | ImageBatches


@dataclass(frozen=True)
class FinetuneResult:
    """Weights on the CPU, and how they came about."""

    state: dict[str, Tensor]  # of the whole network, as safetensors would hold it
    head: dict[str, Tensor]  # weight and bias of the triplet head; empty without one
    tau_student: float  # the temperature that was used
    curves: dict[str, np.ndarray]  # by CURVES, (steps,) float64


def finetune(
    encoder: Encoder,
    images: Any,
    teacher: Teacher,
    settings: FinetuneSettings,
    *,
    original: np.ndarray | None = None,
    workers: int = 0,
    checkpoints: Checkpoints | None = None,
    processes: Processes | None = None,
    recompute: bool = False,
    compiled: bool = False,
    sharding: str = "none",
) -> FinetuneResult:
    """Minimise eq. 6 with Adam, plus the term of `Retention`, from the encoder's present weights, which are theta*.

    encoder: changed in place, so it ends with the returned weights. images: a tensor or a dataset of m
    images (3, H, W), uint8 pixels or float32 and normalised. original: (m, p) features of these images by the
    initial weights, which settings.retain compares with. workers: processes that read images.
    All parameters behind the features train, but for those whose names begin with one of `settings.frozen`
    (from the input on, they make a step cheaper as well). The draws follow from (settings.seed, step) alone. With
    `checkpoints`, interrupted work goes on where it was and ends in the same bytes (on a CPU, with an
    equal number of threads and processes); the encoder must then come with its initial weights again. processes:
    those that share each step, by default all of this run; each must call this with the same arguments and returns the
    same result. Only the first saves checkpoints, and all end at one step when one of them is asked to. recompute,
    compiled: see Student. sharding: see Optimizer; with fsdp2 the encoder is left sharded, the result is whole.
    ValueError for a teacher that does not fit images or settings, settings.retain without a classifier or without
    `original`, a name in `frozen` that no parameter has, and when the loss, a gradient or a weight is not finite; no
    checkpoint ever holds such a weight.
    """
    everyone = processes or current()
    batches = _batches(teacher, len(images), settings)
    for tensor in encoder.module.state_dict().values():
        everyone.copy(tensor)
    student = Student(encoder, settings, recompute=recompute, compiled=compiled)
    keep = Retention(encoder, original, len(images)) if settings.retain else None
    order = _order(len(images), settings)
    loop = Training(
        "finetune", settings.steps, checkpoints=checkpoints, processes=everyone,
    )  # fmt: skip
    tensors, curve, tau = _begin(loop, student, images, batches, settings)
    loop.advice = f"lower finetune.lr (now {settings.lr:g}) or raise tau_student (now {tau:g})"
    optimizer = Optimizer(student, settings, everyone, sharding)
    optimizer.restore(tensors)
    compare = Comparison(settings.loss, settings.tau_teacher, tau)
    parts = _loader(batches, images, range(loop.saved, settings.steps), student, workers, everyone)
    pixels = next(parts, None)

    def one_step(step: int) -> str:
        nonlocal pixels
        sums = torch.zeros(2, dtype=torch.float64, device=encoder.device)
        for part in range(settings.accumulate):
            rows = batches.rows(step, part)

            def backward(held: Tensor, rows: np.ndarray = rows, part: int = part) -> None:
                sums[0] += batches.backward(student.head(held), step, part, compare, everyone)
                if keep is not None:
                    shares = batches.shares(step, part)
                    sums[1] += keep.backward(held, order[rows], shares, settings.retain)

            assert pixels is not None
            generator = _generator(settings.seed, 3, step, part)
            shared_backward(student, pixels, generator, len(rows), everyone, backward)
            pixels = next(parts, None)  # a GPU is still busy with the backward pass
        # GPUs need not agree on the last bit
        loss, retained = everyone.copy(sums).tolist()
        loop.check("loss", loss + settings.retain * retained, step)
        loop.check("gradient", optimizer.sum_gradients(), step)
        rate, distance = optimizer.step(step)
        loop.check("distance from the initial weights", distance, step)
        curve[step] = torch.tensor([loss, retained, rate, distance], dtype=torch.float64)
        return f"loss {loss:.4f}"

    loop.run(
        one_step,
        lambda: optimizer.tensors() | {"curve": curve},
        lambda: {"tau_student": tau},
        together=optimizer.sharded,
    )
    return FinetuneResult(
        state={name: _plain(whole(tensor)) for name, tensor in encoder.module.state_dict().items()},
        head={name: _plain(tensor) for name, tensor in student.head.state_dict().items()},
        tau_student=tau,
        curves={name: curve[:, column].numpy() for column, name in enumerate(CURVES)},
    )


def shared_backward(
    student: Student,
    pixels: Tensor,
    generator: torch.Generator,
    count: int,
    everyone: Processes,
    backward: Callable[[Tensor], None],
) -> None:
    """Add the parameters' gradient of a loss on the features of `count` images, of which each process has a part.

    pixels: this process's. backward: takes all features (count, p), and adds the loss's gradient by them to their grad.
    """
    own = everyone.share(count)
    vectors = student.encode(pixels, generator, (count, _computed(own)))[: own.stop - own.start]
    # every term meets here: one backward pass behind it
    held = everyone.gather(vectors, count).requires_grad_()
    backward(held)
    assert held.grad is not None
    vectors.backward(held.grad[own])


def _begin(
    loop: Training, student: Student, images: Any, batches: Batches, settings: FinetuneSettings
) -> tuple[dict[str, Tensor], Tensor, float]:
    """What the optimizer had at the last checkpoint, the curve so far, and the student's temperature: those of the
    first process for all."""
    done, tensors, state = loop.restored()
    if done:
        return tensors, tensors.pop("curve"), state["tau_student"]
    everyone = loop.processes
    tau = student_temperature(student, images, batches, settings) if everyone.first else 0.0
    tau = everyone.copy(torch.tensor([tau], dtype=torch.float64)).item()
    return {}, torch.zeros((settings.steps, len(CURVES)), dtype=torch.float64), tau


def _computed(own: slice) -> slice:
    """The rows that a process computes for its share: a process without one goes along with the first row."""
    return own if own.stop > own.start else slice(0, 1)


def student_temperature(student: Student, images: Any, batches: Batches, settings: FinetuneSettings) -> float:
    """The student's temperature: the number given, or an estimate from its initial similarities.

    "spread": their standard deviation over pairs of a sample of the pool. "fit": the temperature at which
    the mean loss to the teacher's labels is least. The sample is drawn from the seed.
    """
    if not isinstance(settings.tau_student, str):
        return float(settings.tau_student)
    rows, triplets, answers = batches.sample(np.random.default_rng([settings.seed, 2]))
    with torch.no_grad():
        held = [
            student.features(torch.stack([torch.as_tensor(images[int(row)]) for row in part]))
            for part in np.array_split(_order(len(images), settings)[rows], max(1, len(rows) // 64))
        ]
        features = torch.cat(held).cpu().double()
    if settings.tau_student == "spread":
        gram = features @ features.T
        tau = gram[~torch.eye(len(gram), dtype=torch.bool)].std().item()
    else:
        tau = best_temperature(similarities(features, triplets), answers.double(), settings)
    # equal features differ in their last bits only
    if not (math.isfinite(tau) and tau > 1e-9 * features.pow(2).sum(1).mean().item()):
        raise ValueError(
            f"finetune.tau_student: expected initial features that differ, found the temperature {tau} by "
            f"{settings.tau_student!r}; check the student's weights and preprocessing."
        )
    return tau


def best_temperature(sims: Tensor, answers: Tensor, settings: FinetuneSettings) -> float:
    """The student's temperature of least mean loss, for similarities (n, 3) of student and teacher.

    Searched within exp(+-8) of the similarities' own spread: where the student knows nothing of the
    teacher the loss falls for ever, and the upper end is taken.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_tau: float) -> float:
        compare = Comparison(settings.loss, settings.tau_teacher, math.exp(log_tau))
        return compare(answers, sims).mean().item()

    middle = math.log(max((sims - sims.mean(1, keepdim=True)).abs().mean().item(), 1e-30))
    best = min(np.linspace(middle - 8, middle + 8, 33), key=loss)
    found = minimize_scalar(loss, bounds=(best - 0.5, best + 0.5), method="bounded", options={"xatol": 1e-4})
    return math.exp(found.x)


def _batches(teacher: Teacher, images: int, settings: FinetuneSettings) -> Batches:
    shared = {"batch": settings.batch, "parts": settings.accumulate, "seed": settings.seed}
    if settings.sampling == "triplets" and isinstance(teacher, TripletAnswers):
        return AnsweredTriplets(teacher, images, **shared)
    if settings.sampling == "in_batch" and isinstance(teacher, PoolTeacher):
        return ImageBatches(teacher, images, clusters=settings.clusters_per_batch, **shared)
    expected = "answered triplets" if settings.sampling == "triplets" else "teacher features"
    raise ValueError(
        f"finetune.sampling: {settings.sampling!r} expected {expected}, found {type(teacher).__name__}; give "
        f"the teacher that belongs to the sampling."
    )


def _order(images: int, settings: FinetuneSettings) -> np.ndarray:
    """The image that gets each row of the teacher: its own, but for the control."""
    if not settings.shuffle_teacher:
        return np.arange(images)
    return np.random.default_rng([settings.seed, 4]).permutation(images)


def _generator(*key: int) -> torch.Generator:
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


def _loader(
    batches: Batches, images: Any, steps: range, student: Student, workers: int, everyone: Processes
) -> Iterator[Tensor]:
    """This process's images of each part of each step; a row of the loader's sampler is one part."""
    order = _order(len(images), student.settings)
    parts = [(step, part) for step in steps for part in range(student.settings.accumulate)]
    # torch asks the global generator for a seed unless it is given one
    loader: Any = torch.utils.data.DataLoader(
        images, batch_sampler=_Rows(batches, parts, order, everyone), num_workers=workers,
        generator=torch.Generator(), pin_memory=student.encoder.device.type == "cuda",
        multiprocessing_context="fork" if workers else None, worker_init_fn=ignore,
    )  # fmt: skip
    return iter(loader)


class _Rows:
    """The rows of this process's images of each part of each step, in order."""

    def __init__(
        self, batches: Batches, parts: list[tuple[int, int]], order: np.ndarray, everyone: Processes
    ):
        self.batches, self.parts, self.order, self.everyone = batches, parts, order, everyone

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[list[int]]:
        for step, part in self.parts:
            rows = self.batches.rows(step, part)
            yield self.order[rows[_computed(self.everyone.share(len(rows)))]].tolist()


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()
