"""How an image file becomes 8-bit RGB: one policy for every reader of images in this package.

Every reader goes through `open_image`, so a picture looks the same to every backbone. What a file cannot say
(which range its 16-bit or float pixels use, which of its bands are red, green and blue) is said by a
PixelPolicy, and refused where it is not said.
"""

from __future__ import annotations

import io
import logging
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

FORMATS = (  # what a file may hold, whatever its name
    "JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "PPM", "JPEG2000",
)  # fmt: skip
MAX_PIXELS = 89_478_485  # width x height; Pillow's own threshold for a suspected decompression bomb
TRANSPARENCY = ("white", "drop")
ORIENTATION = ("stored", "exif")
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PLAIN = ("L", "LA", "RGB", "RGBA")  # modes of Pillow whose arrays hold what the file holds
_SAMPLES, _PLANES = 277, 284  # TIFF tags: bands a pixel; 2 where bands are stored one after the other
_DEFLATE = (8, 32946)  # TIFF's numbers of the compression deflate
_MANY = 16  # bands: an image of more must be smaller than max_pixels allows


@dataclass(frozen=True)
class PixelPolicy:
    """What pixels mean where the file does not say so.

    range: None, or (low, high) in the file's own units. With None, 16-bit pixels are divided by 257 and rounded, so
    that 65535 becomes 255 whatever range the picture uses; 32-bit and float pixels are refused. With a range, pixels of
    more than 8 bits, integer or float, are stretched so that low becomes 0 and high 255; what lies outside is clipped.
    8-bit pixels are always taken as they are.
    bands: None, or three 0-based bands that become red, green and blue; one band three times is grey. With None, an
    image needs 1 band, 3, or 4 of which the last is transparency or ignored.
    transparency: `white` lays transparent pixels on white; `drop` forgets the alpha channel as timm does, and shows
    whatever colour lies under transparent pixels. It does not matter where bands are named.
    orientation: `stored` shows rows and columns as timm and torchvision do, whatever the file's EXIF orientation says
    (Pillow itself turns TIFFs); `exif` turns and mirrors the image as every viewer does.
    """

    range: tuple[float, float] | None = None
    bands: tuple[int, int, int] | None = None
    transparency: str = "white"
    orientation: str = "stored"

    def __post_init__(self) -> None:
        if self.range is not None:
            object.__setattr__(self, "range", _checked_range(self.range))
        if self.bands is not None:
            bands = tuple(self.bands)
            if len(bands) != 3 or not all(type(band) is int and band >= 0 for band in bands):
                raise ValueError(
                    f"bands: expected three 0-based numbers for red, green and blue, found {list(bands)}; count the "
                    "bands of a file from 0."
                )
            object.__setattr__(self, "bands", bands)
        if self.transparency not in TRANSPARENCY:
            raise ValueError(
                f"transparency: expected {' or '.join(TRANSPARENCY)}, found {self.transparency!r}."
            )
        if self.orientation not in ORIENTATION:
            raise ValueError(f"orientation: expected {' or '.join(ORIENTATION)}, found {self.orientation!r}.")


def _checked_range(given: tuple[float, ...]) -> tuple[float, float]:
    values = tuple(float(value) for value in given)
    if len(values) != 2 or not all(map(math.isfinite, values)) or not values[0] < values[1]:
        raise ValueError(
            f"range: expected a low and a higher value, found {list(given)}; name the pixel values that become "
            "black and white."
        )
    return values[0], values[1]


DEFAULT = PixelPolicy()


def reading(said: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `open_image` that a configuration's section `pixels` means: max_pixels and policy."""
    options = dict(said)
    return {"max_pixels": options.pop("max_pixels"), "policy": PixelPolicy(**options)}


def open_image(
    source: Path | str | bytes,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    policy: PixelPolicy = DEFAULT,
    at_least: int = 0,
) -> Image.Image:
    """Decode one image wholly and return it as 8-bit RGB, at its stored size unless `at_least` allows less.

    - `policy` says what 16-bit, float and multi-band pixels and transparency become.
    - Without a range and bands, 16-bit colour is reduced to its high byte, as Pillow does.
    - CMYK, YCbCr and the like are converted by Pillow without colour profiles.
    - EXIF orientation is ignored, as in timm's and torchvision's image folders, unless the policy says `exif`; how the
      file asks to be turned beyond what was done stands in the image's `info["orientation"]` (1 to 8, 1: not at all).
    - Of a file with several frames or pages, the first counts.

    source: a path, or the bytes of a file, which `name` then names in errors. max_pixels: the largest width x height
    that is decoded, looked at before any pixel is, whatever else is asked. Above 178,956,970 Pillow refuses on its own.
    at_least: 0, or the pixels that both sides of a JPEG must keep: it is then decoded at the smallest of 1/2, 1/4 and
    1/8 of its size that keeps them, by libjpeg's scaled transform. Other formats have no such way.
    Raises ValueError, naming the file, for anything that is not a complete image within the limit, and for
    pixels whose meaning neither the file nor the policy says.
    """
    if isinstance(source, bytes):
        name, size = name or "image", len(source)
    else:
        source = Path(source)
        name = name or str(source)
        if not source.is_file():
            raise ValueError(f"{name}: expected an image file, found none; check the folder and the name.")
        size = source.stat().st_size
    if size == 0:
        raise ValueError(f"{name}: expected an image, found an empty file; fetch it again or remove it.")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as handle:
            picture = _decode(handle, max_pixels, policy, at_least)
            picture.info["source"] = name  # for who refuses it later
            return picture
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name}: expected at most {max_pixels:,} pixels, found far more ({error}); scale the image down or cut "
            "it into tiles."
        ) from None
    except UnidentifiedImageError:
        found = f"found none of {', '.join(FORMATS)}"
        raise ValueError(f"{name}: expected an image, {found}; convert it to PNG or remove it.") from None
    except _Refused as refusal:
        raise ValueError(f"{name}: {refusal}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise ValueError(
            f"{name}: expected a complete image, found damaged or truncated data ({reason}); "
            "fetch the file again or remove it."
        ) from error


