#!/usr/bin/env bash
# Guess: timm has two ways to run a network at another image size, `img_size=` when it is made and `set_input_size`
# afterwards, and from equal weights both give the network that the other gives; for a ViT they do.
# Found: for a Swin, `set_input_size` also changes the windows of attention and `img_size=` keeps them, so equal weights
# give other features at equal size; and a folder saved after `set_input_size` cannot say which of the two it was.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.15.0 torchvision==0.29.2 timm==1.0.31
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import sys, warnings
import timm, torch
from timm.models import swin_transformer, vision_transformer

warnings.simplefilter("ignore")

print("timm", timm.__version__, "torch", torch.__version__)
seen = {}
size = 256
for name, fit in (
    ("vit_tiny_patch16_224", vision_transformer.checkpoint_filter_fn),
    ("swin_tiny_patch4_window7_224", swin_transformer.checkpoint_filter_fn),
):
    torch.manual_seed(0)
    given = timm.create_model(name, num_classes=0).eval()
    with torch.no_grad():
        for key, value in given.named_parameters():
            if "relative_position_bias" in key or "pos_embed" in key:
                value.normal_()  # as after training: random networks begin at zero
    state = {key: value.clone() for key, value in given.state_dict().items()}
    given.set_input_size((size, size))
    made = timm.create_model(name, num_classes=0, img_size=size).eval()
    made.load_state_dict(fit(state, made))  # what timm itself does with weights of another size
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        one, other = given(images), made(images)
    seen[name] = float((one - other).abs().max() / one.abs().max())
    if name.startswith("swin"):
        windows = [network.layers[0].blocks[0].window_size for network in (given, made)]
        print(f"{name} at {size}: windows {windows[0]} after set_input_size, {windows[1]} by img_size=")
    print(f"{name} at {size}: the largest difference of features is {seen[name]:.1e} of their largest entry")
same = seen["vit_tiny_patch16_224"] < 1e-4 and seen["swin_tiny_patch4_window7_224"] > 1e-2 and windows[0] != windows[1]
sys.exit(0 if same else "the behaviour has changed")
P
