"""Every kind of picture becomes the RGB it should; every broken one is refused with its name and a fix."""

import contextlib
import io
import os

import numpy as np
import pytest
from PIL import Image

from alignet.data.images import check_images, list_images
from alignet.data.pixels import open_image
from tests.fuzz.run import forget_peak, peak

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)


def saved(folder, image, name, **options):
    path = folder / name
    image.save(path, **options)
    return path


def pixels(path, **options):
    image = open_image(path, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_is_unchanged(tmp_path):
    np.testing.assert_array_equal(pixels(saved(tmp_path, Image.fromarray(COLOUR), "a.png")), COLOUR)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_bilevel_and_palette(tmp_path, mode):
    image = Image.fromarray(RAMP).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels(saved(tmp_path, image, "a.png")), expected)
    assert expected.std() > 10


def test_sixteen_bit_grey_is_divided_by_257(tmp_path):
    values = np.array([[0, 128, 129, 257], [32768, 65278, 65406, 65535]], dtype=np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)  # exact: 257 is odd, so no halves
    for name in ("a.png", "a.tif"):
        found = pixels(saved(tmp_path, Image.fromarray(values), name))
        np.testing.assert_array_equal(found, np.repeat(expected[:, :, None], 3, axis=2))


def test_transparency_is_composited_on_white(tmp_path):
    rgba = np.dstack([COLOUR, np.full((8, 8), 255, np.uint8)])
    rgba[:4, :, 3] = 0
    rgba[0, 0] = (100, 50, 0, 51)  # a fifth of the colour on four fifths of white
    found = pixels(saved(tmp_path, Image.fromarray(rgba), "a.png"))
    assert (found[1:4] == 255).all()
    np.testing.assert_array_equal(found[4:], COLOUR[4:])
    np.testing.assert_allclose(found[0, 0], [224, 214, 204], atol=1)


