#!/usr/bin/env bash
# Guess: a network of transformers calls its weights as the file does that it was saved to, so that
#   load_state_dict(load_file("model.safetensors"), strict=True)
# works for a ViT, as for every network of torch and timm.
# Found: since version 5 the modules of ViT have other names than its files ("layers.0.attention.q_proj" and
# "encoder.layer.0.attention.attention.query"). save_pretrained and from_pretrained rename on the way; load_state_dict does
# not, and finds 8 of 40 names: embeddings, last norm, pooler. CLIP's names are the same in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import logging, sys
logging.disable(logging.WARNING)
import safetensors, torch, transformers
from safetensors.torch import load_file

transformers.utils.logging.disable_progress_bar()
print("torch", torch.__version__, "transformers", transformers.__version__, "safetensors", safetensors.__version__)
small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=16)
seen = {}
for name, config, network in (
    ("ViT", transformers.ViTConfig(**small), transformers.ViTModel),
    ("CLIP's image tower", transformers.CLIPVisionConfig(**small), transformers.CLIPVisionModel),
):
    module = network(config).eval()
    module.save_pretrained(name)
    own, stored = set(module.state_dict()), set(load_file(f"{name}/model.safetensors"))
    again = network.from_pretrained(name).eval()
    same = all(torch.equal(again.state_dict()[key], value) for key, value in module.state_dict().items())
    seen[name] = (len(own & stored), len(own), same)
    print(f"{name}: {len(own & stored)} of {len(own)} names are the same in the network and in its file; from_pretrained "
          f"gives the weights back: {same}")
    for only, where in ((own - stored, "network"), (stored - own, "file")):
        if only:
            print(f"  only in the {where}: {min(only)}")
shared, every, same = seen["ViT"]
other, all_of_them, also = seen["CLIP's image tower"]
sys.exit(0 if shared < every / 2 and same and other == all_of_them and also else "the behaviour has changed")
P
