"""Backbones of three libraries behind one Encoder: an architecture with weights, and its own preprocessing.

  images -> Encoder.transform -> Encoder.features -> (m, p): what `embed`, `finetune` and `export` share

backbone.py             Backbone: which network with which weights; LoadedBackbone: network and preprocessing
encoder.py              Encoder: loading and embedding, with the library that a backbone names
weights.py              reading .safetensors strictly; what to say where a hub cannot be reached
timm_models.py, open_clip_models.py, transformers_models.py   one library each, with the same functions:
    build(backbone, seed)            the network with its weights, at its image size
    preprocessing(module, backbone)  how the library itself prepares an image
    features_of(module, images, feature)
    classifier(module)               the linear layer behind pooled features, or None
    configuration(encoder)           the files beside the weights from which the library loads the network
    text_features(encoder, texts)    where there is a text tower
"""

from alignet.backbones.backbone import FEATURES, LIBRARIES, Backbone
from alignet.backbones.encoder import (
    COMPUTE,
    Encoder,
    ImageFiles,
    classifier_head,
    configuration,
    embed_images,
    encode,
    features_of,
    folder_backbone,
    load_encoder,
    text_features,
)
from alignet.backbones.timm_models import timm_features
from alignet.backbones.weights import load_weights

__all__ = [
    "COMPUTE",
    "FEATURES",
    "LIBRARIES",
    "Backbone",
    "Encoder",
    "ImageFiles",
    "classifier_head",
    "configuration",
    "embed_images",
    "encode",
    "features_of",
    "folder_backbone",
    "load_encoder",
    "load_weights",
    "text_features",
    "timm_features",
]
