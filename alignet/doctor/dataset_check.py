"""The check of a published data set of triplets: its file, the images and the answers at hand, and what is said of it.

    check_dataset: of a configuration;  check_files: of any file, any images and any model  -> Findings

What is computed is in dataset_fit.py. Shape suffixes: n triplets, m images, p features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.data.alignet_npz import Dataset, load_dataset
from alignet.doctor.dataset_fit import (
    FEWEST,
    NAMES,
    SHIFTS,
    Answer,
    Fit,
    by_classes,
    by_features,
    classes_of,
    fit,
    ties,
)  # fmt: skip
from alignet.doctor.findings import Finding, fault, ok, warning
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources

if TYPE_CHECKING:
    from alignet.api import Model
    from alignet.backbones.embedding import GivenImages

MOST = 200_000  # triplets that are looked at
IMAGES = 4500  # that are embedded at most: those of about 500 triplets that share none, and their neighbours
COLOURS = "colour histograms"  # where no model is given
WORDNET = "WordNet ids (two of one class are nearer)"
FOLDERS = "folders (two of one folder are nearer)"
WEAK = (COLOURS, FOLDERS)  # they may say that labels belong to images, and not that they do not
ROOM = 0.05  # half of an interval that is too wide to tell
HINT = 2.0  # standard errors beyond shuffled rows that are no proof, and more than nothing


def check_dataset(sources: Sources, models: Models) -> Iterator[Finding]:
    """Are the labels of a published data set about the pool? By class folders, and by the student's own choices."""
    name = sources.config.triplets.published
    ids = sources.read("pool") if name and "pool" in sources.sets() else None
    if not name or ids is None or not sources.is_there(name):
        return
    about, path = f"data.sets.{name}", sources.path(name)
    assert path is not None
    try:
        found, similarities, triplets = read(path, ids)
    except ValueError:
        return  # the check of files says so
    answers = list(_class_answers(ids))
    known = sources.cached_features("embed[student.pool]") if "embed[student.pool]" in sources.graph else None
    random = models.weights("student") in (None, "random")
    if known is not None and not random:
        answers.append(("the student as it begins", by_features(_spread(*known, ids))))
    elif not random and models.encoder("student") is not None:
        encoder, opened = models.encoder("student"), sources.opener("pool")
        wanted = _images_of(triplets, len(ids), _images_in(encoder, sources.config.doctor.seconds))
        features = _embedded(encoder, [(row, ids[row]) for row in wanted], opened, len(ids))
        answers.append(("the student as it begins", by_features(features)))
    fits = _fits(similarities, triplets, len(ids), answers)
    yield from judged(about, fits, ties(similarities), found.dropped, len(triplets))


def check_files(path: Path, source: GivenImages, model: Model | None) -> Iterator[Finding]:
    """The same of any file and any images; model: as `alignet.load` gives it, None for class folders and colours."""
    ids = list(source.ids)
    found, similarities, triplets = read(path, ids)
    yield ok(str(path), f"{len(found.triplets):,} triplets, images found by their {found.matched}")
    answers = list(_class_answers(ids))
    wanted, refused = _images_of(triplets, len(ids), IMAGES), list[tuple[str, str]]()
    if model is not None:
        from alignet.backbones.embedding import rows_of
        from alignet.runtime.progress import progress

        with progress("embedding", len(wanted), "images") as advance:
            rows = rows_of(model, source, wanted, batch=64, unreadable="skip", advance=advance)
        refused += rows.refused
        answers.append((model.name, by_features(_spread(rows.features, rows.ids, ids))))
    else:
        from alignet.evaluate.baselines import colour_histogram

        found_colours: dict[int, np.ndarray] = {}
        for row in wanted:
            try:
                found_colours[row] = np.asarray(colour_histogram([source.open(row, 0)]))[0]
            except ValueError as error:
                refused.append((ids[row], str(error)))
        answers.append((COLOURS, by_features(_filled(found_colours, len(ids)))))
    if refused:
        yield warning(
            str(path), f"{len(refused):,} images cannot be read, the first {refused[0][0]}: {refused[0][1]}"
        )
    fits = _fits(similarities, triplets, len(ids), answers)
    yield from judged(str(path), fits, ties(similarities), found.dropped, len(triplets))


def _fits(
    similarities: np.ndarray, triplets: np.ndarray, images: int, answers: Sequence[tuple[str, Answer]]
) -> list[Fit]:
    """How the labels fit each answer that speaks of enough of them."""
    found = (fit(similarities, triplets, images, answer, by) for by, answer in answers)
    return [one for one in found if one is not None]


def _class_answers(ids: Sequence[str]) -> Iterator[tuple[str, Answer]]:
    classes = classes_of(ids)
    if classes is not None:
        yield WORDNET if classes[1] else FOLDERS, by_classes(classes[0])


def _images_of(triplets: np.ndarray, images: int, most: int) -> list[int]:
    """At most so many images, rows in order: those of the first triplets, and their neighbours by name."""
    found: dict[int, None] = {}
    for row in triplets:
        for shift in (0, *SHIFTS):
            found |= dict.fromkeys(((row + shift) % images).tolist())
        if len(found) >= most:
            break
    return sorted(found)


def _images_in(encoder: Any, seconds: float) -> int:
    """How many images can be embedded in about eight measurements' time, at least those of FEWEST triplets."""
    import time

    import torch

    images = torch.zeros((4, *encoder.data_config["input_size"]), device=encoder.device)
    with torch.no_grad():
        encoder.features(images)
        began = time.perf_counter()
        encoder.features(images)
    each = (time.perf_counter() - began) / 4
    return int(min(IMAGES, max(9 * FEWEST, 8 * seconds / each)))


