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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alignet.answers import AnsweredTriplets, Comparison, ImageBatches, PoolTeacher, TripletAnswers
from alignet.backbones import Encoder, classifier_head
from alignet.checkpoints import Checkpoints
from alignet.config import FinetuneSettings
from alignet.interrupt import ignore, stop
from alignet.processes import Processes, current
from alignet.progress import progress
from alignet.triplets import kl_divergence, similarities

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
    same result. Only the first saves checkpoints, and all end at one step when one of them is asked to.
    ValueError for a teacher that does not fit images or settings, settings.retain without a classifier or without
    `original`, a name in `frozen` that no parameter has, and when the loss is not finite.
    """
    everyone = processes or current()
    batches = _batches(teacher, len(images), settings)
    for tensor in encoder.module.state_dict().values():
        everyone.copy(tensor)
    student = Student(encoder, settings)
    keep = Retention(encoder, original, len(images)) if settings.retain else None
    order = _order(len(images), settings)
    done, curve, tau = _begin(student, images, batches, settings, checkpoints, everyone)
    saved = done if done else None
    compare = Comparison(settings.loss, settings.tau_teacher, tau)
    parts = _loader(batches, images, range(done, settings.steps), student, workers, everyone)
    with progress("finetune", settings.steps, "steps", done) as advance:
        for step in range(done, settings.steps):
            loss = retained = 0.0
            for part in range(settings.accumulate):
                rows = batches.rows(step, part)
                own = everyone.share(len(rows))
                among = (len(rows), _computed(own))
                vectors = student.encode(next(parts), _generator(settings.seed, 3, step, part), among)
                vectors = vectors[: own.stop - own.start]
                # both terms meet here: one backward pass behind it
                held = everyone.gather(vectors, len(rows)).requires_grad_()
                loss += batches.backward(student.head(held), step, part, compare)
                if keep is not None:
                    shares = batches.shares(step, part)
                    retained += keep.backward(held, order[rows], shares, settings.retain)
                assert held.grad is not None
                vectors.backward(held.grad[own])
            loss, retained = _of_the_first(everyone, loss, retained)
            total = loss + settings.retain * retained
            if not math.isfinite(total):
                where = (
                    "there is no checkpoint" if saved is None else f"the last checkpoint is of step {saved}"
                )
                raise ValueError(
                    f"finetune: expected a finite loss, found {total} at step {step} of {settings.steps} ({where}); "
                    f"lower finetune.lr (now {settings.lr:g}) or raise tau_student (now {tau:g})."
                )
            student.sum_gradients(everyone)
            curve[step] = torch.tensor([loss, retained, *student.step(step)], dtype=torch.float64)
            everyone.agree()
            if checkpoints and everyone.first and (everyone.stopping() or checkpoints.due()):
                checkpoints.save(step + 1, student.tensors() | {"curve": curve}, {"tau_student": tau})
                saved = step + 1
            if checkpoints and everyone.stopping():
                everyone.wait()  # a process that ended before the checkpoint is written might take the first with it
                raise stop()
            advance(note=f"loss {loss:.4f}")
    return FinetuneResult(
        state={name: _plain(tensor) for name, tensor in encoder.module.state_dict().items()},
        head={name: _plain(tensor) for name, tensor in student.head.state_dict().items()},
        tau_student=tau,
        curves={name: curve[:, column].numpy() for column, name in enumerate(CURVES)},
    )


def _begin(
    student: Student, images: Any, batches: Batches, settings: FinetuneSettings, checkpoints: Checkpoints | None,
    everyone: Processes,
) -> tuple[int, Tensor, float]:  # fmt: skip
    """Steps that are done, the curve so far, and the student's temperature: those of the first process for all."""
    done = 0
    if checkpoints:
        done = int(everyone.copy(torch.tensor([checkpoints.newest()])).item())
    if checkpoints and done:
        _, tensors, state = checkpoints.at(done)
        student.restore(tensors)
        return done, tensors["curve"], state["tau_student"]
    tau = student_temperature(student, images, batches, settings) if everyone.first else 0.0
    tau = everyone.copy(torch.tensor([tau], dtype=torch.float64)).item()
    return 0, torch.zeros((settings.steps, len(CURVES)), dtype=torch.float64), tau


def _computed(own: slice) -> slice:
    """The rows that a process computes for its share: a process without one goes along with the first row."""
    return own if own.stop > own.start else slice(0, 1)


def _of_the_first(everyone: Processes, *figures: float) -> list[float]:
    # all processes computed them from the same features; GPUs need not agree on the last bit
    if everyone.size == 1:
        return list(figures)
    return everyone.copy(torch.tensor(figures, dtype=torch.float64)).tolist()


