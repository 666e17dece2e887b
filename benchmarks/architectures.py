"""Which networks of timm, open_clip and transformers go the whole way: load, embed, train, export, load alone.

    uv run python -m benchmarks.architectures [--library timm] [--only NAME ...] [--results FILE] [--page FILE]

One case is one process with random weights. timm: a small network of each of its modules. open_clip: every
configuration of at most 500 MB. transformers: every family of image classification, and DINOv3's, with a tiny
configuration. A case holds where
  embed   alignet's features are those of the library's own network and preprocessing, to 1e-5 of the largest
  train   one step of gradient descent moves them
  export  the folder is written and its library loads it
  alone   the model card's own lines give the features of the trained network, to 1e-5
Results are added to a file as JSON lines; cases that stand in it are not run again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 500e6  # bytes of weights in float32
CLOSE = 1e-5
SECONDS = 300  # for one case
LIBRARIES = {"timm": "timm", "open_clip": "open-clip-torch", "transformers": "transformers"}
_SMALL = (
    "atto",
    "femto",
    "pico",
    "nano",
    "tiny",
    "xx",
    "_xs",
    "small",
    "_s",
    "b0",
    "18",
    "050",
    "test",
    "lite",
)
TOWER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 64,
    "patch_size": 16,
}  # fmt: skip
_WORDS = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50,
    "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
_BOTH = {"vision_config": TOWER, "text_config": _WORDS}
_STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
_HEADS = _STAGES | {"num_attention_heads": [1, 1, 2, 2]}
_SWIN = {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
_TWO = {"hidden_sizes": [16, 32], "depths": [1, 1]}
_TOWERS = (
    "beit", "data2vec-vision", "ijepa", "vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers", "dinov3_vit"
)  # fmt: skip
TINY: dict[str, dict[str, Any]] = dict.fromkeys(_TOWERS, TOWER) | {
    "bit": _TWO | {"embedding_size": 8, "num_groups": 4},
    "convnext": _TWO | {"num_stages": 2},
    "convnextv2": _TWO | {"num_stages": 2},
    "dinov3_convnext": _STAGES,
    "cvt": {"embed_dim": [16, 32, 64], "depth": [1, 2, 3], "num_heads": [1, 2, 4]},
    "resnet": _TWO | {"embedding_size": 16},
    "regnet": _TWO | {"embedding_size": 16, "groups_width": 8},
    "segformer": _HEADS,
    "poolformer": _STAGES,
    "pvt": _HEADS | {"image_size": 64},
    "pvt_v2": _HEADS | {"image_size": 64},
    "swin": _SWIN,
    "swinv2": _SWIN,
    "focalnet": _STAGES | {"image_size": 64, "embed_dim": 16},
    "hiera": {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 4]},
    "levit": {"image_size": 64, "hidden_sizes": [16, 32, 48], "num_attention_heads": [1, 2, 3], "depths": [1, 1, 1],
              "key_dim": [8, 8, 8]},
    "mobilevit": {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 16, 16, 24, 32, 32, 64]},
    "mobilevitv2": {"image_size": 64},
    "swiftformer": {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [8, 16, 16, 32]},
    "efficientnet": {"hidden_dim": 320, "width_coefficient": 0.25, "depth_coefficient": 0.25, "image_size": 64},
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "clip": _BOTH | {"projection_dim": 12},
    "metaclip_2": _BOTH | {"projection_dim": 12},
    "siglip": _BOTH,
}  # fmt: skip


def cases(library: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Architecture, arguments and feature of each case of a library."""
    if library == "timm":
        for name in small_of_each_module():
            yield name, {}, "pooled"
    elif library == "open_clip":
        import open_clip

        for name in sorted(open_clip.list_models(), key=open_clip_bytes):
            if open_clip_bytes(name) <= LARGEST:
                yield name, {}, "output"
    else:
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as NAMES,
        )

        for name in dict.fromkeys([*NAMES, "dinov3_vit", "dinov3_convnext"]):
            yield name, TINY.get(name, {}), "output" if "text_config" in TINY.get(name, {}) else "pooled"


