"""Draws the pictures of the embedded world with Pillow: one object before a background.

What marks a category is a set of parts (eyes and legs, wheels, a stem with a leaf, ...), drawn in any
colour. What marks a concept within it is its look: outline, hue and texture, which say nothing about
the category. Pose, part sizes, part colours, shades and background differ from picture to picture.

Object coordinates: the body reaches about 0.8 from the origin, y points up.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES = ("animal", "insect", "fruit", "plant", "vehicle", "building", "tool", "container")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")
TEXTURES = ("plain", "stripes", "dots", "checks", "rings", "halves")
OUTLINES = ("disc", "square", "triangle", "hexagon", "star", "trefoil", "diamond", "bean")
BACKGROUNDS = ("plain", "slope", "horizon", "blotches", "boards", "noise")

_OVERSAMPLING = 2  # drawn this much larger, then averaged: smooth edges
_BODY = 0.8  # size of the body beside its parts: they mark the category, so they must show
_CIRCLE = np.stack([np.cos(a := np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(a)], 1)
_RING = np.concatenate([_CIRCLE, _CIRCLE[:1], _CIRCLE[:1] * 0.55, _CIRCLE[::-1] * 0.55]).tolist()
_STEPS = np.linspace(0, 1, 256, dtype=np.float32)[:, None]  # of a palette from one colour to another

Colour = tuple[int, int, int]
Points = Iterable[Sequence[float]]
Stretch = tuple[float, float]  # width and height of a body before it is scaled


@dataclass(frozen=True)
class Look:
    """What every picture of a concept shares beside the parts of its category."""

    category: int  # index into CATEGORIES
    hue: int  # index into COLOURS
    texture: int  # index into TEXTURES
    outline: int  # index into OUTLINES
    aspect: float  # width to height of the body, about 0.7 to 1.4
    fineness: float  # cycles of the texture in 2 units of length


@dataclass(frozen=True)
class Canvas:
    """A picture in the making and where the object stands in it."""

    image: Image.Image
    pen: ImageDraw.ImageDraw
    pose: tuple[tuple[float, float, float], ...]  # (2, 3): object coordinates to pixels
    rng: np.random.Generator
    second_pen: ImageDraw.ImageDraw | None = (
        None  # marks on a picture of its own, mode L, where the parts are
    )

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fill the polygon (k, 2), given in object coordinates."""
        corners = self.pixels(points)
        self.pen.polygon(corners, fill=colour)
        if self.second_pen is not None:
            self.second_pen.polygon(corners, fill=255)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle in object coordinates."""
        (u, v), reach = self.pixels([(x, y)])[0], radius * math.hypot(*self.pose[0][:2])
        box = (u - reach, v - reach, u + reach, v + reach)
        self.pen.ellipse(box, fill=colour)
        if self.second_pen is not None:
            self.second_pen.ellipse(box, fill=255)

    def bar(self, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour) -> None:
        """Fill a straight bar between two points, `width` wide."""
        (x0, y0), (x1, y1) = start, end
        half = width / 2 / max(math.hypot(x1 - x0, y1 - y0), 1e-6)
        x, y = (y0 - y1) * half, (x1 - x0) * half  # across
        self.polygon([(x0 - x, y0 - y), (x1 - x, y1 - y), (x1 + x, y1 + y), (x0 + x, y0 + y)], colour)

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """The points (k, 2) as pixel positions."""
        (a, b, c), (d, e, f) = self.pose
        return [(a * x + b * y + c, d * x + e * y + f) for x, y in points]


@dataclass(frozen=True)
class Scene:
    """How far an object's middle may be from the picture's, as a share of the picture's side, and how large it is; 1 is
    the size at which it fits the picture."""

    move: float = 0.04
    scale: float = 1.0


PLAIN = Scene()


def draw(
    look: Look, background: int, size: int, rng: np.random.Generator, scene: Scene = PLAIN
) -> Image.Image:
    """One picture, RGB, size x size pixels. background: index into BACKGROUNDS."""
    return _draw(look, background, size, rng, scene, None)


def draw_with_parts(
    look: Look, background: int, size: int, rng: np.random.Generator, scene: Scene = PLAIN
) -> tuple[Image.Image, Image.Image]:
    """What `draw` gives, and where it shows the parts that mark the category: mode L, 0..255, of the same size."""
    parts = Image.new("L", (size * _OVERSAMPLING,) * 2)
    picture = _draw(look, background, size, rng, scene, parts)
    return picture, parts.reduce(_OVERSAMPLING)


def _draw(
    look: Look, background: int, size: int, rng: np.random.Generator, scene: Scene, parts: Image.Image | None
) -> Image.Image:
    large = size * _OVERSAMPLING
    image = _background(background, large, rng)
    pose = _pose(large, rng, scene)
    canvas = Canvas(image, ImageDraw.Draw(image), pose, rng, ImageDraw.Draw(parts) if parts else None)
    stretch = (look.aspect**0.5, look.aspect**-0.5)
    behind, before = _PARTS[CATEGORIES[look.category]]
    behind(canvas, stretch, _part_colour(rng))
    hidden = _body(canvas, look, stretch)
    if parts is not None:
        parts.paste(0, mask=hidden)
    before(canvas, stretch, _part_colour(rng))
    return image.reduce(_OVERSAMPLING)


def _pose(pixels: int, rng: np.random.Generator, scene: Scene) -> tuple[tuple[float, float, float], ...]:
    turn = rng.normal(0, 0.1)
    scale = pixels * rng.uniform(0.22, 0.27) * scene.scale
    flip = math.copysign(1.0, rng.random() - 0.5)
    across, down = (pixels * (0.5 + rng.uniform(-scene.move, scene.move)) for _ in range(2))
    cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
    return (flip * cos, -sin, across), (-flip * sin, -cos, down)


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return int(red * 255), int(green * 255), int(blue * 255)


def _part_colour(rng: np.random.Generator) -> Colour:
    """Any hue, either dark or light, so that parts stand out and their colour tells nothing."""
    if rng.random() < 0.5:
        return _rgb(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.05, 0.3))
    return _rgb(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.85, 1))


def _background(kind: int, size: int, rng: np.random.Generator) -> Image.Image:
    hue, spread = rng.random(), rng.uniform(0.1, 0.3)
    first = _rgb(hue, rng.uniform(0, 0.5), rng.uniform(0.35, 0.9))
    second = _rgb(hue + spread, rng.uniform(0, 0.5), rng.uniform(0.35, 0.9))
    name = BACKGROUNDS[kind]
    if name == "plain":
        return Image.new("RGB", (size, size), first)
    along = np.arange(size, dtype=np.float32) / size
    share: np.ndarray
    if name == "slope":
        turn = rng.uniform(0, 2 * np.pi)
        share = math.cos(turn) * (along - 0.5) + (math.sin(turn) * (along - 0.5) + 0.5)[:, None]
    elif name == "horizon":
        share = (along > rng.uniform(0.4, 0.7))[:, None]
    elif name == "boards":
        share = (np.floor(along * rng.uniform(3, 6) + rng.random()) % 2)[None]
    else:
        cells = 5 if name == "blotches" else 24
        share = rng.random((cells, cells), dtype=np.float32)
    return _between(first, second, share, (size, size))


def _between(first: Colour, second: Colour, share: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """An image of `size` whose pixels go from the first colour to the second as `share` (h, w) does from 0 to 1.

    A share of fewer rows or columns is stretched. It is one byte a pixel until the end: a palette holds the colours.
    """
    image = Image.fromarray((share.clip(0, 1) * 255).astype(np.uint8))
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    start = np.array(first, np.float32)
    image.putpalette((start + (np.array(second, np.float32) - start) * _STEPS).astype(np.uint8).tobytes())
    return image.convert("RGB")


def _body(canvas: Canvas, look: Look, stretch: Stretch) -> Image.Image:
    """Draw the body; returns where it stands, mode L, 255 inside."""
    rng = canvas.rng
    points = [(x * stretch[0], y * stretch[1]) for x, y in _outline(OUTLINES[look.outline])]
    mask = Image.new("L", canvas.image.size)
    ImageDraw.Draw(mask).polygon(canvas.pixels(points), fill=255)
    box = mask.getbbox()
    if box is None:
        return mask
    hue = look.hue / len(COLOURS) + rng.uniform(-0.04, 0.04)
    light = _rgb(hue, rng.uniform(0.65, 1), rng.uniform(0.8, 1))
    shade = rng.uniform(0.45, 0.65)
    dark = (int(light[0] * shade), int(light[1] * shade), int(light[2] * shade))
    cycles, phase = look.fineness * rng.uniform(0.9, 1.1), rng.random()
    x, y = _inside(canvas.pose, box)
    share = _texture(TEXTURES[look.texture], x, y, cycles, phase)
    left, top, right, bottom = box
    patch = _between(dark, light, share, (right - left, bottom - top))
    canvas.image.paste(patch, (left, top), mask.crop(box))
    return mask


def _inside(
    pose: tuple[tuple[float, float, float], ...], box: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Object coordinates x, y of every second pixel of a box: a texture is averaged down afterwards anyway."""
    left, top, right, bottom = box
    (a, b, across), (c, d, down) = pose
    u = np.linspace(left - across, right - across, max((right - left) // 2, 1), dtype=np.float32)
    v = np.linspace(top - down, bottom - down, max((bottom - top) // 2, 1), dtype=np.float32)[:, None]
    area = a * d - b * c
    return (d * u - b * v) / area, (a * v - c * u) / area


def _texture(name: str, x: np.ndarray, y: np.ndarray, cycles: float, phase: float) -> np.ndarray:
    """Share of the light shade at object coordinates x, y, within [0, 1]."""
    if name == "plain":
        return np.ones((1, 1))
    wave = np.pi * cycles
    if name == "stripes":
        return np.sin(wave * (0.9 * x + 0.4 * y) + 2 * np.pi * phase) > 0
    if name == "dots":
        return np.cos(wave * x + phase) * np.cos(wave * y + phase) < 0.35
    if name == "checks":
        return (np.sin(wave * x + phase) > 0) ^ (np.sin(wave * y + phase) > 0)
    if name == "rings":
        return np.sin(1.2 * wave * np.hypot(x, y) + phase) > 0
    return y > 0.3 * (phase - 0.5)  # halves


@cache
def _outline(name: str) -> tuple[tuple[float, float], ...]:
    """The edge of an unstretched body."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    if name == "disc":
        radius = np.ones_like(angle)
    elif name == "trefoil":
        radius = 0.85 + 0.2 * np.sin(3 * angle)
    elif name == "star":
        radius = np.interp((angle / (2 * np.pi) * 5) % 1, [0, 0.5, 1], [1.15, 0.6, 1.15])
    elif name == "bean":
        radius = 0.95 - 0.3 * np.exp(-((angle - np.pi / 2) ** 2) / 0.15)
    else:
        sides, turn = {"square": (4, 0.5), "triangle": (3, 0.25), "hexagon": (6, 0.5), "diamond": (4, 0.0)}[
            name
        ]
        part = 2 * np.pi / sides
        away = (angle - turn * (part if name != "triangle" else 2 * np.pi)) % part - part / 2
        radius = 1.12 * np.cos(part / 2) / np.cos(away)
    across, up = _BODY * radius * np.cos(angle), _BODY * radius * np.sin(angle)
    return tuple(zip(across.tolist(), up.tolist(), strict=True))


# Parts: what is drawn behind the body and what before it. One kind of part belongs to a category, another
# to two related ones (eyes, leaves, windows, bands). `stretch` is half the size of an unscaled body.
Part = Callable[[Canvas, Stretch, Colour], None]


def _legs(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    wide, high = stretch
    length, thick = canvas.rng.uniform(0.5, 0.8), canvas.rng.uniform(0.22, 0.32)
    for x in (-0.65, -0.22, 0.22, 0.65):
        foot = (x * wide + canvas.rng.uniform(-0.1, 0.1), -0.7 * high - length)
        canvas.bar((x * wide, -0.3 * high), foot, thick, colour)


def _wings(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    wide, lift = stretch[0], canvas.rng.uniform(0.0, 0.4)
    span = canvas.rng.uniform(0.7, 1.0)
    for side in (-1, 1):
        x, root = side * (wide * 0.6 + span), side * 0.3 * wide
        canvas.polygon([(root, 0.3), (x, lift + 0.5), (x, lift - 0.3), (root, -0.4)], colour)


def _eyes(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    wide, high = stretch
    radius = canvas.rng.uniform(0.24, 0.32)
    for x in (-0.35, 0.35):
        canvas.disc(x * wide, 0.25 * high, radius, (250, 250, 250))
        canvas.disc(x * wide + 0.05, 0.25 * high, radius * 0.55, (10, 10, 10))


def _stem(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    high, length = stretch[1], canvas.rng.uniform(0.5, 0.75)
    canvas.bar((0, 0.5 * high), (canvas.rng.uniform(-0.15, 0.15), 0.8 * high + length), 0.24, colour)


def _pot(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    top, wide = -0.7 * stretch[1] - 0.1, canvas.rng.uniform(0.6, 0.8)
    canvas.bar((0, 0), (0, top), 0.25, colour)
    points = [[-wide, top], [wide, top], [wide * 0.65, top - 0.7], [-wide * 0.65, top - 0.7]]
    canvas.polygon(points, colour)


def _leaf(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    high, length = stretch[1], canvas.rng.uniform(0.85, 1.1)
    blade = ((0, 0), (0.3, 0.35), (0.7, 0.42), (1, 0.2), (0.7, -0.05), (0.3, -0.1))
    for side in (-1, 1):
        canvas.polygon([(x * side * length, 0.9 * y + 0.8 * high) for x, y in blade], colour)


def _wheels(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    wide, high = stretch
    radius = canvas.rng.uniform(0.38, 0.48)
    hub = (255 - colour[0], 255 - colour[1], 255 - colour[2])
    for x in (-0.6, 0.6):
        canvas.disc(x * wide, -0.85 * high, radius, colour)
        canvas.disc(x * wide, -0.85 * high, radius * 0.4, hub)


def _roof(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    wide, high = stretch
    peak, eaves = canvas.rng.uniform(0.6, 0.9), 1.15 * wide
    points = [[-eaves, 0.5 * high], [eaves, 0.5 * high], [0, 0.7 * high + peak]]
    canvas.polygon(points, colour)


def _windows(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    wide, half = stretch[0], canvas.rng.uniform(0.17, 0.23)
    for x in (-0.36 * wide, 0.36 * wide):
        canvas.bar((x, -half), (x, half), 2 * half + 0.14, (20, 20, 20))
        canvas.bar((x, -half + 0.08), (x, half - 0.08), 2 * half, (170, 220, 255))


def _shaft(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    x, end = canvas.rng.uniform(-0.1, 0.1), -0.7 * stretch[1] - canvas.rng.uniform(0.8, 1.1)
    canvas.bar((x, -0.3), (x, end), canvas.rng.uniform(0.34, 0.44), colour)
    canvas.disc(x, end, 0.32, colour)


def _ear(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    radius = canvas.rng.uniform(0.6, 0.75)
    middle = 0.85 * stretch[0] + 0.15
    canvas.polygon([(x * radius + middle, y * radius) for x, y in _RING], colour)


def _band(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    half, y = canvas.rng.uniform(0.85, 1.0) * stretch[0], 0.5 * stretch[1]
    canvas.bar((-half, y), (half, y), 0.34, (60, 60, 60))
    canvas.bar((-half, y), (half, y), 0.2, (225, 225, 225))


def _roof_and_windows(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    _roof(canvas, stretch, colour)
    _windows(canvas, stretch, colour)


def _wheels_and_windows(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    _wheels(canvas, stretch, colour)
    _windows(canvas, stretch, colour)


def _nothing(canvas: Canvas, stretch: Stretch, colour: Colour) -> None:
    return


_PARTS: dict[str, tuple[Part, Part]] = {
    "animal": (_legs, _eyes),
    "insect": (_wings, _eyes),
    "fruit": (_stem, _leaf),
    "plant": (_pot, _leaf),
    "vehicle": (_nothing, _wheels_and_windows),
    "building": (_nothing, _roof_and_windows),
    "tool": (_shaft, _band),
    "container": (_ear, _band),
}
