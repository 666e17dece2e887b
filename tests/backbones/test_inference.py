"""Images stream into features in order, bounded, and the same for any number of threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import alignet
from alignet.backbones import encode
from alignet.backbones.embedding import given_images, rows_of
from alignet.backbones.inference import PASS, stream

ROOT = Path(__file__).parents[2]
NAMES = [f"{number}.png" for number in range(10 * PASS + 3)]


@pytest.fixture(scope="module")
def model() -> alignet.Model:
    return alignet.load("timm:test_efficientnet", weights="random", image_size=32)


def pixels(name: str) -> torch.Tensor:
    """An image drawn from its name; some names cannot be read."""
    number = int(name.partition(".")[0])
    if number % 50 == 7:
        raise ValueError(f"{name}: expected an image, found none.")
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture
def torch_threads():
    """Lets a test choose how many threads torch has."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [3, PASS + 3])
def test_fewer_passes_than_threads_give_the_same_bytes(model, torch_threads, count) -> None:
    names = [f"{100 + number}.png" for number in range(count)]

    def run(threads: int) -> np.ndarray:
        torch_threads(threads)
        passes = stream(names, pixels, model.encode, batch=64, threads=threads)
        return np.concatenate([one.features for one in passes])

    alone = run(1)
    for threads in (2, 4):
        np.testing.assert_array_equal(run(threads), alone)


@pytest.mark.parametrize(("threads", "workers"), [(2, 0), (3, 0), (1, 2), (2, 2)])
def test_any_number_of_threads_and_processes_gives_the_same_bytes(
    model, torch_threads, threads, workers
) -> None:
    def run(threads: int, workers: int) -> list:
        torch_threads(threads)  # as set_up in alignet/pipeline/ does
        passes = stream(NAMES, pixels, model.encode, batch=64, threads=threads, workers=workers)
        found = list(passes)
        assert torch.get_num_threads() == threads
        return found

    alone, many = run(1, 0), run(threads, workers)
    broken = [name for name in NAMES if int(name.partition(".")[0]) % 50 == 7]
    assert [name for one in many for name in one.ids] == [name for name in NAMES if name not in broken]
    assert [name for one in many for name, _ in one.refused] == broken
    for one, other in zip(alone, many, strict=True):
        assert one.ids == other.ids
        assert one.refused == other.refused
        np.testing.assert_array_equal(one.features, other.features)


def test_few_images_are_held_and_what_is_left_is_given_up() -> None:
    read: list[str] = []
    lock = threading.Lock()

    def prepare(name: str) -> torch.Tensor:
        with lock:
            read.append(name)
        return torch.zeros(1)

    passes = stream(NAMES, prepare, lambda images: images.numpy(), batch=4, threads=2)
    taken = 0
    for one in passes:
        taken += len(one.ids)
        with lock:
            assert len(read) <= taken + 2 * 4  # one pass of each thread beside what was handed out
        if taken >= 40:
            break
    passes.close()
    assert len(read) <= 48
    assert list(stream([], prepare, lambda images: images.numpy(), batch=4, threads=2)) == []


def test_a_pass_in_which_nothing_can_be_read_and_an_error_that_is_none() -> None:
    found = list(stream(["7.png"] * 3, pixels, lambda images: images.numpy(), batch=2, threads=2))
    assert [one.features for one in found] == [None, None]
    with pytest.raises(ZeroDivisionError):
        list(stream(NAMES, pixels, lambda images: images / (1 // 0), batch=2, threads=2))


def test_uint8_pixels_and_floats_give_the_same_features(model) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    raw, prepared = model.encoder.pixels(image)[None], model.encoder.transform(image)[None]
    assert raw.dtype == torch.uint8
    assert torch.equal(encode(model.encoder, raw), encode(model.encoder, prepared))
    half = encode(model.encoder, raw, "bf16")
    assert half.dtype == torch.float32
    assert not torch.equal(half, encode(model.encoder, raw))
    with pytest.raises(ValueError, match="compute: expected one of float32, bf16, found 'fp8'"):
        encode(model.encoder, raw, "fp8")


def test_fast_decoding_reduces_large_photographs_alone(model, tmp_path) -> None:
    enough = model.encoder.enough_pixels
    assert enough == 68  # twice 32 / 0.95, rounded up
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    for name, side in (("large.jpg", 4 * enough), ("small.jpg", 2 * enough - 1), ("large.png", 4 * enough)):
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(tmp_path / name)
    source = given_images(tmp_path)
    sizes = {
        name: source.open(row, enough).width / source.open(row, 0).width
        for row, name in enumerate(source.ids)
    }
    assert sizes == {"large.jpg": 0.25, "small.jpg": 1, "large.png": 1}
    exact, fast = (alignet.embed(model, tmp_path, decode=decode) for decode in ("exact", "fast"))
    row = exact.ids.index("large.jpg")
    others = [other for other in range(3) if other != row]
    assert np.array_equal(exact.features[others], fast.features[others])
    assert not np.array_equal(exact.features[row], fast.features[row])
    np.testing.assert_allclose(
        fast.features[row], exact.features[row], atol=0.02 * np.abs(exact.features).max()
    )
    with pytest.raises(ValueError, match="decode: expected one of exact, fast, found 'quick'"):
        rows_of(model, source, range(3), batch=2, unreadable="stop", decode="quick")


def test_memory_grows_by_ids_and_places_alone() -> None:
    """10,000 small images in a process of its own; `python -m benchmarks.memory` takes 100,000 and a network."""
    command = [sys.executable, "-m", "benchmarks.memory", "--images", "10000", "--network", "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
