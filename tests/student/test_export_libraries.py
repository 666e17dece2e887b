"""Export to open_clip and transformers: the library alone, without alignet, gives what was evaluated."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alignet.backbones import Backbone, Encoder, embed_images, load_encoder, text_features
from alignet.student.export import export
from tests.evaluate.test_zero_shot import _tokenizer
from tests.makers.once import made_once
from tests.makers.toys import NATIVE, OF_TIMM, TOYS, backbone, pictures
from tests.student.test_export import CARD

# Real sizes, both towers: about 150 million parameters each
WHOLE = {
    "whole open_clip": backbone("open_clip", "ViT-B-32", {}, "output"),
    "whole transformers": backbone("transformers", "clip", {}, "output"),
}
CASES = {name: case for name, case in TOYS.items() if name != "open_clip timm pooled"}
TEXTS = ["a photo of a lizard", "a photo of a leaf", "a photo of a dog"]

ALONE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "alignet":
            raise ImportError("alignet is blocked here")
sys.meta_path.insert(0, Blocker())
try:
    import alignet
except ImportError:
    pass
else:
    sys.exit("alignet could be imported")
import json, numpy, torch
from PIL import Image
torch.set_grad_enabled(False)
images = [Image.fromarray(picture) for picture in numpy.load("pictures.npz").values()]
for case, (library, call) in json.loads(sys.argv[1]).items():
    if library == "open_clip":
        import open_clip
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{case}")
        rows = [model.eval().encode_image(transform(image).unsqueeze(0)) for image in images]
        tokens = open_clip.get_tokenizer(f"local-dir:{case}")(json.loads(sys.argv[2]))
        texts = model.encode_text(tokens)
        unit = torch.nn.functional.normalize
        (100 * unit(torch.cat(rows), dim=-1) @ unit(texts, dim=-1).T).softmax(-1)  # zero-shot as its README has it
        numpy.save(f"{case}.texts.npy", texts.numpy())
    else:
        from transformers import AutoImageProcessor, AutoModel
        model = AutoModel.from_pretrained(case, dtype=torch.float32).eval()
        for held in model.parameters():  # the file is mapped into memory, where alignment moves the last bits
            held.data = held.data.clone()
        processor = AutoImageProcessor.from_pretrained(case)
        rows = [eval(call) for image in images]  # the call that the model card prints
        if hasattr(model, "get_text_features"):
            tokens = torch.arange(3, 3 + model.config.text_config.max_position_embeddings).unsqueeze(0)
            numpy.save(f"{case}.texts.npy", model.get_text_features(input_ids=tokens).pooler_output.numpy())
    numpy.save(f"{case}.npy", torch.cat(rows).numpy())
"""


