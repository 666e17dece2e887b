"""Seeds of the store for tests.fuzz.kinds: manifests, weights, checkpoints; and of the configuration."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.reader import Reader, are_arrays, nothing_wrong


def _safetensors() -> bytes:
    from safetensors.numpy import save

    return save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int64)}, {"state": "{}"})


def _weights(path: Path) -> Any:
    from alignet.backbones.weights import read_weights

    return {name: tensor.float().numpy() for name, tensor in read_weights(path, "a model").items()}


def _checkpoint(path: Path) -> Any:
    from alignet.runtime.checkpoints import Checkpoints

    folder = path.parent / "checkpoints"
    folder.mkdir(exist_ok=True)
    path.replace(folder / path.name)
    found = Checkpoints(folder).latest()
    return {} if found is None else {name: tensor.float().numpy() for name, tensor in found[1].items()}


def _checkpoint_bytes() -> bytes:
    from safetensors.numpy import save

    return save({"a": np.ones((2, 3), np.float32)}, {"state": '{"lr": 0.1}', "step": "5"})


def _identity() -> Any:
    from alignet.runtime.artifacts import Identity

    return Identity("vice", "", 1, {"lr": 0.1}, {"a": "f" * 64})


def _manifest_bytes() -> bytes:
    from alignet.runtime.artifacts import fingerprint

    sums = {"data.txt": "239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5"}  # of `payload`
    manifest = {
        "identity": _identity().as_dict(), "fingerprint": _identity().fingerprint,
        "files": {name: {"size": 7, "sha256": one} for name, one in sums.items()}, "digest": fingerprint(sums),
        "built_from": {"a": "f" * 64}, "metrics": {"figure": 1.5}, "provenance": {"seconds": 1},
    }  # fmt: skip
    return json.dumps(manifest | {"checksum": fingerprint(manifest)}, indent=1).encode()


def _store(path: Path) -> Any:
    """The mutated manifest in its place; everything that is asked of a manifest elsewhere."""
    from alignet.runtime.artifacts import Store

    store = Store(path.parent / "store")
    folder = store.folder(_identity())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.txt").write_text("payload")
    (folder / "MANIFEST.json").write_bytes(path.read_bytes())
    store.all("vice")
    found = store.find(_identity())
    assert found is not None
    found.verify()
    return (
        found.digest,
        found.size,
        found.file("data.txt").name,
        dict(found.metrics),
        dict(found.manifest["built_from"]),
    )


def _is_artifact(found: Any, size: int) -> str:
    return "" if found[1] == 7 else f"{found[1]} bytes of payload"


def _index_cache(path: Path) -> Any:
    from alignet.data.checksums import scan

    folder = path.parent / "images"
    folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(b"x")
    text = path.read_bytes().replace(b"@ROOT@", str(folder.absolute()).encode())
    path.write_bytes(text)
    return scan(folder, cache=path).sizes


def _config(path: Path) -> Any:
    """The mutated text as overrides, one a line, of the shipped configuration."""
    from alignet.pipeline.cli import explain, load

    try:
        overrides = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8") from error
    return _told(lambda: load([one for one in overrides if one]), explain)


def _conf_file(path: Path) -> Any:
    """The mutated text as conf/experiment/fuzzed.yaml of a configuration folder of its own."""
    import shutil

    from alignet.pipeline import cli, conf

    folder = path.parent / "conf"
    if not folder.exists():
        shutil.copytree(conf.conf_folder(), folder)
    (folder / "experiment" / "fuzzed.yaml").write_bytes(path.read_bytes())
    usual = conf.conf_folder
    conf.conf_folder = lambda: folder
    try:
        return _told(lambda: cli.load(["experiment=fuzzed", "paths.photos=photos"]), cli.explain)
    finally:
        conf.conf_folder = usual


def _told(act: Callable[[], Any], explain: Callable[..., str | None]) -> Any:
    """What `act` gives; ValueError with the one message that a command line would end with."""
    try:
        return act()
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        raise ValueError(f"expected a configuration: {message}") from None


_OVERRIDES = (
    b"experiment=world\nseed=3\nvice.settings.lr=0.01\nruntime.threads=1\nfinetune.settings.flip=0.25\n"
    b"cluster.grid=[2,3,4]\nbaselines={}\npaths.artifacts=/tmp/x,y\nrole=finetune[alignet]\nembed.precision=float16\n"
)


def _made_yaml(chance: random.Random) -> bytes:
    """YAML that loaders of more trust fall for: aliases upon aliases, tags that name code, depth, cycles."""
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    evil = (
        "a0: &a0 [lol, lol]\n" + levels, "x: !!python/object/apply:os.system ['touch /tmp/fuzzed']\n",
        "seed: !!python/name:os.system\n", "x: &x [*x]\n", "seed: ${oc.env:HOME}\n", "seed: ${seed}\n", "- 1\n- 2\n",
        "seed: ${oc.decode:'${seed}'}\n", "x: " + "[" * 2000 + "]" * 2000 + "\n", "seed: 0x1F\n", "seed: 1_0\n",
        "? [a]\n: b\n",
        "vice: null\nworld: null\n", "defaults: [../../../etc/passwd]\n",
        "defaults:\n - /experiment: fuzzed\n", "<<: *x\n",
        "hydra: {run: {dir: /tmp/fuzzed}}\n", "data: {sets: {x: {kind: exec, path: /}}}\n", "seed: .nan\n",
        "seed: 1e400\n",
    )  # fmt: skip
    return ("# @package _global_\n" + chance.choice(evil)).encode()


def readers(kind: str) -> tuple[Reader, ...]:
    """Every seed of a kind that is here, with its reader."""
    if kind == "json":
        cached = b'{"format": 1, "root": "@ROOT@", "files": {"a.png": [1, 5, "abc", ""]}}'
        return (
            Reader(
                "seen.json",
                cached,
                _index_cache,
                lambda found, size: "" if found == (1,) else str(found),
                text=True,
            ),
            Reader("MANIFEST.json", _manifest_bytes(), _store, _is_artifact, text=True),
        )
    if kind == "weights":
        return (
            Reader("a.safetensors", _safetensors(), _weights, are_arrays),
            Reader("5.safetensors", _checkpoint_bytes(), _checkpoint, are_arrays),
        )
    if kind == "yaml":
        from alignet.pipeline.cli import conf_folder

        files = [(conf_folder() / "experiment" / f"{name}.yaml").read_bytes() for name in ("world", "photos")]
        return (
            Reader("overrides.txt", _OVERRIDES, _config, nothing_wrong, text=True),
            *(
                Reader("fuzzed.yaml", data, _conf_file, nothing_wrong, text=True, made=_made_yaml)
                for data in files
            ),
        )
    return ()
