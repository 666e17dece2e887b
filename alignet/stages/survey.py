"""Ask people which of three images is the odd one out, or what an inverted image is most like: make the survey's page,
or import what it collected.

    python -m alignet.stages.survey [survey.images=NAME or FOLDER] [survey.choose=active ...]
    python -m alignet.stages.survey survey.kind=two survey.inverted=FOLDER   # or match
    python -m alignet.stages.survey import answers/*.json

reads   images; for survey.choose=active posterior.npz of a VICE fit; of the kinds two and match invert-*.npz; for the
        import the files of participants
writes  survey.folder/<id>/page.html and survey.json (which the import needs: keep it);
        import: survey.folder/imported/ triplets.npy, train.npy, validation.npy, objects.csv, trials.csv, summary.json;
        of the kinds two and match choices.csv and summary.json
cost    seconds
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignet.config import Config
from alignet.pipeline.cli import main
from alignet.stages._survey_files import (
    check_some,
    csv_bytes,
    drawn,
    replaced,
    say_import,
    texts,
    write,
    write_survey,
)

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from alignet.survey.answers import Imported
    from alignet.survey.survey import Survey


def build(config: Config) -> None:
    """Make the page of one survey."""
    from alignet.stages._survey_inverted import build_inverted
    from alignet.survey.page import build_page

    settings = config.survey
    if settings.kind != "odd_one_out":
        return build_inverted(settings)
    ids, open_one = _images(config)
    earlier = [_survey(config, name) for name in settings.after]
    objects = list(earlier[0].objects) if earlier else drawn(ids, settings.objects, settings.seed)
    for one in earlier:
        if list(one.objects) != objects:
            raise ValueError(
                f"survey.after: expected surveys about the same images, "
                f"found {earlier[0].id} and {one.id}, which differ"
            )
    html, survey = build_page(
        objects, open_one, _triplets(config, objects, earlier), texts=texts(settings), trials=settings.trials,
        catch=settings.catch, practice=settings.practice, pixels=settings.pixels, quality=settings.quality,
        max_megabytes=settings.max_megabytes, dead_ms=settings.dead_ms, seed=settings.seed,
    )  # fmt: skip
    count = len(survey.triplets)
    about = (
        f"{count:,} questions about {len(objects):,} images, {survey.trials} of them and {len(survey.catch)} catch "
        "trials for each participant"
    )
    write_survey(settings, survey, html, about, count)


def import_files(config: Config, files: Sequence[Path]) -> None:
    """Turn participants' files into triplets, or into choices about inverted images."""
    from alignet.stages._survey_inverted import save_choices
    from alignet.survey.answers import ImportedChoices, Rules, import_answers
    from alignet.survey.survey import load_survey

    settings = config.survey
    root = Path(settings.folder)
    found = sorted(root.glob("*/survey.json"))
    if not found:
        raise ValueError(
            f"survey.folder: expected a survey's survey.json below {root}, found none; give the folder where the "
            "survey was built."
        )
    surveys = {path.parent.name: load_survey(path) for path in found}
    rules = Rules(
        settings.catch_accuracy, settings.max_misses, settings.fast_ms, settings.slow_ms, settings.incomplete
    )
    result = import_answers(files, surveys, rules=rules, damaged=settings.damaged)
    folder = root / "imported"
    if (folder / "summary.json").is_file():
        print(
            f"{folder}: what was imported before is replaced; name all files of answers to keep them together, or give "
            "surveys about other images a survey.folder of their own"
        )
    if isinstance(result, ImportedChoices):
        return save_choices(result, folder)
    _save(result, folder, settings.validation, settings.seed)
    _tell(config, result, folder)


