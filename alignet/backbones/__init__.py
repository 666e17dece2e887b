"""Backbones of three libraries behind one Encoder: an architecture with weights, and its own preprocessing.

In: a Backbone as configured, images, texts. Out: features (m, p), the classifier's layer, the files that the library
loads the network from; `embed`, `finetune` and `export` share them. timm_models.py, open_clip_models.py and
transformers_models.py offer the same functions: build, preprocessing, features_of, classifier, configuration, and
text_features where there is a text tower. Open first: backbone.py, encoder.py.
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
    stored_names,
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
    "stored_names",
    "text_features",
    "timm_features",
]