def small_of_each_module() -> list[str]:
    """Of each of timm's modules the network with the fewest parameters among six whose names promise few."""
    import timm
    import torch

    found = []
    for module in timm.list_modules():
        sizes: dict[str, int] = {}
        names = timm.list_models(module=module)
        for name in sorted(names, key=lambda name: -sum(word in name for word in _SMALL))[:6]:
            try:
                with torch.device("meta"):
                    sizes[name] = sum(one.numel() for one in timm.create_model(name).parameters())
            except Exception:  # a network that needs another package
                continue
        if sizes:
            found.append(min(sizes, key=lambda name: (sizes[name], name)))
    return found


@cache
def open_clip_bytes(name: str) -> float:
    """About how large the float32 weights of an open_clip configuration are, from its widths and depths."""
    import open_clip
    import timm
    import torch

    given = open_clip.get_model_config(name)
    vision, text = given["vision_cfg"], given["text_cfg"]
    if "timm_model_name" in vision:
        with torch.device("meta"):
            tower = timm.create_model(vision["timm_model_name"], num_classes=0)
        images = float(sum(one.numel() for one in tower.parameters()))
    elif isinstance(vision["layers"], list):  # a ResNet
        images = 200.0 * sum(vision["layers"]) * vision["width"] ** 2
    else:
        images = 12.0 * vision["layers"] * vision["width"] ** 2
    width = text.get("width", 512)
    return 4 * (images + 12 * text.get("layers", 12) * width**2 + text.get("vocab_size", 49408) * width)


