#!/usr/bin/env bash
# Guess: a weight file has the mode that the umask leaves, as any other file that a program writes; a group that shares
# a disk (umask 002 or 022) can read what one of them saved.
# Found: safetensors 0.8 writes files that their owner alone may read (0600), whatever the umask says; 0.7 did not. All that
# save through it do so too: timm's and transformers' folders then hold a config.json that everybody can read beside
# weights that nobody else can.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 0.7.0 0.8.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet numpy==2.4.6 "safetensors==$version"
done
"$folder/0.8.0/bin/pip" install --quiet torch==2.15.0 torchvision==0.29.2 timm==1.0.31 transformers==5.23.0
cd "$folder"
umask 022
for version in 0.7.0 0.8.0; do
  "$folder/$version/bin/python" - <<'P'
import os, sys
import numpy, safetensors
from safetensors.numpy import save_file

name = f"weights-{safetensors.__version__}.safetensors"
save_file({"w": numpy.zeros(3, numpy.float32)}, name)
mode = os.stat(name).st_mode & 0o777
print(f"safetensors {safetensors.__version__}, umask 022: {mode:04o}")
expected = {"0.7.0": 0o644, "0.8.0": 0o600}[safetensors.__version__]
sys.exit(0 if mode == expected else "the behaviour has changed")
P
done
"$folder/0.8.0/bin/python" - <<'P'
import os, sys
import timm, transformers
transformers.utils.logging.disable_progress_bar()
from timm.models import save_for_hf

save_for_hf(timm.create_model("test_vit"), "timm", safe_serialization=True)
small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=16)
transformers.ViTModel(transformers.ViTConfig(**small)).save_pretrained("transformers")
seen = {}
for library in (timm, transformers):
    for name in ("config.json", "model.safetensors"):
        seen[library.__name__, name] = os.stat(f"{library.__name__}/{name}").st_mode & 0o777
        print(f"{library.__name__} {library.__version__}: {name} {seen[library.__name__, name]:04o}")
same = all(mode == (0o600 if name == "model.safetensors" else 0o644) for (_, name), mode in seen.items())
sys.exit(0 if same else "the behaviour has changed")
P
