"""From an error to one clear message, where its user can mend it."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Sequence
from typing import Any

from alignet.pipeline import conf
from alignet.pipeline.overrides import compose

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain(error: BaseException, typed: Sequence[str] = ()) -> str | None:
    """One message for an error that its user can mend; None for a defect of ours (a traceback helps).

    typed: the command line, whose experiment says which keys there are.
    """
    from alignet.runtime.artifacts import ArtifactError

    ours = isinstance(error, (ArtifactError, ValueError, FileNotFoundError)) and not _is_foreign(error)
    if ours and not isinstance(error, UnicodeDecodeError):  # a codec's message names no file
        return shortened(str(error))
    number = _system_error(error)
    if number in DISK_FULL:
        what = getattr(error, "filename", None) or "a file"
        return (
            f"no room to write {what} ({os.strerror(number)}); what was finished is kept: "
            f"free space, or set paths.artifacts to another disk, and run the same command again."
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"cannot write or read {error.filename}: {error.strerror}; check its permissions or paths.artifacts."
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        name = max(str(error.filename).split("/"), key=len)
        return (
            f"expected names of at most 255 bytes, found one of {len(name):,} that begins with {name[:60]!r}; check "
            "the command line, the configuration, and the names of files."
        )
    return _explain_hydra(error, typed)


def meets_all(error: BaseException) -> bool:
    """Whether what ended one node would end the others as well: no room, a disk that takes nothing, no memory."""
    return _system_error(error) in (*DISK_FULL, errno.EROFS, errno.EIO) or isinstance(error, MemoryError)


def shortened(text: str, most: int = 1500) -> str:
    """A message of at most so many characters: one that quotes a cell of thousands is no help."""
    return text if len(text) <= most else f"{text[: most - 400]} ... {text[-390:]}"


def _system_error(error: BaseException) -> int:
    """The error number of the operating system behind an error, 0 if there is none."""
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", str(error)):
        return errno.ENOSPC  # numpy forgets the number
    if isinstance(error, OSError):
        return error.errno or 0
    told = re.search(r"\(os error (\d+)\)", str(error))  # safetensors puts it into words
    return int(told.group(1)) if told else 0


def _is_foreign(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("hydra", "omegaconf", "json")


def _explain_hydra(error: BaseException, typed: Sequence[str]) -> str | None:
    if type(error).__module__.partition(".")[0] not in ("hydra", "omegaconf"):
        return None
    text = " ".join(str(error.__cause__ or error).split())
    found = re.search(r"Key '([^']+)' is not in struct", text) or re.search(
        r"Could not override '([^']+)'", text
    )
    if found:
        key = re.search(r"full_key: (\S+)", text)
        name = key.group(1) if key else found.group(1)
        known = [key for key in _known_keys(typed) if key != name]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        return (
            f"no configuration key {name!r}.{meant} The keys and their meaning are in {conf.conf_folder()}."
        )
    lost = re.search(r"Could not find '(\w+)/([^']+)'", text)
    if lost and conf.names_in(lost[1]):
        names = conf.names_in(lost[1])
        folder, slash, last = lost[2].rpartition("/")  # of ablation/imagse, those of ablation
        inside = [name.removeprefix(folder + slash) for name in names if name.startswith(folder + slash)]
        near = difflib.get_close_matches(last, inside, n=1, cutoff=0.6)
        meant = f" Did you mean {folder}{slash}{near[0]}?" if near else ""
        fitting = [folder + slash + name for name in inside] or names
        return f"{lost[1]}: expected one of {', '.join(fitting)}, found {lost[2]!r}.{meant}"
    return f"the configuration could not be read: {text[:1000]}"


_CHOICES = re.compile(
    r"\+?(experiment|base|student|teacher|recipe|also)=[^,]*"
)  # of files, with one value each


def _known_keys(typed: Sequence[str]) -> list[str]:
    """Every key of the configuration that a command line chooses, or where that cannot be read, of the default one."""

    def walk(value: Any, prefix: str) -> list[str]:
        if not isinstance(value, dict):
            return [prefix]
        return [
            key for name, item in value.items() for key in walk(item, f"{prefix}.{name}" if prefix else name)
        ]

    try:
        return walk(compose([item for item in typed if _CHOICES.fullmatch(item)]), "")
    except Exception:  # the choice itself may be what is wrong
        return walk(compose([]), "")