def pictures() -> list[Any]:
    """Two drawn pictures of different shapes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    sizes = ((90, 120, 3), (200, 150, 3))
    return [Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)) for size in sizes]


def one(library: str, architecture: str, arguments: dict[str, Any], feature: str) -> str:
    """'' where a network goes the whole way, else the step that it does not and why."""
    import torch

    from alignet.backbones import Backbone, embed_images, features_of, load_encoder
    from alignet.student.export import export
    from alignet.student.model_card import ModelCard

    step, images = "load", pictures()
    try:
        encoder = load_encoder(Backbone(library, architecture, "random", arguments, 0, feature), seed=1)
        size = sum(value.numel() for value in encoder.module.state_dict().values()) * 4
        if size > LARGEST:
            return f"not tried: {size / 1e6:,.0f} MB of weights"
        step = "embed"
        before = embed_images(encoder, [encoder.transform(image) for image in images], 2)
        if library != "transformers":  # whose preprocessing an architecture does not name
            _compare(before, _own(library, architecture, encoder, images))
        step = "train"
        pixels = torch.stack([encoder.transform(image) for image in images])
        features_of(encoder.module.train(), pixels, encoder.backbone).square().sum().backward()
        with torch.no_grad():
            for parameter in encoder.module.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-2 * parameter.grad / (parameter.grad.norm() + 1e-6)
        encoder.module.eval()
        after = embed_images(encoder, [encoder.transform(image) for image in images], 2)
        if np.abs(after - before).max() <= 1e-6 * np.abs(before).max():
            raise ValueError("expected a step to move the features, found them where they were")
        step = "export"
        state = {name: value.clone() for name, value in encoder.module.state_dict().items()}
        with tempfile.TemporaryDirectory() as folder:
            export(Path(folder) / "out", encoder, state, ModelCard("n", "s", "b", "l", (), {}, ()))
            step = "alone"
            _compare(after, _by_card(Path(folder) / "out", library, images))
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return f"{step}: {kind}{' '.join(str(error).split())}"
    return ""


def _compare(found: np.ndarray, expected: np.ndarray) -> None:
    apart = float(np.abs(found - expected).max() / np.abs(expected).max())
    if found.shape != expected.shape or not apart <= CLOSE:
        raise ValueError(
            f"expected the same features, found {found.shape} and {expected.shape}, {apart:.1e} apart"
        )


def _own(library: str, architecture: str, encoder: Any, images: list[Any]) -> np.ndarray:
    """Features by the library alone, with the same weights."""
    import torch

    state = encoder.module.state_dict()
    with torch.no_grad():
        if library == "timm":
            import timm

            model = timm.create_model(architecture).eval()
            model.load_state_dict(state)
            transform = timm.data.create_transform(
                **timm.data.resolve_data_config({}, model=model), is_training=False
            )
            model.reset_classifier(0)
            return torch.cat([model(transform(image).unsqueeze(0)) for image in images]).numpy()
        import open_clip

        tags = open_clip.list_pretrained_tags_by_model(
            architecture
        )  # whose preprocessing is the architecture's
        asked = open_clip.get_pretrained_cfg(architecture, tags[0]) if tags else {}
        model, _, transform = open_clip.create_model_and_transforms(
            architecture, image_mean=asked.get("mean"), image_std=asked.get("std"),
            image_interpolation=asked.get("interpolation"), image_resize_mode=asked.get("resize_mode"),
        )  # fmt: skip
        model.load_state_dict(state)
        return torch.cat(
            [model.eval().encode_image(transform(image).unsqueeze(0)) for image in images]
        ).numpy()


def _by_card(folder: Path, library: str, images: list[Any]) -> np.ndarray:
    """Features by the lines of the model card that compute them."""
    import torch

    text = (folder / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    lines = text.replace("PATH/TO/THIS/FOLDER", str(folder)).splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("features = "))
    names: dict[str, Any] = {}
    with torch.no_grad():
        exec("\n".join(lines[:end]), names)
        return torch.cat(
            [eval(lines[end].removeprefix("features = "), names, {"image": one}) for one in images]
        ).numpy()


def _child(pipe: Connection, *case: Any) -> None:
    import torch

    torch.set_num_threads(1)
    pipe.send(one(*case))


def tried(library: str, case: tuple[str, dict[str, Any], str]) -> dict[str, Any]:
    """The verdict on a case, in a process of its own."""
    began = time.monotonic()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, library, *case))
    child.start()
    sender.close()
    try:
        reason = receiver.recv() if receiver.poll(SECONDS) else f"not finished in {SECONDS} s"
    except EOFError:
        child.join()
        reason = f"native code ended the process with signal {-(child.exitcode or 0)}"
    child.kill()
    child.join()
    verdict = "yes" if not reason else "not tried" if reason.startswith("not tried") else "no"
    return {
        "library": library, "architecture": case[0], "verdict": verdict, "reason": reason,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def count(library: str) -> str:
    """How many cases there are of a library, in words."""
    if library == "timm":
        import timm

        return f"{len(timm.list_modules())} modules"
    return f"{sum(1 for _ in cases(library))} {'configurations' if library == 'open_clip' else 'families'}"


def page(rows: list[dict[str, Any]]) -> str:
    """The table of docs/models.md."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(package)}" for name, package in LIBRARIES.items()
    )
    lines = [
        "# Which networks can be used",
        "",
        f"Tried with random weights, on a CPU, with {versions}:",
        "load, embed (as the library itself does, to 1e-5), train one step, export, and load the export without",
        "alignet by the lines of its model card (to 1e-5 again). timm: a small network of each module; open_clip:",
        "every configuration of at most 500 MB; transformers: every family of image classification, tiny.",
        "`python -m benchmarks.architectures --page docs/models.md` makes this page.",
    ]
    for library in LIBRARIES:
        own = sorted((row for row in rows if row["library"] == library), key=lambda row: row["architecture"])
        held = [row["architecture"] for row in own if row["verdict"] == "yes"]
        tried_out = sum(row["verdict"] != "not tried" for row in own)
        if not own:
            continue
        lines += [
            "",
            f"## {library}",
            "",
            f"{tried_out} of {count(library)} were tried; {len(held)} go the whole way:",
        ]
        lines += ["", ", ".join(f"`{name}`" for name in held) + "."]
        rest = [row for row in own if row["verdict"] != "yes"]
        if rest:
            lines += ["", "| not | why |", "|---|---|"]
            lines += [
                f"| `{row['architecture']}` | {row['reason'][:300].replace('|', '/')} |" for row in rest
            ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", choices=LIBRARIES, action="append")
    parser.add_argument("--only", nargs="*", help="architectures")
    parser.add_argument("--results", type=Path, default=Path("architectures.jsonl"))
    parser.add_argument("--page", type=Path, help="write the table of all results there")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import open_clip  # noqa: F401  before the children are forked
    import timm  # noqa: F401
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = (
        [json.loads(line) for line in given.results.read_text().splitlines()]
        if given.results.exists()
        else []
    )
    known = {(row["library"], row["architecture"]) for row in rows}
    for library in given.library or LIBRARIES:
        for case in cases(library):
            if (library, case[0]) in known or (given.only and case[0] not in given.only):
                continue
            rows.append(tried(library, case))
            with open(given.results, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(rows[-1]) + "\n")
            print(
                f"{library} {case[0]}: {rows[-1]['verdict']} {rows[-1]['reason']} ({rows[-1]['seconds']} s)",
                flush=True,
            )
    if given.page:
        given.page.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
