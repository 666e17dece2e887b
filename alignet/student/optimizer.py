"""Fine-tuning's optimizer: Adam, then a step back towards the initial weights, over parameters that may be sharded.

    gradients -> summed over processes -> checked -> Adam -> decay to theta* -> checked -> what a checkpoint holds

With `sharding` fsdp2 each process keeps a part of every parameter, its gradient, Adam's moments and theta*. Parameters
are gathered block by block for each pass, and gradients are summed where they are scattered, not averaged: the loss is
one over all processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignet.config import FinetuneSettings
from alignet.runtime.distributed import Processes
from alignet.student.network import Student, blocks


def learning_rate(step: int, settings: FinetuneSettings) -> float:
    """Adam's rate at step 0, 1, ...: linear to its peak over the warm-up, then a cosine to 0.

    Step s of the warm-up has lr * (s + 1) / warmup, so the first step is not lost.
    """
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * share))


def decay_to_init(parameters: list[Tensor], initial: list[Tensor], share: float) -> None:
    """theta -= share * (theta - theta*), in place; share = lr * pull, within [0, 1].

    theta is what Adam's step has left. The official code takes theta from before that step, as AdamW does: the results
    differ by `share` times Adam's step.
    """
    with torch.no_grad():
        torch._foreach_lerp_(parameters, initial, share)


class Optimizer:
    """The parameters that train, theta*, and Adam's moments."""

    def __init__(
        self,
        student: Student,
        settings: FinetuneSettings,
        everyone: Processes | None = None,
        sharding: str = "none",
    ):
        """The student's present weights are theta*. everyone: processes that share a step, this one alone by default.
        sharding: none | fsdp2, which changes the student's parameters in place."""
        self.settings, self.head = settings, student.head
        self.everyone = everyone or Processes()
        self.sharded = sharding == "fsdp2" and self.everyone.size > 1
        if self.sharded:
            shard(student, self.everyone)
        parameters = dict(student.encoder.module.named_parameters())
        self.held = [parameters[name] for name in student.trained]
        self.names = [*student.trained, *(f"head.{name}" for name, _ in self.head.named_parameters())]
        self.parameters = [*self.held, *self.head.parameters()]
        self.initial = [parameter.detach().clone() for parameter in self.held]
        # a random head has no start worth keeping; the official code pulls it to its own all the same
        self.pulled_head = list(self.head.parameters()) if settings.head_start == "released" else []
        self.initial_head = [parameter.detach().clone() for parameter in self.pulled_head]
        # without weight decay AdamW is Adam; its decay is to zero, ours to theta*
        # a group for each kind: sharded tensors and others are not stepped in one call
        groups = [{"params": own} for own in (self.held, list(self.head.parameters())) if own]
        self.adam = torch.optim.AdamW(
            groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.epsilon,
            weight_decay=0.0, fused=True,
        )  # fmt: skip

    def sum_gradients(self) -> float:
        """Sum the gradients over processes, and return their norm. The head saw all features on each of them: the
        first one's count."""
        if not self.everyone.first:
            for parameter in self.head.parameters():
                parameter.grad = None if parameter.grad is None else parameter.grad.zero_()
        theirs = list(self.head.parameters()) if self.sharded else self.parameters
        self.everyone.sum_flat([held.grad for held in theirs if held.grad is not None])
        return math.hypot(
            self._norm([held.grad for held in self.held if held.grad is not None]),
            _squares([held.grad for held in self.head.parameters() if held.grad is not None]).sqrt().item(),
        )

    def step(self, step: int) -> tuple[float, float]:
        """Adam's step, then the decay. Returns the rate and the distance from the initial weights, which is not finite
        where any of the parameters is not."""
        rate = learning_rate(step, self.settings)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        own, start = [_local(held) for held in self.held], [_local(held) for held in self.initial]
        decay_to_init(own, start, rate * self.settings.pull)
        if self.pulled_head:
            decay_to_init(
                [one.data for one in self.pulled_head], self.initial_head, rate * self.settings.pull
            )
        with torch.no_grad():
            distance = self._norm(torch._foreach_sub(own, start))
            head = _squares([held.detach() for held in self.head.parameters()]).item()
        return rate, distance if math.isfinite(head) else math.nan

    def _norm(self, tensors: Sequence[Tensor]) -> float:
        squared = _squares([_local(tensor) for tensor in tensors])
        return (self.everyone.sum(squared) if self.sharded else squared).sqrt().item()

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs: what trains, and Adam's moments. The rest is as it was loaded.

        Of sharded parameters the whole, on the CPU; all processes must call this together.
        """
        held = {f"module.{name}": whole(one.detach()) for name, one in zip(self.names, self.held)}
        held |= {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            held |= {f"adam.{key}.{name}": whole(value) for key, value in self.adam.state[parameter].items()}
        return held

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint's tensors; none are needed at the start."""
        if not tensors:
            return
        with torch.no_grad():
            for name, parameter in zip(self.names, self.held):
                _local(parameter).copy_(_part(tensors[f"module.{name}"], parameter))
        self.head.load_state_dict(
            {name.removeprefix("head."): value for name, value in tensors.items() if name.startswith("head.")}
        )
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if f"adam.step.{name}" in tensors:  # a parameter that never had a gradient has no state
                state: dict[str, Any] = {"step": tensors[f"adam.step.{name}"].to(parameter.device)}
                for key in ("exp_avg", "exp_avg_sq"):
                    state[key] = torch.empty_like(parameter)
                    _local(state[key]).copy_(_part(tensors[f"adam.{key}.{name}"], parameter))
                self.adam.state[parameter] = state


def shard(student: Student, everyone: Processes) -> None:
    """Keep a part of each parameter on each process (FSDP2), gathered block by block as they are needed."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    kind = student.encoder.device.type
    group: Any = everyone.group(kind) or dist.group.WORLD
    mesh = DeviceMesh.from_group(group, kind)
    student.network.to(
        memory_format=torch.contiguous_format
    )  # FSDP2 takes kernels with channels last not yet
    for block in blocks(student.encoder):
        fully_shard(block, mesh=mesh)
    fully_shard(student.network, mesh=mesh)
    for module in student.network.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no sum with a factor


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together on the CPU, by all processes at once; another as it is."""
    return tensor.full_tensor().cpu() if hasattr(tensor, "full_tensor") else tensor


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; another tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _part(tensor: Tensor, like: Any) -> Tensor:
    """What of a whole tensor this process keeps where `like` is sharded."""
    if not hasattr(like, "to_local"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    there = tensor.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None).to_local()


def _squares(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of squares of all numbers, float64: one tensor, so a GPU is waited for once."""
    if not tensors:
        return torch.zeros((), dtype=torch.float64)
    return torch.stack(torch._foreach_norm(list(tensors))).double().square().sum()
