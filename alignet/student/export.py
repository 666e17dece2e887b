"""Weights as a folder that the student's own library loads by itself, with a model card.

<folder>/
  timm          config.json (architecture, its arguments, preprocessing as it was evaluated), model.safetensors
  open_clip     open_clip_config.json (both towers, preprocessing), open_clip_model.safetensors, a tokenizer's files
                where the network came from a folder with some
  transformers  config.json, preprocessor_config.json, model.safetensors, a tokenizer's files likewise
  README.md     model card: data, recipe, metrics, licence of the base weights

timm.create_model("local-dir:<folder>", pretrained=True, num_classes=0)    # the evaluated features
open_clip.create_model_and_transforms("local-dir:<folder>")                # .encode_image; text tower kept
transformers.AutoModel.from_pretrained("<folder>")                         # text tower kept

Everything is written, loaded again by the library and compared with what was evaluated, before it counts. The
same weights give the same bytes.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignet.backbones import Encoder, configuration, features_of
from alignet.runtime.tensors import new_file_mode, save_tensors
from alignet.student.model_card import ModelCard, model_card

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
)  # fmt: skip
_TEXT = "The text tower is the base network's and was not trained, so zero-shot classification still runs."
_TOLERANCE = 1e-5  # of the reloaded model's features, relative to their largest entry


def export(
    folder: Path, encoder: Encoder, state: Mapping[str, Tensor], card: ModelCard, precision: str = "float32"
) -> None:
    """Write a folder that the encoder's library loads without this package, and check that it does.

    encoder: says architecture, arguments and preprocessing; its own weights are not read. state: the weights
    to export, keys and shapes of encoder.module. precision: of the stored weights, one of PRECISIONS. ValueError if
    the weights are not the network's or do not fit the precision, and if the reloaded network's features differ
    from those of the stored weights.
    """
    libraries = {"timm": export_timm, "open_clip": export_open_clip, "transformers": export_transformers}
    libraries[encoder.backbone.library](folder, encoder, state, card, precision)


def rehearse(encoder: Encoder, folder: Path) -> None:
    """Export the network as it is into `folder`, see that its library loads it, and remove it again.

    Before training, so that nothing is trained that cannot be handed out. ValueError where it cannot be.
    """
    state = {name: value.detach().cpu() for name, value in encoder.module.state_dict().items()}
    bare = ModelCard("rehearsal", "", "", "", (), {}, ())
    try:
        with torch.random.fork_rng(devices=[]):
            export(folder, encoder, state, bare)
    except (MemoryError, OSError):
        raise
    except Exception as error:
        if "(os error " in str(error):  # how safetensors tells of a full disk
            raise
        reason = " ".join(str(error).split())[:600]
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(
            f"{encoder.backbone.architecture}: expected a network that can be exported, which is tried before it is "
            f"trained, found one that {encoder.backbone.library} does not load again: {kind}{reason} Take another "
            "image_size (0 is its own), or another network."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def export_timm(
    folder: Path, encoder: Encoder, state: Mapping[str, Tensor], card: ModelCard, precision: str = "float32"
) -> None:
    """A folder for timm.create_model("local-dir:<folder>", pretrained=True), see export."""
    stored = _stored(encoder, state, precision)
    files = configuration(encoder)
    notes = _precision_note(encoder, state, stored, precision)
    asked = ", num_classes=0" if encoder.backbone.feature == "pooled" else ""
    _write(folder, files | {"README.md": model_card(encoder, card, {"asked": asked}, notes)})
    _write_weights(folder / "model.safetensors", stored)
    _check_timm(folder, encoder, stored)


def export_open_clip(
    folder: Path, encoder: Encoder, state: Mapping[str, Tensor], card: ModelCard, precision: str = "float32"
) -> None:
    """A folder for open_clip.create_model_and_transforms("local-dir:<folder>") with both towers, see export."""
    stored = _stored(encoder, state, precision)
    files = configuration(encoder)
    source = encoder.backbone.folder
    own = (
        bool(source and tokenizer_files(source)) or "hf_tokenizer_name" not in files["open_clip_config.json"]
    )
    notes = [
        _TEXT,
        *(
            []
            if own
            else ["This folder holds no tokenizer: open_clip takes it from the hub, by the name above."]
        ),
        *_pooled_note(encoder, "model.visual before its projection"),
        *_precision_note(encoder, state, stored, precision),
    ]
    tokenizer = "local-dir:PATH/TO/THIS/FOLDER" if own else encoder.backbone.architecture
    _write(folder, files | {"README.md": model_card(encoder, card, {"tokenizer": tokenizer}, notes)})
    _copy_tokenizer(encoder, folder)
    _write_weights(folder / "open_clip_model.safetensors", stored)
    _check_open_clip(folder, encoder, stored)


def export_transformers(
    folder: Path, encoder: Encoder, state: Mapping[str, Tensor], card: ModelCard, precision: str = "float32"
) -> None:
    """A folder for AutoModel and AutoImageProcessor.from_pretrained("<folder>") with both towers, see export."""
    from alignet.backbones.transformers_models import example

    stored = _stored(encoder, state, precision)
    folder.mkdir(parents=True, exist_ok=True)
    module: Any = _with_weights(encoder, stored).to(PRECISIONS[precision])
    parts = folder / "parts.tmp"
    parts.mkdir(exist_ok=True)
    mode = new_file_mode(parts / "config.json")
    module.save_pretrained(parts, max_shard_size="1TB")
    for path in sorted(parts.iterdir()):
        os.chmod(path, mode)
        os.replace(path, folder / path.name)
    parts.rmdir()
    files = configuration(encoder)
    call, interpolated = example(encoder)
    notes = [
        *([_TEXT] if hasattr(module, "get_text_features") else []),
        *([interpolated] if interpolated else []),
        *_precision_note(encoder, state, stored, precision),
    ]
    files["config.json"] = (folder / "config.json").read_text(encoding="utf-8")  # names the precision as well
    _write(folder, files | {"README.md": model_card(encoder, card, {"call": call}, notes)})
    _copy_tokenizer(encoder, folder)
    _check_transformers(folder, encoder, stored)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a tokenizer in a folder of open_clip or transformers; [] where there is none."""
    return [folder / name for name in TOKENIZER if (folder / name).is_file()]