def _images(config: Config) -> tuple[list[str], Callable[[str], Image.Image]]:
    """The ids of the survey's image set, and what opens one."""
    from alignet.data.images import list_images, say_left_out
    from alignet.data.pixels import open_image, reading
    from alignet.data.sets import files_of, listed_name
    from alignet.pipeline.runner import Pipeline

    name = config.survey.images
    root, under = Path(name), ""
    if name in config.data.sets:
        one = config.data.sets[name]
        if one.kind != "images":
            raise ValueError(f"survey.images: expected a set of images, found {name!r}, of kind {one.kind}")
        if one.path is None:
            raise ValueError(f"survey.images: the set {name!r} has no path; give a folder of images")
        pipeline, key = Pipeline(config), f"index[{name}]"
        root, under = pipeline.locate(key) if key in pipeline.graph else Path(one.path), one.under
        if config.data.drawn(name) and not root.is_dir():
            raise ValueError(
                f"survey.images: expected the drawn world's {name} at {root}, found nothing there; draw it with: "
                "python -m alignet.stages.world, or give a folder of images of your own"
            )
    elif not root.is_dir():
        sets = [key for key, one in config.data.sets.items() if one.kind == "images"]
        raise ValueError(
            f"survey.images: expected a folder of images or one of the sets {', '.join(sets)}, found {name!r}"
        )
    listed = list_images(Path(str(files_of("images", root, under))))
    ids = [listed_name(under, item) for item in listed.ids]
    say_left_out(root / under, listed.left_out)
    options = reading(asdict(config.pixels) | {"orientation": "exif"})  # people see what every viewer shows
    return ids, lambda item: open_image(root / item, **options)


def _triplets(config: Config, objects: Sequence[str], earlier: Sequence[Survey]) -> np.ndarray:
    """The questions to ask, (n, 3) int64."""
    import numpy as np

    from alignet.survey.choose import active_triplets, random_triplets

    settings = config.survey
    asked = np.array([row for one in earlier for row in one.triplets], dtype=np.int64).reshape(-1, 3)
    if settings.choose == "random":
        return random_triplets(len(objects), settings.triplets, seed=settings.seed, exclude=asked)
    if not settings.posterior or not earlier:
        raise ValueError(
            "survey.choose=active: expected survey.after=[id of the survey that was answered] and survey.posterior="
            "<posterior.npz of the VICE fit to its answers>, found "
            f"{list(settings.after)} and {settings.posterior}; ask at random first"
        )
    loc, scale = _posterior(config, objects)
    return active_triplets(
        loc, scale, settings.triplets, criterion=settings.criterion, samples=settings.samples,
        candidates=settings.candidates, per_pair=settings.per_pair, seed=settings.seed, exclude=asked,
    )  # fmt: skip


def _posterior(config: Config, names: Sequence[str]) -> tuple[Any, Any]:
    """loc and scale (objects, d) of survey.posterior, which must keep at least one dimension."""
    import numpy as np
    import torch

    from alignet.data.npy import read_npz
    from alignet.vice.pruning import kept_dimensions

    path, objects = Path(str(config.survey.posterior)), len(names)
    try:
        arrays = read_npz(path)
        loc, scale = (torch.from_numpy(arrays[name].astype(np.float32)) for name in ("loc", "scale"))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"survey.posterior: expected posterior.npz of the stage vice, with loc and scale, at {path}, found {error}"
        ) from None
    if len(loc) != objects:
        raise ValueError(
            f"survey.posterior: expected a row for each of the survey's {objects} images, found {len(loc)} rows; fit "
            "VICE to the imported answers with the imported objects.csv, and name their surveys in survey.after"
        )
    _check_objects(path, names)
    if config.vice is None:
        raise ValueError(
            "survey.posterior: expected an experiment with human choices, whose rules of pruning count, found one "
            "without; add experiment=own_triplets with its paths"
        )
    rules = config.vice.settings
    if not len(kept_dimensions(loc, scale, k=rules.k, alpha=rules.alpha)):
        raise ValueError(
            "survey.posterior: expected a posterior that keeps at least one dimension, found none: it knows nothing "
            "yet that could choose; collect more answers to random questions first (survey.choose=random, survey.after)"
        )
    return loc, scale


