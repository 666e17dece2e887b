"""Backbones of open_clip and transformers: each library's own pipeline as the oracle, weights, and bad input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from alignet.backbones import (
    Backbone,
    Encoder,
    classifier_head,
    configuration,
    embed_images,
    folder_backbone,
    load_encoder,
    text_features,
)
from alignet.config import FinetuneSettings
from alignet.pipeline.cli import load
from alignet.student.batches import PoolTeacher
from tests.makers.toys import NATIVE, OF_TIMM, TOWER, TOYS, backbone, pictures

LANGUAGE = ("text", "transformer.", "token_embedding", "positional_embedding", "ln_final", "logit_")


@torch.no_grad()
def open_clip_features(encoder: Encoder, images: list) -> torch.Tensor:
    """As open_clip's own example computes them, with a second model of the same weights."""
    import open_clip

    given = encoder.backbone
    size = {"force_image_size": given.image_size} if given.image_size else {}
    args = dict(given.model_args)
    if size:
        args["vision_cfg"] = args["vision_cfg"] | {"image_size": given.image_size}
    known = open_clip.get_pretrained_cfg(given.architecture, given.tag)
    keys = ("mean", "std", "interpolation", "resize_mode")
    model, _, transform = open_clip.create_model_and_transforms(
        given.architecture, **args, **size, **{f"image_{key}": known.get(key) for key in keys}
    )
    model.load_state_dict(encoder.module.state_dict(), strict=True)
    model.eval()
    batches = [transform(image).unsqueeze(0) for image in images]
    if given.feature == "output":
        return torch.cat([model.encode_image(batch) for batch in batches])
    caught = []
    if hasattr(model.visual, "trunk"):
        model.visual.trunk.register_forward_hook(lambda _, __, out: caught.append(out))
    else:  # the tower ends by normalising every token and taking the first
        model.visual.ln_post.register_forward_hook(lambda _, __, out: caught.append(out[:, 0]))
    for batch in batches:
        model.encode_image(batch)
    return torch.cat(caught)


@torch.no_grad()
def transformers_features(encoder: Encoder, images: list, folder: Path) -> torch.Tensor:
    """As the library's documentation computes them, from a folder with the same weights."""
    from transformers import AutoImageProcessor, AutoModel

    encoder.module.save_pretrained(folder)
    for name, text in configuration(encoder).items():
        (folder / name).write_text(text)
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    size = {"interpolate_pos_encoding": True} if encoder.backbone.image_size else {}
    if encoder.backbone.architecture.startswith("dino"):
        size = {}
    rows = []
    for image in images:
        inputs = processor(images=[image], return_tensors="pt")
        if encoder.backbone.feature == "output":
            rows.append(model.get_image_features(**inputs, **size).pooler_output)
        elif encoder.backbone.architecture in ("vit", "deit"):
            rows.append(model(**inputs, **size).last_hidden_state[:, 0])
        else:
            tower = model.vision_model if hasattr(model, "text_model") else model
            rows.append(tower(**inputs, **size).pooler_output)
    return torch.cat(rows)


@pytest.mark.parametrize("case", TOYS)
def test_features_are_those_of_the_library(case: str, tmp_path: Path) -> None:
    encoder = load_encoder(TOYS[case], seed=4)
    images = pictures()
    if encoder.backbone.library == "open_clip":
        expected = open_clip_features(encoder, images)
    else:
        expected = transformers_features(encoder, images, tmp_path)
    features = embed_images(encoder, [encoder.transform(image) for image in images], 2)
    assert features.shape == expected.shape == (len(images), encoder.width)
    assert np.abs(features - expected.numpy()).max() <= 1e-5 * expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("case", TOYS)
def test_pixels_are_the_transform_before_normalising(case: str) -> None:
    encoder = load_encoder(TOYS[case], seed=4)
    for image in pictures():
        pixels, prepared = encoder.pixels(image), encoder.transform(image)
        assert pixels.dtype == (torch.float32 if "dinov3" in case else torch.uint8)
        assert (encoder.normalise(pixels[None])[0] - prepared).abs().max() <= 1e-6
        assert prepared.shape == encoder.data_config["input_size"]
    size = encoder.backbone.image_size
    assert not size or encoder.data_config["input_size"] == (3, size, size)


