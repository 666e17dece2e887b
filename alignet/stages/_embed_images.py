"""The other use of `python -m alignet.stages.embed`: any images through any model, into a folder of its own.

    images=FOLDER model=FOLDER|LIBRARY:NAME -> <output>/ as alignet/backbones/embedding.py describes it

No node of the graph: what it needs beside OWN comes from the sections `embed` and `runtime` of the configuration.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignet.pipeline import cli

if TYPE_CHECKING:
    from alignet.api import Model
    from alignet.backbones.embedding import GivenImages
    from alignet.config import Config
    from alignet.runtime.artifacts import Artifact, Identity

# key -> what stands there where it is not given; the rest of a command line is configuration
OWN = {
    "images": "",
    "model": "",
    "output": "",
    "format": "npy",
    "map": "",
    "feature": "",
    "image_size": "0",
    "member": "",
}
SHORT = {
    "batch": "embed.batch", "unreadable": "embed.unreadable", "precision": "embed.precision",
    "decode": "embed.decode", "compute": "embed.compute",
    "device": "runtime.device", "threads": "runtime.threads",
}  # fmt: skip


def main(doc: str, argv: Sequence[str] | None = None) -> None:
    """The command line of the stage `embed`: a node, or with images= and model= any images."""
    typed = list(sys.argv[1:] if argv is None else argv)
    own, rest = peel(typed)
    if not own:
        cli.stage_main("embed", doc)
        return
    cli.main("embed", doc, lambda config: embed(own, config), rest, typed=typed)


def peel(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The arguments of OWN that are given, by key, and the others, which are configuration."""
    pairs = [item.partition("=") for item in argv]
    own = {key: value for key, equals, value in pairs if equals and key in OWN}
    others = [(key, equals, value) for key, equals, value in pairs if not (equals and key in OWN)]
    # the short names have a meaning only here
    return own, ["".join([SHORT.get(key, key) if own else key, *more]) for key, *more in others]


def embed(own: dict[str, str], config: Config) -> None:
    """Embed what is not embedded yet; say what was made, where, how fast, and what to do with it."""
    options = _options(own)
    cli.check_one_process(
        config,
        "embed images=...",
        "start it without a launcher, once for each part of the images (docs/embed.md), or embed a node of the graph, "
        "which several processes share",
    )
    from alignet import api
    from alignet.backbones.embedding import given_images, parquet_library, write_embedding
    from alignet.data.images import say_left_out
    from alignet.data.pixels import reading
    from alignet.pipeline.provenance import provenance
    from alignet.pipeline.torch_setup import set_up
    from alignet.runtime.artifacts import work_at

    if options["format"] == "parquet":
        parquet_library()
    reading_seconds = 0.0
    began, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    source = given_images(options["images"], member=options["member"], **reading(asdict(config.pixels)))
    set_up(config.runtime)
    model = api.load(
        options["model"],
        map=options["map"] or None,
        device=config.runtime.device,
        feature=options["feature"],
        image_size=int(options["image_size"]),
    )
    say_left_out(options["images"], source.left_out)
    target = Path(options["output"] or _default_output(options))
    identity, built_from = _identity(options, config, source, model)
    if _is_there(target, built_from, config.force):
        print(f"cached: {target}, made from the same images by the same model; force=true makes it again")
        return
    with work_at(target, identity, built_from, fresh=config.force) as work:
        if work.finished():
            made = work.publish()
        else:
            metrics, reading_seconds = write_embedding(
                model,
                source,
                folder=work.folder,
                checkpoints=work.checkpoints,
                format=options["format"],
                precision=config.embed.precision,
                batch=config.embed.batch,
                shard=config.embed.shard,
                unreadable=config.embed.unreadable,
                threads=config.runtime.threads,
                decode=config.embed.decode,
                compute=config.embed.compute,
            )
            metrics |= {"left_out": dict(source.left_out)} if source.left_out else {}
            seconds = time.monotonic() - started
            made = work.commit(metrics, provenance(began, seconds, config.runtime, processes=1))
    _announce(made, options, reading_seconds, time.monotonic() - started)