def _trained(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Weights as fine-tuning leaves them: what the features depend on has moved, the text tower has not."""
    generator = torch.Generator().manual_seed(7)
    moved = encoder.trainable().keys()
    return {
        name: value + 0.05 * value.abs().mean() * torch.randn(value.shape, generator=generator)
        if name in moved
        else value.clone()
        for name, value in encoder.module.state_dict().items()
    }


def _texts(encoder: Encoder) -> np.ndarray | None:
    module = encoder.module
    if encoder.backbone.library == "open_clip":
        return text_features(encoder, TEXTS).numpy()
    if not hasattr(module, "get_text_features"):
        return None
    tokens = torch.arange(3, 3 + module.config.text_config.max_position_embeddings).unsqueeze(0)
    with torch.no_grad():
        return module.get_text_features(input_ids=tokens).pooler_output.numpy()


def _call(folder: Path) -> str:
    """The line of the model card that computes features."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("features = ")).removeprefix("features = ")


@pytest.fixture(scope="session")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    """The toys and the networks of real size, in one process."""
    every = CASES | WHOLE
    return _found(every, made_once(tmp_path_factory, "exported", lambda folder: _reload(every, folder)))


def _reload(cases: dict[str, Backbone], folder: Path) -> None:
    """Into numbered files: features and texts as evaluated (`expected`), and as the library alone has them."""
    folder.mkdir()
    images = pictures(4)
    np.savez(folder / "pictures.npz", *[np.asarray(image) for image in images])
    calls = {}
    for number, given in enumerate(cases.values()):
        encoder = load_encoder(given, seed=3)
        texts = _texts(encoder)
        state = _trained(encoder)
        export(folder / str(number), encoder, state, CARD)
        encoder.module.load_state_dict(state)
        features = embed_images(encoder, [encoder.transform(image) for image in images], 4)
        np.save(folder / f"{number}.expected.npy", features)
        if texts is not None:
            np.save(folder / f"{number}.texts.expected.npy", texts)
        calls[str(number)] = (given.library, _call(folder / str(number)))
    command = [sys.executable, "-I", "-c", ALONE, json.dumps(calls), json.dumps(TEXTS)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for number in range(len(cases)):
        shutil.rmtree(folder / str(number))


def _found(cases: dict[str, Backbone], folder: Path) -> dict[str, tuple]:
    """By case, features as evaluated and as the library alone has them; texts before training and by the library."""
    names = ("expected", "", "texts.expected", "texts")
    return {
        case: tuple(
            np.load(path)
            if (path := folder / ".".join(filter(None, (str(number), name, "npy")))).exists()
            else None
            for name in names
        )
        for number, case in enumerate(cases)
    }


def _comparable(case: str) -> bool:
    # open_clip has no call for the vector before the projection: the card says so, and export compares it
    return case != "open_clip pooled at 64"


def _same_features(expected: np.ndarray, features: np.ndarray) -> None:
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()  # the images do matter


@pytest.mark.parametrize("case", [case for case in CASES if _comparable(case)])
def test_the_library_alone_gives_the_evaluated_features(case: str, reloaded: dict) -> None:
    _same_features(*reloaded[case][:2])


@pytest.mark.parametrize("case", WHOLE)
def test_networks_of_real_size_too(case: str, reloaded: dict) -> None:
    expected, features, before, after = reloaded[case]
    _same_features(expected, features)
    assert np.array_equal(before, after)


@pytest.mark.parametrize("case", CASES)
def test_texts_are_what_they_were_bit_for_bit(case: str, reloaded: dict) -> None:
    _, _, before, after = reloaded[case]
    if before is not None:
        assert np.array_equal(before, after)
        assert len(before) == 1 or np.abs(before[0] - before[1]).max() > 0


# ---- what is written -------------------------------------------------------------------------------


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("open_clip output", {"README.md", "open_clip_config.json", "open_clip_model.safetensors"}),
        ("clip output", {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}),
    ],
)
def test_the_same_weights_give_the_same_bytes(case: str, names: set, tmp_path: Path) -> None:
    for name in ("a", "b"):
        encoder = load_encoder(TOYS[case], seed=3)
        export(tmp_path / name, encoder, _trained(encoder), CARD)
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")
    assert _digests(tmp_path / "a").keys() == names


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", ["timm", "open_clip output", "clip output", "dinov3 at 64"])
def test_half_precision_halves_the_file_and_says_what_it_costs(
    case: str, precision: str, tmp_path: Path
) -> None:
    given = TOYS.get(case, backbone("timm", "test_vit", {"num_classes": 4}, "pooled"))
    encoder = load_encoder(given, seed=3)
    state = _trained(encoder)
    sizes = []
    for stored in ("float32", precision):
        export(tmp_path / stored, encoder, state, CARD, stored)
        path = next((tmp_path / stored).glob("*model.safetensors"))
        sizes.append(sum(value.nbytes for value in load_file(path).values() if value.is_floating_point()))
    assert sizes[1] == sizes[0] / 2
    text = (tmp_path / precision / "README.md").read_text()
    assert f"stored in {precision}" in text
    assert "of their largest entry" in text
    assert "stored in" not in (tmp_path / "float32" / "README.md").read_text()


def test_weights_that_do_not_fit_the_precision_are_refused(tmp_path: Path) -> None:
    encoder = load_encoder(TOYS["open_clip output"], seed=3)
    state = _trained(encoder)
    with pytest.raises(ValueError, match=r"export.precision: expected one of float32, float16, bfloat16"):
        export(tmp_path, encoder, state, CARD, "int8")
    state["visual.proj"][0, 0] = 1e6
    export(tmp_path / "wide", encoder, state, CARD, "bfloat16")
    with pytest.raises(ValueError, match=r"expected weights that are finite in float16, .* in visual.proj"):
        export(tmp_path / "narrow", encoder, state, CARD, "float16")
    assert not (tmp_path / "narrow").exists()