def _stored(encoder: Encoder, state: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """The weights as they will be stored; ValueError if they are not the network's, or not finite as such."""
    if precision not in PRECISIONS:
        raise ValueError(
            f"export.precision: expected one of {', '.join(PRECISIONS)}, found {precision!r}; choose one of these."
        )
    own = encoder.module.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) + sorted(
        name for name in own.keys() & state.keys() if own[name].shape != state[name].shape
    )
    if wrong:
        raise ValueError(
            f"export: expected the weights of {encoder.backbone.architecture}, found {len(wrong)} keys that are "
            f"missing, unexpected or of another shape, the first {wrong[0]!r}; export with its own backbone."
        )
    dtype = PRECISIONS[precision]
    stored = {
        name: tensor.detach().cpu().to(dtype) if tensor.is_floating_point() else tensor.detach().cpu()
        for name, tensor in state.items()
    }
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"export: expected weights that are finite in {precision}, found NaN or infinity in {name}; set "
                f"export.precision=float32, or check the weights."
            )
    return stored


def _check_timm(folder: Path, encoder: Encoder, stored: Mapping[str, Tensor]) -> None:
    """ValueError unless timm makes the same features and preprocessing from the folder as were evaluated."""
    import timm

    # num_classes=0 is how pooled features are asked for; an output is the whole model's
    asked: dict[str, Any] = {"num_classes": 0} if encoder.backbone.feature == "pooled" else {}
    reloaded = timm.create_model(f"local-dir:{folder}", pretrained=True, **asked).eval()
    found = timm.data.resolve_data_config({}, model=reloaded)
    _compare_preprocessing(folder, encoder, found)
    with torch.no_grad():
        features = reloaded(_noise(encoder))
    size = encoder.backbone.image_size
    reason = (
        f"timm builds this architecture otherwise at {size} px than it resizes it to (the windows of Swin, for example)"
        if size
        else "this architecture's num_classes=0 is not its pooled feature"
    )
    _compare(folder, encoder, stored, features, reason)


def _check_open_clip(folder: Path, encoder: Encoder, stored: Mapping[str, Tensor]) -> None:
    """The same for open_clip; and the text tower is there, unchanged."""
    import open_clip

    from alignet.backbones import open_clip_models

    reloaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    prepared = open_clip_models.preprocessing(reloaded, encoder.backbone)[2]
    _compare_preprocessing(folder, encoder, prepared)
    _compare_weights(folder, reloaded, stored)
    with torch.no_grad():
        features = open_clip_models.features_of(reloaded.eval(), _noise(encoder), encoder.backbone.feature)
    _compare(folder, encoder, stored, features, "its configuration does not rebuild this network")