class _Refused(Exception):
    """A readable image that policy refuses; kept apart from what decoders raise."""


def _decode(handle: IO[bytes], max_pixels: int, policy: PixelPolicy, at_least: int) -> Image.Image:
    start = handle.read(len(_PNG))
    tiff = start[:4] in _TIFF
    if start == _PNG:
        _check_chunks(handle)
    handle.seek(0)
    try:
        image = Image.open(handle, formats=FORMATS)
    except UnidentifiedImageError:
        if not tiff:
            raise
        return _by_policy(_tiff_array(handle, max_pixels), policy)  # bands or types that Pillow does not know
    with image:
        _check_size(image.width * image.height, max_pixels)
        return _turned(_decoded(image, handle, tiff, max_pixels, policy, at_least), image, policy)


def _decoded(
    image: Image.Image, handle: IO[bytes], tiff: bool, max_pixels: int, policy: PixelPolicy, at_least: int
) -> Image.Image:
    """RGB of an image that Pillow has opened, as its pixels are stored."""
    narrowed = _is_narrowed(image)  # read before the pixels: Pillow forgets it
    if policy.bands is None and (policy.range is None or not (narrowed or _is_wide(image))):
        if at_least and image.format == "JPEG":
            image.draft(image.mode, (at_least, at_least))
        image.load()
        return _rgb(image, policy)
    if tiff and (narrowed or _hides_bands(image)):
        return _by_policy(_tiff_array(handle, max_pixels), policy)
    if narrowed:
        raise _Refused(
            "expected pixels that can be read in full depth, found 16-bit colour that is no TIFF; save it as "
            "TIFF, or leave out `range` and `bands`."
        )
    if image.mode in _PLAIN or _is_wide(image):
        return _by_policy(np.atleast_3d(np.asarray(image)), policy)
    colour = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return _by_policy(np.asarray(colour), policy)