def test_cards_name_the_library_the_towers_and_the_tokenizer(tmp_path: Path) -> None:
    def card(case: str) -> str:
        encoder = load_encoder(TOYS[case], seed=3)
        export(tmp_path / case, encoder, encoder.module.state_dict(), CARD)
        return (tmp_path / case / "README.md").read_text()

    text = card("open_clip output")
    assert "library_name: open_clip" in text
    assert 'get_tokenizer("local-dir:PATH/TO/THIS/FOLDER")' in text
    assert "zero-shot classification still runs" in text
    assert "model.visual before its projection" in card("open_clip pooled at 64")
    assert "library_name: transformers" in card("dinov2 at 64")
    assert "zero-shot" not in card("vit at 64")
    assert "is of 48 px and is interpolated to 64 px" in card("vit at 64")
    assert "model.vision_model(" in card("clip pooled at 64")


def test_a_siglip_folder_says_where_its_tokenizer_is(tmp_path: Path) -> None:
    """From the hub by the architecture's name, or in the folder if the base network's folder had one."""
    text = OF_TIMM["text_cfg"] | {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"}
    given = backbone("open_clip", "ViT-B-16-SigLIP", OF_TIMM | {"text_cfg": text}, "output", tag="webli")
    encoder = load_encoder(given, seed=3)
    export(tmp_path / "bare", encoder, encoder.module.state_dict(), CARD)
    card = (tmp_path / "bare" / "README.md").read_text()
    assert 'get_tokenizer("ViT-B-16-SigLIP")' in card
    assert "This folder holds no tokenizer" in card
    _tokenizer(tmp_path / "bare")
    whole = load_encoder(dataclasses.replace(given, model_args={}, weights=str(tmp_path / "bare")))
    export(tmp_path / "full", whole, whole.module.state_dict(), CARD)
    assert (tmp_path / "full" / "tokenizer.json").is_file()
    assert 'get_tokenizer("local-dir:' in (tmp_path / "full" / "README.md").read_text()


def test_what_open_clip_cannot_rebuild_is_refused(tmp_path: Path) -> None:
    encoder = load_encoder(backbone("open_clip", "ViT-B-32", OF_TIMM, "output", 96), seed=3)
    with pytest.raises(ValueError, match=r"expected the image size 160 that open_clip rebuilds .* found 96"):
        export(tmp_path, encoder, encoder.module.state_dict(), CARD)


@pytest.mark.parametrize("case", ["open_clip output", "siglip output"])
def test_other_weights_are_refused(case: str, tmp_path: Path) -> None:
    encoder = load_encoder(TOYS[case], seed=3)
    state = dict(encoder.module.state_dict())
    state.pop("logit_scale")
    with pytest.raises(ValueError, match=r"found 1 keys .*'logit_scale'"):
        export(tmp_path, encoder, state, CARD)
    assert not list(tmp_path.iterdir())


def test_an_exported_folder_is_exported_again_alike(tmp_path: Path) -> None:
    """A folder as the next network's weights: configuration, preprocessing and weights survive."""
    for case in ("open_clip output", "siglip output", "dinov3 at 64"):
        encoder = load_encoder(TOYS[case], seed=3)
        export(tmp_path / case / "first", encoder, encoder.module.state_dict(), CARD)
        size = TOYS[case].image_size
        given = dataclasses.replace(
            TOYS[case], weights=str(tmp_path / case / "first"), model_args={}, image_size=size
        )
        again = load_encoder(given)
        export(tmp_path / case / "second", again, again.module.state_dict(), CARD)
        first, second = (_digests(tmp_path / case / name) for name in ("first", "second"))
        assert first == second


def test_small_open_clip_and_its_configuration_agree(tmp_path: Path) -> None:
    encoder = load_encoder(TOYS["open_clip pooled at 64"], seed=3)
    export(tmp_path, encoder, encoder.module.state_dict(), CARD)
    written = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert written["model_cfg"]["vision_cfg"] == NATIVE["vision_cfg"] | {"image_size": 64}
    assert written["preprocess_cfg"]["interpolation"] == "bicubic"