def test_transparent_palette_entry_and_grey_alpha(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([200, 0, 0, 0, 0, 200])
    found = pixels(saved(tmp_path, palette, "p.png", transparency=0))
    np.testing.assert_array_equal(found[0], [[255, 255, 255], [0, 0, 200]])
    grey = Image.fromarray(np.array([[[10, 0], [10, 255]]], dtype=np.uint8), mode="LA")
    np.testing.assert_array_equal(pixels(saved(tmp_path, grey, "la.png"))[0], [[255] * 3, [10] * 3])


def test_cmyk_jpeg(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow ink: red
    found = pixels(saved(tmp_path, image, "a.jpg", quality=100))
    np.testing.assert_allclose(found.mean((0, 1)), [255, 0, 0], atol=3)


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(COLOUR[:4])
    path = saved(tmp_path, image, "a.jpg", exif=exif, quality=95)
    assert open_image(path).size == (8, 4)


def refused(path, *words, **options):
    with pytest.raises(ValueError, match="expected") as caught:
        open_image(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_integer_and_float_pixels_are_refused(tmp_path):
    refused(saved(tmp_path, Image.fromarray(np.ones((4, 4), np.int32)), "a.tif"), "32-bit integer")
    refused(saved(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "b.tif"), "float")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_truncated_at_any_byte_is_refused_or_whole(tmp_path, suffix):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix))
    whole, path = buffer.getvalue(), tmp_path / f"a.{suffix}"
    path.write_bytes(whole)
    expected = pixels(path)
    accepted, messages = 0, []
    for length in range(1, len(whole), max(1, len(whole) // 80)):
        path.write_bytes(whole[:length])
        try:
            np.testing.assert_array_equal(pixels(path), expected)  # only a trailer was cut off
            accepted += 1
        except ValueError as error:
            messages.append(str(error))
    assert all(str(path) in message for message in messages)
    assert accepted <= 2
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "found")


@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_never_raise_anything_else(tmp_path):
    generator, path, messages = np.random.default_rng(1), tmp_path / "a.png", []
    for suffix in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(COLOUR).save(buffer, suffix)
        for _ in range(40):
            damaged = bytearray(buffer.getvalue())
            for place in generator.integers(0, len(damaged), 3):
                damaged[place] = generator.integers(256)
            path.write_bytes(damaged)
            try:
                open_image(path)
            except ValueError as error:
                messages.append(str(error))
    assert len(messages) > 20
    assert all(str(path) in message for message in messages)


def test_empty_missing_and_other_files(tmp_path):
    path = tmp_path / "a.jpg"
    refused(path, "found none")
    path.touch()
    refused(path, "empty")
    path.write_text("<html>404</html>")
    refused(path, "found none of JPEG")
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # Pillow would call Ghostscript
    refused(path, "found none of JPEG")


def test_huge_images(tmp_path):
    path = saved(tmp_path, Image.new("1", (20_000, 20_000)), "a.png")
    with pytest.raises(ValueError, match="scale the image down"):
        open_image(path)
    small = saved(tmp_path, Image.fromarray(COLOUR), "b.png")
    refused(small, "at most 63 pixels", "found 64", max_pixels=63)
    assert open_image(small, max_pixels=64).size == (8, 8)


def test_a_limit_holds_however_an_image_is_read(tmp_path):
    """A reduced JPEG, frames, and chunks that unpack to far more than the file: refused, or never unpacked."""
    big = Image.new("RGB", (64, 48))
    for name, options in (
        ("a.jpg", {}), ("a.webp", {}), ("a.bmp", {}), ("a.tif", {"compression": "tiff_deflate"}), ("a.png", {}),
        ("a.gif", {"save_all": True, "append_images": [big] * 3}), ("progressive.jpg", {"progressive": True}),
    ):  # fmt: skip
        path = saved(tmp_path, big, name, **options)
        for at_least in (0, 8):
            refused(path, "at most 3,071 pixels", "found 3,072", max_pixels=3071, at_least=at_least)
    assert open_image(tmp_path / "a.jpg", at_least=8).size == (16, 12)
    assert open_image(tmp_path / "progressive.jpg", at_least=24).size == (32, 24)
    assert open_image(tmp_path / "a.jpg", at_least=25).size == (64, 48)
    assert open_image(tmp_path / "a.png", at_least=8).size == (64, 48)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_chunks_that_unpack_to_far_more_than_the_file(tmp_path, kind):
    import struct
    import zlib

    packer, block = zlib.compressobj(1), bytes(1_000_000)
    packed = b"".join(packer.compress(block) for _ in range(300)) + packer.flush()
    content = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[kind] + packed
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    whole = saved(tmp_path, Image.fromarray(COLOUR), "a.png").read_bytes()
    path = tmp_path / "b.png"
    path.write_bytes(whole[:33] + chunk + whole[33:])  # behind the header
    before = forget_peak()
    with contextlib.suppress(ValueError):  # opened or refused, never unpacked
        np.testing.assert_array_equal(pixels(path), COLOUR)
    assert peak() - before < 100 << 20


def test_list_images_is_sorted_and_relative(tmp_path):
    for name in (
        "b/x.JPG",
        "a.png",
        "B.jpeg",
        "b/c/y.webp",
        "notes.txt",
        ".hidden.png",
        ".dir/z.png",
        "b/._x.JPG",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    listed = list_images(tmp_path)
    assert listed.ids == ("B.jpeg", "a.png", "b/c/y.webp", "b/x.JPG")
    assert len(listed) == 4


def test_list_images_without_images(tmp_path):
    with pytest.raises(ValueError, match="found none in it"):
        list_images(tmp_path)
    with pytest.raises(ValueError, match="found no folder"):
        list_images(tmp_path / "nowhere")


def test_links_stay_inside(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    Image.fromarray(COLOUR).save(inside / "a.png")
    Image.fromarray(COLOUR).save(outside / "b.png")
    os.symlink("a.png", inside / "link.png")
    os.symlink(".", inside / "loop")
    assert list_images(inside).ids == ("a.png", "link.png")
    (tmp_path / "alias").symlink_to(inside)
    assert list_images(tmp_path / "alias").ids == ("a.png", "link.png")
    os.symlink(outside, inside / "away")
    with pytest.raises(ValueError, match="found a link to"):
        list_images(inside)
    (inside / "away").unlink()
    os.symlink(outside / "b.png", inside / "b.png")
    with pytest.raises(ValueError, match="found a link to"):
        list_images(inside)


@pytest.mark.parametrize("name", ["a\nb.png", " a.png", "d /\u2028x.png"])
def test_names_that_cannot_stand_on_a_line(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="line breaks"):
        list_images(tmp_path)


def test_check_images_names_exactly_the_broken_ones(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    images = list_images(tmp_path)
    refusals = check_images(images)
    assert [name for name, _ in refusals] == ["bad.png", "empty.png"]
    assert images.open("good.png").size == (8, 8)


def test_what_pillow_opens_is_read_and_the_rest_is_counted_by_suffix(tmp_path):
    image = Image.fromarray(COLOUR)
    for name, kind in (
        ("a.jpg", None), ("b.png", None), ("c.GIF", "GIF"), ("d.avif", None), ("e.jfif", "JPEG"), ("f.jpe", "JPEG"),
        ("g.ppm", None), ("h.jp2", None), ("i.apng", "PNG"), ("j.dib", "DIB"), ("k.pgm", "PPM"),
    ):  # fmt: skip
        image.save(tmp_path / name, kind)
    (tmp_path / "x").mkdir()
    for name in ("l.heic", "x/m.HEIC", "n.txt", "README", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"\0")
    listed = list_images(tmp_path)
    assert [name[0] for name in listed.ids] == list("abcdefghijk")
    assert listed.left_out == {"": 1, ".heic": 2, ".txt": 1}
    for name in listed.ids:
        assert listed.open(name).size == (8, 8)
    for name in list("abcdefghijk"):
        next(tmp_path.glob(f"{name}.*")).unlink()
    with pytest.raises(ValueError, match=r"found only 2 \.heic, 1 without a suffix, 1 \.txt .* convert"):
        list_images(tmp_path)


def test_of_several_frames_the_first_counts(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "b.apng", "c.webp", "d.tif"):
        kind = {"b": "PNG", "c": "WEBP"}.get(name[0])
        more = {"lossless": True} if kind == "WEBP" else {}
        frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:], **more)
        np.testing.assert_array_equal(pixels(tmp_path / name)[0, 0], (255, 0, 0))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_orientation_is_told_and_followed_only_where_it_is_asked_for(tmp_path, turn, ending):
    from PIL import ImageOps

    from alignet.data.pixels import PixelPolicy

    exif = Image.Exif()
    exif[0x112] = turn
    stored = Image.fromarray(np.kron(COLOUR[:6], np.ones((8, 8, 1), np.uint8)))
    path = saved(tmp_path, stored, f"a{ending}", exif=exif, **({} if ending == ".png" else {"quality": 100}))
    with Image.open(path) as opened:
        plain, shown = np.asarray(opened.convert("RGB")), np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(pixels(path), plain)
    assert open_image(path).info["orientation"] == turn
    turned = open_image(path, policy=PixelPolicy(orientation="exif"))
    np.testing.assert_array_equal(np.asarray(turned), shown)
    assert turned.info["orientation"] == 1
    with pytest.raises(ValueError, match="orientation: expected stored or exif, found 'up'"):
        PixelPolicy(orientation="up")
