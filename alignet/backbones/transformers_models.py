"""transformers' vision networks for `encoder.py`, text tower included: from a repository, a folder, or a file.

The feature "output" is what get_image_features gives, the vector that the text tower meets. "pooled" is the image
tower's pooler_output (CLIP's CLS token after its last norm, SigLIP's attention pooling, DINO's CLS token), and for
ViT-like networks the CLS token after the last norm: their pooler is a further layer with a tanh, whose weights most
published checkpoints lack. Of networks without a pooler (SegFormer, PoolFormer, PVT) it is the mean of the last feature
map over its positions, of CvT its CLS token.

Files name weights as the library stores them, which is not how its modules are called: since version 5 it renames on
loading and back on saving. Both are read here, and what is written has the names of files.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from alignet.backbones.backbone import normalised
from alignet.backbones.weights import differences, not_downloaded, read_weights, weights_file

if TYPE_CHECKING:
    from alignet.backbones.backbone import Backbone, LoadedBackbone

CLS_TOKEN = ("vit", "deit", "vit_msn")  # model types whose pooler is passed over
# what prepares images where no preprocessor_config.json says so, by model type
PROCESSORS = {
    "clip": "CLIPImageProcessor", "clip_vision_model": "CLIPImageProcessor", "siglip": "SiglipImageProcessor",
    "siglip_vision_model": "SiglipImageProcessor", "vit": "ViTImageProcessor", "deit": "DeiTImageProcessor",
    "dinov2": "BitImageProcessor", "dinov2_with_registers": "BitImageProcessor",
    "dinov3_vit": "DINOv3ViTImageProcessor", "dinov3_convnext": "DINOv3ViTImageProcessor",
}  # fmt: skip
REFUSED = {
    "siglip2": "is SigLIP2's NaFlex for images of any shape; take a fixed size, as google/siglip2-base-patch16-224",
    "vit_mae": "hides most of the image at random; take timm's vit_base_patch16_224.mae",
    "imagegpt": "reads an image as a sequence of colours; take a ViT",
    "perceiver": "needs a preprocessor of its own for images; take a ViT",
    "timm_wrapper": "wraps a network of timm; take it from timm itself (library timm)",
    "hgnet_v2": "AutoModel gives as feature maps alone; take timm's hgnetv2_b4",
    "pp_lcnet": "AutoModel does not give; take timm's lcnet_100",
    "shieldgemma2": "is a language model; take a CLIP or SigLIP",
    "donut-swin": "prepares pages, not photographs; take Swin",
}
# of what a file holds beside the network
_HEADS = ("classifier", "cls_classifier", "distillation_classifier")
OFFLINE = (OSError, RuntimeError)
_EXACT = 1e-6  # of normalised pixels, between the processor and uint8 normalised here


def build(backbone: Backbone, seed: int | None) -> nn.Module:
    """AutoModel with its weights in float32; every weight must be there, but for a pooler that is passed over."""
    from transformers import AutoModel

    config = _config(backbone)
    if config.model_type in REFUSED:
        raise ValueError(
            f"backbone {backbone.architecture}: expected a network that gives one vector for one square image, found "
            f"{config.model_type}, which {REFUSED[config.model_type]}."
        )
    folder = backbone.folder
    whole = folder is not None and not (folder / "weights.safetensors").is_file()
    if backbone.weights == "" or whole:
        return _pretrained(backbone, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        try:
            module = AutoModel.from_config(config, dtype=torch.float32)
        except ImportError as error:
            raise ValueError(
                f"backbone {backbone.architecture}: expected the packages that transformers builds it with, found: "
                f"{' '.join(str(error).split())[:200]}; install them, or take another network."
            ) from error
    if backbone.weights != "random":
        path = weights_file(backbone)
        state = read_weights(path, backbone.architecture)
        if differences(module, state):
            return _from_file(backbone, config, path)
        module.load_state_dict(state, strict=True)
    return module


def preprocessing(
    module: nn.Module, backbone: Backbone
) -> tuple[Callable[[Image.Image], Tensor], Callable[[Image.Image], Tensor], dict[str, Any]]:
    """(transform, pixels, data_config), see LoadedBackbone; what AutoImageProcessor gives.

    pixels are uint8 where normalising them equals the processor's own values to 1e-6, which is tried on a picture
    of noise; processors that resize after rescaling (DINOv3's) give floats, and then pixels are the transform.
    """
    processor = _processor(module, backbone)

    def transform(image: Image.Image) -> Tensor:
        return processor(images=image, return_tensors="pt")["pixel_values"][0].to(torch.float32)

    def pixels(image: Image.Image) -> Tensor:
        raw = processor(images=image, return_tensors="pt", do_rescale=False, do_normalize=False)
        return raw["pixel_values"][0]

    noise = np.random.default_rng(0).integers(0, 256, (181, 257, 3), dtype=np.uint8)
    probe = Image.fromarray(noise)
    prepared = transform(probe)
    upright = transform(probe.transpose(Image.Transpose.ROTATE_90))
    if prepared.shape != upright.shape:
        raise ValueError(
            f"backbone {backbone.architecture}: expected preprocessing that brings every image to one size, found "
            f"{tuple(prepared.shape)} and {tuple(upright.shape)}; set do_center_crop or a square size in "
            f"preprocessor_config.json."
        )
    config = {
        "input_size": tuple(prepared.shape),
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
        "interpolation": Image.Resampling(int(processor.resample)).name.lower(),
        "processor": type(processor).__name__,
    }
    try:
        exact = _exact(pixels(probe), prepared, config)
    except TypeError:  # EfficientNet's takes no bytes
        exact = False
    return transform, (pixels if exact else transform), config


def features_of(module: nn.Module, images: Tensor, feature: str) -> Tensor:
    """Features (b, p), see the module's docstring. Another image size than the network's own interpolates its
    position embedding, where the library can."""
    network: Any = module
    config = network.config
    both = hasattr(network, "get_image_features")
    if feature == "output":
        if not both:
            raise ValueError(
                f"backbone: expected a network with a text tower for feature=output, found {type(module).__name__}; "
                f"set feature=pooled."
            )
        found = network.get_image_features(
            pixel_values=images, **_resized(network.get_image_features, config, images)
        )
        return found if isinstance(found, Tensor) else found.pooler_output
    tower = network.vision_model if both else network
    found = tower(pixel_values=images, **_resized(tower.forward, config, images))
    if config.model_type in CLS_TOKEN:
        return found.last_hidden_state[:, 0]
    pooled = getattr(found, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    if getattr(found, "cls_token_value", None) is not None:
        return found.cls_token_value[:, 0]
    last = found.last_hidden_state  # (b, tokens, p) or (b, p, H, W)
    return last.mean(1) if last.ndim == 3 else last.mean((2, 3))


def classifier(module: nn.Module) -> nn.Module | None:
    """None: AutoModel comes without a classifier."""
    return None


def text_features(encoder: LoadedBackbone, texts: Sequence[str]) -> Tensor:
    """get_text_features (t, p) with the tokenizer of the network's folder or repository, padded to full length."""
    from transformers import AutoTokenizer

    backbone, module = encoder.backbone, encoder.module
    if not hasattr(module, "get_text_features"):
        raise ValueError(
            f"text features: expected a network with a text tower, found {type(module).__name__}; take CLIP or SigLIP."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(backbone.folder or backbone.architecture), **_revision(backbone)
        )
    except ImportError as error:  # SigLIP's needs sentencepiece
        raise ValueError(
            f"tokenizer of {backbone.architecture}: expected the packages that it is read with, found none of "
            f"{', '.join(sorted(set(re.findall('sentencepiece|protobuf|tiktoken', str(error).lower())))) or error}; "
            f"install them with: pip install 'alignet[text]'."
        ) from error
    except (*OFFLINE, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"tokenizer of {backbone.architecture}: expected its files in the model's folder or from the hub, found: "
            f"{reason}; put tokenizer.json and its companions into the folder."
        ) from error
    length = module.config.text_config.max_position_embeddings  # type: ignore[union-attr]
    # SigLIP was trained on texts padded to full length; CLIP's causal attention never sees the padding
    tokens = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )["input_ids"].to(encoder.device)
    rows = []
    for part in tokens.split(256):
        found = module.get_text_features(input_ids=part)  # type: ignore[operator]
        rows.append(found if isinstance(found, Tensor) else found.pooler_output)
    return torch.cat(rows)