@pytest.mark.parametrize("case", TOYS)
def test_what_trains_is_what_changes_the_features(case: str) -> None:
    encoder = load_encoder(TOYS[case], seed=4)
    batch = torch.stack([encoder.transform(image) for image in pictures(0)])
    encoder.features(batch).square().sum().backward()
    moved = {name for name, held in encoder.module.named_parameters() if held.grad is not None}
    assert encoder.trainable().keys() == moved
    assert moved
    assert not [name for name in moved if name.startswith(LANGUAGE)]
    assert classifier_head(encoder) is None


@pytest.mark.parametrize(
    "case", ["open_clip output", "open_clip timm pooled", "siglip output", "dinov3 at 64"]
)
def test_fine_tuning_leaves_the_text_tower_alone(case: str) -> None:
    from alignet.student.finetune import finetune
    from alignet.student.network import blocks

    encoder = load_encoder(TOYS[case], seed=0)
    before = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    images = torch.stack([encoder.pixels(image) for image in pictures(0) * 3])
    teacher = PoolTeacher(np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32), None)
    values = load([]).finetune.settings
    settings: FinetuneSettings = dataclasses.replace(values, batch=6, steps=3, warmup=1, tau_student="spread")
    result = finetune(encoder, images, teacher, settings)
    changed = {name for name, value in result.state.items() if not torch.equal(value, before[name])}
    assert changed == {
        name for name, held in encoder.trainable().items() if held.numel()
    }  # no register tokens
    # blocks that are computed again are found in every library, and change no byte
    again = load_encoder(TOYS[case], seed=0)
    assert len(blocks(again)) > 1
    recomputed = finetune(again, images, teacher, settings, recompute=True)
    assert all(torch.equal(value, recomputed.state[name]) for name, value in result.state.items())


# ---- weights ---------------------------------------------------------------------------------------


def _folder(encoder: Encoder, folder: Path) -> Path:
    folder.mkdir()
    for name, text in configuration(encoder).items():
        (folder / name).write_text(text)
    save_file(
        {name: value.contiguous() for name, value in encoder.module.state_dict().items()},
        folder / "weights.safetensors",
    )
    return folder


@pytest.mark.parametrize("case", ["open_clip output", "open_clip timm output", "clip output", "vit at 64"])
def test_weights_come_back_from_a_folder_and_from_a_file(case: str, tmp_path: Path) -> None:
    encoder = load_encoder(TOYS[case], seed=9)
    folder = _folder(encoder, tmp_path / "model")
    batch = torch.stack([encoder.transform(image) for image in pictures()])
    for weights in (folder, folder / "weights.safetensors"):
        again = load_encoder(dataclasses.replace(TOYS[case], weights=str(weights)))
        assert torch.equal(torch.stack([again.transform(image) for image in pictures()]), batch)
        with torch.no_grad():
            torch.testing.assert_close(again.features(batch), encoder.features(batch), rtol=0, atol=0)
    state = encoder.module.state_dict()
    lost = next(name for name in reversed(state) if "visual" in name or "layer" in name)
    save_file(
        {name: value.contiguous() for name, value in state.items() if name != lost} | {"x": torch.zeros(1)},
        folder / "weights.safetensors",
    )
    with pytest.raises(
        ValueError, match=r"expected the keys of this architecture.* 1 missing .*1 unexpected"
    ):
        load_encoder(dataclasses.replace(TOYS[case], weights=str(folder)))


