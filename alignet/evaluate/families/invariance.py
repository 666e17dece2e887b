"""The family of identically represented inputs: what a network takes for the same, and whether that looks the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.families.invariance_people import people_file, people_scores
from alignet.evaluate.families.invariance_pictures import Pictures
from alignet.evaluate.families.invariance_read import (
    MAIN,
    Method,
    ids_of,
    prefixes,
    read_method,
    read_similarity,
)
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.result import Result

CHANCE = {"two": 0.5, "match": 1 / 3, "match_hard": 1 / 3}  # by guessing
TASKS = {
    "two": "2AFC: nearer to the target than to the seed, strictly",
    "match": "clustering: matched to its own target among three, over all triples; ties of j count 1/j",
    "match_hard": "the same for an image and the two most similar to it by people's judgments",
}


def invariance(material: Material, options: Options) -> Result:
    """Images that a network represents alike: do they match, and do they look alike by distances and to people?

    Names: the nodes `invert` and `perceptual`, artifacts of these stages; `invert_<name>` and `perceptual_<name>` of
    other methods, on the same images or some of them, whose scores have `<name>_` before them. The file `people`, or
    `people <setting>`, with answers that `survey import` wrote, on IRIs of the first method. The file `similarity` with
    people's similarities, for hard triples (see invariance_read.read_similarity), and tables `order` and `labels`.
    options: matched, the largest relative error that counts as represented alike; photographs (default false), whether
    the table `pictures` is made; distances, those that count (default all);
    people_of, the setting whose IRIs `people` saw; those of a similarity file.

    Scores, over all IRIs, with intervals over images: `error`, `error8` (median relative error of the stored IRIs, in
    float and in 8 bit), `matched`, `matched8` (share of IRIs with an error of at most `matched`); of each distance
    `two_<distance>` (2AFC), `match_<distance>` (clustering), `match_hard_<distance>` (of hard triples); `two`, `match`
    and `match_hard`, their means over the distances that were not optimised; `two_matched` and `match_matched`, over
    the IRIs that match alone, where some do and some do not (of a distance in its note). With people
    `two_people`, `match_people`, and with each distance `<kind>_agree_<distance>` and `<kind>_rho_<distance>`.
    ValueError for distances or errors that are not finite.

    Tables: `methods`, a row for each node; `distances`, a row for each node and distance; `images`, a row for each IRI
    of the first method; `pictures`.
    """
    nodes = prefixes(material)
    ids = ids_of(material, MAIN)
    pictures = Pictures(ids, material.seed) if options.get("photographs") else None
    names = list(options.get("distances") or ())
    methods = {prefix: read_method(material, prefix, pictures, names) for prefix in nodes}
    hard = _hard(material, options, ids)
    scores: list[Score | None] = []
    for prefix, method in methods.items():
        _check_images(material, nodes[prefix], method, ids)
        scores += _errors(material, options, prefix, method)
        for task, values, said, triples in _tasks(method, hard, ids):
            scores += _task(material, options, prefix, method, task, values, said, triples)
    path = people_file(material, options)
    if path is not None:
        scores += people_scores(material, path, methods[""])
    kept = [score for score in scores if score is not None]
    _check_once(material, kept)
    tables = {
        "methods": _methods(methods, nodes, float(options["matched"])), "distances": _distances(methods, nodes),
        "images": _images(methods[""], float(options["matched"])),
        **({"pictures": pictures.table(list(nodes.values()))} if pictures else {}),
    }  # fmt: skip
    return Result(kept, tables)


Hard = tuple[np.ndarray, str]  # triples (t, 3) of rows of the first method's images, and a note


def _hard(material: Material, options: Options, ids: list[str]) -> Hard | None:
    """Triples of similar images by people's judgments; None without any."""
    from alignet.data.judgements import hard_triples
    from alignet.evaluate.invariance import kept_triples

    if "similarity" not in material.files:
        return None
    matrix, rows, note = read_similarity(material.files, options, ids, material.dataset)
    if len(rows) < 3:
        raise ValueError(
            f"{material.dataset}: expected people's similarities of at least 3 of the {len(ids):,} inverted images, "
            f"found {len(rows)} in {material.files['similarity']}; invert other images, or leave data.similarity out."
        )
    without = len(ids) - len(rows)
    said = f"{without:,} of {len(ids):,} images without judgments" if without else ""
    triples = kept_triples(hard_triples(matrix, material.seed), rows)
    return triples, "; ".join(text for text in (note, said) if text)


