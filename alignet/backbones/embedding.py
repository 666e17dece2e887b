"""Features of any images: where the images come from, block after block, and a folder that keeps the result.

    images -> GivenImages -> rows_of -> alignet.embed (in memory)
                                     -> write_embedding (on disk: stages/_embed_images.py)

    <output>/
      features.npy, ids.txt   float (m, p) and an id for each row: what load_features reads (format npy)
      features.parquet        columns id, features (format parquet)
      unreadable.txt          id, tab, reason, if images were set aside
      MANIFEST.json           which model, map and images, with checksums, and how it was made

Work in progress lies in <output>.partial/checkpoints, a file for each block of images, and goes on from there.

Shape suffixes: b or m images, p features.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from alignet.backbones import COMPUTE, Encoder
from alignet.backbones.inference import stored, stream
from alignet.data.images import SUFFIXES, list_images
from alignet.data.pixels import DEFAULT, MAX_PIXELS, PixelPolicy, open_image
from alignet.runtime.artifacts import fingerprint
from alignet.runtime.interrupt import stop_if_asked
from alignet.runtime.progress import progress

FORMATS = ("npy", "parquet")
UNREADABLE = ("stop", "skip")
DECODE = ("exact", "fast")


class EmbeddingModel(Protocol):
    """What turns prepared images into features, an encoder and a map if there is one; `alignet.Model` for example."""

    @property
    def encoder(self) -> Encoder: ...

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    def encode(self, images: torch.Tensor, compute: str = ...) -> np.ndarray: ...


@dataclass(frozen=True)
class GivenImages:
    """Images by id. `files` are the files that they are read from, by name; none where they are in memory."""

    ids: tuple[str, ...]
    open: Callable[
        [int, int], Image.Image
    ]  # row, at_least as of open_image -> RGB; ValueError where it cannot be read
    files: Mapping[str, Path]
    # of a folder: files that are no images, by suffix
    left_out: Mapping[str, int] = field(default_factory=dict)

    def digest(self) -> str:
        """sha256 over names, sizes and times of the files: it changes when the images do, and reads none."""
        return fingerprint({"files": {name: _size_and_time(path) for name, path in self.files.items()}})


class Rows(NamedTuple):
    """Features float32 (m, p), the ids of their rows, and (id, reason) of the images that could not be read."""

    features: np.ndarray
    ids: list[str]
    refused: list[tuple[str, str]]


def given_images(
    images: Any, *, max_pixels: int = MAX_PIXELS, policy: PixelPolicy = DEFAULT, member: str = ""
) -> GivenImages:
    """The images that somebody points at.

    images: a folder (at any depth; an id is the path below it), WebDataset shards (a folder of .tar files, one of them,
    or a pattern such as `train-{000..146}.tar`; an id is the member's name), one image file, a sequence of paths (an id
    is the path as given), one PIL image, a sequence of PIL images or of uint8 arrays (H, W, 3) or (H, W), or one uint8
    array (m, H, W, 3) or, of grey images, (m, H, W) (an id is the number). max_pixels, policy: as of `open_image`, for
    files. member: which part of a sample in shards is its image, as of
    `list_shards`. ValueError for anything else, naming what was found; so for an array (H, W, 3), whose rows would pass
    for grey images.
    """
    read = partial(open_image, max_pixels=max_pixels, policy=policy)
    if isinstance(images, (str, Path)):
        path = Path(images)
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            return _from_paths([path.name], [path], read)
        if path.suffix == ".tar" or _holds_shards(path):
            return _from_shards(path, max_pixels, policy, member)
        listed = list_images(path)
        found = _from_paths(listed.ids, [path / name for name in listed.ids], read)
        return replace(found, left_out=listed.left_out)
    given = _sequence(images)
    if not given:
        raise ValueError("images: expected at least one image, found none; check the list.")
    if all(isinstance(one, (str, Path)) for one in given):
        return _from_paths([str(one) for one in given], [Path(one) for one in given], read)
    pictures = [picture(one, f"image {row}") for row, one in enumerate(given)]
    return GivenImages(tuple(str(row) for row in range(len(given))), lambda row, at_least: pictures[row], {})


def _sequence(images: Any) -> list[Any]:
    """The images of what is no path; ValueError for one image that would be taken for many."""
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and (images.ndim < 3 or (images.ndim == 3 and images.shape[-1] <= 4)):
        raise ValueError(
            f"images: expected an array (m, H, W, 3), or (m, H, W) of grey images, found {images.shape}; put one image "
            f"into a list: [image]."
        )
    try:
        return list(images)
    except TypeError:
        raise ValueError(
            f"images: expected a folder, a list of paths, of PIL images or of uint8 arrays, found "
            f"{type(images).__name__}; give one of these."
        ) from None


def picture(image: Any, name: str) -> Image.Image:
    """An RGB image of a PIL image (RGB or grey) or an array (H, W, 3) or (H, W) uint8; ValueError for others."""
    if isinstance(image, Image.Image):
        if image.mode not in ("RGB", "L"):
            raise ValueError(
                f"{name}: expected an RGB or grey picture, found mode {image.mode}; convert it, or give the path of "
                f"its file, which is read by the rules of docs/formats.md."
            )
        return image.convert("RGB")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(
                f"{name}: expected an array (H, W, 3) or (H, W) of uint8, found {image.dtype} {image.shape}; scale it "
                f"to 0..255 and put the channels last."
            )
        return Image.fromarray(image).convert("RGB")
    raise ValueError(
        f"{name}: expected a path, a PIL image or a uint8 array, found {type(image).__name__}; give a folder or a list."
    )


def rows_of(
    model: EmbeddingModel,
    source: GivenImages,
    rows: Sequence[int],
    *,
    batch: int,
    unreadable: str,
    threads: int = 1,
    decode: str = "exact",
    compute: str = "float32",
    advance: Callable[..., None] = lambda count: None,
) -> Rows:
    """Features of some rows of a source, in passes of at most `batch` images.

    unreadable: "stop" raises ValueError at the first image that cannot be read, "skip" sets it aside. threads:
    passes at once, each read and computed by one thread. decode: exact | fast (see Encoder.enough_pixels). compute:
    float32 | bf16, of the forward pass. ValueError where a feature is not finite; Stopped where a signal asks a
    listening process to end (see alignet.runtime.interrupt).
    """
    for option, chosen, known in (
        ("unreadable", unreadable, UNREADABLE), ("decode", decode, DECODE), ("compute", compute, COMPUTE),
    ):  # fmt: skip
        if chosen not in known:
            raise ValueError(f"{option}: expected one of {', '.join(known)}, found {chosen!r}")
    at_least = model.encoder.enough_pixels if decode == "fast" else 0
    numbers = {source.ids[row]: row for row in rows}

    def prepare(name: str) -> torch.Tensor:
        return model.encoder.pixels(source.open(numbers[name], at_least))

    kept: list[str] = []
    parts: list[np.ndarray] = []
    refused: list[tuple[str, str]] = []
    passes = stream(
        list(numbers), prepare, lambda images: model.encode(images, compute),
        batch=batch, threads=threads, device=model.encoder.device,
    )  # fmt: skip
    with closing(passes):
        for names, found, bad in passes:
            stop_if_asked()  # the rows are begun again
            if bad and unreadable == "stop":
                raise ValueError(f"{bad[0][1]} Or set unreadable=skip to set such images aside.")
            kept += names
            refused += [(name, " ".join(reason.split())) for name, reason in bad]
            if found is not None:
                parts.append(found)
            advance(len(names) + len(bad))
    features = np.concatenate(parts) if parts else np.zeros((0, model.width), np.float32)
    broken = np.flatnonzero(~np.isfinite(features).all(1))
    if len(broken):
        raise ValueError(
            f"features of {model.name}: expected finite numbers, found NaN or infinity for {len(broken)} images, the "
            f"first {kept[broken[0]]}; check the weights and the map."
        )
    return Rows(features, kept, refused)


def write_embedding(
    model: EmbeddingModel,
    source: GivenImages,
    *,
    folder: Path,
    checkpoints: Path,
    format: str,
    precision: str,
    batch: int,
    shard: int,
    unreadable: str,
    threads: int,
    decode: str,
    compute: str,
) -> tuple[dict[str, Any], float]:
    """Embed a source into `folder`, a block of `shard` images at a time.

    Returns the numbers of images, features, unreadable images and images embedded by this call, and the seconds that
    reading and embedding these took.

    A block is finished once its features have been renamed into place in `checkpoints`; a second call goes on behind
    it. precision: float32 or float16, of what is stored. ValueError where not one image could be read.
    """
    if format == "parquet":
        parquet_library()
    checkpoints.mkdir(parents=True, exist_ok=True)
    blocks = [range(len(source.ids))[start : start + shard] for start in range(0, len(source.ids), shard)]
    done = [number for number in range(len(blocks)) if _block(checkpoints, number).is_file()]
    finished = sum(len(blocks[number]) for number in done)
    started = time.monotonic()
    with progress("embedding", len(source.ids), "images", done=finished) as advance:
        for number, rows in enumerate(blocks):
            if number not in done:
                found = rows_of(
                    model,
                    source,
                    rows,
                    batch=batch,
                    unreadable=unreadable,
                    threads=threads,
                    decode=decode,
                    compute=compute,
                    advance=advance,
                )
                _write_block(checkpoints, number, found, precision)
    seconds = time.monotonic() - started
    count = _assemble(folder, checkpoints, len(blocks), format)
    if not count:
        reason = (folder / "unreadable.txt").read_text(encoding="utf-8").splitlines()[0]
        raise ValueError(f"images: expected at least one that can be read, found none: {reason}")
    figures = {
        "images": count,
        "width": model.width,
        "unreadable": len(source.ids) - count,
        "embedded": len(source.ids) - finished,
    }
    return figures, seconds


def parquet_library() -> Any:
    """pyarrow's parquet module; ValueError says how to install it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            "format: expected npy where pyarrow is not installed, found parquet; install it with `uv sync --extra "
            "parquet` or `pip install pyarrow`, or take format=npy."
        ) from error
    return pyarrow.parquet


