#!/usr/bin/env bash
# Guess: a second derivative (a Hessian, a Hessian-vector product, the gradient of a directional derivative) is the same whichever
# of torch's modes is taken inside and which outside; one is only cheaper. What one mode cannot do, it refuses.
# Found: with forward mode inside, the Hessian through layer_norm, instance_norm and batch_norm in training mode is wrong, by more
# than its largest entry, without an error or a warning (jacrev and jacfwd of jacfwd); with reverse mode inside it is right, and
# through group_norm and rms_norm both are. And a tangent from dual numbers (torch.autograd.forward_ad) through softmax, log_softmax or
# logsumexp ends its backward pass in "modified by an inplace operation", where torch.func.jvp of the same function is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import sys
import torch
from torch.autograd import forward_ad
from torch.func import jacfwd, jacrev, jvp
from torch.nn import functional as F

print("torch", torch.__version__)
torch.manual_seed(0)
x, t, c = torch.randn(3, 4, 6, dtype=torch.float64)


def by_hand(a, groups):
    """Each group of numbers minus its mean, by its standard deviation; groups: the shape whose last axis is a group."""
    b = a.reshape(groups)
    m = b.mean(-1, keepdim=True)
    return ((b - m) / ((b - m).square().mean(-1, keepdim=True) + 1e-5).sqrt()).reshape(a.shape)


norms = {
    "layer_norm": (lambda a: F.layer_norm(a, (6,)), lambda a: by_hand(a, (4, 6))),
    "instance_norm": (lambda a: F.instance_norm(a[None])[0], lambda a: by_hand(a, (4, 6))),
    "batch_norm, training": (lambda a: F.batch_norm(a.T.contiguous(), None, None, training=True).T, lambda a: by_hand(a, (4, 6))),
    "group_norm": (lambda a: F.group_norm(a[None], 2)[0], lambda a: by_hand(a, (2, 12))),
    "rms_norm": (lambda a: F.rms_norm(a, (6,), eps=1e-5), lambda a: a / (a.square().mean(-1, keepdim=True) + 1e-5).sqrt()),
}
modes = {
    "forward over reverse": lambda f: jacfwd(jacrev(f)), "reverse over reverse": lambda f: jacrev(jacrev(f)),
    "reverse over forward": lambda f: jacrev(jacfwd(f)), "forward over forward": lambda f: jacfwd(jacfwd(f)),
}
wrong = set()
for name, (theirs, hand) in norms.items():
    for mode, twice in modes.items():
        own, known = (twice(lambda a, f=f: (f(a) * c).square().sum())(x) for f in (theirs, hand))
        apart = ((own - known).abs().max() / known.abs().max()).item()
        if apart > 1e-8:
            wrong.add((name, mode))
        print(f"{name:21} {mode:21} {'right' if apart <= 1e-8 else f'WRONG by {apart:.0%} of the largest entry'}")

refused = []
for name, f in {"softmax": lambda a: a.softmax(-1), "log_softmax": lambda a: a.log_softmax(-1),
                "logsumexp": lambda a: a.logsumexp(-1)}.items():
    found = {}
    for way in ("jvp", "dual numbers"):
        weight = torch.linspace(0.5, 1.5, 24, dtype=torch.float64).view(4, 6).requires_grad_()
        if way == "jvp":
            tangent = jvp(lambda a: f(weight * a), (x,), (t,))[1]
        else:
            with forward_ad.dual_level():
                tangent = forward_ad.unpack_dual(f(weight * forward_ad.make_dual(x, t))).tangent
        try:
            found[way] = torch.autograd.grad(tangent.square().sum(), weight)[0]
        except RuntimeError as error:
            refused.append((name, way))
            print(f"{name:21} gradient of a tangent by {way}: RuntimeError, {str(error).split(':')[0]}")
    if "jvp" in found:
        a = x.clone().requires_grad_()
        weight = torch.linspace(0.5, 1.5, 24, dtype=torch.float64).view(4, 6).requires_grad_()
        u = torch.zeros_like(f(a), requires_grad=True)
        (row,) = torch.autograd.grad(f(weight * a), a, u, create_graph=True)
        (tangent,) = torch.autograd.grad(row, u, t, create_graph=True)  # the same tangent by reverse mode twice
        known = torch.autograd.grad(tangent.square().sum(), weight)[0]
        right = torch.allclose(found["jvp"], known, rtol=1e-8)
        print(f"{name:21} gradient of a tangent by jvp: {'right' if right else 'WRONG'}")
        wrong |= set() if right else {(name, "jvp")}
expected = {(n, m) for n in ("layer_norm", "instance_norm", "batch_norm, training") for m in list(modes)[2:]}
same = wrong == expected and refused == [(n, "dual numbers") for n in ("softmax", "log_softmax", "logsumexp")]
sys.exit(0 if same else "the behaviour has changed")
P
