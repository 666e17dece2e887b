"""Export: timm alone, in a process that cannot import alignet, gives the evaluated features."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alignet.backbones import Backbone, features_of, load_encoder
from alignet.student.export import ModelCard, export_timm

TOY_VIT = {"img_size": 48, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
CARD = ModelCard(
    name="toy, aligned",
    summary="A toy.",
    base="toy base",
    base_licence="Apache-2.0",
    data=[("human choices", "made up")],
    recipe={"lr": 1e-4, "pull": 300},
    metrics=[("odd-one-out", "toy | images", "0.37", "0.51")],
)
CASES = {
    "convolutional, own classifier": Backbone(
        "timm", "test_efficientnet", "random", {"num_classes": 11}, 0, "pooled"
    ),
    "convolutional, other size": Backbone("timm", "test_efficientnet", "random", {}, 96, "pooled"),
    "transformer, own arguments": Backbone("timm", "vit_tiny_patch16_224", "random", TOY_VIT, 0, "pooled"),
    "transformer, resized": Backbone("timm", "test_vit", "random", {}, 96, "pooled"),
    "no classifier": Backbone("timm", "test_vit", "random", {"num_classes": 0}, 0, "pooled"),
    "output": Backbone("timm", "test_vit", "random", {"num_classes": 20}, 0, "output"),
}

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
import json, numpy, timm, torch
from PIL import Image
pictures = [Image.fromarray(picture) for picture in numpy.load("pictures.npy")]
for case, feature in json.loads(sys.argv[1]).items():
    args = {"num_classes": 0} if feature == "pooled" else {}
    model = timm.create_model(f"local-dir:{case}", pretrained=True, **args).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)
    with torch.no_grad():
        features = torch.cat([model(transform(picture).unsqueeze(0)) for picture in pictures])
    numpy.save(f"{case}.npy", features.numpy())
"""


def _pictures(count: int) -> np.ndarray:
    # smooth colour fields with noise: resizing and cropping then matter as they do on photographs
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 9, 12, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(field).resize((260, 210), Image.Resampling.BICUBIC)) for field in coarse]
    )


def _trained(encoder):
    """Weights that differ from any that timm could make itself."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: value + 0.05 * value.abs().mean() * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and "running" not in name
        else value
        for name, value in encoder.module.state_dict().items()
    }


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By case, the evaluated features and those of timm alone: one process for all, as it starts slowly."""
    folder = tmp_path_factory.mktemp("export")
    pictures = _pictures(3)
    np.save(folder / "pictures.npy", pictures)
    expected = {}
    for case, backbone in CASES.items():
        encoder = load_encoder(backbone, seed=3)
        state = _trained(encoder)
        export_timm(folder / case, encoder, state, CARD)
        encoder.module.load_state_dict(state)
        with torch.no_grad():
            batch = torch.stack([encoder.transform(Image.fromarray(picture)) for picture in pictures])
            expected[case] = encoder.features(batch).numpy()
    cases = json.dumps({case: backbone.feature for case, backbone in CASES.items()})
    command = [sys.executable, "-I", "-c", ALONE, cases]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {case: (features, np.load(folder / f"{case}.npy")) for case, features in expected.items()}


@pytest.mark.parametrize("case", CASES)
def test_timm_alone_gives_the_evaluated_features(case: str, reloaded: dict) -> None:
    expected, features = reloaded[case]
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()  # the images do matter


def test_the_classifier_stays(tmp_path: Path) -> None:
    import timm

    encoder = load_encoder(CASES["convolutional, own classifier"], seed=3)
    state = _trained(encoder)
    export_timm(tmp_path, encoder, state, CARD)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert model.num_classes == 11
    torch.testing.assert_close(model.get_classifier().weight, state["classifier.weight"], rtol=0, atol=0)


def test_the_size_is_in_the_configuration(tmp_path: Path) -> None:
    encoder = load_encoder(CASES["convolutional, other size"], seed=3)
    export_timm(tmp_path, encoder, encoder.module.state_dict(), CARD)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 96, 96]
    assert config["pretrained_cfg"]["crop_pct"] == encoder.data_config["crop_pct"]


def test_the_card_says_data_recipe_metrics_and_licence(tmp_path: Path) -> None:
    encoder = load_encoder(CASES["convolutional, other size"], seed=3)
    export_timm(tmp_path, encoder, encoder.module.state_dict(), CARD)
    text = (tmp_path / "README.md").read_text()
    for part in (
        "| human choices | made up |",
        "| pull | 300 |",
        "toy \\| images",
        "| 0.37 | 0.51 |",
        "Apache-2.0",
    ):
        assert part in text
    assert not list(tmp_path.glob("*.tmp"))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    encoder = load_encoder(CASES["no classifier"], seed=3)
    state = dict(encoder.module.state_dict())
    state.pop("norm.weight")
    with pytest.raises(
        ValueError, match=r"export: expected the weights of test_vit, found 1 keys .*'norm.weight'"
    ):
        export_timm(tmp_path, encoder, state, CARD)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_found_before_it_is_trained(tmp_path):
    from alignet.backbones import Backbone, load_encoder
    from alignet.student.export import rehearse

    def network(size):
        small = {"depths": (1, 1), "embed_dim": 24, "num_heads": (2, 2)}
        encoder = load_encoder(
            Backbone("timm", "swin_tiny_patch4_window7_224", "random", small, size, "pooled"), seed=0
        )
        with torch.no_grad():
            for name, values in encoder.module.named_parameters():
                if "relative_position_bias" in name:
                    values.normal_(generator=torch.Generator().manual_seed(0))
        return encoder

    state = torch.get_rng_state()
    rehearse(network(0), tmp_path / "own")
    with pytest.raises(
        ValueError, match=r"tried before it is trained.*otherwise at 256 px.*Take another image_size"
    ):
        rehearse(network(256), tmp_path / "other")
    assert not list(tmp_path.iterdir())  # nothing is left of either
    assert torch.equal(torch.get_rng_state(), state)


def test_a_folder_that_does_not_name_its_classifier_is_exported(tmp_path):
    """timm cannot load such a folder with num_classes=0; what is exported from it, it can."""
    import timm

    given = load_encoder(CASES["transformer, own arguments"], seed=0)
    export_timm(tmp_path / "given", given, given.module.state_dict(), CARD)
    path = tmp_path / "given" / "config.json"
    config = json.loads(path.read_text())
    del config["pretrained_cfg"]["classifier"]
    path.write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        timm.create_model(f"local-dir:{tmp_path / 'given'}", pretrained=True, num_classes=0)

    encoder = load_encoder(Backbone("timm", "vit_tiny_patch16_224", str(tmp_path / "given"), {}, 0, "pooled"))
    export_timm(tmp_path / "again", encoder, encoder.module.state_dict(), CARD)
    model = timm.create_model(f"local-dir:{tmp_path / 'again'}", pretrained=True, num_classes=0).eval()
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = features_of(given.module, images, given.backbone)
        torch.testing.assert_close(
            model(images), wanted, rtol=1e-5, atol=1e-6
        )  # the last bits may differ by address