def weights_digest(module: torch.nn.Module) -> str:
    """sha256 over the names, dtypes, shapes and bytes of a network's weights, wherever they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _from_paths(ids: Sequence[str], paths: Sequence[Path], read: Callable[..., Image.Image]) -> GivenImages:
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise ValueError(f"images: expected each path once, found {name} {count} times; remove the others.")
    files = dict(zip(ids, paths, strict=True))
    return GivenImages(tuple(ids), lambda row, at_least: read(files[ids[row]], at_least=at_least), files)


def _holds_shards(folder: Path) -> bool:
    """Whether a folder is one of shards; ValueError where it has images as well, since half would go unseen."""
    if not folder.is_dir():
        return False
    names = [name.lower() for name in os.listdir(folder) if not name.startswith(".")]
    shards = any(name.endswith(".tar") for name in names)
    if shards and any(name.endswith(SUFFIXES) for name in names):
        raise ValueError(
            f"{folder}: expected images or shards (.tar), found both; put them into two folders."
        )
    return shards


def _from_shards(path: Path, max_pixels: int, policy: PixelPolicy, member: str) -> GivenImages:
    from alignet.data.shards import list_shards, shard_source

    listing = list_shards(path, member=member)
    source = shard_source(path, listing.images)
    ids = tuple(source.ids)

    def read(row: int, at_least: int) -> Image.Image:
        return source.open(ids[row], max_pixels=max_pixels, policy=policy, at_least=at_least)

    return GivenImages(ids, read, dict(listing.shards))


def _size_and_time(path: Path) -> list[int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return [-1, -1]
    return [found.st_size, found.st_mtime_ns]


def _block(checkpoints: Path, number: int, kind: str = "features", suffix: str = "npy") -> Path:
    return checkpoints / f"{kind}-{number:05d}.{suffix}"


def _write_block(checkpoints: Path, number: int, rows: Rows, precision: str) -> None:
    # the features come last, and their name is what says that the block is finished
    _block(checkpoints, number, "ids", "txt").write_text(_lines(rows.ids), encoding="utf-8")
    refused = _lines([f"{name}\t{reason}" for name, reason in rows.refused])
    _block(checkpoints, number, "unreadable", "txt").write_text(refused, encoding="utf-8")
    temporary = _block(checkpoints, number, suffix="tmp")
    with open(temporary, "wb") as handle:
        np.save(handle, stored(rows.features, rows.ids, precision))
    os.replace(temporary, _block(checkpoints, number))


def _lines(items: Sequence[str]) -> str:
    return "".join(f"{item}\n" for item in items)


def _assemble(folder: Path, checkpoints: Path, blocks: int, format: str) -> int:
    """The finished blocks as one file, which is never held in memory as a whole. Returns the number of rows."""
    texts = {
        kind: "".join(_block(checkpoints, number, kind, "txt").read_text("utf-8") for number in range(blocks))
        for kind in ("ids", "unreadable")
    }
    arrays = (np.load(_block(checkpoints, number), allow_pickle=False) for number in range(blocks))
    if texts["unreadable"]:
        (folder / "unreadable.txt").write_text(texts["unreadable"], encoding="utf-8")
    ids = texts["ids"].splitlines()
    if not ids:
        return 0
    if format == "npy":
        (folder / "ids.txt").write_text(texts["ids"], encoding="utf-8")
        _join_npy(folder / "features.npy", arrays, len(ids))
    else:
        _join_parquet(folder / "features.parquet", arrays, ids)
    return len(ids)


def _join_npy(path: Path, arrays: Iterator[np.ndarray], count: int) -> None:
    start, whole = 0, None
    for part in arrays:
        if whole is None:
            whole = np.lib.format.open_memmap(path, "w+", part.dtype, (count, part.shape[1]))
        whole[start : start + len(part)] = part
        start += len(part)
    if whole is not None:
        whole.flush()


def _join_parquet(path: Path, arrays: Iterator[np.ndarray], ids: Sequence[str]) -> None:
    import pyarrow

    parquet = parquet_library()
    start, writer = 0, None
    for part in arrays:
        values = pyarrow.array(part.reshape(-1))
        columns: Mapping[str, Any] = {
            "id": pyarrow.array(ids[start : start + len(part)], pyarrow.string()),
            "features": pyarrow.FixedSizeListArray.from_arrays(values, part.shape[1]),
        }
        table = pyarrow.table(dict(columns))
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
        start += len(part)
    if writer is not None:
        writer.close()