def _check_objects(path: Path, names: Sequence[str]) -> None:
    """ValueError where the store says that a posterior was fitted to choices about other objects than these."""
    import hashlib
    import json

    store, listing = path.absolute().parents[2], None
    try:
        manifest = json.loads((path.parent / "MANIFEST.json").read_text(encoding="utf-8"))
        index = store / "index" / manifest["identity"]["inputs"]["objects"][:12]
        listing = json.loads((index / "listing.json").read_text(encoding="utf-8"))["files"]["file"]["sha256"]
    except (OSError, ValueError, KeyError):
        print(
            "survey.posterior: no artifact of this store, so whether its rows are these images is not checked"
        )
        return
    if listing != hashlib.sha256(_objects_table(names)).hexdigest():
        raise ValueError(
            f"survey.posterior: expected a fit to choices about the {len(names)} images of survey.after, found one "
            "about other objects; fit VICE to what `survey import` made of those surveys"
        )


def _survey(config: Config, name: str) -> Survey:
    """An earlier survey about odd ones out."""
    from alignet.survey.survey import Survey, load_survey

    found = load_survey(Path(config.survey.folder) / name / "survey.json")
    if not isinstance(found, Survey):
        raise ValueError(
            f"survey.after: expected surveys about odd ones out, found {name}, of the kind {found.kind}"
        )
    return found


def _objects_table(names: Sequence[str]) -> bytes:
    """objects.csv: an object for each image, in order."""
    return csv_bytes(
        [
            ["index", "unique_id", "category", "photo", "split"],
            *([row, name, "", name, "survey"] for row, name in enumerate(names)),
        ]
    )


def _save(result: Imported, folder: Path, share: float, seed: int) -> None:
    import io

    import numpy as np

    from alignet.runtime.artifacts import write_json
    from alignet.survey.answers import split_triplets

    check_some(len(result.triplets), result.summary)
    train, validation = split_triplets(result.triplets, share=share, seed=seed)
    arrays = {"triplets": result.triplets, "train": train, "validation": validation}
    trials: list[list[object]] = [
        ["survey", "participant", "trial", "first", "second", "odd", "place", "rt_ms", "used"]
    ]
    trials += [
        [
            row["survey"],
            row["participant"],
            row["trial"],
            *row["pair"],
            row["odd"],
            row["place"],
            row["rt_ms"],
            row["used"],
        ]
        for row in result.trials
    ]
    result.summary["train"], result.summary["validation"] = len(train), len(validation)

    def write_all() -> None:
        for name, rows in arrays.items():
            file = io.BytesIO()
            np.save(file, rows.astype(np.int32))
            write(folder / f"{name}.npy", file.getvalue())
        write(folder / "objects.csv", _objects_table(result.objects))
        write(folder / "trials.csv", csv_bytes(trials))
        write_json(folder / "summary.json", result.summary)

    replaced(folder, [*(f"{name}.npy" for name in arrays), "objects.csv", "trials.csv"], write_all)


def _tell(config: Config, result: Imported, folder: Path) -> None:
    summary = result.summary
    say_import(summary)
    print(
        f"{summary['triplets']:,} choices about {summary['questions']:,} questions; {summary['objects_judged']} of "
        f"{summary['objects']} images were judged; {summary['train']:,} to fit, "
        f"{summary['validation']:,} to measure on\n"
        f"in {folder}: triplets.npy, train.npy, validation.npy (odd one last, from 0), "
        "objects.csv, trials.csv, summary.json"
    )
    images = config.survey.images if Path(config.survey.images).is_dir() else "FOLDER_OF_THE_IMAGES"
    print(
        "next: python -m alignet.stages.pipeline experiment=own_triplets "
        f"paths.images={shlex.quote(images)} paths.people={shlex.quote(str(folder))} role=vice"
    )


def act_on(arguments: Sequence[str]) -> None:
    """The command line: the word `import` and files come before overrides."""
    words = [
        item for item in arguments if not item.startswith("-") and ("=" not in item or Path(item).is_file())
    ]
    rest = [item for item in arguments if item not in words]
    files = [Path(item) for item in words[1:]]

    def act(config: Config) -> None:
        if not words:
            build(config)
        elif words[0] == "import":
            import_files(config, files)
        else:
            raise ValueError(
                f"survey: expected nothing, or `import` and files, before key=value options, found {words[0]!r}"
            )

    main("survey", __doc__ or "", act, rest)


if __name__ == "__main__":
    act_on(sys.argv[1:])
