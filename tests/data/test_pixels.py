"""Pixels of every depth and any bands become the RGB that the policy says, and are refused where it says nothing."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from alignet.data.pixels import PixelPolicy, open_image

RNG = np.random.default_rng(0)
EIGHT = RNG.integers(0, 256, (6, 5, 8), dtype=np.uint8)
SIXTEEN = RNG.integers(0, 65536, (6, 5, 8), dtype=np.uint16)


def tiff(path, array, **options):
    tifffile.imwrite(path, array, **({"photometric": "minisblack"} | options))
    return path


def pixels(source, **policy):
    image = open_image(source, policy=PixelPolicy(**policy))
    assert image.mode == "RGB"
    return np.asarray(image)


def stretched(values, low, high):
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


LAYOUTS = [
    {"planarconfig": "contig"},
    {"planarconfig": "separate"},
    {"compression": "zlib", "planarconfig": "contig"},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_three_bands_of_many(tmp_path, layout, count):
    for array in (EIGHT[:, :, :count], SIXTEEN[:, :, :count]):
        separate = layout["planarconfig"] == "separate"
        path = tiff(tmp_path / "a.tif", np.moveaxis(array, 2, 0) if separate else array, **layout)
        bands = [count - 1, 0, 1]
        chosen = array[:, :, bands]
        expected = chosen if chosen.dtype == np.uint8 else np.rint(chosen / 257).astype(np.uint8)
        np.testing.assert_array_equal(pixels(path, bands=bands), expected)
        if array.dtype == np.uint16:
            found = pixels(path, bands=bands, range=(100, 30000))
            np.testing.assert_array_equal(found, stretched(chosen, 100, 30000))


@pytest.mark.parametrize("count", [5, 8])
def test_many_bands_are_refused_without_a_choice(tmp_path, count):
    path = tiff(tmp_path / "a.tif", EIGHT[:, :, :count], planarconfig="contig")
    with pytest.raises(ValueError, match=f"found {count}; say which bands are red, green and blue") as caught:
        open_image(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match=rf"bands \[0, 1, {count}\], counted from 0, found {count} bands"):
        pixels(path, bands=[0, 1, count])


def test_bands_of_common_images(tmp_path):
    for name in ("a.png", "a.tif", "a.bmp"):
        Image.fromarray(EIGHT[:, :, :3]).save(tmp_path / name)
        np.testing.assert_array_equal(pixels(tmp_path / name, bands=(2, 1, 0)), EIGHT[:, :, [2, 1, 0]])
        np.testing.assert_array_equal(pixels(tmp_path / name, bands=(1, 1, 1)), EIGHT[:, :, [1, 1, 1]])
        with pytest.raises(ValueError, match="found 3 bands"):
            pixels(tmp_path / name, bands=(0, 1, 3))
    Image.fromarray(EIGHT[:, :, :4]).save(tmp_path / "rgba.png")  # the fourth band is a band like others
    np.testing.assert_array_equal(pixels(tmp_path / "rgba.png", bands=(3, 0, 1)), EIGHT[:, :, [3, 0, 1]])
    Image.fromarray(EIGHT[:, :, 0]).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match="found 1 bands"):
        pixels(tmp_path / "grey.png", bands=(0, 1, 2))
    palette = Image.fromarray(EIGHT[:, :, :3]).quantize(8)
    palette.save(tmp_path / "p.png")
    palette.save(tmp_path / "p.tif")
    for name in ("p.png", "p.tif"):
        expected = np.asarray(palette.convert("RGB"))[:, :, ::-1]
        np.testing.assert_array_equal(pixels(tmp_path / name, bands=(2, 1, 0)), expected)


def test_the_fourth_band_of_an_rgb_file_that_is_no_alpha(tmp_path):
    path = tiff(tmp_path / "a.tif", EIGHT[:, :, :4], photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(pixels(path, bands=(3, 0, 1)), EIGHT[:, :, [3, 0, 1]])
    np.testing.assert_array_equal(pixels(path), EIGHT[:, :, :3])


def test_sixteen_bit_grey_is_stretched(tmp_path):
    grey = SIXTEEN[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "a.tif")
    tiff(tmp_path / "b.tif", grey, byteorder=">")
    Image.fromarray(grey).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    for name in ("a.png", "a.tif", "b.tif", "lzw.tif"):
        np.testing.assert_array_equal(pixels(tmp_path / name)[:, :, 0], np.rint(grey / 257))
        found = pixels(tmp_path / name, range=(1000, 5000))
        np.testing.assert_array_equal(found, np.repeat(stretched(grey, 1000, 5000)[:, :, None], 3, axis=2))
    large = tiff(tmp_path / "c.tif", np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32))
    np.testing.assert_array_equal(pixels(large, range=(0, 2**32 - 1))[0, :, 0], [0, 128, 255])
    full = pixels(tmp_path / "a.png", range=(0, 65535))
    np.testing.assert_array_equal(full, pixels(tmp_path / "a.png"))


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float32", "float64"])
def test_integers_and_floats_need_a_range(tmp_path, dtype):
    for array in (np.linspace(-2000, 2000, 30).reshape(6, 5), np.linspace(-2000, 2000, 90).reshape(6, 5, 3)):
        values = (np.abs(array) if dtype == "uint32" else array).astype(dtype)
        path = tiff(tmp_path / "a.tif", values, **({"planarconfig": "contig"} if array.ndim == 3 else {}))
        with pytest.raises(
            ValueError, match=r"of unknown range; say which values become black and white \(range\)"
        ):
            open_image(path)
        expected = np.broadcast_to(stretched(values.reshape(6, 5, -1), -1000, 400), (6, 5, 3))
        np.testing.assert_array_equal(pixels(path, range=(-1000, 400)), expected)


def test_sixteen_bit_colour(tmp_path):
    colour = SIXTEEN[:, :, :3]
    path = tiff(tmp_path / "a.tif", colour, photometric="rgb")
    np.testing.assert_array_equal(pixels(path), colour >> 8)  # as Pillow reads it
    np.testing.assert_array_equal(pixels(path, range=(0, 4095)), stretched(colour, 0, 4095))
    np.testing.assert_array_equal(pixels(path, bands=(0, 1, 2)), np.rint(colour / 257))
    png = tmp_path / "a.png"
    png.write_bytes(sixteen_bit_png(colour))
    np.testing.assert_array_equal(pixels(png), colour >> 8)
    for policy in ({"range": (0, 4095)}, {"bands": (0, 1, 2)}):
        with pytest.raises(ValueError, match="16-bit colour that is no TIFF; save it as TIFF"):
            pixels(png, **policy)


def sixteen_bit_png(colour):
    """A PNG of 16-bit RGB, which Pillow reads and does not write."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    head = struct.pack(">IIBBBBB", colour.shape[1], colour.shape[0], 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_eight_bits_are_not_stretched(tmp_path):
    Image.fromarray(EIGHT[:, :, :3]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png", range=(0, 4095)), EIGHT[:, :, :3])


def test_transparency_is_dropped_on_request(tmp_path):
    Image.fromarray(EIGHT[:, :, :4]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png", transparency="drop"), EIGHT[:, :, :3])
    assert (pixels(tmp_path / "a.png") != EIGHT[:, :, :3]).any()


def test_nan_and_strange_pixels(tmp_path):
    with pytest.raises(ValueError, match="found NaN; replace"):
        pixels(tiff(tmp_path / "a.tif", np.full((4, 4), np.nan, np.float32)), range=(0, 1))
    with pytest.raises(ValueError, match="expected integer or float pixels, found complex64"):
        pixels(tiff(tmp_path / "a.tif", np.ones((4, 4), np.complex64)), range=(0, 1))


def test_bytes_are_read_as_the_file(tmp_path):
    path = tiff(tmp_path / "a.tif", SIXTEEN, planarconfig="contig")
    options = {"bands": (4, 5, 6), "range": (0, 9000)}
    np.testing.assert_array_equal(pixels(path.read_bytes(), **options), pixels(path, **options))
    with pytest.raises(ValueError, match=r"shard.tar: a.png: expected an image, found an empty file"):
        open_image(b"", name="shard.tar: a.png")


def test_too_many_pixels(tmp_path):
    path = tiff(tmp_path / "a.tif", EIGHT, planarconfig="contig")
    for policy in (PixelPolicy(), PixelPolicy(bands=(0, 1, 2))):
        with pytest.raises(ValueError, match="at most 29 pixels, found 30"):
            open_image(path, max_pixels=29, policy=policy)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_truncated_tiff(tmp_path, layout):
    array = np.moveaxis(SIXTEEN, 2, 0) if layout["planarconfig"] == "separate" else SIXTEEN
    path = tiff(tmp_path / "a.tif", array, **layout)
    whole, expected = path.read_bytes(), pixels(path, bands=(5, 6, 7))
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        try:
            found = pixels(path, bands=(5, 6, 7))
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(found, expected)
            assert length > len(whole) - 20


@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_of_a_tiff_never_raise_anything_else():
    buffer, messages = io.BytesIO(), []
    tifffile.imwrite(buffer, SIXTEEN, planarconfig="contig", photometric="minisblack", compression="zlib")
    whole, generator = buffer.getvalue(), np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in generator.integers(4, len(whole), 3):
            damaged[place] = generator.integers(256)
        try:
            pixels(bytes(damaged), bands=(5, 6, 7))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert all(message.startswith("image: ") and "\n" not in message for message in messages)


def test_a_compression_that_cannot_be_read(tmp_path):
    path = tiff(tmp_path / "a.tif", SIXTEEN, planarconfig="contig")
    data = bytearray(path.read_bytes())
    tag = data.index(b"\x03\x01\x03\x00")  # Compression, a short: 1 becomes 5, LZW
    data[tag + 8] = 5
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"found LZW; save it so, or install the package imagecodecs"):
        pixels(path, bands=(0, 1, 2))


BAD = [
    ({"range": (5, 5)}, "a low and a higher value"),
    ({"range": (5, float("nan"))}, "a low and a higher value"),
    ({"range": (1, 2, 3)}, "a low and a higher value"),
    ({"bands": (0, 1)}, "three 0-based numbers"),
    ({"bands": (0, 1, -1)}, "three 0-based numbers"),
    ({"bands": (0, 1, 2.0)}, "three 0-based numbers"),
    ({"transparency": "black"}, "white or drop, found 'black'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_policies_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        PixelPolicy(**options)
