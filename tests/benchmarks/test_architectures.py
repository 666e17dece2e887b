"""The sweep over architectures, in short: one network of each library, one that is refused, and its page."""

import pytest

from benchmarks.architectures import TINY, one, open_clip_bytes, page


@pytest.mark.parametrize(
    ("library", "architecture", "arguments", "feature"),
    [
        ("timm", "test_vit", {}, "pooled"),
        ("timm", "test_resnet", {}, "pooled"),
        ("open_clip", "ViT-S-32", {}, "output"),
        ("transformers", "vit", TINY["vit"], "pooled"),
        ("transformers", "siglip", TINY["siglip"], "output"),
    ],
)
def test_a_network_of_each_library_goes_the_whole_way(library, architecture, arguments, feature):
    assert one(library, architecture, arguments, feature) == ""


def test_what_does_not_is_told_with_the_step_and_the_reason():
    assert one("transformers", "imagegpt", {}, "pooled").startswith("load: backbone imagegpt: expected")
    assert one("timm", "no_such_network", {}, "pooled").startswith("load: backbone: expected an architecture")


def test_the_sizes_of_open_clip_are_about_right():
    assert open_clip_bytes("ViT-B-32") == pytest.approx(151e6 * 4, rel=0.05)
    assert open_clip_bytes("RN50") < 500e6 < open_clip_bytes("ViT-L-14")


def test_the_page_lists_both():
    rows = [
        {"library": "timm", "architecture": "a", "verdict": "yes", "reason": "", "seconds": 1.0},
        {
            "library": "timm",
            "architecture": "b",
            "verdict": "no",
            "reason": "export: why | not",
            "seconds": 1.0,
        },
    ]
    text = page(rows)
    assert "modules were tried; 1 go the whole way:\n\n`a`." in text
    assert "| `b` | export: why / not |" in text