@pytest.mark.parametrize("args", [NATIVE, OF_TIMM])
@pytest.mark.parametrize("trained_at", [0, 96])
def test_open_clip_weights_fit_the_size_they_have_and_the_size_asked_for(
    args: dict, trained_at: int, tmp_path: Path
) -> None:
    """Published weights are resampled to the size asked for; those that were fine-tuned at it are taken as they are."""
    first = load_encoder(backbone("open_clip", "ViT-B-32", args, "output", trained_at), seed=3)
    path = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in first.module.state_dict().items()}, path)
    again = load_encoder(backbone("open_clip", "ViT-B-32", args, "output", 96, weights=str(path)))
    assert again.data_config["input_size"] == (3, 96, 96)
    image = torch.stack([again.transform(image) for image in pictures(0)])
    with torch.no_grad():
        features = again.features(image)
        if trained_at:
            assert torch.equal(features, first.features(image))
    assert torch.isfinite(features).all()


def test_timm_weights_fine_tuned_at_another_size_load(tmp_path: Path) -> None:
    case = backbone("timm", "test_vit", {"num_classes": 3}, "pooled", 96)
    first = load_encoder(case, seed=3)
    folder = _folder(first, tmp_path / "model")
    image = torch.stack([first.transform(image) for image in pictures(0)])
    for weights in (folder / "weights.safetensors", folder):
        again = load_encoder(dataclasses.replace(case, weights=str(weights)))
        with torch.no_grad():
            assert torch.equal(again.features(image), first.features(image))
    with pytest.raises(ValueError, match=r"expected a folder of timm's test_vit2, .* found test_vit in"):
        load_encoder(dataclasses.replace(case, architecture="test_vit2", weights=str(folder)))


def test_a_folder_says_what_it_is(tmp_path: Path) -> None:
    for case, feature in (
        ("open_clip output", "output"),
        ("clip output", "output"),
        ("dinov2 at 64", "pooled"),
    ):
        encoder = load_encoder(TOYS[case], seed=1)
        folder = _folder(encoder, tmp_path / case)
        found = folder_backbone(folder)
        assert (found.library, found.feature) == (encoder.backbone.library, feature)
        batch = torch.stack([encoder.transform(image) for image in pictures(0)])
        with torch.no_grad():
            assert torch.equal(load_encoder(found).features(batch), encoder.features(batch))
    with pytest.raises(ValueError, match=r"expected a folder of timm .*, open_clip .* or transformers"):
        folder_backbone(tmp_path)


