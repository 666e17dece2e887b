#!/usr/bin/env bash
# Guess: an attack of foolbox takes gradients by the pixels alone and leaves the network's weights and their gradients as they were.
# Found: it calls backward(), so every step adds to the gradient of every weight that requires one. In adversarial training an
# optimizer step after zero_grad(), attack, loss.backward() then follows the attack's gradients: here the sum is over 100 times as
# long as the loss's own and points elsewhere. requires_grad_(False) during the attack, or zero_grad() after it, avoids it, and
# the attack is faster as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.4.6 foolbox==3.3.4
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import sys
import foolbox
import torch
from torch import nn
from torch.nn import functional as F

print("foolbox", foolbox.__version__, "torch", torch.__version__)
torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10)
).eval()
images, labels = torch.rand(16, 3, 32, 32), torch.arange(16) % 10
model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
attack = foolbox.attacks.L2PGD(steps=10, abs_stepsize=0.3, random_start=False)


def gradient(attacked_first):
    network.zero_grad()
    attacked = attack(model, images, labels, epsilons=0.5)[1].detach()
    before = network[0].weight.grad
    left = 0.0 if before is None else before.norm().item()
    if not attacked_first:
        network.zero_grad()
    F.cross_entropy(network(attacked), labels).backward()
    return left, torch.cat([one.grad.flatten() for one in network.parameters()])


left, mixed = gradient(True)
_, own = gradient(False)
times, cosine = (mixed.norm() / own.norm()).item(), F.cosine_similarity(mixed, own, dim=0).item()
print(f"gradient of the first weights after the attack alone: norm {left:.3g}")
print(f"gradient of a training step: {times:.0f} times as long as the loss's own, cosine {cosine:.2f}")
network.requires_grad_(False)
network.zero_grad(set_to_none=True)
attack(model, images, labels, epsilons=0.5)
frozen = all(one.grad is None for one in network.parameters())
print("with requires_grad_(False) weights have no gradient:", frozen)
sys.exit(0 if left > 0 and times > 10 and frozen else "the behaviour has changed")
P
