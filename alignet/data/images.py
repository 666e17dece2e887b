"""Images on disk: which files an image folder holds, and how any of them becomes 8-bit RGB.

An image's id is its path relative to the folder, with forward slashes. Every reader of images in this
package goes through `open_image`, so a picture looks the same to every backbone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from alignet.progress import progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # what a file may hold, whatever its name
MAX_PIXELS = 89_478_485  # width x height; Pillow's own threshold for a suspected decompression bomb


@dataclass(frozen=True)
class ImageSet:
    """Images of one folder in a fixed order; `ids` are relative file names with forward slashes."""

    folder: Path
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def open(self, row: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """The RGB image of one row."""
        return open_image(self.folder / self.ids[row], max_pixels=max_pixels)


def open_image(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image file wholly and return it as 8-bit RGB, at its stored size.

    - Transparency (an alpha channel, or a transparent palette entry) is composited on white. timm drops
      the alpha channel instead, which shows whatever colour lies under transparent pixels.
    - 16-bit grey is divided by 257 and rounded, so 65535 becomes 255 whatever range the picture uses.
      Pillow itself reduces 16-bit colour to its high byte.
    - CMYK, YCbCr and the like are converted by Pillow without colour profiles.
    - EXIF orientation is ignored, as in timm's and torchvision's image folders.
    - Of a file with several frames or pages, the first counts.

    max_pixels: the largest width x height that is decoded. Above 178,956,970 Pillow refuses on its own.
    Raises ValueError, naming the file, for anything that is not a complete image within the limit,
    and for 32-bit integer and float pixels, whose range no file says.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected an image file, found none; check the folder and the name.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: expected an image, found an empty file; fetch it again or remove it.")
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_size(path, image.width * image.height, max_pixels)
            image.load()
            return _rgb(path, image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path}: {error}; scale the image down or cut it into tiles.") from None
    except UnidentifiedImageError:
        found = f"found none of {', '.join(FORMATS)}"
        raise ValueError(f"{path}: expected an image, {found}; convert it to PNG or remove it.") from None
    except _Refused as refusal:
        raise ValueError(str(refusal)) from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path}: expected a complete image, found damaged or truncated data ({reason}); "
            "fetch the file again or remove it."
        ) from error


class _Refused(Exception):
    """A readable image that policy refuses; kept apart from what decoders raise."""


def _check_size(path: Path, pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise _Refused(
            f"{path}: expected at most {max_pixels:,} pixels, found {pixels:,}; "
            "scale the image down, cut it into tiles, or raise max_pixels."
        )


def _rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode == "I" and image.format == "PNG":  # how Pillow before 11.3 opens 16-bit grey
        return _from_16_bit(image)
    if image.mode in ("I", "F"):
        kind = {"I": "32-bit integer", "F": "float"}[image.mode]
        raise _Refused(
            f"{path}: expected 8- or 16-bit pixels, found {kind} pixels of unknown range; "
            "scale them to 8 bits and save as PNG."
        )
    if image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, pixels).convert("RGB")
    if image.mode == "LAB":
        raise _Refused(f"{path}: expected grey or RGB, found CIELAB pixels; convert the file to sRGB.")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _from_16_bit(image: Image.Image) -> Image.Image:
    grey = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")


def list_images(folder: Path | str) -> ImageSet:
    """Every image below a folder, sorted by id (code point order).

    A file counts by its suffix, in any case: SUFFIXES. Names that start with a dot are skipped (macOS
    leaves `._name.jpg` beside images), and so are links to folders inside `folder`, whose images are
    listed under their own names. Raises ValueError for a missing folder, for one without images, for
    a link that leads out of it, and for names that cannot stand in a list with one id per line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of images, found no folder; check the path.")
    ids: list[str] = []
    _collect(folder, "", os.path.realpath(folder), ids)
    if not ids:
        raise ValueError(
            f"{folder}: expected images ({' '.join(SUFFIXES)}), found none in it or below; check the path."
        )
    return ImageSet(folder, tuple(sorted(ids)))


def _collect(folder: Path, prefix: str, root: str, ids: list[str]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_image = entry.name.lower().endswith(SUFFIXES)
            if entry.is_symlink() and (is_image or entry.is_dir()):
                _check_link(Path(entry.path), root)
                if entry.is_dir():
                    continue
            if entry.is_dir(follow_symlinks=False):
                _collect(Path(entry.path), f"{prefix}{entry.name}/", root, ids)
            elif is_image:
                _check_name(folder, prefix + entry.name)
                ids.append(prefix + entry.name)


def _check_link(link: Path, root: str) -> None:
    target = os.path.realpath(link)
    if os.path.commonpath([target, root]) != root:
        raise ValueError(
            f"{link}: expected files of the image folder itself, found a link to {target}; "
            "copy the files into the folder, or give the folder that they are in."
        )


def _check_name(folder: Path, name: str) -> None:
    # ids are written one per line, and read back without outer spaces
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        found = f"found {os.fsencode(name)!r}"
        raise ValueError(f"{folder}: expected file names in UTF-8, {found}; rename the file.") from None
    if name.splitlines() != [name] or name != name.strip():
        raise ValueError(
            f"{folder}: expected file names without line breaks or outer spaces, found {name!r}; rename it."
        )


def check_images(
    folder: Path | str, ids: Sequence[str], *, max_pixels: int = MAX_PIXELS
) -> list[tuple[str, str]]:
    """Decode every image wholly and return (id, reason) of those that `open_image` refuses."""
    refused: list[tuple[str, str]] = []
    with progress("checking images", len(ids), "images") as advance:
        for name in ids:
            try:
                open_image(Path(folder) / name, max_pixels=max_pixels)
            except ValueError as error:
                refused.append((name, str(error)))
            advance()
    return refused
