"""Ways to damage a file: the first half of `python -m tests.fuzz`, which feeds the results to every reader.

seed file -> mutated bytes, and whether the mutation sealed them again (made checksums that fit)

A mutation draws from an explicit generator alone, so that an input is known by the seed, its kind and its number.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable

NUMBERS = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (
    b"nan", b"NaN", b"inf", b"-inf", b"1e400", b"-1", b"0", b"1.5", b"1e3", b"99999999999999999999", b"", b" ", b'"',
    b'""', b"'", b"\0", b"\r", b"\r\n", b"\n\n", b",", b";", b"\t", b",,,,", b"\xef\xbb\xbf", b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbc\x91", b"1_0", b"0x10", b"None", b"../../etc/passwd", b"/etc/passwd", b"\\", b"x" * 5000,
    b"9" * 5000, b"#",
    b"[" * 3000, b"{", b"null", b"true", b"1e999999999", b"\xc2\xa0", b"\xe2\x80\xa8",
)  # fmt: skip


def flip(data: bytearray, chance: random.Random) -> bytearray:
    """One to eight bits turned."""
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def cut(data: bytearray, chance: random.Random) -> bytearray:
    """The end missing, or the beginning."""
    place = chance.randrange(len(data))
    return data[:place] if chance.random() < 0.8 else data[place:]


def splice(data: bytearray, chance: random.Random) -> bytearray:
    """A piece repeated, moved, removed or overwritten by another."""
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    piece, place = data[start : min(end, start + 4096)], chance.randrange(len(data) + 1)
    how = chance.randrange(4)
    if how == 0:
        return data[:place] + piece + data[place:]
    if how == 1:
        return data[:start] + data[start + len(piece) :]
    if how == 2:
        data[place : place + len(piece)] = piece
        return data
    return data + piece


def number(data: bytearray, chance: random.Random) -> bytearray:
    """A field of 1, 2, 4 or 8 bytes set to a number that lengths and sizes break on."""
    width = chance.choice((1, 2, 4, 8))
    near_the_start = min(len(data), 512)
    place = chance.randrange(near_the_start if chance.random() < 0.7 else len(data))
    value = chance.choice(NUMBERS) % 256**width
    data[place : place + width] = value.to_bytes(width, chance.choice(("little", "big")))
    return data


def noise(data: bytearray, chance: random.Random) -> bytearray:
    """A stretch of random bytes, or nothing but such."""
    if chance.random() < 0.1:
        return bytearray(chance.randbytes(chance.choice((0, 1, 3, 64, 1000))))
    place, size = chance.randrange(len(data)), chance.choice((1, 4, 64))
    data[place : place + size] = chance.randbytes(size)
    return data


def word(data: bytearray, chance: random.Random) -> bytearray:
    """A word that readers of text stumble on, put in or in the place of another."""
    found = list(re.finditer(rb"[^\s,;\t]+", bytes(data[:200_000])))
    new = chance.choice(WORDS)
    if found and chance.random() < 0.7:
        old = chance.choice(found)
        return data[: old.start()] + new + data[old.end() :]
    place = chance.choice((0, len(data), chance.randrange(len(data) + 1)))
    return data[:place] + new + data[place:]


def lines(data: bytearray, chance: random.Random) -> bytearray:
    """A line doubled, dropped or moved; other ends of lines; another encoding; another separator; a mark before it."""
    parts = bytes(data).split(b"\n")
    how = chance.randrange(8)
    if how < 3:
        one = parts.pop(chance.randrange(len(parts)))
        for _ in range(how):
            parts.insert(chance.randrange(len(parts) + 1), one)
        return bytearray(b"\n".join(parts))
    if how == 3:
        return bytearray(bytes(data).replace(b"\n", chance.choice((b"\r\n", b"\r", b"\n\n"))))
    if how == 4:
        encoding = chance.choice(("utf-16", "utf-32", "utf-16-le", "utf-8-sig"))
        return bytearray(bytes(data).decode("utf-8", "replace").encode(encoding))
    if how == 5:
        return bytearray(bytes(data).replace(b",", chance.choice((b";", b"\t", b"|", b", "))))
    if how == 6:
        return bytearray(b"\xef\xbb\xbf") + data
    quoted = [b",".join(b'"' + cell + b'"' for cell in part.split(b",")) if part else part for part in parts]
    return bytearray(b"\n".join(quoted))


BINARY: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (flip, cut, splice, number, noise)
TEXT = (word, word, lines, cut, splice, flip)


def mutate(data: bytes, chance: random.Random, text: bool) -> bytes:
    """One to three mutations, one after the other."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if changed:
            changed = chance.choice(TEXT if text else BINARY)(changed, chance)
    return bytes(changed)


def seal_png(data: bytes) -> bytes:
    """The chunks of a mutated PNG with checksums that fit, as far as there are chunks."""
    sealed, place = data[:8], 8
    while place + 12 <= len(data):
        size = struct.unpack(">I", data[place : place + 4])[0]
        body = data[place + 4 : place + 8 + size]
        sealed += data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + size
    return sealed


def seal_tar(data: bytes) -> bytes:
    """A mutated tar whose headers have sums that fit."""
    blocks = [bytearray(data[start : start + 512]) for start in range(0, len(data), 512)]
    for block in blocks:
        if len(block) == 512 and block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = f"{sum(block):06o}\0 ".encode()
    return b"".join(blocks)