def _check_transformers(folder: Path, encoder: Encoder, stored: Mapping[str, Tensor]) -> None:
    """The same for transformers."""
    from transformers import AutoModel

    from alignet.backbones import Backbone, transformers_models

    reloaded = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    given = encoder.backbone
    backbone = Backbone("transformers", given.architecture, str(folder), {}, 0, given.feature)
    _compare_preprocessing(folder, encoder, transformers_models.preprocessing(reloaded, backbone)[2])
    _compare_weights(folder, reloaded, stored)
    with torch.no_grad():
        features = transformers_models.features_of(reloaded, _noise(encoder), given.feature)
    _compare(folder, encoder, stored, features, "its configuration does not rebuild this network")


def _compare_preprocessing(folder: Path, encoder: Encoder, found: Mapping[str, Any]) -> None:
    for key, value in encoder.data_config.items():
        same = tuple(found[key]) == tuple(value) if isinstance(value, tuple) else found[key] == value
        if not same:
            raise ValueError(
                f"export: expected {encoder.backbone.library} to resolve {key} = {value} from {folder}, found "
                f"{found[key]}; this architecture's configuration overrides it, so set student.image_size to its own."
            )


def _compare_weights(folder: Path, reloaded: nn.Module, stored: Mapping[str, Tensor]) -> None:
    state = reloaded.state_dict()
    changed = [
        name for name, tensor in stored.items() if name not in state or not _equal(state[name], tensor)
    ]
    if changed:
        raise ValueError(
            f"export: expected the stored weights back from {folder}, found {len(changed)} that differ or are missing, "
            f"the first {changed[0]!r}; this library renames or changes them when it loads."
        )


def _equal(loaded: Tensor, stored: Tensor) -> bool:
    return loaded.shape == stored.shape and bool((loaded == stored.to(loaded.dtype)).all())


def _compare(
    folder: Path, encoder: Encoder, stored: Mapping[str, Tensor], features: Tensor, reason: str
) -> None:
    expected = _evaluated(encoder, stored)
    library = encoder.backbone.library
    if features.shape != expected.shape:
        raise ValueError(
            f"export: expected {library}'s features of shape {tuple(expected.shape)} from {folder}, found "
            f"{tuple(features.shape)}; {reason}."
        )
    difference = _relative(features, expected)
    if not difference <= _TOLERANCE:
        raise ValueError(
            f"export: expected {library}'s features from {folder} to be those evaluated, found a relative difference "
            f"of {difference:.1e}; {reason}."
        )


def _precision_note(
    encoder: Encoder, state: Mapping[str, Tensor], stored: Mapping[str, Tensor], precision: str
) -> list[str]:
    if precision == "float32":
        return []
    difference = _relative(_evaluated(encoder, stored), _evaluated(encoder, state))
    return [
        f"The weights are stored in {precision}, rounded from float32; the metrics below were measured before. "
        f"Features from the rounded weights, computed in float32, differ by {difference:.0e} of their largest entry."
    ]


def _pooled_note(encoder: Encoder, what: str) -> list[str]:
    if encoder.backbone.feature == "output":
        return []
    return [f"These weights were aligned and evaluated in another vector than the example's: {what}."]


def _evaluated(encoder: Encoder, state: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return features_of(_with_weights(encoder, state), _noise(encoder), encoder.backbone)


def _noise(encoder: Encoder) -> Tensor:
    return torch.randn((2, *encoder.data_config["input_size"]), generator=torch.Generator().manual_seed(0))


def _relative(features: Tensor, expected: Tensor) -> float:
    return (features - expected).abs().max().item() / max(expected.abs().max().item(), 1e-30)


def _with_weights(encoder: Encoder, state: Mapping[str, Tensor]) -> nn.Module:
    module = copy.deepcopy(encoder.module).cpu().eval()
    module.load_state_dict(dict(state), strict=True)
    return module


def _copy_tokenizer(encoder: Encoder, folder: Path) -> None:
    source = encoder.backbone.folder
    for path in tokenizer_files(source) if source else []:
        shutil.copyfile(path, folder / path.name)


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        temporary = folder / f"{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / name)


def _write_weights(path: Path, stored: Mapping[str, Tensor]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    # clone: safetensors refuses tensors that share memory
    tensors = {name: tensor.contiguous().clone() for name, tensor in stored.items()}
    save_tensors(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, path)
