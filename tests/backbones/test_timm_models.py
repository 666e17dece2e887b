"""Backbones: timm's own pipeline as the oracle, strict weights, seeds, and bad input."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from alignet.backbones import Backbone, ImageFiles, classifier_head, embed_images, load_encoder, timm_features
from tests.makers.photos import PHOTOS, needs_photos

TOY_VIT = {"img_size": 48, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}


def backbone(architecture: str = "test_efficientnet", **values) -> Backbone:
    given = {"library": "timm", "weights": "random", "model_args": {}, "image_size": 0, "feature": "pooled"}
    return Backbone(architecture=architecture, **(given | values))


def pictures(count: int = 3) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    fields = generator.integers(0, 256, (count, 9, 12, 3), dtype=np.uint8)
    sizes = [(260, 210), (140, 300), (97, 97)]
    return [
        Image.fromarray(field).resize(sizes[i % 3], Image.Resampling.BICUBIC)
        for i, field in enumerate(fields)
    ]


@pytest.mark.parametrize(
    "case",
    [
        backbone(),
        backbone(image_size=96),
        backbone(model_args={"num_classes": 7}, feature="output"),
        backbone("test_vit", image_size=0),
        backbone("vit_tiny_patch16_224", model_args=TOY_VIT),
        backbone("test_convnext"),
    ],
    ids=["cnn", "cnn at 96", "output", "vit", "small vit", "convnext"],
)
def test_features_are_those_of_timm(case: Backbone) -> None:
    encoder = load_encoder(case, seed=4)
    with torch.no_grad():
        expected = timm_features(encoder, pictures())
        features = encoder.features(torch.stack([encoder.transform(picture) for picture in pictures()]))
    assert features.shape == (3, encoder.width)
    assert (features - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("case", [backbone(), backbone(image_size=160), backbone("test_vit")])
def test_pixels_are_the_transform_before_normalising(case: Backbone) -> None:
    encoder = load_encoder(case, seed=4)
    pixels = torch.stack([encoder.pixels(picture) for picture in pictures()])
    assert pixels.dtype == torch.uint8
    transformed = torch.stack([encoder.transform(picture) for picture in pictures()])
    assert torch.equal(encoder.normalise(pixels), transformed)
    assert torch.equal(encoder.normalise(transformed), transformed)


def test_the_size_changes_and_the_rest_of_the_preprocessing_stays() -> None:
    own, other = load_encoder(backbone(), seed=0), load_encoder(backbone(image_size=96), seed=0)
    assert other.data_config["input_size"] == (3, 96, 96)
    assert {**other.data_config, "input_size": 0} == {**own.data_config, "input_size": 0}
    assert (
        load_encoder(backbone("vit_tiny_patch16_224", model_args=TOY_VIT), seed=0).data_config["input_size"][
            1
        ]
        == 48
    )


def test_a_transformer_is_resampled_to_another_size() -> None:
    encoder = load_encoder(backbone("test_vit", image_size=96), seed=0)
    assert encoder.transform(pictures()[0]).shape == (3, 96, 96)
    assert encoder.features(torch.zeros((1, 3, 96, 96))).shape == (1, encoder.width)


def test_random_weights_follow_the_seed_and_spare_the_global_generator() -> None:
    def weights(seed: int) -> torch.Tensor:
        return next(iter(load_encoder(backbone(), seed=seed).trainable().values())).detach()

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
    assert torch.equal(torch.rand(1), expected)
    with pytest.raises(ValueError, match="random weights need a seed"):
        load_encoder(backbone())


def test_weights_come_from_a_file_strictly(tmp_path: Path) -> None:
    state = {
        name: value.contiguous()
        for name, value in load_encoder(backbone(), seed=9).module.state_dict().items()
    }
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    encoder = load_encoder(backbone(weights=str(path)))
    assert all(torch.equal(value, state[name]) for name, value in encoder.module.state_dict().items())

    shape = {**state, "classifier.weight": torch.zeros((4, 256))}
    fewer = {name: value for name, value in state.items() if name != "classifier.bias"} | {
        "module.x": torch.zeros(1)
    }
    for wrong, message in (
        (shape, r"1 of another shape \(classifier.weight \(4, 256\) for \(1000, 256\)\)"),
        (fewer, r"1 missing \(classifier.bias\); 1 unexpected \(module.x\)"),
    ):
        save_file(wrong, path)
        with pytest.raises(ValueError, match=message):
            load_encoder(backbone(weights=str(path)))
    path.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match=r"expected a readable .safetensors file"):
        load_encoder(backbone(weights=str(path)))
    with pytest.raises(ValueError, match=r"expected the path of a .safetensors file, found nothing there"):
        load_encoder(backbone(weights=str(tmp_path / "none.safetensors")))
    (tmp_path / "old.pth").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=r"found a .pth file"):
        load_encoder(backbone(weights=str(tmp_path / "old.pth")))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"library": "keras"}, r"expected a library out of timm, open_clip, transformers, found 'keras'"),
        ({"feature": "tokens"}, r"expected a feature out of pooled, output, found 'tokens'"),
        ({"image_size": -1}, r"image size of at least 0"),
        (
            {"architecture": "test_efficientnot"},
            r"expected an architecture that timm .* knows.*test_efficientnet",
        ),
    ],
)
def test_bad_backbones_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_encoder(backbone(**values), seed=0)


def test_the_head_gives_the_networks_own_logits() -> None:
    encoder = load_encoder(backbone(model_args={"num_classes": 7}), seed=0)
    batch = torch.stack([encoder.transform(picture) for picture in pictures()])
    weights, bias = classifier_head(encoder)
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(batch) @ weights + bias, encoder.module(batch))
    assert classifier_head(load_encoder(backbone(model_args={"num_classes": 0}), seed=0)) is None
    assert classifier_head(load_encoder(backbone(feature="output"), seed=0)) is None


def test_the_classifier_does_not_train_behind_pooled_features() -> None:
    pooled, output = (load_encoder(backbone(feature=feature), seed=0) for feature in ("pooled", "output"))
    everything = dict(output.module.named_parameters())
    assert output.trainable().keys() == everything.keys()
    assert everything.keys() - pooled.trainable().keys() == {"classifier.weight", "classifier.bias"}


def test_embedding_takes_tensors_datasets_and_iterables(tmp_path: Path) -> None:
    encoder = load_encoder(backbone(image_size=64), seed=0)
    for row, picture in enumerate(pictures(5)):
        picture.save(tmp_path / f"{row}.png")
    files = ImageFiles(sorted(tmp_path.glob("*.png")), Image.open, encoder)
    loaded = files.load()
    assert loaded.dtype == torch.uint8
    expected = embed_images(encoder, loaded, 5)
    assert expected.dtype == np.float32
    for images in (loaded, files, (encoder.transform(picture) for picture in pictures(5))):
        np.testing.assert_allclose(
            embed_images(encoder, images, 2), expected, rtol=0, atol=1e-5 * expected.max()
        )
    assert embed_images(encoder, loaded[:0], 2).shape == (0, encoder.width)
    with pytest.raises(ValueError, match=r"NaN or infinity for 1 images, the first at row 3"):
        embed_images(
            encoder,
            torch.where(torch.arange(5).view(5, 1, 1, 1) == 3, torch.nan, encoder.normalise(loaded)),
            2,
        )


@needs_photos
def test_a_real_network_knows_real_photographs() -> None:
    """Most photographs get their own ImageNet class, so range, mean, crop and channel order are right."""
    from timm.data import ImageNetInfo

    folder = Path(PHOTOS)
    encoder = load_encoder(
        backbone("tf_efficientnet_lite0", weights=str(folder / "tf_efficientnet_lite0.safetensors"))
    )
    with open(folder / "concepts.csv", encoding="utf-8", newline="") as table:
        names = [row["photo"] for row in csv.DictReader(table) if row["photo"] and row["split"] == "tune"][
            :40
        ]
    images = [Image.open(folder / "images" / "things" / name).convert("RGB") for name in names]
    features = embed_images(encoder, [encoder.transform(image) for image in images], 40)
    weights, bias = classifier_head(encoder)
    found = (torch.from_numpy(features) @ weights + bias).argmax(1).tolist()
    labels = ImageNetInfo().label_names()
    assert np.mean([labels[row] == name[:9] for row, name in zip(found, names, strict=True)]) >= 0.75
    with torch.no_grad():
        expected = timm_features(encoder, images[:4]).numpy()
    np.testing.assert_allclose(features[:4], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_strip_is_refused_before_its_shorter_side_is_resized(tmp_path):
    """1 x 6,000 pixels are few, but 224 x 1,344,000 are not."""
    import alignet
    from tests.fuzz.run import forget_peak, peak

    model = alignet.load("timm:test_efficientnet", weights="random")
    Image.new("RGB", (6000, 1)).save(tmp_path / "strip.png")
    Image.new("RGB", (600, 1)).save(tmp_path / "short.png")
    forget_peak()
    before = peak()
    with pytest.raises(
        ValueError, match=r"strip\.png.* once its shorter side has .* found one of 6,000 x 1; crop it"
    ):
        alignet.embed(model, [tmp_path / "strip.png"])
    assert peak() - before < 100 << 20
    found = alignet.embed(model, [tmp_path / name for name in ("strip.png", "short.png")], unreadable="skip")
    assert [name for name, _ in found.unreadable] == [str(tmp_path / "strip.png")]