_TURNS = {  # EXIF orientation -> how the stored picture becomes what a viewer shows
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def _turned(picture: Image.Image, image: Image.Image, policy: PixelPolicy) -> Image.Image:
    """The picture, turned where the policy says so. image: what Pillow has read, since a PNG says it last."""
    asked = image.getexif().get(ExifTags.Base.Orientation, 1)
    if asked not in _TURNS:
        asked = 1
    elif policy.orientation == "exif":
        picture, asked = picture.transpose(_TURNS[asked]), 1
    picture.info["orientation"] = asked
    return picture


def _is_narrowed(image: Image.Image) -> bool:
    """Whether Pillow hands out fewer bits a pixel than the file has: it does so for 16-bit colour."""
    modes = {
        str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in getattr(image, "tile", [])
    }
    return image.mode in ("RGB", "RGBA", "RGBX", "LA", "CMYK") and any("16" in mode for mode in modes)


def _hides_bands(image: Image.Image) -> bool:
    """Whether Pillow leaves out or changes bands of a TIFF: it knows grey, RGB and alpha only."""
    if image.mode in ("P", "PA", "YCbCr", "1"):
        return False
    tags, bands = getattr(image, "tag_v2", {}), len(image.getbands())
    known = image.mode in _PLAIN or image.mode == "F" or image.mode.startswith("I;16")  # "I" has a sign
    return not known or tags.get(_SAMPLES, 1) != bands or (tags.get(_PLANES) == 2 and bands > 1)


def _is_wide(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _check_chunks(handle: IO[bytes]) -> None:
    """Compare the checksums of a PNG's pixels, palette and transparency, which Pillow passes over in part."""
    while len(head := handle.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if not (name[:1].isupper() or name == b"tRNS"):  # says nothing of pixels
            handle.seek(size + 4, io.SEEK_CUR)
            continue
        total, left = zlib.crc32(name), size
        while left and (data := handle.read(min(left, 1 << 20))):
            total, left = zlib.crc32(data, total), left - len(data)
        if left or handle.read(4) != total.to_bytes(4, "big"):
            raise ValueError(f"the checksum of its part {name.decode('latin1')!r} differs")
        if name == b"IEND":
            return


def _check_size(pixels: int, max_pixels: int) -> None:
    if pixels < 1:
        raise _Refused("expected an image, found one without pixels; fetch the file again or remove it.")
    if pixels > max_pixels:
        raise _Refused(
            f"expected at most {max_pixels:,} pixels, found {pixels:,}; "
            "scale the image down, cut it into tiles, or raise max_pixels."
        )


def _rgb(image: Image.Image, policy: PixelPolicy) -> Image.Image:
    """What Pillow has read, without a range and bands."""
    if image.mode == "I" and image.format == "PNG":  # how Pillow before 11.3 opens 16-bit grey
        return _by_policy(np.asarray(image).astype(np.uint16)[:, :, None], policy)
    if _is_wide(image):
        return _by_policy(np.asarray(image)[:, :, None], policy)
    if image.mode == "LAB":
        raise _Refused("expected grey or RGB, found CIELAB pixels; convert the file to sRGB.")
    if image.has_transparency_data and policy.transparency == "white":
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, pixels).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _by_policy(pixels: np.ndarray, policy: PixelPolicy) -> Image.Image:
    """8-bit RGB of pixels (H, W, bands) of any number type."""
    bands = pixels.shape[2]
    _check_size(pixels.shape[0] * pixels.shape[1], pixels.size)
    if policy.bands is not None:
        if max(policy.bands) >= bands:
            raise _Refused(
                f"expected bands {list(policy.bands)}, counted from 0, found {bands} bands; name bands that every "
                "image has."
            )
        pixels = pixels[:, :, list(policy.bands)]
    elif bands == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    elif bands == 3:
        pass
    else:
        raise _Refused(
            f"expected 1 band or 3, found {bands}; say which bands are red, green and blue (bands, counted from 0)."
        )
    return Image.fromarray(_eight_bits(pixels, policy.range))


def _eight_bits(pixels: np.ndarray, span: tuple[float, float] | None) -> np.ndarray:
    dtype = pixels.dtype.newbyteorder("=")
    if dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if dtype.kind not in "iuf":
        raise _Refused(f"expected integer or float pixels, found {dtype}; save them as 8-bit PNG.")
    if span is not None:
        values = pixels.astype(np.float64)
        if np.isnan(values).any():
            raise _Refused("expected pixels that are numbers, found NaN; replace them by a value.")
        low, high = span
        return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    if dtype != np.uint16:
        signed = "signed " if dtype.kind == "i" and dtype.itemsize < 4 else ""
        kind = "float" if dtype.kind == "f" else f"{signed}{8 * dtype.itemsize}-bit integer"
        raise _Refused(
            f"expected 8- or 16-bit pixels, found {kind} pixels of unknown range; say which values become black and "
            "white (range), or save them as 8-bit PNG."
        )
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _tiff_array(handle: IO[bytes], max_pixels: int) -> np.ndarray:
    """The first page of a TIFF file as it is stored: (H, W, bands)."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it would print is raised here
    handle.seek(0)
    with tifffile.TiffFile(handle) as tiff:
        page: Any = tiff.pages[0]
        _check_size(max(page.imagewidth * page.imagelength, math.prod(page.shape) // _MANY), max_pixels)
        if page.axes not in ("YX", "YXS", "SYX"):
            raise _Refused(
                f"expected an image of rows, columns and bands, found axes {page.axes}; save one page."
            )
        ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts)]
        if not ends or max(ends) > handle.seek(0, io.SEEK_END):
            raise ValueError("the file ends before its pixels")
        if page.compression in _DEFLATE:
            _check_unpacked(handle, page)
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise _Refused(
                f"expected TIFF data that is not compressed, or by deflate, found {page.compression.name}; save it so, "
                "or install the package imagecodecs."
            ) from None
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, 2)
    return np.atleast_3d(pixels)


def _check_unpacked(handle: IO[bytes], page: Any) -> None:
    """Refuse strips and tiles that unpack to more than their pixels, before they are unpacked into memory."""
    most = max(math.prod(page.chunks), 1) * page.dtype.itemsize
    for start, count in zip(page.dataoffsets, page.databytecounts):
        handle.seek(start)
        reader, packed = zlib.decompressobj(), handle.read(count)
        if len(reader.decompress(packed, most + 1)) > most:
            raise ValueError(f"a part unpacks to more than the {most:,} bytes of its pixels")
