"""Pretrained weights that a configuration takes from a hub: which files they are, whether they are here, a download.

    ModelSettings with weights=hub -> wanted -> cached, listed -> fetch -> the libraries' own cache (HF_HOME)

The libraries find the files there by themselves, so without network the cache and HF_HUB_OFFLINE=1 are enough.
Nothing here is downloaded without being asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMM = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP = ("open_clip_model.safetensors",)
INDEX = "model.safetensors.index.json"  # names the files that weights of several gigabytes are parted into
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")


@dataclass(frozen=True)
class Wanted:
    """Files of one repository. Of each tuple of names, the first that the repository has is the one."""

    repo: str
    revision: str | None
    files: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()  # taken where the repository has them


@dataclass(frozen=True)
class Remote:
    """One file as the hub lists it."""

    wanted: Wanted
    name: str
    size: int | None  # bytes
    sha256: str | None
    commit: str | None = None  # of the repository, as it is now


@dataclass(frozen=True)
class Cached:
    """What of a repository the cache holds: paths of files, names of those that it lacks, and what it does not know.

    unknown: optional files that are not here, where nobody has asked yet whether the repository has them.
    """

    paths: tuple[Path, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def wanted(library: str, architecture: str, tag: str = "") -> list[Wanted]:
    """What a library downloads for an architecture with the hub's weights.

    tag: open_clip's pretrained tag, or a revision for transformers. ValueError for a model that has no weights on the
    Hugging Face hub, and for a library that downloads nothing.
    """
    if library == "timm":
        return _timm(architecture)
    if library == "open_clip":
        return _open_clip(architecture, tag)
    if library == "transformers":
        weights = ("model.safetensors", INDEX)
        files = (("config.json",), ("preprocessor_config.json",), weights)
        return [Wanted(architecture, tag or None, files, TOKENIZER)]
    raise ValueError(
        f"weights=hub: expected a library out of timm, open_clip, transformers, found {library!r}, which downloads "
        f"nothing; set weights to what it needs."
    )


def _timm(architecture: str) -> list[Wanted]:
    import timm

    config = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    if config is None or not config.hf_hub_id:
        raise ValueError(
            f"{architecture}: expected a timm model with weights on the Hugging Face hub, found none; "
            f"timm.list_pretrained() lists them, or give a file with weights=file."
        )
    repo, _, revision = config.hf_hub_id.partition("@")
    return [Wanted(repo, revision or None, ((config.hf_hub_filename,) if config.hf_hub_filename else TIMM,))]


def _open_clip(architecture: str, tag: str) -> list[Wanted]:
    import open_clip

    if architecture.startswith("hf-hub:"):
        repo = architecture.removeprefix("hf-hub:")
        return [Wanted(repo, None, (("open_clip_config.json",), OPEN_CLIP), TOKENIZER)]
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if not config.get("hf_hub"):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(
            f"{architecture}: expected a pretrained tag of open_clip with weights on the Hugging Face hub, found "
            f"{tag!r}; its tags: {tags}."
        )
    repo, _, name = config["hf_hub"].rpartition("/")
    found = [Wanted(repo, None, ((name,) if name else OPEN_CLIP,))]
    tokenizer = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {}).get("hf_tokenizer_name")
    if tokenizer:
        found.append(Wanted(tokenizer, None, (("tokenizer_config.json",),), TOKENIZER))
    return found


def present(one: Wanted) -> list[Path] | None:
    """The files in the cache, or None where one is known to be missing."""
    found = cached(one)
    return None if found.missing else list(found.paths)


def cached(one: Wanted) -> Cached:
    """What the cache holds of the files: one of each tuple, the parts that an index names, and the optional ones."""
    paths: list[Path] = []
    missing: list[str] = []
    unknown: list[str] = []
    for names in one.files:
        here = [path for path in (_path(one, name) for name in names) if isinstance(path, Path)][:1]
        missing += [] if here else [" or ".join(names)]
        paths += here
        for name in _parts(here[0]) if here and here[0].name == INDEX else []:
            part = _path(one, name)
            if isinstance(part, Path):
                paths.append(part)
            else:
                missing.append(name)
    for name in one.optional:
        found = _path(one, name)
        if isinstance(found, Path) and found not in paths:
            paths.append(found)
        elif found is None:
            unknown.append(name)
    return Cached(tuple(paths), tuple(missing), tuple(unknown))


def _path(one: Wanted, name: str) -> Path | bool | None:
    """A file in the cache; False where it is known that the repository has none, None where nothing is known."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(one.repo, name, revision=one.revision)
    return Path(found) if isinstance(found, str) else None if found is None else False


