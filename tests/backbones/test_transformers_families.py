"""transformers' image networks of every kind: the features of the library, a step of training, an export it loads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from alignet.backbones import Backbone, embed_images, features_of, folder_backbone, load_encoder, stored_names
from alignet.student.export import export
from alignet.student.model_card import ModelCard
from benchmarks.architectures import TINY, TOWER

CARD = ModelCard("n", "s", "b", "l", (), {}, ())
FAMILIES = (
    "resnet", "regnet", "segformer", "poolformer", "cvt", "bit", "pvt", "swin", "dinov3_convnext", "beit"
)  # fmt: skip
RENAMED = ("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers", "dinov3_vit")


def pictures():
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)) for size in ((90, 120, 3), (200, 150, 3))
    ]


def embedded(encoder):
    return embed_images(encoder, [encoder.transform(image) for image in pictures()], 2)


def close(found, expected, most=1e-5):
    assert np.abs(found - expected).max() <= most * np.abs(expected).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_embeds_trains_and_is_loaded_by_the_library_alone(family, tmp_path):
    from transformers import AutoImageProcessor, AutoModel

    encoder = load_encoder(Backbone("transformers", family, "random", TINY[family], 0, "pooled"), seed=1)
    before = embedded(encoder)
    module = encoder.module.train()
    pixels = torch.stack([encoder.transform(image) for image in pictures()])
    features_of(module, pixels, encoder.backbone).square().sum().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter -= 1e-2 * parameter.grad / (parameter.grad.norm() + 1e-6)
    module.eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    after = embedded(encoder)
    assert np.abs(after - before).max() > 1e-4 * np.abs(before).max()
    export(tmp_path / "out", encoder, state, CARD)
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    lines = (tmp_path / "out" / "README.md").read_text().splitlines()
    call = next(line for line in lines if line.startswith("features = ")).removeprefix("features = ")
    with torch.no_grad():
        rows = [eval(call, {"model": model, "processor": processor, "image": image}) for image in pictures()]
    close(torch.cat(rows).numpy(), after)
    close(embedded(load_encoder(folder_backbone(tmp_path / "out"))), after)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("textnet", "expected preprocessing that brings every image to one size"),
        ("dinat", "expected the packages that transformers builds it with.*natten"),
        ("hgnet_v2", "gives as feature maps alone"),
        ("imagegpt", "reads an image as a sequence of colours"),
        ("timm_wrapper", "take it from timm itself"),
    ],
)
def test_a_family_that_cannot_is_refused_by_name(family, message):
    with pytest.raises(ValueError, match=f"{family}.*{message}"):
        load_encoder(Backbone("transformers", family, "random", {}, 0, "pooled"), seed=1)


@pytest.mark.parametrize("family", RENAMED)
def test_a_file_may_name_weights_as_the_library_stores_or_as_it_calls_them(family, tmp_path: Path):
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    module = AutoModel.from_config(AutoConfig.for_model(family, **TOWER)).eval()
    module.save_pretrained(tmp_path / "saved")
    stored, called = tmp_path / "saved" / "model.safetensors", tmp_path / "called.safetensors"
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, called)
    assert load_file(stored).keys() != module.state_dict().keys()

    def given(path, **changed):
        return load_encoder(Backbone("transformers", family, str(path), TOWER | changed, 0, "pooled"))

    encoder = given(called)
    expected = embedded(encoder)
    np.testing.assert_array_equal(embedded(given(stored)), expected)
    written = stored_names(encoder, encoder.module.state_dict())
    assert written.keys() == load_file(stored).keys()
    with pytest.raises(ValueError, match=r"expected the keys of this architecture, found \d+ missing"):
        given(stored, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"expected the keys of this architecture, found \d+ unexpected"):
        given(stored, num_hidden_layers=1)
    with pytest.raises(
        ValueError, match=r"expected the keys of this architecture, found \d+ of another shape"
    ):
        given(stored, hidden_size=16)


def test_the_names_of_files_are_those_of_every_version_since_4():
    one = TOWER | {"num_hidden_layers": 1}
    encoder = load_encoder(Backbone("transformers", "vit", "random", one, 0, "pooled"), seed=0)
    names = stored_names(encoder, encoder.module.state_dict()).keys()
    assert {
        "embeddings.cls_token", "embeddings.patch_embeddings.projection.weight",
        "encoder.layer.0.attention.attention.query.weight", "encoder.layer.0.attention.output.dense.bias",
        "encoder.layer.0.intermediate.dense.weight", "encoder.layer.0.output.dense.weight",
        "encoder.layer.0.layernorm_before.weight", "layernorm.weight",
    } <= names  # fmt: skip


def test_a_tokenizer_without_its_packages_names_the_extra(monkeypatch):
    import tomllib

    from transformers import AutoTokenizer

    from alignet.backbones import text_features

    def missing(*_, **__):
        raise ImportError("SiglipTokenizer requires the SentencePiece library but it was not found")

    words = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    siglip = {"vision_config": TOWER, "text_config": words | {"vocab_size": 50}}
    encoder = load_encoder(Backbone("transformers", "siglip", "random", siglip, 0, "output"), seed=0)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(ValueError, match=r"found none of sentencepiece; .* pip install 'alignet\[text\]'"):
        text_features(encoder, ["a dog"])
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(one.startswith("sentencepiece") for one in project["optional-dependencies"]["text"])
