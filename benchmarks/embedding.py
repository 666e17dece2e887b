"""Embedding large photographs with EfficientNet-Lite0 against the loop that timm's documentation shows.

    made JPEGs -> a process for each side -> features on the disk; 200 files a round, five rounds: 1,000 images measured

Each side has a process of its own, since how the C library keeps freed memory is set for a whole process. The plain
loop is timm.create_model, create_transform, a DataLoader and torch.inference_mode in float32; the tuned loop has
channels last and keeps freed memory. Of both, batches of 16 or 64 and no or two reading processes are tried first, and
the fastest is the baseline.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.frame import Case, Floor, Side

NAME = "tf_efficientnet_lite0"
PIXELS = 1024  # of a side
OPERATIONS = 2 * 0.407e9  # of one image of 224 pixels: the published number of multiply-adds
TRIED = [
    (batch, workers) for batch in (16, 64) for workers in (0, 2)
]  # of the plain loop and of the tuned one


def cases(quick: bool) -> Iterator[Case]:
    """Ours as shipped against the plain loop and against a tuned one; and with the options that change features."""
    count = 40 if quick else 200
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda number: draw(photos / f"{number:04d}.jpg", number), range(count)))
        sides: dict[str, Other] = {}
        try:
            plain = Side("plain timm loop", _fastest(sides, photos, count, "plain"), count)
            tuned = Side(
                "the same loop, channels last, freed memory kept",
                _fastest(sides, photos, count, "tuned"),
                count,
            )
            exact = Side("embed", _other(sides, photos, "exact"), count)
            fast = Side("embed, decode=fast compute=bf16", _other(sides, photos, "fast"), count)
            alone = "the network's multiply-adds alone, without reading"
            floor = Floor(operations=OPERATIONS, text=alone)
            reduced = Floor(operations=OPERATIONS, precision="bfloat16", text=alone)
            note = (
                f"{PIXELS} px, quality 90, files in the page cache; the plain loop is the fastest of batches of 16 and "
                "64 with 0 and 2 reading processes"
            )
            yield Case(
                "embedding, exact", "image", exact, plain, 1.3, floor,
                check=lambda: _agree(photos, "exact", 1e-4) | _bare(sides, photos, count), note=note,
            )  # fmt: skip
            yield Case(
                "embedding, exact, against a tuned loop", "image", exact, tuned, 1.0, floor,
                check=lambda: _agree(photos, "exact", 1e-4) | _tuned(photos, 1e-4),
                note="what is left of the gain once the loop has channels last and keeps freed memory",
            )  # fmt: skip
            yield Case(
                "embedding, decode=fast compute=bf16", "image", fast, plain, 1.3, reduced,
                check=lambda: _agree(photos, "fast", 0.05), note="changes features: docs/embed.md says how far",
            )  # fmt: skip
        finally:
            for side in sides.values():
                side.end()


def draw(path: Path, seed: int) -> None:
    """A JPEG with structure at every scale: noise of four sizes, smoothed, and some rectangles and ellipses."""
    from PIL import ImageDraw

    generator = np.random.default_rng(seed)
    whole = np.zeros((PIXELS, PIXELS, 3), np.float32)
    for side in (8, 32, 128, 512):
        noise = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
        whole += np.asarray(noise.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC), np.float32) * 0.4
    image = Image.fromarray((whole - 77).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for shape in (pen.rectangle, pen.ellipse) * 4:
        x, y = (int(value) for value in generator.integers(0, PIXELS - 300, 2))
        wide, high = (int(value) for value in generator.integers(50, 300, 2))
        shape((x, y, x + wide, y + high), fill=tuple(int(value) for value in generator.integers(0, 256, 3)))
    image.save(path, quality=90)


class Other:
    """A side in another process: `python -m benchmarks.embedding WHAT PHOTOS`, which works once for each line."""

    def __init__(self, photos: Path, what: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.embedding", what, str(photos)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        self._wait()

    def __call__(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self._wait()

    def _wait(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "ready\n":
                return
        raise RuntimeError(f"a side ended with status {self.process.wait()}")

    def end(self) -> None:
        """Let the process end."""
        self.process.communicate()


def _other(sides: dict[str, Other], photos: Path, what: str) -> Callable[[], None]:
    """A function that runs a side, which is started when it is first called."""

    def run() -> None:
        if what not in sides:
            sides[what] = Other(photos, what)
        sides[what]()

    return run


def _fastest(sides: dict[str, Other], photos: Path, count: int, what: str) -> Callable[[], None]:
    """The loop with whichever batch and reading processes are fastest on a part of the photographs."""
    taken = {}
    for batch, workers in TRIED:
        side = Other(photos, f"{what}-{batch}-{workers}-{min(count, 64)}")
        side()
        began = time.perf_counter()
        side()
        taken[batch, workers] = time.perf_counter() - began
        side.end()
    batch, workers = min(taken, key=lambda key: taken[key])
    return _other(sides, photos, f"{what}-{batch}-{workers}-{count}")


def _features(photos: Path, what: str) -> np.ndarray:
    return np.load(photos.parent / f"{what}.npy", allow_pickle=False)


def _tuned(photos: Path, tolerance: float) -> Mapping[str, float]:
    return {"largest 1 - cosine of the tuned loop": _agree(photos, "tuned", tolerance)["largest 1 - cosine"]}


def _agree(photos: Path, what: str, tolerance: float) -> Mapping[str, float]:
    """How far a side's features are from the plain loop's; AssertionError beyond the tolerance (largest 1 - cosine)."""
    ours, theirs = _features(photos, what).astype(np.float64), _features(photos, "plain").astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    away = float((1 - (ours * theirs).sum(1) / lengths).max())
    assert away <= tolerance, f"{what}: a feature is {away:.3g} (1 - cosine) from the plain loop's"
    return {"largest 1 - cosine": max(away, 0.0)}


def _bare(sides: dict[str, Other], photos: Path, count: int) -> Mapping[str, float]:
    """Milliseconds an image of the two parts alone, each on both cores: what their sum cannot be faster than."""
    found = {}
    for what in ("read", "forward"):
        run, best = _other(sides, photos, what), float("inf")
        for _ in range(4):
            began = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - began)
        found[f"bare {what}, ms"] = best / count * 1e3
    return found


# ---- a side, in its own process --------------------------------------------------------------------


def _serve(what: str, photos: Path) -> None:
    kind, *numbers = what.split("-")
    if kind in ("plain", "tuned"):
        batch, workers, count = (int(number) for number in numbers)
        run = _plain(photos, batch, workers, count, tuned=kind == "tuned")
    else:
        run = _ours(photos, kind)
    to = photos.parent / f"{kind}.npy"
    print("ready", flush=True)
    for _ in sys.stdin:
        features = run()
        if features is not None:
            np.save(to, features)
        print("ready", flush=True)


def _weights() -> str:
    given = os.environ.get("ALIGNET_PHOTOS", "")
    return f"{given}/{NAME}.safetensors" if given else ""


def _plain(photos: Path, batch: int, workers: int, count: int, tuned: bool) -> Callable[[], np.ndarray]:
    """The loop of timm's documentation. tuned: channels last, and glibc keeps what is freed."""
    import timm
    import torch
    from safetensors.torch import load_file

    if tuned:
        from alignet.pipeline.torch_setup import keep_freed_memory

        keep_freed_memory()
    torch.manual_seed(0)
    model = timm.create_model(NAME).eval()
    if _weights():
        model.load_state_dict(load_file(_weights()))
    model.reset_classifier(0)
    config = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(**config, is_training=False)
    if tuned:
        model = model.to(memory_format=torch.channels_last)
    paths = sorted(photos.glob("*.jpg"))[:count]

    pictures = photographs(paths, transform)

    def run() -> np.ndarray:
        parts = []
        with torch.inference_mode():
            for images in torch.utils.data.DataLoader(pictures, batch_size=batch, num_workers=workers):
                images = images.contiguous(memory_format=torch.channels_last) if tuned else images
                parts.append(model(images).numpy())
        return np.concatenate(parts)

    return run