def _parts(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{index}: expected an index of safetensors files with `weight_map`, found another text ({error}); delete "
            f"the file and prefetch again."
        ) from error


def listed(one: Wanted) -> list[Remote]:
    """The files as the hub lists them, with sizes and checksums; ValueError if it does not answer or has none."""
    from huggingface_hub import HfApi

    try:
        answer = HfApi().model_info(one.repo, revision=one.revision, files_metadata=True)
    except Exception as error:  # of the network, of httpx, of the hub: all end in the same advice
        raise _unreachable(one, error) from error
    there = {item.rfilename: item for item in answer.siblings or []}
    chosen = []
    for names in one.files:
        name = next((name for name in names if name in there), None)
        if name is None:
            raise ValueError(f"{one.repo}: expected one of {', '.join(names)} on the hub, found none.")
        chosen.append(name)
    if INDEX in chosen:
        chosen += [name for name in there if name.startswith("model-") and name.endswith(".safetensors")]
    chosen += [name for name in one.optional if name in there and name not in chosen]
    return [Remote(one, name, there[name].size, _sha256(there[name]), answer.sha) for name in chosen]


def remember_absent(one: Wanted, names: Iterable[str]) -> None:
    """Ask for files that the repository lacks, so that the cache knows it, and so does whoever has no network."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        try:
            hf_hub_download(one.repo, name, revision=one.revision)
        except EntryNotFoundError:  # the client writes that down
            continue
        except Exception as error:
            raise _unreachable(one, error) from error


def _sha256(sibling: Any) -> str | None:
    held = getattr(sibling, "lfs", None)
    return held.get("sha256") if isinstance(held, dict) else getattr(held, "sha256", None)


def fetch(remote: Remote) -> tuple[Path, str]:
    """Download one file into the cache. Returns its path and sha256; ValueError if that is not the hub's."""
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(remote.wanted.repo, remote.name, revision=remote.wanted.revision)
    except Exception as error:
        raise _unreachable(remote.wanted, error) from error
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if remote.sha256 and digest != remote.sha256:
        raise ValueError(
            f"{path}: expected the sha256 {remote.sha256} that the hub lists, found {digest}; delete the file and "
            f"prefetch again."
        )
    return Path(path), digest


def _unreachable(one: Wanted, error: Exception) -> ValueError:
    if type(error).__name__ == "GatedRepoError":
        return ValueError(
            f"{one.repo}: its owner asks for consent; accept the licence at https://huggingface.co/{one.repo}, log in "
            f"with `hf auth login`, and prefetch again."
        )
    offline = (
        " HF_HUB_OFFLINE is set: unset it." if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(
        f"{one.repo}: expected an answer of the hub, found: {reason}.{offline} Run prefetch on a machine with network "
        f"and the same HF_HOME (or copy that folder), or give files with weights=file."
    )


def total(remotes: Iterable[Remote]) -> str:
    """The size of files that have one, in words."""
    sizes = [one.size for one in remotes]
    known = sum(size for size in sizes if size is not None)
    return f"{known / 1e6:,.1f} MB" + (" and files of unknown size" if None in sizes else "")
