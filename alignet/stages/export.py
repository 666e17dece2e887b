"""Weights that the library itself loads, with a model card.

reads   finetune[alignet] and the scores before and after; or a distill node; or triplets[alignet]
writes  alignet: a folder that the student's library loads by itself (configuration, weights, README.md)
        ud, teacher: map.npz in the format of gLocal and thingsvision, README.md
        dataset: alignet.npz {filenames, similarities, indices}, as the official release stores its triplets
roles   alignet, distillation, ud (the frozen student's map), teacher (the teacher's W and b), dataset
cost    seconds
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


WHAT = {  # role -> how the model card calls it
    "alignet": ("aligned", "fine-tuned with AligNet so that its similarities follow people's"),
    "distillation": (
        "control",
        "fine-tuned on the unmapped teacher's answers: AligNet's control without human data",
    ),
}


def run(work: StageRun) -> dict[str, Any]:
    """Write the folder and check that it loads."""
    if "map" in work.inputs:
        return _export_map(work)
    if "triplets" in work.inputs:
        return _export_dataset(work)
    from safetensors.torch import load_file

    from alignet.pipeline import payloads
    from alignet.student.export import ModelCard, export

    weights = work.inputs["weights"]
    encoder = payloads.encoder(work, payloads.weights_of(weights))
    described = work.section["card"]
    heading, meant = WHAT[work.node.role]
    card = ModelCard(
        name=f"{described['name']}, {heading}",
        summary=(
            f"{described['name']}, {meant} (experiment: {work.section['experiment']}). "
            f"{work.section['banner'].capitalize()}."
        ),
        base=described["name"],
        base_licence=described["licence"],
        data=list(described["data"].items()),
        recipe=_recipe(work),
        metrics=_metrics(work),
    )
    state = load_file(weights.file("weights.safetensors"))
    precision = work.section["precision"]
    export(work.folder, encoder, state, card, precision)
    size = int(encoder.data_config["input_size"][1])
    return {"width": encoder.width, "image_size": size, "precision": precision}


def _recipe(work: StageRun) -> dict[str, Any]:
    section = work.inputs["weights"].manifest["identity"]["section"]
    figures = work.inputs["weights"].metrics
    smooth = work.section["card"]["smooth"]
    return section["settings"] | {
        "tau_student": figures["tau_student"],
        "image passes": figures["image_passes"],
        "teacher smoothed by ridge penalty": (
            ", or ".join(f"{penalty:g}" for penalty in smooth["penalties"]) if smooth else "no"
        ),
    }


def _metrics(work: StageRun) -> list[tuple[str, str, str, str]]:
    import json

    values: dict[tuple[str, str], dict[str, str]] = {}
    for name, artifact in work.inputs.items():
        kind, _, rest = name.partition(".")
        if kind != "score":
            continue
        setting = rest.partition(".")[0]
        for score in json.loads(artifact.file("scores.json").read_text(encoding="utf-8")):
            low_high = "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
            shown = f"{score['value']:.3f}{low_high}"
            values.setdefault((score["metric"], score["dataset"]), {})[setting] = shown
    return [
        (metric, dataset, found.get("original", ""), found.get(work.node.role, ""))
        for (metric, dataset), found in values.items()
        if metric != "ties"
    ]


def _export_dataset(work: StageRun) -> dict[str, Any]:
    import numpy as np

    from alignet.data.alignet_npz import save_dataset
    from alignet.pipeline import payloads

    folder = work.inputs["triplets"].folder
    triplets = np.load(folder / "triplets.npy", allow_pickle=False)
    sims = np.load(folder / "similarities.npy", allow_pickle=False)
    save_dataset(work.folder / "alignet.npz", payloads.read_lines(folder / "ids.txt"), triplets, sims)
    return {"triplets": len(triplets)}


def _export_map(work: StageRun) -> dict[str, Any]:
    import shutil

    from alignet.teacher.distill import AffineMap

    source = work.inputs["map"].file("map.npz")
    shutil.copyfile(source, work.folder / "map.npz")
    mapping = AffineMap.load_npz(work.folder / "map.npz")
    described, figures = work.section["card"], work.inputs["map"].metrics
    told = "The map was learned elsewhere and is handed on as it came."
    if "held_out_accuracy" in figures:
        before, after = figures["held_out_accuracy_before"], figures["held_out_accuracy"]
        told = (
            f"and their dot products answer triplets as people do: on objects that it never saw, odd-one-out accuracy\n"
            f"went from {before:.3f} to {after:.3f} ({figures['held_out_triplets']:,} triplets, cross-validation over "
            "objects)."
        )
    width = len(mapping.weights)
    text = f"""# {described["name"]}: the affine map of uncertainty distillation

{work.section["banner"].capitalize()}.

`map.npz` holds `weights` ({width} x {width}), `bias`, and scalar `mean` and `std`, as gLocal and thingsvision
store it. Features x of the unchanged network become

    (x - mean) / std @ weights + bias

{told}

Licence of the network: {described["licence"]}.
"""
    (work.folder / "README.md").write_text(text, encoding="utf-8")
    return {"width": width}


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("export", __doc__ or "")