@pytest.mark.parametrize(
    ("case", "repository"),
    [
        (
            Backbone("timm", "vit_base_patch16_224.dino", "", {}, 0, "pooled"),
            "timm/vit_base_patch16_224.dino",
        ),
        (Backbone("open_clip", "ViT-B-16-SigLIP", "", {}, 0, "output", "webli"), "timm/ViT-B-16-SigLIP"),
        (Backbone("transformers", "facebook/dinov2-base", "", {}, 0, "pooled"), "facebook/dinov2-base"),
    ],
)
def test_a_hub_that_cannot_be_reached_says_what_to_put_where(
    case: Backbone, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"expected to download its pretrained weights") as caught:
        load_encoder(case)
    text = str(caught.value)
    assert f"({repository})" in text
    assert "HF_HOME" in text
    assert "weights=file" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (backbone("open_clip", "ViT-B-33", {}, "output"), r"open_clip .* knows, found 'ViT-B-33'.*ViT-B-32"),
        (
            backbone("open_clip", "ViT-B-16-SigLIP", {}, "output", tag="webly"),
            r"found 'webly'; it has: webli",
        ),
        (
            backbone("open_clip", "ViT-B-16", {}, "output", tag="openai"),
            r"expected the activation .* set architecture to ViT-B-16-quickgelu",
        ),
        (backbone("open_clip", "ViT-B-32", {"depth": 3}, "output"), r"expected model_args that open_clip"),
        (backbone("open_clip", "RN50", {}, "pooled"), r"found ModifiedResNet, .* set feature=output"),
        (backbone("transformers", "vit", TOWER, "output"), r"expected a network with a text tower"),
        (backbone("transformers", "siglip2", {}, "output"), r"siglip2, which is SigLIP2's NaFlex"),
        (backbone("transformers", "vit_mae", {}, "pooled"), r"vit_mae, which hides most of the image"),
        (backbone("transformers", "google/vit", {}, "pooled"), r"expected a model type of transformers"),
        (
            backbone("transformers", "vitdet", TOWER, "pooled"),
            r"whose preprocessing is known without a folder",
        ),
    ],
)
def test_bad_backbones_are_refused(case: Backbone, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_encoder(case, seed=0)


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    clip = _folder(load_encoder(TOYS["clip output"], seed=1), tmp_path / "clip")
    open_clip = _folder(load_encoder(TOYS["open_clip output"], seed=1), tmp_path / "open_clip")

    def refused(case: str, folder: Path, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load_encoder(dataclasses.replace(TOYS[case], weights=str(folder)))

    (clip / "model.safetensors").write_bytes(b"")
    refused("clip output", clip, r"expected a readable .safetensors file, found .*model.safetensors")
    (clip / "weights.safetensors").unlink()
    refused("clip output", clip, r"expected a folder of transformers with .safetensors weights that fit")
    (clip / "preprocessor_config.json").unlink()
    save_file({"logit_scale": torch.zeros(())}, clip / "model.safetensors", metadata={"format": "pt"})
    refused("clip output", clip, r"expected all weights of CLIPModel, found \d+ missing")
    (clip / "config.json").unlink()
    refused("clip output", clip, r"expected a folder of transformers with config.json")
    (open_clip / "open_clip_config.json").write_text(json.dumps({"model": {}}))
    refused("open_clip output", open_clip, r"expected a folder of open_clip with `model_cfg`")


def test_preprocessing_that_is_lost_or_gives_many_sizes_is_refused(tmp_path: Path) -> None:
    folder = _folder(load_encoder(TOYS["siglip output"], seed=1), tmp_path / "siglip")
    prepared = json.loads((folder / "preprocessor_config.json").read_text())
    prepared["size"] = {"shortest_edge": 48}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    with pytest.raises(ValueError, match=r"expected preprocessing that brings every image to one size"):
        load_encoder(dataclasses.replace(TOYS["siglip output"], weights=str(folder)))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"expected preprocessor_config.json in"):
        load_encoder(dataclasses.replace(TOYS["siglip output"], weights=str(folder)))


# ---- text ------------------------------------------------------------------------------------------


def test_open_clip_texts_meet_the_images() -> None:
    import open_clip

    encoder = load_encoder(TOYS["open_clip output"], seed=2)
    texts = ["a photo of a lizard", "a leaf"]
    tokens = open_clip.get_tokenizer("ViT-B-32")(texts)
    with torch.no_grad():
        expected = encoder.module.encode_text(tokens)
    found = text_features(encoder, texts)
    assert found.shape == (2, encoder.width)
    assert torch.equal(found, expected)


def test_texts_need_a_tower_and_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a network with a text tower, found timm's test_vit"):
        text_features(load_encoder(backbone("timm", "test_vit", {}, "pooled"), seed=0), ["a"])
    with pytest.raises(ValueError, match=r"expected a network with a text tower, found ViTModel"):
        text_features(load_encoder(TOYS["vit at 64"], seed=0), ["a"])
    named = NATIVE | {"text_cfg": NATIVE["text_cfg"] | {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"}}
    with pytest.raises(ValueError, match=r"expected timm/ViT-B-16-SigLIP's files in the model's folder"):
        text_features(load_encoder(backbone("open_clip", "ViT-B-16-SigLIP", named, "output"), seed=0), ["a"])
    folder = _folder(load_encoder(TOYS["siglip output"], seed=0), tmp_path / "siglip")
    encoder = load_encoder(dataclasses.replace(TOYS["siglip output"], weights=str(folder)))
    with pytest.raises(ValueError, match=r"tokenizer of siglip: expected its files in the model's folder"):
        text_features(encoder, ["a"])


# ---- the files in conf/ ----------------------------------------------------------------------------

CONF = Path(__file__).parents[2] / "conf"
PUBLISHED = [
    f"{path.parent.name}={path.stem}"
    for path in sorted([*CONF.glob("student/*.yaml"), *CONF.glob("teacher/*.yaml")])
    if "weights: hub" in path.read_text(encoding="utf-8")
]


def test_every_promised_model_has_a_file() -> None:
    stems = ("siglip_base", "siglip_so400m", "siglip2_base", "siglip2_so400m", "clip_base")
    students = ("vit_small_16", "vit_base_16", "vit_large_16", "dino_base", "dinov2_base", "dinov3_base")
    assert {f"student={stem}" for stem in (*students, *stems)} <= set(PUBLISHED)
    assert {f"teacher={stem}" for stem in stems} <= set(PUBLISHED)


@pytest.mark.parametrize("override", PUBLISHED)
def test_names_and_tags_are_those_of_published_weights(override: str) -> None:
    import open_clip
    import timm

    config = load([override])
    model = getattr(config, override.partition("=")[0])
    assert model.licence
    if model.library == "timm":
        assert model.architecture in timm.list_pretrained()
        assert model.feature == "pooled"
    else:
        assert (model.architecture, model.tag) in open_clip.list_pretrained()
        assert model.feature == "output"
        quick = open_clip.get_pretrained_cfg(model.architecture, model.tag).get("quick_gelu", False)
        assert bool(open_clip.get_model_config(model.architecture).get("quick_gelu", False)) == quick


@pytest.mark.parametrize(
    "override", [f"student={stem}" for stem in ("vit_small_16", "dinov3_base", "dinov2_base")]
)
def test_pooled_features_of_the_published_transformers_are_the_cls_token(override: str) -> None:
    import timm

    model = load([override]).student
    network = timm.create_model(model.architecture, **model.model_args)
    assert network.global_pool == "token"


def test_a_file_of_open_clip_without_a_tag_needs_its_activation_said(tmp_path: Path) -> None:
    import open_clip

    import alignet

    torch.manual_seed(0)
    right, _, prepare = open_clip.create_model_and_transforms("RN50", pretrained=None, force_quick_gelu=True)
    right.eval()
    path = tmp_path / "w.safetensors"
    save_file({name: value.contiguous() for name, value in right.state_dict().items()}, path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 320, 3), dtype=np.uint8))
    with pytest.raises(
        ValueError, match=r"RN50: expected the tag .* QuickGELU: openai, .* model_args\.quick_gelu"
    ):
        alignet.load("open_clip:RN50", weights=path)
    with torch.no_grad():
        expected = right.encode_image(prepare(image)[None])[0].numpy()
    for name, args in (
        ("RN50-quickgelu", None),
        ("RN50-quickgelu/openai", None),
        ("RN50", {"quick_gelu": True}),
    ):
        found = alignet.embed(
            alignet.load(f"open_clip:{name}", weights=path, model_args=args), [image]
        ).features[0]
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_folder_that_serves_two_libraries_is_read_as_each_reads_it(tmp_path: Path) -> None:
    import shutil

    theirs = _folder(load_encoder(TOYS["open_clip output"], seed=1), tmp_path / "open_clip")
    clip = _folder(load_encoder(TOYS["clip output"], seed=1), tmp_path / "clip")
    (theirs / "weights.safetensors").rename(theirs / "open_clip_pytorch_model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(clip / name, theirs / name)
    (theirs / "model.safetensors").write_bytes(b"not for open_clip")
    encoder = load_encoder(folder_backbone(theirs))
    assert encoder.backbone.library == "open_clip"
    (theirs / "open_clip_model.safetensors").write_bytes(b"")  # it comes first
    with pytest.raises(ValueError, match=r"expected a readable .safetensors file, found .*open_clip_model"):
        load_encoder(folder_backbone(theirs))


def test_logit_bias_that_the_configuration_lacks_is_one_message(tmp_path: Path) -> None:
    folder = _folder(load_encoder(TOYS["open_clip output"], seed=1), tmp_path / "open_clip")
    path = folder / "weights.safetensors"
    save_file(load_file(path) | {"logit_bias": torch.tensor(-10.0)}, path)
    with pytest.raises(ValueError, match=r"expected a configuration with logit_bias.*init_logit_bias: -10"):
        load_encoder(folder_backbone(folder))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["init_logit_bias"] = -10
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    load_encoder(folder_backbone(folder))
