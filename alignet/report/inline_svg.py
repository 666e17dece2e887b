"""A figure's SVG as a part of the page itself: no second copy for the other look where looks differ in colours alone.

SVG of matplotlib in both looks -> one or two pieces of HTML, whose colours are the page's CSS variables. No line or
letter is lost: comments, ids that nothing refers to and white space are left out, and ids renamed, since a page has
each id once.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from alignet.report.blocks import DARK, LIGHT, Look

_OUTSIDE = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL
)
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(?:xlink:)?href="#([^"]*)"|url\(#([^)]*)\)')
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_SIZE = re.compile(r'<svg [^>]*viewBox="0 0 ([0-9.]+) ')
POINTS = 72  # of an inch


def variables(look: Look) -> dict[str, str]:
    """Name of each CSS variable that figures use -> its colour in a look."""
    named = {"ink": look.ink, "paper": look.paper, "faint": look.faint}
    return named | {f"hue{place}": hue for place, hue in enumerate(look.hues)}


def inline(light: bytes, dark: Callable[[], bytes], prefix: str, alt: str) -> list[tuple[str, str]]:
    """Pieces of HTML as (class, svg): one for both looks, or one for each where more than hues differs.

    dark: draws the figure in the dark look; called only where the light one has an image or a colour that no variable
    names, since a figure takes its look for colours alone. prefix: letters and digits of ids, different for every
    figure of a page.
    """
    text = _compact(light.decode("utf-8"), LIGHT, f"{prefix}l", alt)
    if "<image" not in text and not _COLOUR.search(text):
        return [("on-both", text)]
    other = dark().decode("utf-8")
    if _compact(other, DARK, f"{prefix}l", alt) == text:
        return [("on-both", text)]
    return [("on-light", text), ("on-dark", _compact(other, DARK, f"{prefix}d", alt))]


def inches(svg: bytes) -> float:
    """The width of a figure."""
    found = _SIZE.search(svg.decode("utf-8"))
    assert found is not None  # matplotlib wrote it
    return float(found[1]) / POINTS


def _compact(text: str, look: Look, prefix: str, alt: str) -> str:
    from markupsafe import escape

    text = re.sub(r">\s+<", "><", _OUTSIDE.sub("", text).replace("\n", " ")).strip()
    used = list(dict.fromkeys(one or other for one, other in _REFERENCE.findall(text)))
    names = {name: f"{prefix}{place}" for place, name in enumerate(used)}
    text = _ID.sub(lambda found: f' id="{names[found[1]]}"' if found[1] in names else "", text)
    text = _REFERENCE.sub(
        lambda found: f'href="#{names[found[1]]}"' if found[1] else f"url(#{names[found[2]]})", text
    )
    colours = {colour: f"var(--{name})" for name, colour in variables(look).items()}
    text = _COLOUR.sub(lambda found: colours.get(found[0], found[0]), text)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None
    head = f'<svg {view[0]} role="img" aria-label="{escape(alt)}">'
    return re.sub(r"<svg [^>]*>", lambda _: head, text, count=1)
