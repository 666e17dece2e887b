"""Draw the pictures of masked recognition: each image with a growing number of its most important pixels shown.

reads   index[images]; importance maps of people, or those of a model
writes  <level>/<image>.png and intact/<image>.png; listing.json, so that `embed` reads the folder as a set of images;
        stimuli.json: the shares, and for each image its file and how many pixels each level shows
roles   a set of maps in stimuli.maps, or <model>.<image set> for the maps of a model
cost    about 0.15 s an image at 256 pixels and ten levels, on one core; several processes deal the images among them

Image and map are both brought to size x size, whatever their proportions, by the same bilinear filter (Pillow's, which
averages where it makes smaller), so a map has to cover the whole of its image. Images without a map, and those whose
map is constant and so has no most important pixel, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from alignet.pipeline.stage_run import StageRun

INTACT = "intact"


@dataclass(frozen=True)
class _Plan:
    """Which images are drawn, and what of each. shares: (l,). counts: (n, l) pixels."""

    ids: Sequence[str]
    files: Sequence[str]  # below the folder of a level
    rows: Sequence[int]  # of the importance maps
    shares: np.ndarray
    counts: np.ndarray
    without_map: int
    constant: int


def run(work: StageRun) -> dict[str, Any]:
    """Draw what is not there yet. An image is done once all its files have been renamed into place."""
    from alignet.pipeline import payloads
    from alignet.runtime.distributed import current
    from alignet.runtime.interrupt import stop_if_asked
    from alignet.runtime.progress import progress

    settings = work.section["settings"]
    source = payloads.images(work, "images")
    read = payloads.opener(work, source)
    rows, maps = _importance(work, list(source.ids))
    plan = _planned(list(source.ids), rows, maps, settings)
    processes = current()
    own = range(processes.rank, len(plan.ids), processes.size)
    done = {row for row in own if all(path.is_file() for path in _paths(work.folder, plan, row))}
    with progress("drawing stimuli", len(own), "images", done=len(done)) as advance:
        for row in own:
            if row in done:
                continue
            stop_if_asked()
            _draw(work.folder, plan, row, read(plan.ids[row]), maps(plan.rows[row]), settings)
            advance()
    processes.wait()
    if processes.first:
        _write_lists(work.folder, plan, settings)
    return {
        "images": len(plan.ids), "pictures": len(plan.ids) * (len(plan.shares) + 1),
        "without_map": plan.without_map, "constant_maps": plan.constant,
    }  # fmt: skip


def _importance(work: StageRun, ids: list[str]) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
    """Row of each image's map, int (n,), -1 without one; and what gives the map (h, w) of a row."""
    import numpy as np

    if "saliency" in work.inputs:
        found, named = _saliency(work.inputs["saliency"])
        place = {name: row for row, name in enumerate(named)}
        return np.array([place.get(name, -1) for name in ids], dtype=np.int64), lambda row: found[row]
    from alignet.data.importance_maps import load_maps, maps_for

    people = load_maps(work.sources["maps"], key=work.section["key"])
    return maps_for(people, ids)[0], lambda row: people.maps[row]


def _saliency(artifact: Any) -> tuple[np.ndarray, list[str]]:
    """A model's maps (m, h, w) and the ids of their images."""
    from alignet.pipeline import payloads

    return payloads.saliency_maps(artifact)


def _planned(
    ids: list[str], rows: np.ndarray, maps: Callable[[int], np.ndarray], settings: Mapping[str, Any]
) -> _Plan:
    """The images that have a map of use, and how many pixels each level shows of them."""
    import numpy as np

    from alignet.evaluate.masking import levels, pixel_counts
    from alignet.runtime.interrupt import stop_if_asked
    from alignet.runtime.progress import progress

    shares = levels(settings["levels"], settings["low"])
    kept, whole, constant = [], [], 0
    mapped = [row for row in range(len(ids)) if rows[row] >= 0]
    with progress("reading importance maps", len(mapped), "maps") as advance:
        for row in mapped:
            stop_if_asked()
            given = np.asarray(maps(rows[row]))
            _check_map(given, ids[row])
            important = int((_resized_map(given, settings["size"]) > 0).sum()) if np.ptp(given) > 0 else 0
            if important:
                kept.append(row)
                whole.append(important)
            else:
                constant += 1
            advance()
    if not kept:
        raise ValueError(
            f"stimuli: expected importance maps of these {len(ids):,} images, found {len(mapped):,}, {constant:,} of "
            "them constant; give maps whose names are those of the images."
        )
    if settings["equal_pixels"]:
        least = int(np.argmin(whole))
        print(
            f"equal_pixels: 100% is {whole[least]:,} pixels, all that the map of {ids[kept[least]]} has; the median "
            f"of {len(kept):,} maps has {np.median(whole):,.0f}",
            flush=True,
        )
        whole = [whole[least]] * len(kept)
    if constant or len(mapped) < len(ids):
        print(
            f"left out: {len(ids) - len(mapped):,} images without a map, {constant:,} with a constant one",
            flush=True,
        )
    return _Plan(
        [ids[row] for row in kept], _files([ids[row] for row in kept]), [int(rows[row]) for row in kept], shares,
        np.array([pixel_counts(shares, pixels) for pixels in whole]), len(ids) - len(mapped), constant,
    )  # fmt: skip


