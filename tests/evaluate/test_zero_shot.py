"""Zero-shot accuracy: open_clip's own classifier, planted answers, and bad input."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from alignet.backbones import configuration, embed_images, load_encoder, text_features
from alignet.evaluate.families import FAMILIES, Material
from alignet.evaluate.zero_shot import class_vectors, prompts, zero_shot
from tests.makers.toys import SIGLIP, TOYS, backbone, pictures

NAMES = ["dog", "fire_engine", "leaf", "lizard"]
TEMPLATES = ["a photo of a {}.", "a drawing of the {}"]
SHARED = {"dataset": "d", "seed": 0, "bootstrap": 50}


def test_class_vectors_and_accuracy_are_those_of_open_clip() -> None:
    import open_clip

    encoder = load_encoder(TOYS["open_clip output"], seed=2)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    expected = open_clip.build_zero_shot_classifier(
        encoder.module, tokenizer, [name.replace("_", " ") for name in NAMES],
        [lambda name, text=text: text.format(name) for text in TEMPLATES],
    )  # fmt: skip
    vectors = class_vectors(lambda texts: text_features(encoder, texts).numpy(), NAMES, TEMPLATES)
    np.testing.assert_allclose(vectors, expected.T.numpy(), atol=1e-6)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, encoder.width)).astype(np.float32)
    labels = generator.choice(NAMES, 200).tolist()
    best = (torch.nn.functional.normalize(torch.from_numpy(features), dim=1) @ expected).argmax(1)
    found = zero_shot(features, labels, NAMES, vectors, **SHARED)[0]
    assert found.value == np.mean([NAMES[row] == label for row, label in zip(best.tolist(), labels)])
    assert (found.metric, found.n, found.chance) == ("zero_shot", 200, 0.25)


def test_planted_classes_are_found_and_shuffled_ones_are_not() -> None:
    generator = np.random.default_rng(1)
    vectors = np.linalg.qr(generator.normal(size=(12, 4)))[0].T
    own = generator.integers(0, 4, 400)
    features = 3 * vectors[own] + 0.3 * generator.normal(size=(400, 12))
    labels = [NAMES[row] for row in own]
    assert zero_shot(features, labels, NAMES, vectors, **SHARED)[0].value > 0.99
    shuffled = generator.permutation(labels).tolist()
    assert zero_shot(features, shuffled, NAMES, vectors, **SHARED)[0].value < 0.35
    lengths = generator.uniform(0.1, 10, (400, 1))  # cosine: an image's length says nothing
    assert zero_shot(lengths * features, labels, NAMES, vectors, **SHARED)[0].value > 0.99
    tied = np.stack([vectors[0]] * 4)
    assert zero_shot(features, labels, NAMES, tied, **SHARED)[0].value == 0


def test_bad_input_is_refused() -> None:
    assert prompts(["fire_engine"], TEMPLATES) == [
        ["a photo of a fire engine.", "a drawing of the fire engine"]
    ]
    for templates in ([], ["a photo"], ["{} {}"]):
        with pytest.raises(ValueError, match=r"expected texts with \{\} once"):
            prompts(NAMES, templates)
    vectors = np.eye(4)
    features = np.eye(4)
    with pytest.raises(ValueError, match=r"expected image and text features of one width"):
        zero_shot(features[:, :3], NAMES, NAMES, vectors, **SHARED)
    with pytest.raises(ValueError, match=r"found no name for 'cat'"):
        zero_shot(features, ["cat"] * 4, NAMES, vectors, **SHARED)
    with pytest.raises(ValueError, match=r"found 1 of 2"):
        zero_shot(features[:2], ["dog", "dog"], ["dog", "dog"], vectors[:2], **SHARED)
    with pytest.raises(ValueError, match=r"features of d: expected finite vectors that are not zero"):
        zero_shot(0 * features, NAMES, NAMES, vectors, **SHARED)
    with pytest.raises(ValueError, match=r"text features: expected finite vectors"):
        class_vectors(lambda texts: np.full((len(texts), 3), np.nan), NAMES, TEMPLATES)


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "a",
        "photo",
        "of",
        "drawing",
        "the",
        "dog",
        "fire",
        "engine",
        "leaf",
        ".",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder)


@pytest.mark.parametrize("library", ["open_clip", "transformers"])
def test_the_family_takes_the_text_tower_of_the_base_network(library: str, tmp_path: Path) -> None:
    """What it says of features is what the network's own towers say of the images."""
    case = (
        TOYS["open_clip output"] if library == "open_clip" else backbone(library, "siglip", SIGLIP, "output")
    )
    encoder = load_encoder(case, seed=5)
    folder = tmp_path / "weights"
    folder.mkdir()
    for name, text in configuration(encoder).items():
        (folder / name).write_text(text)
    state = {name: value.contiguous() for name, value in encoder.module.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    if library == "transformers":
        _tokenizer(folder)
    whole = load_encoder(dataclasses.replace(case, weights=str(folder)))
    images = pictures(0)
    features = embed_images(whole, [whole.transform(image) for image in images], 3)
    labels = ["dog", "leaf", "fire_engine"]
    with open(tmp_path / "labels.csv", "w", newline="") as handle:
        csv.writer(handle).writerows(
            [["id", "label"], *([f"{row}.png", name] for row, name in enumerate(labels))]
        )
    material = Material(
        "d", "original", {"test": (features, ["0.png", "1.png", "2.png"])},
        {"weights": folder, "labels": tmp_path / "labels.csv"}, {}, {}, lambda rows: rows, lambda name, count: None,
        lambda name: None, None, 50, 0,
    )  # fmt: skip
    options = {
        "label": "label", "templates": TEMPLATES, "library": library, "architecture": case.architecture, "tag": "",
        "model_args": {}, "weights": "file",
    }  # fmt: skip
    score = FAMILIES["zero_shot"](material, options)[0]
    names = sorted(labels)
    texts = [text for own in prompts(names, TEMPLATES) for text in own]
    vectors = torch.nn.functional.normalize(text_features(whole, texts), dim=1).view(3, 2, -1).mean(1)
    logits = torch.from_numpy(features) @ torch.nn.functional.normalize(vectors, dim=1).T
    best = [names[row] for row in logits.argmax(1).tolist()]
    assert score.value == pytest.approx(np.mean([own == found for own, found in zip(labels, best)]))
    assert score.n == 3
    with pytest.raises(ValueError, match=r"expected options.weights=file with data.weights, or hub without"):
        FAMILIES["zero_shot"](material, options | {"weights": "hub"})


def test_transformers_texts_are_padded_as_siglip_was_trained(tmp_path: Path) -> None:
    encoder = load_encoder(TOYS["siglip output"], seed=5)
    for name, text in configuration(encoder).items():
        (tmp_path / name).write_text(text)
    state = {name: value.contiguous() for name, value in encoder.module.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    _tokenizer(tmp_path)
    whole = load_encoder(dataclasses.replace(TOYS["siglip output"], weights=str(tmp_path)))
    rows = torch.tensor([[4, 5, 6, 4, 9] + [0] * 11, [4, 12] + [0] * 14])
    with torch.no_grad():
        expected = encoder.module.get_text_features(input_ids=rows).pooler_output
    assert torch.equal(text_features(whole, ["a photo of a dog", "a leaf"]), expected)
