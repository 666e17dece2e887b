"""transformers' vision networks for `encoder.py`, text tower included: from a repository, a folder, or a file.

The feature "output" is what get_image_features gives, the vector that the text tower meets. "pooled" is the image
tower's pooler_output (CLIP's CLS token after its last norm, SigLIP's attention pooling, DINO's CLS token), and for
ViT-like networks the CLS token after the last norm: their pooler is a further layer with a tanh, whose weights most
published checkpoints lack.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from alignet.backbones.backbone import normalised
from alignet.backbones.weights import folder_weights, load_weights, not_downloaded

if TYPE_CHECKING:
    from alignet.backbones.backbone import Backbone, LoadedBackbone

CLS_TOKEN = ("vit", "deit", "vit_msn")  # model types whose pooler is passed over
# what prepares images where no preprocessor_config.json says so, by model type
PROCESSORS = {
    "clip": "CLIPImageProcessor", "clip_vision_model": "CLIPImageProcessor", "siglip": "SiglipImageProcessor",
    "siglip_vision_model": "SiglipImageProcessor", "vit": "ViTImageProcessor", "deit": "DeiTImageProcessor",
    "dinov2": "BitImageProcessor", "dinov2_with_registers": "BitImageProcessor",
    "dinov3_vit": "DINOv3ViTImageProcessor",
}  # fmt: skip
REFUSED = {
    "siglip2": "is SigLIP2's NaFlex for images of any shape; take a fixed size, as google/siglip2-base-patch16-224",
    "vit_mae": "hides most of the image at random; take timm's vit_base_patch16_224.mae",
}
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
        module = AutoModel.from_config(config, dtype=torch.float32)
    if backbone.weights != "random":
        path = Path(backbone.weights) if folder is None else folder_weights(folder, backbone.architecture)
        load_weights(module, path, backbone.architecture)
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
    return transform, (pixels if _exact(pixels(probe), prepared, config) else transform), config


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
    if pooled is None:
        raise ValueError(
            f"backbone: expected a network with a pooled vector, found {type(module).__name__} without one; take "
            f"another network."
        )
    return pooled.flatten(1)


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
    end = ".last_hidden_state[:, 0]" if module.config.model_type in CLS_TOKEN else ".pooler_output"
    own = _vision(module.config).image_size
    remark = f"The position embedding is of {own} px and is interpolated to {size} px, as evaluated."
    return f'{tower}(**processor(image, return_tensors="pt"){flag}){end}', remark if interpolated else ""


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
    from transformers import AutoModel

    source = str(backbone.folder or backbone.architecture)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of a pooler that the weights lack; it is not used, but it is exported
            module, found = AutoModel.from_pretrained(
                source, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
                **_revision(backbone),
            )  # fmt: skip
    except (*OFFLINE, SafetensorError) as error:
        if backbone.folder is None:
            raise not_downloaded(backbone.architecture, source, error) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"weights of {backbone.architecture}: expected a folder of transformers with .safetensors weights that fit "
            f"its config.json, found: {reason}; copy it again."
        ) from error
    lost = sorted(
        name
        for name in found["missing_keys"]
        if not (config.model_type in CLS_TOKEN and name.startswith("pooler."))
    )
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
    own = _vision(config).image_size
    folder = backbone.folder
    bare = folder is None and (backbone.weights == "random" or backbone.architecture in PROCESSORS)
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
    elif config.model_type in PROCESSORS:
        processor = getattr(transformers, PROCESSORS[config.model_type])()
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
    own = _vision(config).image_size
    same = tuple(images.shape[2:]) == (tuple(own) if isinstance(own, (list, tuple)) else (own, own))
    if same or "interpolate_pos_encoding" not in inspect.signature(forward).parameters:
        return {}  # the DINO networks interpolate by themselves
    return {"interpolate_pos_encoding": True}


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def _revision(backbone: Backbone) -> dict[str, str]:
    return {"revision": backbone.tag} if backbone.tag and backbone.folder is None else {}
