"""The features before and after alignment as a figure of the page, in both looks; alignment_figures.py draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignet.report.alignment_figures import concepts_figure, neighbour_share
from alignet.report.blocks import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from alignet.report.blocks import Look


def before_and_after(
    before: np.ndarray, after: np.ndarray, categories: Sequence[str], *, caption: str, what: str = "concepts"
) -> Figure:
    """PCA of features (m, p) before and after; caption: what concepts_before_and_after says below its own."""

    def draw(look: Look) -> Drawing:
        return concepts_figure(before, after, categories, ink=look.ink, faint=look.faint, paper=look.paper,
                               hues=look.hues, spine=look.faint)  # fmt: skip

    shares = [neighbour_share(x, categories)[0] for x in (before, after)]
    went = "rises" if shares[1] > shares[0] else "falls" if shares[1] < shares[0] else "stays"
    kind = {"concepts": "category", "images": "cluster"}[what]
    seen = f"The share of {what} whose nearest neighbour has the same {kind} {went} "
    seen += f"at {shares[1]:.0%}." if went == "stays" else f"from {shares[0]:.0%} to {shares[1]:.0%}."
    return Figure(
        name="before_and_after", title="Features before and after alignment", draw=draw,
        caption=f"{caption[:1].upper()}{caption[1:]} {seen}",
        alt=f"Two scatters of {what} on two principal components, original and AligNet, coloured by {kind}. {seen}",
    )  # fmt: skip