def learning_rate(step: int, settings: FinetuneSettings) -> float:
    """Adam's rate at step 0, 1, ...: linear to its peak over the warm-up, then a cosine to 0.

    Step s of the warm-up has lr * (s + 1) / warmup, so the first step is not lost.
    """
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * share))


def decay_to_init(parameters: list[Tensor], initial: list[Tensor], share: float) -> None:
    """theta -= share * (theta - theta*), in place; share = lr * pull, within [0, 1]."""
    with torch.no_grad():
        for parameter, start in zip(parameters, initial, strict=True):
            parameter.sub_(parameter - start, alpha=share)


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


class Student:
    """The encoder, its optional triplet head, and the optimizer with the decay to the initial weights."""

    def __init__(self, encoder: Encoder, settings: FinetuneSettings):
        self.encoder, self.settings = encoder, settings
        encoder.module.eval()
        self.head: nn.Module = nn.Sequential()
        if settings.head:
            self.head = _random_head(encoder.width, settings).to(encoder.device)
        trained = _unfrozen(encoder, settings.frozen)
        self.names = [*trained, *(f"head.{name}" for name, _ in self.head.named_parameters())]
        self.held = list(trained.values())  # held near their start; a random head has none worth keeping
        self.parameters = [*self.held, *self.head.parameters()]
        self.initial = [parameter.detach().clone() for parameter in self.held]
        self.adam = torch.optim.Adam(
            self.parameters, lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.epsilon
        )

    def features(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Vectors (b, p or head) float32 whose dot products are the student's similarities."""
        return self.head(self.encode(batch, generator))

    def encode(
        self, batch: Tensor, generator: torch.Generator | None = None, among: tuple[int, slice] | None = None
    ) -> Tensor:
        """The encoder's own features (b, p) float32, before the triplet head.

        generator: of random changes to the images; none without it. among: see `augment`.
        """
        images = self.encoder.normalise(batch.to(self.encoder.device, non_blocking=True))
        if generator is not None:
            images = augment(images, self.settings.flip, self.settings.crop, generator, among)
            images = recolour(images, self.settings.colour, self.settings.grey, generator, among)
        reduced = self.settings.precision == "bf16"
        with torch.autocast(self.encoder.device.type, dtype=torch.bfloat16, enabled=reduced):
            features = self.encoder.features(images)
        return features.float()

    def sum_gradients(self, everyone: Processes) -> None:
        """Sum the gradients over processes. The head saw all features on each of them: the first one's count."""
        if not everyone.first:
            for parameter in self.head.parameters():
                parameter.grad = None if parameter.grad is None else parameter.grad.zero_()
        everyone.sum_flat([held.grad for held in self.parameters if held.grad is not None])

    def step(self, step: int) -> tuple[float, float]:
        """Adam's step, then the decay. Returns the rate and the distance from the initial weights."""
        rate = learning_rate(step, self.settings)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        decay_to_init([held.data for held in self.held], self.initial, rate * self.settings.pull)
        with torch.no_grad():
            squared = sum(
                (held - start).pow(2).sum().item()
                for held, start in zip(self.held, self.initial, strict=True)
            )
        return rate, math.sqrt(squared)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs: what trains, and Adam's moments. The rest is as it was loaded."""
        held = {f"module.{name}": one.detach() for name, one in zip(self.names, self.held)}
        held |= {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            held |= {f"adam.{key}.{name}": value for key, value in self.adam.state[parameter].items()}
        return held

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint's tensors."""
        with torch.no_grad():
            for name, parameter in zip(self.names, self.held):
                parameter.copy_(tensors[f"module.{name}"])
        self.head.load_state_dict(_below("head.", tensors))
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if f"adam.step.{name}" in tensors:  # a parameter that never had a gradient has no state
                self.adam.state[parameter] = {
                    "step": tensors[f"adam.step.{name}"],
                    "exp_avg": torch.empty_like(parameter).copy_(tensors[f"adam.exp_avg.{name}"]),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"adam.exp_avg_sq.{name}"]),
                }