def configuration(encoder: LoadedBackbone) -> dict[str, str]:
    """config.json and preprocessor_config.json, as save_pretrained writes them."""
    module: Any = encoder.module
    module.config.architectures = [type(module).__name__]
    with tempfile.TemporaryDirectory() as folder:
        module.config.save_pretrained(folder)
        _processor(module, encoder.backbone).save_pretrained(folder)
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}


def example(encoder: LoadedBackbone) -> tuple[str, str]:
    """The call of the library that gives the evaluated features of `image`, and a remark on its size or ''."""
    module: Any = encoder.module
    size = encoder.data_config["input_size"][1]
    both = hasattr(module, "get_image_features")
    tower = "model.get_image_features" if encoder.backbone.feature == "output" else "model"
    if both and encoder.backbone.feature == "pooled":
        tower = "model.vision_model"
    forward = module.get_image_features if both else module.forward
    interpolated = _resized(forward, module.config, torch.zeros((1, *encoder.data_config["input_size"])))
    flag = ", interpolate_pos_encoding=True" if interpolated else ""
    end = _end(module, encoder.data_config["input_size"])
    own = _own_size(module.config)
    remark = f"The position embedding is of {own} px and is interpolated to {size} px, as evaluated."
    return f'{tower}(**processor(image, return_tensors="pt"){flag}){end}', remark if interpolated else ""


