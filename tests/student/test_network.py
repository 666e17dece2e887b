"""Ways to compute the student that change no result: blocks again, compiled, attention by products."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from alignet.backbones import Encoder, load_encoder
from alignet.student.batches import PoolTeacher
from alignet.student.finetune import finetune
from alignet.student.network import Student
from tests.student.test_finetune import TOY, changed, images, planted, pool_teacher, same


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_vit"])
def test_computing_blocks_again_gives_the_same_bytes_and_keeps_less(
    architecture: str, precision: str
) -> None:
    backbone = dataclasses.replace(TOY, architecture=architecture, image_size=0)
    settings = changed(steps=3, precision=precision, frozen=("patch_embed",) if "vit" in architecture else ())
    pictures = images(size=160) if "vit" in architecture else images()
    results, kept = [], []
    for recompute in (False, True):
        encoder = load_encoder(backbone, seed=0)
        results.append(finetune(encoder, pictures, pool_teacher(), settings, recompute=recompute))
        held: list[int] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, held=held: (held.append(tensor.nbytes), tensor)[1], lambda tensor: tensor
        )
        with hooks:
            Student(load_encoder(backbone, seed=0), settings, recompute=recompute).encode(pictures)
        kept.append(sum(held))
    assert same(results[0].state, results[1].state)
    assert np.array_equal(results[0].curves["loss"], results[1].curves["loss"])
    assert kept[1] < (0.6 if "vit" in architecture else 0.9) * kept[0]


def test_a_compiled_network_has_the_same_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through torch.compile's tracing, without its C++ compiler, which takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled = (
        finetune(*_toy_run(), changed(steps=3, precision="bf16"), compiled=compiled)
        for compiled in (False, True)
    )
    np.testing.assert_allclose(compiled.curves["loss"], plain.curves["loss"], rtol=1e-5)


def _toy_run() -> tuple[Encoder, torch.Tensor, PoolTeacher]:
    encoder, pictures, structure = planted(0)
    return encoder, pictures[:20], PoolTeacher(structure[:20], None)


def test_attention_by_products_is_attention_and_large_images_keep_the_fused_kernel() -> None:
    draw = torch.Generator().manual_seed(0)
    for size, plain in ((160, True), (288, False)):  # 100 and 324 patches
        encoder = load_encoder(dataclasses.replace(TOY, architecture="test_vit", image_size=size), seed=0)
        pictures = torch.rand((3, 3, size, size), generator=draw)
        before = encoder.features(pictures)
        Student(encoder, changed(precision="float32"))
        assert all(block.attn.fused_attn for block in encoder.module.blocks)
        Student(encoder, changed(precision="bf16"))
        assert all(block.attn.fused_attn != plain for block in encoder.module.blocks)
        torch.testing.assert_close(encoder.features(pictures), before, rtol=1e-4, atol=1e-5)
