"""The study of image passes: what it counts, and that blocks that do not train may be computed once."""

import pytest
import torch

from alignet.backbones import Backbone, Encoder, load_encoder
from benchmarks.frame import measure
from benchmarks.passes import cases
from benchmarks.passes_study import TARGETS, Frozen, passes_to, recorded, steadily


def test_the_target_is_reached_at_the_first_measured_point_that_is_not_below_it():
    points = [[0, 0, 0.39], [2, 90, 0.47], [4, 180, 0.48], [6, 270, 0.46], [8, 360, 0.51]]
    assert passes_to(points, 0.48) == 180
    assert passes_to(points, 0.49) == 360
    assert passes_to(points, 0.52) is None
    assert steadily(points, 0.48) == 360
    assert steadily(points[:4], 0.48) is None


def test_features_and_gradients_are_the_same_bits_with_the_first_blocks_remembered():
    backbone = Backbone("timm", "tf_efficientnet_lite0", "random", {}, 64, "pooled")
    plain = load_encoder(backbone, seed=0)
    own = Frozen(**{key: getattr(plain, key) for key in Encoder.__dataclass_fields__}, first=5)
    images = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    weights = [held for name, held in plain.module.named_parameters() if name.startswith("blocks.6")]
    found = []
    for encoder in (plain, own, own):
        features = encoder.features(images)
        found.append([features.detach(), *torch.autograd.grad(features.square().sum(), weights)])
    assert len(own.memory) == 1
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize("row", range(2))
def test_the_benchmark_counts_what_the_recorded_curves_say(row):
    count = list(cases(quick=True))[row]
    bench = list(TARGETS)[row]
    records = [
        one for one in recorded() if one["part"] in ("report", "world") and one["trial"]["bench"] == bench
    ]
    ours = [one for one in records if one["trial"]["sampling"] == "in_batch" and not one["trial"]["clusters"]]
    assert len(ours) == 3
    assert sorted(count.ours[1]) == sorted(
        min(passes for _, passes, found in one["points"] if found >= TARGETS[bench]) for one in ours
    )
    assert measure(count, {})["ratio"] > 0