def photographs(paths: Sequence[Path], transform: Callable[[Image.Image], Any]) -> Any:
    """The data set of a plain loop: opened, in RGB, transformed."""
    import torch

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, row: int) -> torch.Tensor:
            return transform(Image.open(paths[row]).convert("RGB"))

    return Photos()


def _ours(photos: Path, kind: str) -> Callable[[], np.ndarray | None]:
    """exact | fast: what `python -m alignet.stages.embed images=... model=...` does; read, forward: its two parts."""
    import torch

    from alignet import api
    from alignet.backbones.embedding import given_images, write_embedding
    from alignet.pipeline.cli import load
    from alignet.pipeline.torch_setup import set_up

    config = load([f"runtime.threads={torch.get_num_threads()}"])
    set_up(config.runtime)
    model = api.load(f"timm:{NAME}", weights=_weights() or "random", seed=0)
    source = given_images(photos)
    threads, chosen = config.runtime.threads, {"exact": ("exact", "float32"), "fast": ("fast", "bf16")}
    if kind in chosen:
        decode, compute = chosen[kind]
        options: dict[str, Any] = {
            "format": "npy",
            "precision": "float32",
            "unreadable": "stop",
            "shard": 4096,
        }

        def run() -> np.ndarray:
            with tempfile.TemporaryDirectory() as folder:
                write_embedding(
                    model, source, folder=Path(folder), checkpoints=Path(folder) / "checkpoints",
                    batch=config.embed.batch, threads=threads, decode=decode, compute=compute, **options,
                )  # fmt: skip
                return np.load(Path(folder) / "features.npy")

        return run
    return _part(model, source, kind, threads)


def _part(model: Any, source: Any, kind: str, threads: int) -> Callable[[], None]:
    import torch

    from alignet.backbones.inference import stream

    held = {name: model.encoder.pixels(source.open(row, 0)) for row, name in enumerate(source.ids)}
    numbers = {name: row for row, name in enumerate(source.ids)}

    def read(name: str) -> torch.Tensor:
        return model.encoder.pixels(source.open(numbers[name], 0))

    def nothing(images: torch.Tensor) -> np.ndarray:
        return np.zeros((len(images), 1))

    def run() -> None:
        prepare, compute = (read, nothing) if kind == "read" else (held.__getitem__, model.encode)
        list(stream(source.ids, prepare, compute, batch=64, threads=threads))

    return run


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
