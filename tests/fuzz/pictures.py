"""Seeds of pictures for tests.fuzz.kinds: JPEG, PNG, TIFF and other formats, and what must hold of their pixels."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.mutations import mutate, seal_png
from tests.fuzz.reader import MAX_PIXELS, Reader


def _pixels(path: Path) -> np.ndarray:
    from alignet.data.pixels import open_image

    return np.asarray(open_image(path, max_pixels=MAX_PIXELS))


def _is_picture(found: np.ndarray, size: int) -> str:
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
        return f"no RGB picture but {found.dtype} {found.shape}"
    return "" if 0 < found.shape[0] * found.shape[1] <= MAX_PIXELS else f"{found.shape} pixels"


def picture_of(mode: str, format: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((40, 30))
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (30, 40)).astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.random.default_rng(1).random((30, 40), np.float32))
    elif mode != "RGB":
        image = image.convert(mode)
    handle = io.BytesIO()
    image.save(handle, format, **options)
    return handle.getvalue()


def _tiff(**options: Any) -> bytes:
    import tifffile

    handle = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 65536, (20, 16, 5)).astype(np.uint16)
    tifffile.imwrite(handle, values, planarconfig="contig", photometric="minisblack", **options)
    return handle.getvalue()


def _bands(path: Path) -> np.ndarray:
    from alignet.data.pixels import PixelPolicy, open_image

    policy = PixelPolicy(range=(0, 65535), bands=(0, 2, 4))
    return np.asarray(open_image(path, max_pixels=MAX_PIXELS, policy=policy))


def png_of(
    width: int, height: int, packed: bytes, depth: int = 8, colour: int = 2, extra: bytes = b""
) -> bytes:
    """A PNG whose header says what it likes about its packed pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def _made_png(chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return seal_png(mutate(picture_of(chance.choice(("RGB", "RGBA", "P", "L")), "PNG"), chance, False))
    sides = [chance.choice((1, 7, 1000, 1001, 30_000, 2**31 - 1)) for _ in range(2)]
    packed = zlib.compress(bytes(chance.choice((0, 100, 4_000_000))), 1)
    return png_of(*sides, packed, chance.choice((1, 2, 8, 16)), chance.choice((0, 2, 3, 4, 6)))


def _bands_of_one(path: Path) -> np.ndarray:
    from alignet.data.pixels import PixelPolicy, open_image

    return np.asarray(open_image(path, max_pixels=MAX_PIXELS, policy=PixelPolicy(range=(0, 1))))


def readers(kind: str) -> tuple[Reader, ...]:
    """Every seed of a kind that is here, with its reader."""
    if kind == "jpeg":
        return tuple(
            Reader("a.jpg", picture_of(mode, "JPEG", **more), _pixels, _is_picture)
            for mode, more in (("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}))
        )
    if kind == "png":
        return tuple(
            Reader("a.png", picture_of(mode, "PNG"), _pixels, _is_picture, sealed=True, made=_made_png)
            for mode in ("RGB", "RGBA", "P", "L", "1", "LA", "I;16")
        )
    if kind == "image":
        plain = [
            ("a.webp", "WEBP", {}),
            ("a.webp", "WEBP", {"lossless": True}),
            ("a.bmp", "BMP", {}),
            ("a.png", "GIF", {}),
        ]
        return (
            *(Reader(name, picture_of("RGB", what, **more), _pixels, _is_picture) for name, what, more in plain),
            *(Reader("a.tif", picture_of(mode, "TIFF", **more), _pixels, _is_picture)
              for mode, more in (("RGB", {}), ("RGB", {"compression": "tiff_adobe_deflate"}), ("I;16", {}))),
            Reader("a.tif", picture_of("RGB", "TIFF", compression="tiff_lzw"), _pixels, _is_picture),
            Reader("a.tif", _tiff(), _bands, _is_picture),
            Reader("a.tif", _tiff(compression="zlib"), _bands, _is_picture),
            Reader("a.tif", picture_of("F", "TIFF"), _bands_of_one, _is_picture),
        )  # fmt: skip
    return ()