def _tasks(
    method: Method, hard: Hard | None, ids: list[str]
) -> Iterator[tuple[str, dict[str, np.ndarray], str, np.ndarray | None]]:
    """Task, what each IRI counts by each distance, a note, triples: (n, k) and None, or (t, 3, k) and (t, 3)."""
    from alignet.evaluate.invariance import kept_triples, nearer_target, random_matches, triple_matches

    every = method.distances
    yield "two", {name: nearer_target(one).astype(np.float64) for name, one in every.items()}, "", None
    n = len(method.inverted.ids)
    if n >= 3:
        yield "match", {name: random_matches(one) for name, one in every.items()}, f"{n:,} targets", None
    if hard is None:
        return
    place = {name: row for row, name in enumerate(method.inverted.ids)}
    triples = kept_triples(hard[0], np.array([place.get(name, -1) for name in ids], dtype=np.int64))
    if len(triples):
        note = f"{len(triples):,} triples; {hard[1]}"
        yield "match_hard", {name: triple_matches(one, triples) for name, one in every.items()}, note, triples


def _errors(material: Material, options: Options, prefix: str, method: Method) -> Iterator[Score | None]:
    """How far IRIs are from being represented alike."""
    from alignet.evaluate.invariance import image_share, median_score

    one, most = method.inverted, float(options["matched"])
    shared: dict[str, Any] = {"draws": material.bootstrap, "seed": material.seed}
    few = "" if len(one.ids) >= 3 else "; fewer than 3 targets: no clustering"
    for ending, values, what in (
        ("", one.error, "as stored in float"),
        ("8", one.error8, "rounded to 8 bit"),
    ):
        yield median_score(
            values, f"{prefix}error{ending}", material.dataset, **shared,
            note=f"median relative l2 error of the representation, {what}; {one.draws} IRIs of each target; of seeds "
            f"{float(np.median(one.begin)):.3g}{few}",
        )  # fmt: skip
        yield image_share(
            (values <= most).astype(np.float64), f"{prefix}matched{ending}", material.dataset, **shared,
            note=f"relative error of at most {most:g}, {what}; {int((values <= most).sum()):,} of {values.size:,} IRIs",
        )  # fmt: skip


def _task(
    material: Material, options: Options, prefix: str, method: Method, task: str, values: Mapping[str, np.ndarray],
    said: str, triples: np.ndarray | None,
) -> Iterator[Score | None]:  # fmt: skip
    """A task's scores by each distance, their mean, and that over the IRIs that match."""
    from alignet.evaluate.invariance import image_share, triple_share

    match = method.inverted.error <= float(options["matched"])
    count, some = int(match.sum()), bool(match.any() and not match.all())
    shared: dict[str, Any] = {"draws": material.bootstrap, "seed": material.seed, "chance": CHANCE[task]}

    def share(one: np.ndarray, metric: str, note: str) -> Score | None:
        if triples is None:
            return image_share(one, metric, material.dataset, note=note, **shared)
        return triple_share(one, triples, metric, material.dataset, note=note, **shared)

    def alone(one: np.ndarray) -> str:
        """The share of the IRIs that match, where IRIs stand by themselves and some do not."""
        if match.all():
            return ""
        if not match.any():
            return f"none of the {match.size:,} IRIs matches"
        if triples is not None:
            return f"{count:,} of {match.size:,} IRIs match"
        return f"{100 * float(one[match].mean()):.1f}% of the {count:,} of {match.size:,} IRIs that match"

    for name, one in values.items():
        optimised = "the distance that was optimised" if method.distances[name].optimised else ""
        note = "; ".join(text for text in (TASKS[task], optimised, said, alone(one)) if text)
        yield share(one, f"{prefix}{task}_{name}", note)
    if not method.others:
        return
    mean = np.mean(np.stack([values[name] for name in method.others]), 0)
    left = [name for name, one in method.distances.items() if one.optimised]
    over = f"mean of {', '.join(method.others)}"
    over += f"; {', '.join(left)}, which was optimised, is left out" if left else ""
    note = "; ".join(text for text in (TASKS[task], over, said, alone(mean)) if text)
    yield share(mean, f"{prefix}{task}", note)
    if some and triples is None:
        yield image_share(
            mean, f"{prefix}{task}_matched", material.dataset, kept=match, **shared,
            note=f"{over}; over the {count:,} of {match.size:,} IRIs that match alone",
        )  # fmt: skip


