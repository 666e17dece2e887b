#!/usr/bin/env bash
# Guess: a loss on a gradient (a gradient penalty, a loss on saliency maps) costs about two plain steps (forward and backward) of a
# convolution, whatever its groups.
# Found: with one group about two; with 96 groups (depthwise) three to five, because torch computes the weight's part of the second
# derivative group by group. Computed as one weight gradient of the same convolution, with v in the place of its input, that part gives
# the same numbers in less than half the time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import sys, time
import torch

print("torch", torch.__version__)
torch.set_num_threads(1)
torch.manual_seed(0)


def best(run):
    run()
    times = []
    for _ in range(7):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


ratios = {}
for groups in (1, 96):
    conv = torch.nn.Conv2d(96, 96, 3, padding=1, groups=groups, bias=False)
    images = torch.randn(4, 96, 56, 56, requires_grad=True)

    def plain():
        conv.zero_grad()
        conv(images).sigmoid().sum().backward()

    def penalty():
        conv.zero_grad()
        (gradient,) = torch.autograd.grad(conv(images).sigmoid().sum(), images, create_graph=True)
        gradient.square().sum().backward()

    ratios[groups] = best(penalty) / best(plain)
    print(f"groups {groups:3}: a gradient penalty takes {ratios[groups]:.1f} plain steps")

# the same second derivative by hand, depthwise: the weight's part as one weight gradient
out = conv(images)
slope = (out.sigmoid() * (1 - out.sigmoid())).detach().requires_grad_()
(gradient,) = torch.autograd.grad(out, images, slope, create_graph=True)
v = (2 * gradient).detach()
(own,) = torch.autograd.grad(gradient, conv.weight, v, retain_graph=True)
backward = torch.ops.aten.convolution_backward
how = ([1, 1], [1, 1], [1, 1], False, [0, 0], 96, [False, True, False])
by_hand = lambda: backward(slope.detach(), v, conv.weight.detach(), None, *how)[1]
theirs = best(lambda: torch.autograd.grad(gradient, conv.weight, v, retain_graph=True))
ours = best(by_hand)
apart = ((own - by_hand()).abs().max() / own.abs().max()).item()
print(f"the weight's part alone: torch {theirs * 1000:.1f} ms, as one weight gradient {ours * 1000:.1f} ms, apart {apart:.0e}")
sys.exit(0 if ratios[96] > 1.4 * ratios[1] and theirs > 2 * ours and apart < 1e-4 else "the behaviour has changed")
P
