"""WordNet ids in file names, as ImageNet has them: n02666196_abacus.jpg."""

from __future__ import annotations

import re


def wordnet_id(name: str) -> str:
    """The WordNet id that a file's name starts with (folders before it are ignored), or ''."""
    match = re.match(r"n\d{8}(?=\D|$)", name.rsplit("/", 1)[-1])
    return match.group() if match else ""
