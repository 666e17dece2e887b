"""Steps of fine-tuning: the schedule of the rate, Adam, and the pull to the initial weights, in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from alignet.backbones import load_encoder
from alignet.student.network import Student
from alignet.student.optimizer import Optimizer, decay_to_init, learning_rate
from tests.student.test_finetune import TOY, changed


def test_warm_up_is_linear_and_the_cosine_ends_at_zero() -> None:
    settings = changed(steps=100, warmup=10, lr=2.0, pull=0.1)
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(0, changed(steps=5, warmup=0, lr=2.0, pull=0.1)) == 2.0
    assert learning_rate(4, changed(steps=5, warmup=5, lr=2.0, pull=0.1)) == 2.0


def test_decay_takes_back_its_share_of_the_way() -> None:
    now, start = [torch.tensor([5.0, -1.0])], [torch.tensor([1.0, 3.0])]
    decay_to_init(now, start, 0.25)
    torch.testing.assert_close(now[0], torch.tensor([4.0, 0.0]))


def test_without_a_gradient_only_the_decay_moves_the_weights() -> None:
    encoder = load_encoder(TOY, seed=0)
    settings = changed(steps=4, warmup=0, lr=0.01, pull=30.0)
    optimizer = Optimizer(Student(encoder, settings), settings)
    offsets = [torch.randn_like(start) for start in optimizer.initial]
    with torch.no_grad():
        for held, offset in zip(optimizer.held, offsets, strict=True):
            held.add_(offset)
    left = 1.0
    for step in range(4):
        for held in optimizer.held:
            held.grad = torch.zeros_like(held)  # Adam then moves nothing
        left *= 1 - learning_rate(step, settings) * 30.0
        _, distance = optimizer.step(step)
        expected = left * math.sqrt(sum(offset.pow(2).sum().item() for offset in offsets))
        assert distance == pytest.approx(expected, rel=1e-4)


def test_the_decay_is_outside_adam() -> None:
    """After one step: Adam's own move (lr * sign of the gradient), then the pull on that move."""
    encoder = load_encoder(TOY, seed=0)
    settings = changed(steps=1, warmup=0, lr=1e-3, pull=300.0, epsilon=0.0)
    optimizer = Optimizer(Student(encoder, settings), settings)
    gradients = [torch.randn_like(held).sign() * 0.37 for held in optimizer.held]
    for held, gradient in zip(optimizer.held, gradients, strict=True):
        held.grad = gradient.clone()
    optimizer.step(0)
    for held, start, gradient in zip(optimizer.held, optimizer.initial, gradients, strict=True):
        torch.testing.assert_close(held - start, -1e-3 * (1 - 0.3) * gradient.sign(), rtol=1e-2, atol=1e-6)


def test_the_random_head_is_not_pulled() -> None:
    encoder = load_encoder(TOY, seed=0)
    settings = changed(head=6, lr=0.01, pull=100.0)
    student = Student(encoder, settings)
    optimizer = Optimizer(student, settings)
    assert student.head.weight.shape == (6, encoder.width)
    assert {id(parameter) for parameter in optimizer.held}.isdisjoint(map(id, student.head.parameters()))
    start = student.head.weight.detach().clone()
    for parameter in optimizer.parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0)
    assert torch.equal(student.head.weight, start)
    again = Student(load_encoder(TOY, seed=0), changed(head=6))
    assert torch.equal(again.head.weight, start)