@torch.no_grad()
def _end(module: Any, shape: tuple[int, ...]) -> str:
    """How the library's output becomes the features, as Python."""
    if module.config.model_type in CLS_TOKEN:
        return ".last_hidden_state[:, 0]"
    if hasattr(module, "get_image_features"):
        return ".pooler_output"
    found = module.eval()(
        pixel_values=torch.zeros((1, *shape)),
        **_resized(module.forward, module.config, torch.zeros((1, *shape))),
    )
    if getattr(found, "pooler_output", None) is not None:
        return ".pooler_output" + (".flatten(1)" if found.pooler_output.ndim > 2 else "")
    if getattr(found, "cls_token_value", None) is not None:
        return ".cls_token_value[:, 0]"
    return f".last_hidden_state.mean({1 if found.last_hidden_state.ndim == 3 else (2, 3)})"


def stored_names(module: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names that the library's files have."""
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # the library's first versions that rename call them as their modules
        return dict(state)
    return dict(revert_weight_conversion(module, dict(state)))


def _from_file(backbone: Backbone, config: Any, path: Path) -> nn.Module:
    """The network with a file's weights, under the names of files; ValueError where they are not all of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config.save_pretrained(folder)
        (folder / "model.safetensors").symlink_to(path.absolute())
        module, found = _loaded(backbone, config, str(folder))
    wrong = [
        f"{len(keys)} {what} ({', '.join(sorted(map(str, keys))[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (
            ("missing", _lost(config, found)),
            ("unexpected", [key for key in found["unexpected_keys"] if not key.startswith(_HEADS)]),
            ("of another shape", found["mismatched_keys"]),
        )
        if keys
    ]
    if wrong:
        raise ValueError(
            f"weights of {backbone.architecture}: expected the keys of this architecture, found {'; '.join(wrong)} in "
            f"{path}; check architecture and model_args."
        )
    return module


def _lost(config: Any, found: Mapping[str, Any]) -> list[str]:
    """Weights of the network that a file lacks, but for a pooler that is passed over."""
    return sorted(
        name
        for name in found["missing_keys"]
        if not (config.model_type in CLS_TOKEN and name.startswith("pooler."))
    )


def _loaded(backbone: Backbone, config: Any, source: str) -> tuple[nn.Module, dict[str, Any]]:
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of a pooler that the weights lack; it is not used, but it is exported
        return AutoModel.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
            ignore_mismatched_sizes=True, **_revision(backbone),
        )  # fmt: skip


def _config(backbone: Backbone) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    if backbone.folder is None and backbone.architecture in CONFIG_MAPPING:
        return AutoConfig.for_model(backbone.architecture, **backbone.model_args)
    if backbone.weights == "random":
        known = ", ".join(PROCESSORS)
        raise ValueError(
            f"backbone {backbone.architecture}: expected a model type of transformers for random weights ({known}), "
            f"found {backbone.architecture!r}; give one, and its sizes in model_args."
        )
    if backbone.folder is not None and not (backbone.folder / "config.json").is_file():
        raise ValueError(
            f"backbone {backbone.architecture}: expected a folder of transformers with config.json, found none in "
            f"{backbone.folder}; give a folder that AutoModel loads."
        )
    source = str(backbone.folder or backbone.architecture)
    try:
        return AutoConfig.from_pretrained(source, **_revision(backbone), **backbone.model_args)
    except OFFLINE as error:
        raise not_downloaded(backbone.architecture, source, error) from error


def _pretrained(backbone: Backbone, config: Any) -> nn.Module:
    from safetensors import SafetensorError

    source = str(backbone.folder or backbone.architecture)
    try:
        module, found = _loaded(backbone, config, source)
    except (*OFFLINE, SafetensorError) as error:
        if backbone.folder is None:
            raise not_downloaded(backbone.architecture, source, error) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"weights of {backbone.architecture}: expected a folder of transformers with .safetensors weights that fit "
            f"its config.json, found: {reason}; copy it again."
        ) from error
    lost = [*_lost(config, found), *(str(key) for key in found["mismatched_keys"])]
    if lost:
        raise ValueError(
            f"weights of {backbone.architecture}: expected all weights of {type(module).__name__}, found {len(lost)} "
            f"missing ({', '.join(lost[:3])}); take the repository or folder of that network."
        )
    return module


def _processor(module: nn.Module, backbone: Backbone) -> Any:
    """The image processor of the folder or repository, or the library's default; at the image size asked for."""
    import transformers

    config: Any = module.config
    size = backbone.image_size
    own = _own_size(config)
    folder = backbone.folder
    bare = folder is None and (backbone.weights == "random" or bool(_processor_of(backbone.architecture)))
    if not bare:
        source = str(folder or backbone.architecture)
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(source, **_revision(backbone))
        except (*OFFLINE, ValueError) as error:
            if folder is None:
                raise not_downloaded(backbone.architecture, source, error) from error
            raise ValueError(
                f"backbone {backbone.architecture}: expected preprocessor_config.json in {folder}, found none that "
                f"AutoImageProcessor reads; copy it from the model's repository."
            ) from error
    elif known := _processor_of(config.model_type):
        processor = getattr(transformers, known)()
        size = size or own
    else:
        raise ValueError(
            f"backbone {backbone.architecture}: expected a model type whose preprocessing is known without a folder "
            f"({', '.join(PROCESSORS)}), found {config.model_type}; give the model's folder."
        )
    return _at_size(processor, size) if size else processor


def _at_size(processor: Any, size: int) -> Any:
    """The processor with its output at `size` pixels; what it resizes to before a crop keeps its proportion."""
    values = processor.to_dict()
    crop = values.get("crop_size") if values.get("do_center_crop") else None
    before = dict(values["size"])
    old = (crop or before).get("height", before.get("shortest_edge"))
    if not old or old == size:
        return processor
    values["size"] = {key: round(number * size / old) for key, number in before.items() if number}
    if crop:
        values["crop_size"] = {"height": size, "width": size}
    return type(processor).from_dict(values)


def _exact(raw: Tensor, prepared: Tensor, config: Mapping[str, Any]) -> bool:
    if raw.dtype != torch.uint8 or raw.shape != prepared.shape:
        return False
    return bool((normalised(raw[None], config)[0] - prepared).abs().max() <= _EXACT)


def _resized(forward: Callable[..., Any], config: Any, images: Tensor) -> dict[str, bool]:
    own = _own_size(config)
    same = tuple(images.shape[2:]) == (own, own)
    if same or "interpolate_pos_encoding" not in inspect.signature(forward).parameters:
        return {}  # the DINO networks interpolate by themselves
    return {"interpolate_pos_encoding": True}


def _processor_of(model_type: str) -> str:
    """The class of image processor that the library pairs with a model type, "" where it has none."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    known = dict(IMAGE_PROCESSOR_MAPPING_NAMES).get(model_type, "")
    names = (
        list(known.values())
        if isinstance(known, Mapping)
        else [known]
        if isinstance(known, str)
        else list(known)
    )
    plain = [name for name in names if name and not name.endswith(("Pil", "Fast"))]
    return PROCESSORS.get(model_type) or next(iter(plain), "")


def _own_size(config: Any) -> int:
    """Pixels that a network's position embedding is made for; 0 of networks that take any size."""
    own = getattr(_vision(config), "image_size", None)
    sides = list(own) if isinstance(own, (list, tuple)) else [own or 0]
    return int(sides[0]) if len(set(sides)) == 1 else 0


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def _revision(backbone: Backbone) -> dict[str, str]:
    return {"revision": backbone.tag} if backbone.tag and backbone.folder is None else {}
