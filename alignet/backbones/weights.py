"""Weights from a file, strictly; and what to say where a hub cannot be reached."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from alignet.backbones.backbone import Backbone

_OURS = "weights.safetensors"  # what `finetune` writes beside the configuration
# what each library looks for in a folder, the first first: one folder may serve several libraries
NAMES = {
    "timm": ("model.safetensors", "open_clip_model.safetensors", _OURS),
    "open_clip": (
        "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors", _OURS,
    ),
    "transformers": ("model.safetensors", _OURS),
}  # fmt: skip


def weights_file(backbone: Backbone) -> Path:
    """The .safetensors file of a backbone whose weights are a file, or a folder, of which its library takes one.

    ValueError for a folder without any that the library looks for.
    """
    folder, name, names = backbone.folder, backbone.architecture, NAMES[backbone.library]
    if folder is None:
        return Path(backbone.weights)
    for known in names:
        if (folder / known).is_file():
            return folder / known
    there = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))) or "none of them"
    raise ValueError(
        f"weights of {name}: expected one of {', '.join(names)} in {folder}, found {there}; convert other "
        f"formats with safetensors.torch.save_file."
    )


def read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """The state dict of a .safetensors file, on the CPU; one message for anything else. Pickles are not read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors" or not path.is_file():
        found = f"a {path.suffix or 'nameless'} file" if path.is_file() else "nothing there"
        raise ValueError(
            f"weights of {name}: expected the path of a .safetensors file, found {found}: {path}; convert "
            f"other formats with safetensors.torch.save_file."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"weights of {name}: expected a readable .safetensors file, found {path}: {error}; copy it again."
        ) from error


def differences(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """How a state dict's keys and shapes differ from the module's, in words; '' if they do not."""
    own = module.state_dict()
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (
            ("missing", sorted(own.keys() - state.keys())),
            ("unexpected", sorted(state.keys() - own.keys())),
            ("of another shape", sorted(shapes)),
        )
        if keys
    ]
    return "; ".join(parts)


def load_weights(module: nn.Module, path: Path, name: str) -> None:
    """Load a .safetensors state dict into a module; ValueError unless keys and shapes are the module's."""
    state = read_weights(path, name)
    wrong = differences(module, state)
    if wrong:
        raise ValueError(
            f"weights of {name}: expected the keys of this architecture, found {wrong} in {path}; "
            f"check architecture and model_args (num_classes, img_size)."
        )
    module.load_state_dict(state, strict=True)


def not_downloaded(name: str, repository: str, error: Exception) -> ValueError:
    """What to do where weights were to come from a hub and did not."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return ValueError(
        f"backbone {name}: expected to download its pretrained weights ({repository}), found: {reason}; fetch them "
        f"on a machine with internet and copy its HF_HOME here (now {home}). Or load a file: in a run, weights=file "
        f"and weights_set of the model; in alignet.load, weights=FILE.safetensors; there and in `embed images=`, "
        f"model=FOLDER as the library saves one."
    )
