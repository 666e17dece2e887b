"""The survey's page: one HTML file that holds its pictures and needs no network, no library and no server.

    images, triplets to ask -> page.html, survey.json -> participants -> a JSON file from each -> import
    identically represented inputs, an InvertedSurvey -> the same

The page itself, its style and its script are in `page.html`, a template of Jinja, in which the kinds of surveys differ
by some lines; here its pictures are made and its data is put in.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alignet.runtime.progress import progress
from alignet.survey.matching import Inverted
from alignet.survey.survey import InvertedSurvey, Survey, plan_survey

TEMPLATE = Path(__file__).with_name("page.html")
PLACE = "{{survey}}"
_CROP = 0.05  # of each side, taken off the copy of a picture in a catch trial


@dataclass(frozen=True)
class Texts:
    """What the survey says in its maker's words; blank lines part paragraphs, and markup is shown as it is typed."""

    title: str
    consent: str
    hand_in: str  # what to do with the file at the end


def build_page(
    objects: Sequence[str],
    open_image: Callable[[str], Image.Image],
    triplets: np.ndarray,
    *,
    texts: Texts,
    trials: int,
    catch: int,
    practice: int,
    pixels: int,
    quality: int,
    max_megabytes: float,
    seed: int,
    dead_ms: float = 0,
) -> tuple[str, Survey]:
    """The page's HTML, and the survey that `import_answers` needs to understand its answers.

    objects: image ids; `open_image` gives each as RGB. triplets: (n, 3) int of them, each once; a participant is
    asked `trials` of them, drawn by the participant's random id, and all catch trials, in an order of their own.
    pixels: the longest side on screen; larger images are scaled down to it, smaller ones are stored as they are and
    enlarged on screen. quality: JPEG's, 1..95. max_megabytes: of the page (10^6 bytes); ValueError above.
    dead_ms: so many milliseconds after a question appears, clicks and keys are counted but answer nothing.
    The same arguments give the same bytes.
    """
    jpegs, thumbnails = [], []
    with progress("survey pictures", len(objects), "images") as advance:
        for name in objects:
            picture = _fitted(open_image(name), pixels)
            jpegs.append(_jpeg(picture, quality))
            thumbnails.append(np.asarray(picture.resize((8, 8)), dtype=np.float32).ravel())
            advance()
    looks = np.stack(thumbnails)
    different = np.stack([np.abs(looks - one).mean(1) for one in looks])
    plan = plan_survey(
        objects, triplets, different=different, trials=trials, catch=catch, practice=practice, seed=seed
    )
    pictures = [jpegs[shown] for shown in plan.pictures]
    for _, copy, _ in plan.catch:
        shown = objects[plan.pictures[copy]]
        pictures[copy] = _jpeg(_fitted(_cropped(open_image(shown)), pixels), quality)
    copies = {copy for _, copy, _ in plan.catch}
    own = {shown: number for number, shown in enumerate(plan.pictures) if number not in copies}
    content: dict[str, Any] = {
        "survey": "", "pixels": pixels, "dead_ms": dead_ms, **dataclasses.asdict(texts), "trials": trials,
        "shared": [[own[item] for item in row] for row in plan.triplets],
        "everyone": [sorted(row) for row in plan.catch], "practice": plan.practice,
        "pictures": [_url("jpeg", jpeg) for jpeg in pictures],
    }  # fmt: skip
    name, html = _filled("odd_one_out", content)
    _check_size(len(html.encode()), len(pictures), pixels, max_megabytes)
    return html, dataclasses.replace(plan, id=name)


def build_matching_page(
    inverted: Inverted,
    plan: InvertedSurvey,
    *,
    texts: Texts,
    pixels: int,
    quality: int,
    lossless: bool,
    max_megabytes: float,
    dead_ms: float = 0,
) -> tuple[str, InvertedSurvey]:
    """The page's HTML of a survey that `plan_matching` drew about `inverted`, and that survey with its id.

    lossless: pictures are PNG, every pixel as it is stored, unless they are larger than `pixels`; else JPEG of
    `quality`. The rest as in `build_page`.
    """
    unique = list(dict.fromkeys(plan.pictures))
    encoded = []
    with progress("survey pictures", len(unique), "images") as advance:
        for one in unique:
            picture = _fitted(inverted.picture(one), pixels)
            encoded.append(_url("png", _png(picture)) if lossless else _url("jpeg", _jpeg(picture, quality)))
            advance()
    place = {one: number for number, one in enumerate(unique)}
    content: dict[str, Any] = {
        "survey": "", "pixels": pixels, "dead_ms": dead_ms, **dataclasses.asdict(texts), "trials": plan.trials,
        "catch": plan.catch, "blocks": [one._asdict() for one in plan.blocks], "practice": plan.practice,
        "shows": [place[one] for one in plan.pictures], "pictures": encoded,
    }  # fmt: skip
    name, html = _filled(plan.kind, content)
    if len(html.encode()) > max_megabytes * 1e6 and lossless:
        raise ValueError(
            f"the survey's page: expected at most {max_megabytes:g} MB, found {len(html.encode()) / 1e6:.1f} MB for "
            f"{len(unique)} pictures; ask about fewer (survey.triplets, survey.objects), store them as JPEG "
            "(survey.lossless=false), or raise survey.max_megabytes."
        )
    _check_size(len(html.encode()), len(unique), pixels, max_megabytes)
    return html, dataclasses.replace(plan, id=name)


def _filled(kind: str, content: dict[str, Any]) -> tuple[str, str]:
    """A survey's id, a hash of its page, and the page with it."""
    template = _template(kind)
    # a letter first: a command line must not take it for a number
    name = "s" + hashlib.sha256((template + _script_json(content)).encode()).hexdigest()[:11]
    return name, template.replace(PLACE, _script_json(content | {"survey": name}))


def _template(kind: str) -> str:
    """The page of a kind, its data still to be put in."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return page.render(kind=kind, survey=PLACE)


def _script_json(content: Any) -> str:
    """JSON that can stand inside <script>: no character that could end it."""
    text = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _fitted(image: Image.Image, pixels: int) -> Image.Image:
    longest = max(image.size)
    if longest <= pixels:
        return image
    size = tuple(max(1, round(side * pixels / longest)) for side in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    x, y = int(width * _CROP), int(height * _CROP)
    return image.crop((x, y, width - x, height - y))


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def _check_size(size: int, pictures: int, pixels: int, max_megabytes: float) -> None:
    if size > max_megabytes * 1e6:
        raise ValueError(
            f"the survey's page: expected at most {max_megabytes:g} MB, found {size / 1e6:.1f} MB for {pictures} "
            f"pictures of {pixels} pixels; ask about fewer images (survey.objects), lower survey.pixels or "
            "survey.quality, or raise survey.max_megabytes."
        )