def _options(own: dict[str, str]) -> dict[str, str]:
    """OWN with its defaults; ValueError for what is missing or unknown."""
    options = OWN | own
    for name in ("images", "model", "output", "map"):  # shells expand ~ behind = only in some cases
        options[name] = os.path.expanduser(options[name])
    for name, meant in (("images", "a folder of images"), ("model", "a folder, or LIBRARY:NAME")):
        if not options[name]:
            raise ValueError(f"{name}: expected {meant}, found none; add {name}=...")
    if options["format"] not in ("npy", "parquet"):
        raise ValueError(f"format: expected npy or parquet, found {options['format']!r}")
    if not options["image_size"].isdigit():
        raise ValueError(
            f"image_size: expected pixels, 0 for the model's own, found {options['image_size']!r}"
        )
    return options


def _default_output(options: dict[str, str]) -> str:
    names = [Path(options[name].rstrip("/")).name for name in ("images", "model")]
    parts = [re.sub(r"[^\w.-]+", "-", name).strip("-") for name in names]  # no braces, no colons
    mapped = "-mapped" if options["map"] else ""
    return f"embeddings/{parts[0]}-{parts[1]}{mapped}" + (
        ".parquet" if options["format"] == "parquet" else ""
    )


def _identity(
    options: dict[str, str], config: Config, source: GivenImages, model: Model
) -> tuple[Identity, dict[str, str]]:
    """What determines the bytes, and the digests that a later run compares."""
    from alignet.backbones.embedding import weights_digest
    from alignet.pipeline.graph.models import pixels_section
    from alignet.runtime.artifacts import Identity, fingerprint

    backbone = model.encoder.backbone
    section: dict[str, Any] = {
        "model": {
            "name": options["model"],
            "library": backbone.library,
            "architecture": backbone.architecture,
        },
        "feature": backbone.feature,
        "image_size": model.image_size,
        "map": options["map"],
        "images": str(options["images"]),
        "format": options["format"],
        "embed": asdict(config.embed),
        "pixels": pixels_section(config),
    } | ({"member": options["member"]} if options["member"] else {})
    inputs = {"images": source.digest(), "weights": weights_digest(model.encoder.module)}
    if model.feature_map is not None:
        inputs["map"] = model.feature_map.digest()
    settings = {name: value for name, value in section.items() if name not in ("model", "map", "images")}
    return Identity("embed", "images", 2, section, inputs), inputs | {"settings": fingerprint(settings)}


def _is_there(target: Path, built_from: dict[str, str], force: bool) -> bool:
    """Whether the output is finished; ValueError where something else stands in its place."""
    from alignet.runtime.artifacts import MANIFEST, read_manifest

    if not target.exists():
        return False
    manifest = read_manifest(target) if (target / MANIFEST).is_file() else {}
    if manifest.get("identity", {}).get("role") != "images":
        raise ValueError(
            f"output: expected a free name or an earlier result, found {target}; choose another."
        )
    if force:
        return False
    if manifest["built_from"] != built_from:
        changed = [name for name, digest in built_from.items() if manifest["built_from"].get(name) != digest]
        raise ValueError(
            f"output: {target} was made with other {' and '.join(changed) or 'inputs'}; choose another output=..., or "
            f"give force=true to replace it."
        )
    return True


def _announce(made: Artifact, options: dict[str, str], reading_seconds: float, seconds: float) -> None:
    """reading_seconds: of reading and forward passes, 0 where there were none; seconds: of everything."""
    figures, folder = made.metrics, made.folder
    rate = f"{figures['embedded'] / reading_seconds:,.1f} images/s, " if reading_seconds else ""
    names = ", ".join(sorted(made.manifest["files"]))
    print(
        f"{figures['images']:,} images x {figures['width']:,} features -> {folder} ({names}), {rate}{seconds:,.0f} s"
    )
    if figures["unreadable"]:
        print(
            f"{figures['unreadable']:,} images could not be read and were set aside: {folder}/unreadable.txt"
        )
    if options["format"] == "parquet":
        print(f"next: pandas.read_parquet({str(folder / 'features.parquet')!r}); columns id, features")
        return
    print(f"next: numpy.load({str(folder / 'features.npy')!r}), whose rows are the lines of {folder}/ids.txt")
    if not options["map"]:
        rows, ids = (shlex.quote(str(folder / name)) for name in ("features.npy", "ids.txt"))
        sets = f"data.sets.image_features.path={rows} data.sets.image_features.ids={ids}"
        images = shlex.quote(f"paths.images={options['images']}")
        print(
            "or as the teacher of a run: python -m alignet.stages.pipeline experiment=own teacher=precomputed "
            f"{images} {sets} paths.map=MAP.npz"
        )