def _check_map(given: np.ndarray, name: str) -> None:
    import numpy as np

    if given.ndim != 2 or not given.size or not np.isfinite(given).all() or given.min() < 0:
        finite = given.size and np.isfinite(given).all()
        raise ValueError(
            f"stimuli: expected for {name} an importance map (h, w) of numbers of at least 0, found the shape "
            f"{given.shape} and {f'{given.min():g} to {given.max():g}' if finite else 'no numbers, or NaN or infinity'}"
            "; clip negative values to 0, or take their size."
        )


def _resized_map(given: np.ndarray, size: int) -> np.ndarray:
    """A map (h, w) as (size, size) float32, by the filter that the image is resized by. It stays at least 0."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(given, dtype=np.float32))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def _files(ids: Sequence[str]) -> list[str]:
    """The names of the images' pictures: the id with .png for its suffix."""
    from pathlib import PurePosixPath

    files = [str(PurePosixPath(name).with_suffix(".png")) for name in ids]
    first: dict[str, str] = {}
    for name, file in zip(ids, files, strict=True):
        if file in first:
            raise ValueError(
                f"stimuli: expected ids that differ in more than their suffix, found {first[file]} and {name}; rename "
                "one, or take it out of the image set."
            )
        first[file] = name
    return files


def _names(plan: _Plan, row: int) -> list[str]:
    """The pictures of an image by level, and the intact one last, relative to the artifact."""
    folders = [*(f"{level:02d}" for level in range(len(plan.shares))), INTACT]
    return [f"{folder}/{plan.files[row]}" for folder in folders]


def _paths(folder: Path, plan: _Plan, row: int) -> list[Path]:
    return [folder / name for name in _names(plan, row)]


def _draw(
    folder: Path, plan: _Plan, row: int, image: Any, given: np.ndarray, settings: Mapping[str, Any]
) -> None:
    """Write all pictures of one image. Their noise hangs on the seed and the image's id alone."""
    import os

    import numpy as np
    from PIL import Image

    from alignet.data.images import number_of
    from alignet.evaluate.masking import TEMPERATURE, intact, stimuli

    size, grey = settings["size"], settings["grey"]
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    rng = np.random.default_rng([settings["seed"], number_of(plan.ids[row])])
    pictures = stimuli(
        pixels, _resized_map(given, size), plan.counts[row], rng,
        grey=grey, centred=settings["centred"], background=settings["background"],
        temperature=settings.get("temperature", TEMPERATURE),
    )  # fmt: skip
    for path, picture in zip(_paths(folder, plan, row), [*pictures, intact(pixels, grey=grey)], strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        Image.fromarray(picture[..., 0] if grey else picture).save(temporary, "PNG")
        os.replace(temporary, path)


def _write_lists(folder: Path, plan: _Plan, settings: Mapping[str, Any]) -> None:
    """listing.json, as `index` writes it of a folder of images, and stimuli.json."""
    from alignet.data.checksums import scan
    from alignet.runtime.artifacts import write_json

    names = [name for row in range(len(plan.ids)) for name in _names(plan, row)]
    found = scan({name: folder / name for name in names})
    entries = zip(found.ids, found.sizes, found.sha256, strict=True)
    files = {name: {"size": size, "sha256": checksum} for name, size, checksum in entries}
    write_json(folder / "listing.json", {"kind": "images", "files": files})
    images = {
        name: {"file": file, "pixels": [int(count) for count in counts]}
        for name, file, counts in zip(plan.ids, plan.files, plan.counts, strict=True)
    }
    shares = [float(share) for share in plan.shares]
    write_json(folder / "stimuli.json", {"settings": dict(settings), "shares": shares, "images": images})


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("stimuli", __doc__ or "")