class Retention:
    """Keeps what the network's own classifier says of the images (learning without forgetting).

    Beyond the paper: settings.retain * KL(p0 || p), the mean over images, where p0 are the class probabilities
    of the initial network for the whole image and p those of the fine-tuned one for its crop, through the
    initial head, which is not trained. Li and Hoiem, "Learning without forgetting" (ECCV 2016).
    """

    def __init__(self, encoder: Encoder, original: np.ndarray | None, images: int):
        head = classifier_head(encoder)
        if head is None:
            raise ValueError(
                f"finetune.retain: expected a network with a linear classifier on its features, found "
                f"{encoder.backbone.architecture} without one; set finetune.settings.retain=0."
            )
        if original is None or original.shape != (images, encoder.width):
            found = "none" if original is None else str(original.shape)
            raise ValueError(
                f"finetune.retain: expected the initial features {(images, encoder.width)} of the images, found {found}"
            )
        self.weights, self.bias = head
        self.original = original

    def backward(self, features: Tensor, rows: np.ndarray, shares: Tensor, weight: float) -> float:
        """Add the gradient of features (b, p) of images `rows`; returns the part's unweighted share of the mean.

        shares: (b,) of the mean that each image counts for; over a step they sum to 1.
        """
        before = torch.from_numpy(np.ascontiguousarray(self.original[rows], np.float32)).to(features.device)
        target = torch.softmax(before @ self.weights + self.bias, 1)
        log_q = torch.log_softmax(features @ self.weights + self.bias, 1)
        lost = (shares.to(features.device) * kl_divergence(target, log_q)).sum()
        (weight * lost).backward()
        return lost.item()


def _unfrozen(encoder: Encoder, frozen: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters to train by name; gradients of the others are switched off."""
    trainable = encoder.trainable()
    for prefix in frozen:
        if not any(name.startswith(prefix) for name in trainable):
            parts = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in trainable))
            raise ValueError(
                f"finetune.frozen: expected the beginning of a parameter's name, found {prefix!r}; they are {parts}"
            )
    trained = {name: held for name, held in trainable.items() if not name.startswith(tuple(frozen))}
    if not trained:
        raise ValueError("finetune.frozen: expected to leave something to train, found everything frozen")
    kept = {id(held) for held in trained.values()}
    for held in encoder.module.parameters():
        held.requires_grad_(id(held) in kept)
    return trained


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _random_head(width: int, settings: FinetuneSettings) -> nn.Linear:
    # rows of unit length on average, so that similarities keep their scale
    generator = torch.Generator().manual_seed(settings.seed)
    head = nn.Linear(width, settings.head)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) / math.sqrt(settings.head))
        head.bias.zero_()
    return head


def augment(
    images: Tensor,
    flip: float,
    crop: float,
    generator: torch.Generator,
    among: tuple[int, slice] | None = None,
) -> Tensor:
    """Mirror each image with probability `flip`, and cut and resize a random part of its area in [crop, 1].

    images: (b, 3, H, W). The part's aspect ratio is drawn from [3/4, 4/3] (log-uniformly) as far as it fits.
    among: (n, rows), where these images are `rows` of a batch of n, whose draws they get.
    """
    if flip == 0 and crop == 1:
        return images
    draws = _draws(5, len(images), generator, among)
    area = crop + (1 - crop) * draws[0]
    ratio = torch.exp((2 * draws[1] - 1) * math.log(4 / 3)) if crop < 1 else torch.ones(len(images))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = 1 - 2 * (draws[4] < flip).float()
    theta = torch.zeros((len(images), 2, 3))
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * draws[2] - 1) * (1 - width), (2 * draws[3] - 1) * (1 - height)
    grid = nn.functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def recolour(
    images: Tensor,
    colour: float,
    grey: float,
    generator: torch.Generator,
    among: tuple[int, slice] | None = None,
) -> Tensor:
    """Change saturation, contrast and brightness of each image at random, and make a share `grey` of them grey.

    images: (b, 3, H, W), normalised. colour: saturation and contrast are multiplied by a factor within 1 +- colour,
    each about the mean that it leaves alone, and brightness moves by up to colour / 2 units of the normalised scale.
    among: see `augment`.
    """
    if colour == 0 and grey == 0:
        return images
    draws = _draws(4, len(images), generator, among)[..., None, None, None].to(images.device)
    saturation, contrast, shift = (
        1 + colour * (2 * draws[0] - 1),
        1 + colour * (2 * draws[1] - 1),
        draws[2] - 0.5,
    )
    saturation = saturation * (draws[3] >= grey)
    shade = images.mean(1, keepdim=True)
    images = shade + (images - shade) * saturation
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + (images - middle) * contrast + colour * shift


def _draws(count: int, images: int, generator: torch.Generator, among: tuple[int, slice] | None) -> Tensor:
    """Uniform numbers (count, images): those that the whole batch draws, restricted to these images."""
    total, rows = among or (images, slice(0, images))
    return torch.rand((count, total), generator=generator)[:, rows]


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