def _check_images(material: Material, node: str, method: Method, ids: list[str]) -> None:
    strange = sorted(set(method.inverted.ids) - set(ids))
    if strange:
        raise ValueError(
            f"{material.dataset}: expected the images of the node {MAIN} in {node}, found {len(strange):,} others, the "
            f"first {strange[0]}; invert the same images."
        )


def _check_once(material: Material, scores: list[Score]) -> None:
    """ValueError where the names of nodes and distances make two scores of one name."""
    names = [score.metric for score in scores]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"{material.dataset}: expected names of nodes and distances that give each score a name of its own, found "
            f"{twice} twice; call a node or a distance otherwise."
        )


# ---- tables


def _methods(methods: Mapping[str, Method], nodes: Mapping[str, str], most: float) -> dict[str, Any]:
    every = [methods[prefix].inverted for prefix in nodes]
    return {
        "node": list(nodes.values()), "name": [prefix[:-1] for prefix in nodes],
        "regulariser": [one.regulariser for one in every], "optimised": [one.distance for one in every],
        "weight": np.array([one.weight for one in every]), "layer": [one.layer for one in every],
        "images": np.array([len(one.ids) for one in every]), "draws": np.array([one.draws for one in every]),
        "matched": np.array([int((one.error <= most).sum()) for one in every]),
        "matched8": np.array([int((one.error8 <= most).sum()) for one in every]),
        "height": np.array([one.shape[1] for one in every]), "width": np.array([one.shape[2] for one in every]),
    }  # fmt: skip


def _distances(methods: Mapping[str, Method], nodes: Mapping[str, str]) -> dict[str, Any]:
    rows = [
        (nodes[prefix], name, one)
        for prefix, method in methods.items()
        for name, one in method.distances.items()
    ]
    return {
        "node": [node for node, _, _ in rows], "distance": [name for _, name, _ in rows],
        "optimised": np.array([one.optimised for _, _, one in rows], dtype=bool),
    }  # fmt: skip


def _images(method: Method, most: float) -> dict[str, Any]:
    """The table `images`, IRI by IRI; `two` and `match` are means over the distances that were not optimised."""
    from alignet.evaluate.invariance import nearer_target, random_matches

    one = method.inverted
    n, k = one.error.shape
    columns: dict[str, Any] = {
        "id": [name for name in one.ids for _ in range(k)], "draw": np.tile(np.arange(k), n),
        "error": one.error.reshape(-1), "error8": one.error8.reshape(-1), "begin": one.begin.reshape(-1),
        "steps": one.steps.reshape(-1), "matched": (one.error <= most).reshape(-1),
    }  # fmt: skip
    tasks = {"two": {name: nearer_target(found) * 1.0 for name, found in method.distances.items()}}
    if n >= 3:
        tasks["match"] = {name: random_matches(found) for name, found in method.distances.items()}
    for task, values in tasks.items():
        if method.others:
            columns[f"{task}_mean"] = np.mean([values[name] for name in method.others], 0).reshape(-1)
        columns |= {f"{task}_{name}": found.reshape(-1) for name, found in values.items()}
    for name, found in method.distances.items():
        columns[f"to_target_{name}"] = found.to_target.reshape(-1)
        columns[f"to_seed_{name}"] = found.to_seed.reshape(-1)
    return columns