def _embedded(
    encoder: Any, wanted: Sequence[tuple[int, str]], opened: Callable[[str], Any], images: int
) -> np.ndarray:
    """Features (m, p) with NaN where an image was not wanted, or cannot be read, which the check of files says."""
    import torch

    from alignet.backbones import encode

    found: dict[int, np.ndarray] = {}
    for start in range(0, len(wanted), 16):
        prepared: dict[int, torch.Tensor] = {}
        for row, name in wanted[start : start + 16]:
            with contextlib.suppress(ValueError):
                prepared[row] = encoder.pixels(opened(name))
        if prepared:
            values = encode(encoder, torch.stack(list(prepared.values()))).cpu().numpy()
            found |= dict(zip(prepared, values))
    return _filled(found, images)


def _filled(found: Mapping[int, np.ndarray], images: int) -> np.ndarray:
    width = len(next(iter(found.values()))) if found else 1
    features = np.full((images, width), np.nan, np.float32)
    for row, values in found.items():
        features[row] = values
    return features


def _spread(features: np.ndarray, named: Sequence[str], ids: Sequence[str]) -> np.ndarray:
    row_of = {one: row for row, one in enumerate(ids)}
    return _filled({row_of[name]: values for name, values in zip(named, features)}, len(ids))


def read(path: Path, ids: Sequence[str]) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """A file as it is, and at most MOST of its triplets of images at hand, the surest first: similarities, triplets."""
    found = load_dataset(path, ids, missing="drop", order="as_is")
    step = -(-len(found.triplets) // MOST)
    similarities, triplets = found.similarities[::step], found.triplets[::step]
    ranked = np.sort(similarities, axis=1)
    surest = np.argsort(ranked[:, 1] - ranked[:, 2], kind="stable")
    return found, similarities[surest], triplets[surest]


def judged(about: str, fits: Sequence[Fit], shared: float, dropped: int, triplets: int) -> Iterator[Finding]:
    """One line for each answer, and one that says whether labels and images belong together."""
    for one in fits:
        yield ok(about, _said(one))
    if dropped:
        yield warning(about, f"{dropped:,} of its triplets show images that are not here, and are left out")
    tied = f"{shared:.1%} of the triplets have no nearest pair (ties)"
    if not fits:
        yield warning(
            about, f"fewer than {FEWEST} of {triplets:,} triplets could be answered by anything; {tied}",
            "Give a model, or images in class folders",
        )  # fmt: skip
        return
    sure = [one for one in fits if one.belongs] or [one for one in fits if one.by not in WEAK]
    if not sure:
        yield warning(
            about, f"{' and '.join(one.by for one in fits)} cannot tell whether labels and images belong together; "
            f"{tied}",
            "Give a network: model=LIBRARY:NAME",
        )  # fmt: skip
        return
    yield _verdict(about, max(sure, key=lambda one: one.beyond), tied)


def _said(one: Fit) -> str:
    order = ", ".join(_columns(one.order))
    return (
        f"{one.by}: the same nearest pair in {one.share:.1%} [{one.low:.1%}, {one.high:.1%}] of the {one.n:,} surest "
        f"triplets; with rows shuffled {one.shuffled:.1%}, with names shifted by {one.shift:+d} {one.shifted:.1%}; "
        f"columns fit best as [{order}]"
    )


def _columns(order: Sequence[int]) -> list[str]:
    return [NAMES[pair] for pair in order]


def _verdict(about: str, one: Fit, tied: str) -> Finding:
    if not one.belongs and (one.high - one.low > 2 * ROOM or one.given > HINT):
        return warning(
            about, f"by {one.by} {one.n:,} triplets are too few to tell whether labels and images belong together: "
            f"{one.share:.1%} [{one.low:.1%}, {one.high:.1%}] agree, {one.shuffled:.1%} with rows shuffled; {tied}",
            "Run it where more images can be embedded: doctor.seconds=20, or dataset=FILE images=FOLDER model=...",
        )  # fmt: skip
    if not one.belongs:
        return fault(
            about, f"labels and images do not belong together: by {one.by} they agree no better than with their rows "
            f"shuffled; {tied}",
            "Give the images that the data set is about, under its names; if similarities were made elsewhere, check "
            "that their rows are those of the file names",
        )  # fmt: skip
    if one.better_shift:
        return fault(
            about, f"labels belong to other images: by {one.by} they agree in {one.shifted:.1%} once every name is "
            f"replaced by that of the image {'after' if one.shift > 0 else 'before'} it, and in {one.share:.1%} as "
            f"given; {tied}",
            "The list of names was shifted by one against the triplets: write the names again",
        )  # fmt: skip
    if one.better_order:
        columns = ", ".join(_columns(one.order))
        return fault(
            about, f"labels and images belong together, and the columns of similarities are [{columns}], not "
            f"[{', '.join(NAMES)}]: by {one.by} {one.ordered:.1%} agree so, {one.share:.1%} as given; {tied}",
            "Put the columns into the order [s01, s02, s12] of the file names",
        )  # fmt: skip
    if one.values is not None and one.values <= one.values_shuffled:
        return warning(
            about, f"the nearest pairs belong to the images, and how near they are does not (Spearman's rho "
            f"{one.values:.2f}, with rows shuffled up to {one.values_shuffled:.2f}, by {one.by}); {tied}",
            "Check that the rows of `similarities` are those of `filenames`",
        )  # fmt: skip
    return ok(
        about, f"labels and images belong together, in the order [{', '.join(NAMES)}]: by {one.by} {one.share:.1%} "
        f"agree, {one.shuffled:.1%} with rows shuffled; {tied}",
    )  # fmt: skip
