"""WordNet ids in file names, as ImageNet has them: n02666196_abacus.jpg."""

from __future__ import annotations

import re


def wordnet_id(name: str) -> str:
    """The WordNet id of the folder that a file lies in, or else the one that its name starts with, or ''."""
    folder, _, base = name.rpartition("/")
    parent = folder.rpartition("/")[2]
    match = re.fullmatch(r"n\d{8}", parent) or re.match(r"n\d{8}(?=\D|$)", base)
    return match.group() if match else ""
