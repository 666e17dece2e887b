"""Weights that the library itself loads, with a model card.

reads   finetune[alignet], harmonize[role] or robust[role], and the scores before and after; or a distill node; or
        triplets[alignet]
writes  a student: a folder that the student's library loads by itself (configuration, weights, README.md)
        ud, teacher: map.npz in the format of gLocal and thingsvision, README.md
        dataset: alignet.npz {filenames, similarities, indices}, as the official release stores its triplets
roles   alignet, distillation, harmonized and the other roles of `harmonize`, those of `robust`, ud (the frozen
        student's map), teacher (the teacher's W and b), dataset
cost    seconds
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from alignet.pipeline.stage_run import StageRun
    from alignet.runtime.artifacts import Artifact


WHAT = {  # role -> how the model card calls it
    "alignet": ("aligned", "fine-tuned with AligNet so that its similarities follow people's"),
    "distillation": (
        "control",
        "fine-tuned on the unmapped teacher's answers: AligNet's control without human data",
    ),
    "harmonized": (
        "harmonized",
        "trained so that its saliency follows people's importance maps (Neural Harmonizer)",
    ),
    "unharmonized": ("control", "trained on as the harmonized student is, without people's importance maps"),
    "shuffled-maps": ("control", "harmonized with the importance maps of other images: the control"),
    "alignet-harmonized": (
        "aligned, then harmonized",
        "fine-tuned with AligNet and then with the Neural Harmonizer",
    ),
    "alignet-and-harmonized": (
        "aligned and harmonized",
        "trained with AligNet's loss and the Neural Harmonizer's",
    ),
    "robust-l2": ("adversarially trained", "trained on attacked images"),
    "robust-linf": ("adversarially trained", "trained on attacked images"),
    "robust-free": ("adversarially trained", 'trained on attacked images ("free" adversarial training)'),
}


def run(work: StageRun) -> dict[str, Any]:
    """Write the folder and check that it loads."""
    if "map" in work.inputs:
        return _export_map(work.inputs["map"], work.section["card"], work.section["banner"], work.folder)
    if "triplets" in work.inputs:
        return _export_dataset(work.inputs["triplets"].folder, work.folder)
    from alignet.pipeline import payloads
    from alignet.student.export import ModelCard, export

    weights = work.inputs["weights"]
    encoder = payloads.encoder(work, payloads.weights_of(weights))
    described = work.section["card"]
    heading, meant = WHAT[work.node.role]
    section = weights.manifest["identity"]["section"]
    against = _against(section["role"]) if weights.manifest["identity"]["stage"] == "robust" else ""
    scores = {name: one for name, one in work.inputs.items() if name.startswith("score.")}
    card = ModelCard(
        name=f"{described['name']}, {heading}",
        summary=(
            f"{described['name']}, {meant} (experiment: {work.section['experiment']}). {against}"
            f"{_sentence(work.section['banner'])}."
        ),
        base=described["name"],
        base_licence=described["licence"],
        data=list(described["data"].items()),
        recipe=_recipe(section, weights.metrics, described["smooth"]),
        metrics=_metrics(scores, work.node.role),
    )
    state = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    precision = work.section["precision"]
    export(work.folder, encoder, state, card, precision)
    size = int(encoder.data_config["input_size"][1])
    return {"width": encoder.width, "image_size": size, "precision": precision}


def _against(role: Mapping[str, Any]) -> str:
    """What a student was trained against, as a sentence of the card; role: its section `robust.roles`."""
    norm, looked = (
        {"l2": "l2", "linf": "l-inf"}[role["norm"]],
        f"PGD of {role['steps']} steps from a random start",
    )
    if role["replays"]:
        looked = f"each batch taken {role['replays']} times, the perturbation carried on"
    return (
        f"It was trained against perturbations of {norm} norm at most {role['eps']:g}, over all pixels and channels of "
        f"an image in [0, 1] at the network's resolution: {looked}. "
    )


def _recipe(
    section: Mapping[str, Any], figures: Mapping[str, Any], smooth: Mapping[str, Any] | None
) -> dict[str, Any]:
    """How the student was trained: its section, the metrics of that stage, and the section `smooth`."""
    settings = section["settings"]
    if "mapped_images" in figures:  # of the stage `harmonize`
        return settings | {
            "image passes": figures["image_passes"],
            "images with maps": figures["mapped_images"],
        }
    if "tau_student" not in figures:  # of the stage `robust`
        attacks = {f"attack, {name}": value for name, value in section["role"].items()}
        return settings | attacks | {"image passes": figures["image_passes"], "images": figures["images"]}
    return settings | {
        "tau_student": figures["tau_student"],
        "image passes": figures["image_passes"],
        "teacher smoothed by ridge penalty": (
            ", or ".join(f"{penalty:g}" for penalty in smooth["penalties"]) if smooth else "no"
        ),
    }


def _metrics(evaluated: Mapping[str, Artifact], role: str) -> list[tuple[str, str, str, str]]:
    """Metric, data set, score before and after. evaluated: artifacts by score.<setting>.<data set>."""
    import json

    values: dict[tuple[str, str], dict[str, str]] = {}
    for name, artifact in evaluated.items():
        setting = name.split(".")[1]
        for score in json.loads(artifact.file("scores.json").read_text(encoding="utf-8")):
            low_high = "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
            shown = f"{score['value']:.3f}{low_high}"
            values.setdefault((score["metric"], score["dataset"]), {})[setting] = shown
    return [
        (metric, dataset, found.get("original", ""), found.get(role, ""))
        for (metric, dataset), found in values.items()
        if metric != "ties"
    ]


def _export_dataset(source: Path, folder: Path) -> dict[str, Any]:
    """The answered triplets of a `triplets` artifact as the official release stores them."""
    import numpy as np

    from alignet.data.alignet_npz import save_dataset
    from alignet.pipeline import payloads

    triplets = np.load(source / "triplets.npy", allow_pickle=False)
    sims = np.load(source / "similarities.npy", allow_pickle=False)
    save_dataset(folder / "alignet.npz", payloads.read_lines(source / "ids.txt"), triplets, sims)
    return {"triplets": len(triplets)}


def _sentence(text: str) -> str:
    """Text that begins with a capital letter and keeps its others."""
    return text[:1].upper() + text[1:]


def _export_map(learned: Artifact, card: Mapping[str, Any], banner: str, folder: Path) -> dict[str, Any]:
    """The map of a `distill` artifact, with what a reader needs to apply it."""
    import shutil

    from alignet.teacher.affine_map import AffineMap

    shutil.copyfile(learned.file("map.npz"), folder / "map.npz")
    mapping = AffineMap.load_npz(folder / "map.npz")
    figures = learned.metrics
    told = "The map was learned elsewhere and is handed on as it came."
    if "held_out_accuracy" in figures:
        before, after = figures["held_out_accuracy_before"], figures["held_out_accuracy"]
        told = (
            f"and their dot products answer triplets as people do: on objects that it never saw, odd-one-out accuracy\n"
            f"went from {before:.3f} to {after:.3f} ({figures['held_out_triplets']:,} triplets, cross-validation over "
            "objects)."
        )
    width = len(mapping.weights)
    text = f"""# {card["name"]}: the affine map of uncertainty distillation

{_sentence(banner)}.

`map.npz` holds `weights` ({width} x {width}), `bias`, and scalar `mean` and `std`, as gLocal and thingsvision
store it. Features x of the unchanged network become

    (x - mean) / std @ weights + bias

{told}

Licence of the network: {card["licence"]}.
"""
    (folder / "README.md").write_text(text, encoding="utf-8")
    return {"width": width}


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("export", __doc__ or "")
