#!/usr/bin/env bash
# Guess: shift-tolerant LPIPS (stlpips-pytorch) runs once it is installed, and images in [0, 1], where it expects [-1, 1] unless it is given
# normalize=True, get smaller distances in nearly the same order.
# Found: it imports IPython and torchsummary, which it neither declares nor uses. Without normalize=True nothing is said, and answers change:
# which of a noisy and a blurred copy is nearer to a photograph, for AlexNet in 2 of 30 crops and for VGG in 7 of 30; and whether 60% photograph
# and 40% noise is nearer to the photograph than to the noise (2AFC), from 0 of 30 to 12. Even right, AlexNet and VGG disagree in 9 of 30, and
# both place such a mixture nearer to the noise, where the root mean square of pixels places all 30 nearer to the photograph.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.15.0 torchvision==0.29.2 numpy==2.4.6 scikit-learn==1.9.1 pillow==13.0.0 stlpips-pytorch==0.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import sys
import types
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images

print("stlpips-pytorch", version("stlpips-pytorch"), "torch", torch.__version__)
missing = []
for package, name in (("IPython", "embed"), ("torchsummary", "summary")):
    try:
        import stlpips_pytorch.stlpips
    except ModuleNotFoundError as error:
        missing.append(error.name)
        stub = types.ModuleType(error.name)
        setattr(stub, name, None)
        sys.modules[error.name] = stub
print("imported, not declared:", ", ".join(missing))
from stlpips_pytorch import stlpips

photos = [torch.from_numpy(one / np.float32(255)).permute(2, 0, 1)[None] for one in load_sample_images().images]
images = torch.cat([
    F.interpolate(one[:, :, y : y + 200, x : x + 200], (64, 64), mode="bilinear", antialias=True)
    for one in photos for y in (0, 100, 220) for x in (0, 110, 220, 330, 430)
])
generator = torch.Generator().manual_seed(1)
noisy = (images + 0.15 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
blurred = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), 5, 1)
noise = torch.randn(images.shape, generator=generator).clamp(0, 1)
mixed = 0.6 * images + 0.4 * noise
nearer, two = {}, {}
for net in ("alex", "vgg"):
    metric = stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False)
    for right in (True, False):
        with torch.no_grad():
            far = [metric(*pair, normalize=right).flatten() for pair in ((images, noisy), (images, blurred), (mixed, images), (mixed, noise))]
        nearer[net, right], two[net, right] = far[0] < far[1], int((far[2] < far[3]).sum())
        print(f"{net:4} normalize={right!s:5}: noisy nearer than blurred in {int(nearer[net, right].sum()):2} of 30, 2AFC {two[net, right]:2} of 30")
square = int(((mixed - images).square().flatten(1).sum(1) < (mixed - noise).square().flatten(1).sum(1)).sum())
flips = {net: int((nearer[net, True] != nearer[net, False]).sum()) for net in ("alex", "vgg")}
apart = int((nearer["alex", True] != nearer["vgg", True]).sum())
print(f"2AFC by pixels {square} of 30; answers that the range changes {flips}; alex and vgg disagree in {apart}")
held = missing == ["IPython", "torchsummary"] and flips["vgg"] >= 4 and two["alex", False] - two["alex", True] >= 6
held = held and apart >= 5 and square == 30 and two["alex", True] == 0
sys.exit(0 if held else "the behaviour has changed")
P
