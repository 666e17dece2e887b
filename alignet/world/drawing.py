"""Draws the pictures of the embedded world with Pillow: one object before a background.

What marks a category is a set of parts (eyes and legs, wheels, a stem with a leaf, ...), drawn in any
colour. What marks a concept within it is its look: outline, hue and texture, which say nothing about
the category. Pose, part sizes, part colours, shades and background differ from picture to picture.

Object coordinates: the body reaches about 0.8 from the origin, y points up.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

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

Colour = tuple[int, int, int]
Points = np.ndarray


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
    pose: np.ndarray  # (2, 3): object coordinates to pixels
    rng: np.random.Generator

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fill the polygon (k, 2), given in object coordinates."""
        self.pen.polygon(self.pixels(points), fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle in object coordinates."""
        self.polygon(_CIRCLE * radius + (x, y), colour)

    def bar(self, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour) -> None:
        """Fill a straight bar between two points, `width` wide."""
        along = np.subtract(end, start)
        across = np.array([-along[1], along[0]]) * (width / 2 / max(float(np.hypot(*along)), 1e-6))
        a, b = np.asarray(start), np.asarray(end)
        self.polygon(np.stack([a - across, b - across, b + across, a + across]), colour)

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """The points (k, 2) as pixel positions."""
        moved = points @ self.pose[:, :2].T + self.pose[:, 2]
        return [(x, y) for x, y in moved.tolist()]


def draw(look: Look, background: int, size: int, rng: np.random.Generator) -> Image.Image:
    """One picture, RGB, size x size pixels. background: index into BACKGROUNDS."""
    large = size * _OVERSAMPLING
    image = _background(background, size, rng).resize((large, large), Image.Resampling.BILINEAR)
    canvas = Canvas(image, ImageDraw.Draw(image), _pose(large, rng), rng)
    stretch = np.array([look.aspect**0.5, look.aspect**-0.5])
    behind, before = _PARTS[CATEGORIES[look.category]]
    behind(canvas, stretch, _part_colour(rng))
    _body(canvas, look, stretch)
    before(canvas, stretch, _part_colour(rng))
    return image.reduce(_OVERSAMPLING)


def _pose(pixels: int, rng: np.random.Generator) -> np.ndarray:
    turn = rng.normal(0, 0.1)
    scale = pixels * rng.uniform(0.22, 0.27)
    flip = rng.choice((-1.0, 1.0))
    middle = pixels * (0.5 + rng.uniform(-0.04, 0.04, 2))
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    return np.array([[flip * cos, -sin, middle[0]], [-flip * sin, -cos, middle[1]]])


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
    first = np.array(_rgb(hue, rng.uniform(0, 0.5), rng.uniform(0.35, 0.9)), dtype=np.float32)
    second = np.array(_rgb(hue + spread, rng.uniform(0, 0.5), rng.uniform(0.35, 0.9)), dtype=np.float32)
    y, x = np.mgrid[0:size, 0:size] / size
    name = BACKGROUNDS[kind]
    if name == "plain":
        share = np.zeros((size, size))
    elif name == "slope":
        share = (np.cos(turn := rng.uniform(0, 2 * np.pi)) * (x - 0.5) + np.sin(turn) * (y - 0.5)) + 0.5
    elif name == "horizon":
        share = (y > rng.uniform(0.4, 0.7)).astype(float)
    elif name == "boards":
        share = (np.floor(x * rng.uniform(3, 6) + rng.random()) % 2).astype(float)
    else:
        cells = 5 if name == "blotches" else 24
        coarse = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        share = np.asarray(coarse.resize((size, size), Image.Resampling.BILINEAR)) / 255
    share = np.clip(share, 0, 1)[..., None]
    return Image.fromarray((first + (second - first) * share).astype(np.uint8))


def _body(canvas: Canvas, look: Look, stretch: np.ndarray) -> None:
    rng = canvas.rng
    points = _outline(OUTLINES[look.outline]) * stretch * _BODY
    mask = Image.new("L", canvas.image.size)
    ImageDraw.Draw(mask).polygon(canvas.pixels(points), fill=255)
    box = mask.getbbox()
    if box is None:
        return
    hue = look.hue / len(COLOURS) + rng.uniform(-0.04, 0.04)
    light = np.array(_rgb(hue, rng.uniform(0.65, 1), rng.uniform(0.8, 1)), dtype=np.float32)
    dark = light * rng.uniform(0.45, 0.65)
    # texture at half resolution: it is averaged down afterwards anyway
    left, top, right, bottom = box
    width, height = max((right - left) // 2, 1), max((bottom - top) // 2, 1)
    v, u = np.mgrid[top : bottom : height * 1j, left : right : width * 1j]
    back = np.linalg.inv(canvas.pose[:, :2])
    u, v = u - canvas.pose[0, 2], v - canvas.pose[1, 2]
    x, y = back[0, 0] * u + back[0, 1] * v, back[1, 0] * u + back[1, 1] * v
    share = _texture(TEXTURES[look.texture], x, y, look.fineness * rng.uniform(0.9, 1.1), rng.random())
    filled = (dark + (light - dark) * share[..., None].astype(np.float32)).astype(np.uint8)
    patch = Image.fromarray(filled).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    canvas.image.paste(patch, (left, top), mask.crop(box))


def _texture(name: str, x: np.ndarray, y: np.ndarray, cycles: float, phase: float) -> np.ndarray:
    """Share of the light shade at object coordinates x, y, within [0, 1]."""
    if name == "plain":
        return np.ones_like(x)
    wave = np.pi * cycles
    if name == "stripes":
        return (np.sin(wave * (0.9 * x + 0.4 * y) + 2 * np.pi * phase) > 0).astype(float)
    if name == "dots":
        return (np.cos(wave * x + phase) * np.cos(wave * y + phase) < 0.35).astype(float)
    if name == "checks":
        return ((np.sin(wave * x + phase) > 0) ^ (np.sin(wave * y + phase) > 0)).astype(float)
    if name == "rings":
        return (np.sin(1.2 * wave * np.hypot(x, y) + phase) > 0).astype(float)
    return (y > 0.3 * (phase - 0.5)).astype(float)  # halves


def _outline(name: str) -> Points:
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
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


# Parts: what is drawn behind the body and what before it. One kind of part belongs to a category, another
# to two related ones (eyes, leaves, windows, bands). `stretch` (2,) is half the size of an unscaled body.
Part = Callable[[Canvas, np.ndarray, Colour], None]


def _legs(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    wide, high = stretch
    length, thick = canvas.rng.uniform(0.5, 0.8), canvas.rng.uniform(0.22, 0.32)
    for x in (-0.65, -0.22, 0.22, 0.65):
        foot = (x * wide + canvas.rng.uniform(-0.1, 0.1), -0.7 * high - length)
        canvas.bar((x * wide, -0.3 * high), foot, thick, colour)


def _wings(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    wide, lift = stretch[0], canvas.rng.uniform(0.0, 0.4)
    span = canvas.rng.uniform(0.7, 1.0)
    for side in (-1, 1):
        tip = np.array([side * (wide * 0.6 + span), lift + 0.5])
        points = np.array([[side * 0.3 * wide, 0.3], tip, tip - (0, 0.8), [side * 0.3 * wide, -0.4]])
        canvas.polygon(points, colour)


def _eyes(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    wide, high = stretch
    radius = canvas.rng.uniform(0.24, 0.32)
    for x in (-0.35, 0.35):
        canvas.disc(x * wide, 0.25 * high, radius, (250, 250, 250))
        canvas.disc(x * wide + 0.05, 0.25 * high, radius * 0.55, (10, 10, 10))


def _stem(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    high, length = stretch[1], canvas.rng.uniform(0.5, 0.75)
    canvas.bar((0, 0.5 * high), (canvas.rng.uniform(-0.15, 0.15), 0.8 * high + length), 0.24, colour)


def _pot(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    top, wide = -0.7 * stretch[1] - 0.1, canvas.rng.uniform(0.6, 0.8)
    canvas.bar((0, 0), (0, top), 0.25, colour)
    points = [[-wide, top], [wide, top], [wide * 0.65, top - 0.7], [-wide * 0.65, top - 0.7]]
    canvas.polygon(np.array(points), colour)


def _leaf(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    high, length = stretch[1], canvas.rng.uniform(0.85, 1.1)
    blade = np.array([[0, 0], [0.3, 0.35], [0.7, 0.42], [1, 0.2], [0.7, -0.05], [0.3, -0.1]])
    for side in (-1, 1):
        canvas.polygon(blade * (side * length, 0.9) + np.array([0, 0.8 * high]), colour)


def _wheels(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    wide, high = stretch
    radius = canvas.rng.uniform(0.38, 0.48)
    hub = (255 - colour[0], 255 - colour[1], 255 - colour[2])
    for x in (-0.6, 0.6):
        canvas.disc(x * wide, -0.85 * high, radius, colour)
        canvas.disc(x * wide, -0.85 * high, radius * 0.4, hub)


def _roof(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    wide, high = stretch
    peak, eaves = canvas.rng.uniform(0.6, 0.9), 1.15 * wide
    points = [[-eaves, 0.5 * high], [eaves, 0.5 * high], [0, 0.7 * high + peak]]
    canvas.polygon(np.array(points), colour)


def _windows(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    wide, half = stretch[0], canvas.rng.uniform(0.17, 0.23)
    for x in (-0.36 * wide, 0.36 * wide):
        canvas.bar((x, -half), (x, half), 2 * half + 0.14, (20, 20, 20))
        canvas.bar((x, -half + 0.08), (x, half - 0.08), 2 * half, (170, 220, 255))


def _shaft(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    x, end = canvas.rng.uniform(-0.1, 0.1), -0.7 * stretch[1] - canvas.rng.uniform(0.8, 1.1)
    canvas.bar((x, -0.3), (x, end), canvas.rng.uniform(0.34, 0.44), colour)
    canvas.disc(x, end, 0.32, colour)


def _ear(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    radius = canvas.rng.uniform(0.6, 0.75)
    ring = np.concatenate([_CIRCLE, _CIRCLE[:1], _CIRCLE[:1] * 0.55, _CIRCLE[::-1] * 0.55])
    canvas.polygon(ring * radius + (0.85 * stretch[0] + 0.15, 0), colour)


def _band(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    half, y = canvas.rng.uniform(0.85, 1.0) * stretch[0], 0.5 * stretch[1]
    canvas.bar((-half, y), (half, y), 0.34, (60, 60, 60))
    canvas.bar((-half, y), (half, y), 0.2, (225, 225, 225))


def _roof_and_windows(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    _roof(canvas, stretch, colour)
    _windows(canvas, stretch, colour)


def _wheels_and_windows(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
    _wheels(canvas, stretch, colour)
    _windows(canvas, stretch, colour)


def _nothing(canvas: Canvas, stretch: np.ndarray, colour: Colour) -> None:
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
