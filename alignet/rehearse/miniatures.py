"""A miniature of every outside data set that a configuration names, in the format that its readers expect.

A set is drawn by what reads it: the choices and objects of `data`, then each evaluation of `evaluate.datasets` by its
family. Paths keep their places to each other below one folder, so that sets which share files go on sharing them. What
no rule here can draw is named with the reason, and is for the user's own files (rehearse.data=slice).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config import Config
from alignet.config.data import FileSet, ImagesSet, TripletsSet
from alignet.config.models import ModelSettings
from alignet.data.breeds import ROOT
from alignet.pipeline.graph import build_graph
from alignet.rehearse import importance, people, wordnet
from alignet.rehearse.pictures import write_folder, write_shards
from alignet.runtime.artifacts import fingerprint

DRAWN = "DRAWN"  # a file beside the data: what it was drawn for
CLASSES = 5  # of a labelled set
JUDGED = 12  # images of a set of judged similarities
TRAINED, TESTED = 2, 2  # images of a class
_NIGHTS = (
    "id", "prompt", "right_vote", "left_vote", "ref_path", "left_path", "right_path", "votes", "split", "is_imagenet",
)  # fmt: skip
_CORRUPTIONS = ("gaussian_noise", "fog", "jpeg_compression")


def miniatures(config: Config, folder: Path) -> Drawn:
    """Draw every outside data set of a configuration into a folder, unless it holds them already."""
    made = Miniatures(config, folder, config.rehearse.seed)
    maps = importance.maps_of(config)
    wanted = fingerprint(
        {"sets": asdict(config.data), "datasets": asdict(config.evaluate), "seed": config.rehearse.seed}
        | ({"maps": maps, "tables": importance.tables_of(config)} if maps or config.robust else {})
    )
    note = folder / DRAWN
    if note.is_file() and note.read_text(encoding="utf-8").partition("\n")[0] == wanted:
        return made.places()
    drawn = made.draw()
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(wanted + "\n", encoding="utf-8")
    return drawn


@dataclass
class Drawn:
    """What was drawn. paths: data set -> where it is now; left: data set -> why it was not drawn."""

    paths: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)  # features set -> the file of its rows' ids


@dataclass
class Miniatures:
    """The drawing of all sets of one configuration into one folder."""

    config: Config
    folder: Path
    seed: int = 0
    drawn: Drawn = field(default_factory=Drawn)
    _names: dict[Path, dict[str, None]] = field(default_factory=dict)  # images of a folder, in order
    _shards: dict[Path, str] = field(default_factory=dict)  # folders that hold shards -> their member
    _files: dict[Path, Callable[[Path], None]] = field(default_factory=dict)
    _king: dict[Path, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        nodes = build_graph(self.config).values()
        self.sets = sorted({node.outside for node in nodes if node.outside})
        data = self.config.data
        for name in data.sets:  # those that no node reads as well: nodes are shared by sets of one path
            if not data.drawn(name):
                self.drawn.paths[name] = str(self.place(name))
        self._rng = np.random.default_rng(self.seed)
        self._by_wnid = self._folders_by_wnid()
        ids = {one for dataset in self._datasets() for one in _listed(dataset.options)}
        count = (
            wordnet.breeds_classes() if any(d.family == "breeds" for d in self._datasets()) else 4 * CLASSES
        )
        self.classes = wordnet.class_ids(count, {*ids, ROOT}, importance.classes(self.config))

    def places(self) -> Drawn:
        """Where every set is to stand, and what cannot be drawn; nothing is written."""
        self._people()
        importance.add(self)
        for name, dataset in self.config.evaluate.datasets.items():
            rule = _FAMILIES.get(dataset.family)
            if rule is not None:
                rule(self, name, dataset)
        self._others()
        return self.drawn

    def draw(self) -> Drawn:
        """Write everything; what is there already is written again alike."""
        self.places()
        for folder, names in self._names.items():
            if folder in self._shards:
                write_shards(folder, list(names), self.seed, self._shards[folder])
            else:
                write_folder(folder, names, self.seed)
        for path, write in self._files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        return self.drawn

    # ---- places ----------------------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        """Where a set is to stand; sets keep their places to each other."""
        path = self.config.data.sets[name].path or name
        parts = [{"..": "up"}.get(part, part) for part in Path(os.path.normpath(path)).parts if part != "/"]
        place = self.folder.joinpath(*parts)
        if self.config.data.sets[name].kind == "shards":
            return place.parent if place.suffix == ".tar" else place
        if self.config.data.sets[name].kind == "maps" and place.suffix != ".npz":
            if place in {self.place(one) for one, it in self.config.data.sets.items() if it.kind == "shards"}:
                return place  # in the samples of their images
            return place.with_name("maps.npz") if set("*?[{") & set(place.name) else Path(f"{place}.npz")
        return place

    def _datasets(self) -> Iterable[Any]:
        return self.config.evaluate.datasets.values()

    def _folders_by_wnid(self) -> set[Path]:
        """Folders of images whose classes are WordNet ids: ImageNet's own, and others by what is asked of them."""
        root, sets = self.config.paths.imagenet, self.config.data.sets
        found = {self.place(name) for name in self.drawn.paths if str(sets[name].path).startswith(root)}
        for dataset in self._datasets():
            if dataset.family in ("breeds", "transfer") or "wordnet" in dataset.data:
                found |= {self.place(one) for part, one in dataset.images.items() if part not in ("v2", "c")}
                if dataset.family == "relations" and "pool" in self.sets:
                    found.add(self.place("pool"))
        return found

    def _images(self, name: str, names: Iterable[str]) -> None:
        """Let an image set hold these; its ids begin with `under`."""
        one = self.config.data.sets[name]
        assert isinstance(one, ImagesSet)
        place = self.place(name)
        under = f"{one.under.rstrip('/')}/" if one.under else ""
        named = (item if item.startswith(under) else under + item for item in names)
        self._names.setdefault(place, {}).update(dict.fromkeys(named))
        if one.kind == "shards":
            self._shards[place] = one.member

    def _labelled(self, name: str, each: int, classes: Sequence[str] = ()) -> None:
        """So many images of each class in folders: WordNet ids where they are asked for, or a few classes."""
        if self.place(name) in self._by_wnid:
            kinds, stem = classes or self.classes, "{kind}/{kind}_{number}.JPEG"
        else:
            kinds, stem = (
                classes or [f"class_{number}" for number in range(CLASSES)],
                "{kind}/{number:03}.jpg",
            )
        self._images(
            name, (stem.format(kind=kind, number=number) for kind in kinds for number in range(each))
        )

    def _file(self, name: str, write: Callable[[Path], None]) -> None:
        self._files[self.place(name)] = write

    # ---- people ----------------------------------------------------------------------------------------

    def _people(self) -> None:
        data = self.config.data
        if data.objects is not None and data.objects in self.sets:
            self._file(data.objects, people.write_objects)
        for name, naming in data.object_ids.items():
            if name in self.drawn.paths and data.sets[name].kind in ("images", "shards"):
                names = [f"{one}.jpg" if naming.column == "photo" else one for one in people.OBJECTS]
                self._images(name, (naming.prefix + one for one in names))
        tables: dict[Path, list[TripletsSet]] = {}
        for name in self.sets:
            one = data.sets[name]
            if isinstance(one, TripletsSet):
                tables.setdefault(self.place(name), []).append(one)
        for path, kinds in tables.items():
            self._files[path] = lambda place, kinds=kinds: people.write_choices(place, self.seed, kinds)  # type: ignore[misc]
        for name in self.sets:
            if data.sets[name].kind == "embedding":
                self._file(name, lambda path: people.write_embedding(path, self.seed))

    # ---- evaluations -----------------------------------------------------------------------------------

    def _few_shot(self, name: str, dataset: Any) -> None:
        options = dataset.options
        if options["labels"] != "folder":
            self._leave(dataset, f"few_shot with labels={options['labels']}", pictures=False)
            return
        most = max(options["shots"])
        if "all" in dataset.images:
            share = options["split"]
            each = max(int(np.ceil((most + 1) / share)), int(np.ceil(2 / (1 - share))))
            self._labelled(dataset.images["all"], each)
            return
        self._labelled(dataset.images["train"], most)
        self._tested(dataset.images["test"])

    def _breeds(self, name: str, dataset: Any) -> None:
        self._labelled(dataset.images["train"], TRAINED)
        self._tested(dataset.images["test"])
        if "hierarchy" not in dataset.data:
            self._leave(dataset, "breeds with a table of its own")
            return
        files = [self.place(dataset.data[part]) for part in ("hierarchy", "names", "classes")]
        self._files[files[0]] = lambda _: wordnet.write_breeds(files[0], files[1], files[2], self.classes)
        self._files |= dict.fromkeys(files[1:], _beside)

    def _transfer(self, name: str, dataset: Any) -> None:
        images = dataset.images
        self._labelled(images["train"], TRAINED)
        self._tested(images["val"])
        validation = self._validation()
        some = self.classes[:: max(1, len(self.classes) // 20)]
        for part in {"a", "r"} & set(images):
            self._labelled(images[part], 1, some)
        if "v2" in images:
            self._images(images["v2"], (f"{number}/0.jpeg" for number in range(len(self.classes))))
        if "c" in images:
            self._images(
                images["c"],
                (f"{kind}/{severity}/{one}" for kind in _CORRUPTIONS for severity in (1, 5) for one in validation[:10]),
            )  # fmt: skip
        if "real" in dataset.data:
            labels = [[number % len(self.classes)] for number in range(len(validation))]
            self._file(dataset.data["real"], lambda path: _write_text(path, json.dumps(labels)))

    def _validation(self) -> list[str]:
        return [f"{kind}/ILSVRC2012_val_{number:08}.JPEG" for number, kind in enumerate(self.classes, 1)]

    def _tested(self, name: str) -> None:
        """The images of a test part: of ImageNet's classes one each, named as its validation images are."""
        if self.place(name) in self._by_wnid:
            self._images(name, self._validation())
        else:
            self._labelled(name, TESTED)

    def _conceptual(self, name: str, dataset: Any) -> None:
        if "wordnet" not in dataset.data:
            self._leave(dataset, f"{dataset.family} of a table", pictures=False)
            return
        for one in dataset.images.values():
            self._tested(one)
        listed = dataset.options["wordnet"]
        levels = [list(_listed({"wordnet": {level: listed[level]}})) for level in ("basic", "superordinate")]
        parents = wordnet.hypernyms(self.classes, *levels)
        self._file(dataset.data["wordnet"], lambda path: wordnet.write_noun(path, parents))

    def _judged(self, name: str, dataset: Any) -> None:
        for part, images in dataset.images.items():
            judgements = dataset.data.get("matrix" if part == "test" else part)
            if (
                judgements is None
                or "labels" in dataset.data
                or self.config.data.sets[images].kind == "table"
            ):
                continue
            if images in self.config.data.object_ids:
                continue
            under = str(dataset.options.get("under", "")).replace("{}", part)
            self._images(images, (f"{under}{number:03}.jpg" for number in range(JUDGED)))
            self._judgements(judgements, dict(dataset.options))

    def _judgements(self, name: str, options: Mapping[str, Any]) -> None:
        from scipy.io import savemat

        place = self.place(name)
        position = np.random.default_rng([self.seed, 4]).normal(size=(JUDGED, 3))
        distance = np.linalg.norm(position[:, None] - position[None], axis=-1)
        kind = options.get("format", "matrix")
        if kind == "king":
            self._king.setdefault(place, {})[options["set"]] = JUDGED
            sets = self._king[place]
            several = np.stack([distance, 1.1 * distance])
            self._files[place] = lambda path: savemat(
                path, {"BEHAVIOR": {one: {"pairwisedistances": several} for one in sets}}
            )
        elif kind == "cichy":
            self._files[place] = lambda path: savemat(
                path, {"judgments": np.stack([distance, 1.1 * distance])}
            )
        elif kind == "peterson":
            matrix = 10 * np.exp(-distance)
            inside = place if place.suffix == ".mat" else place / "simMatrix.mat"
            self._files[inside] = lambda path: savemat(path, {"simMatrix": matrix})
        elif place.suffix == ".mat":
            key = options.get("key") or "matrix"
            self._files[place] = lambda path: savemat(
                path, dict.fromkeys([key] if isinstance(key, str) else key, distance)
            )
        elif place.suffix == ".csv":
            self._files[place] = lambda path: np.savetxt(path, distance, delimiter=",")
        else:
            self._files[place] = lambda path: np.save(path, distance)

    def _nights(self, name: str, dataset: Any) -> None:
        items = range(10)
        parts = ("ref/{:03}.png", "distort/{:03}_0.png", "distort/{:03}_1.png")
        self._images(dataset.images["test"], (part.format(item) for item in items for part in parts))
        split, votes = dataset.options["split"], dataset.options["min_votes"]
        rows = [
            [str(item), "drawn", str(item % 2), str(1 - item % 2), *(part.format(item) for part in parts), str(votes),
             split, str(item % 3 > 0)]
            for item in items
        ]  # fmt: skip
        self._file(dataset.data["items"], lambda path: people.write_table(path, _NIGHTS, rows, ","))

    def _levels(self, name: str, dataset: Any) -> None:
        key = dataset.nodes["levels"]
        trials = key.partition("[")[2].rstrip("]")
        if trials not in self.sets:
            return
        names = [f"class{kind:02}/image{number}.jpg" for kind in range(8) for number in range(5)]
        if "test" in dataset.images:
            self._images(dataset.images["test"], names)
        self._file(trials, lambda path: people.write_trials(path, self.seed, names))

    # ---- the rest --------------------------------------------------------------------------------------

    def _leave(self, dataset: Any, what: str, pictures: bool = True) -> None:
        named = [*(dataset.images.values() if pictures else ()), *dataset.data.values()]
        for one in named:
            if one in self.sets and self.place(one) not in {*self._names, *self._files}:
                self.drawn.left.setdefault(one, f"{what} is not drawn: rehearse it with rehearse.data=slice")

    def _others(self) -> None:
        """Image sets that nothing has asked for more of, official triplets; what is left cannot be drawn."""
        sets = self.config.data.sets
        for name in self.sets:
            one, place = sets[name], self.place(name)
            if name in self.drawn.left:
                continue
            if isinstance(one, ImagesSet) and not any(
                item.startswith(one.under) for item in self._names.get(place, ())
            ):
                self._labelled(name, 12 if place not in self._by_wnid else TRAINED)
            if one.kind == "dataset":
                self._file(name, self._write_dataset)
            if one.kind == "map":
                self._map(name)
        for name in self.sets:
            if sets[name].kind == "features" and name not in self.drawn.left:
                self._features(name)
        for name in self.sets:
            one, place = sets[name], self.place(name)
            there = (
                place in self._names
                or place in self._files
                or any(place in path.parents for path in self._files)
            )
            if not there and name not in self.drawn.left and isinstance(one, FileSet):
                self.drawn.left[name] = f"a set of kind {one.kind} that no evaluation describes is not drawn"
            elif not there and name not in self.drawn.left:
                self.drawn.left[name] = f"a set of kind {one.kind} is not drawn"
        for name in self.drawn.left:
            self.drawn.paths.pop(name, None)

    def _map(self, name: str) -> None:
        """W and b as wide as the features of the model that a map is for."""
        for role, given in self.config.distill.published.items():
            model = self.config.models["teacher" if role == "teacher" else "student"]
            if given == name and model.weights in ("random", "hub"):
                self._file(name, lambda path, model=model: _write_map(path, model))  # type: ignore[misc]

    def _features(self, name: str) -> None:
        """Random rows for the images, or the objects, that the teacher takes from a set of features."""
        data, ids = self.config.data, dict[str, None]()
        for images, rows in self.config.teacher.rows.items():
            if rows.features == name and rows.images in data.sets:
                ids |= self._names.get(self.place(rows.images), {})
            elif rows.features == name and not rows.images and images in data.object_ids:
                naming = data.object_ids[images]
                objects = (
                    str(row) if naming.column == "index" else one for row, one in enumerate(people.OBJECTS)
                )
                ids |= dict.fromkeys(naming.prefix + one for one in objects)
        place = self.place(name)
        if ids:
            listed = self.drawn.ids[name] = f"{place}.ids.txt"
            self._files[place] = lambda path: _write_features(path, Path(listed), list(ids))

    def _write_dataset(self, path: Path) -> None:
        names = sorted(self._names[self.place("pool")])
        rng = np.random.default_rng([self.seed, 6])
        rows = np.argsort(rng.random((400, len(names))), axis=1)[:, :3]
        similarities = np.sort(rng.normal(size=(400, 3)), axis=1)[:, ::-1].astype(np.float32)
        with open(path, "wb") as handle:
            np.savez(handle, filenames=np.array(names)[rows], similarities=similarities, indices=rows)


def _write_features(path: Path, listed: Path, ids: Sequence[str]) -> None:
    with open(path, "wb") as handle:
        np.save(handle, np.random.default_rng(0).standard_normal((len(ids), 24)).astype(np.float32))
    listed.write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")


def _beside(path: Path) -> None:
    """Of a file that another one's writer writes as well."""


def _write_map(path: Path, model: ModelSettings) -> None:
    """A gLocal npz near the identity, for the network at random weights."""
    from alignet.backbones import Backbone, load_encoder

    backbone = Backbone(
        model.library, model.architecture, "random", model.model_args, model.image_size, model.feature,
        tag=model.tag,
    )  # fmt: skip
    width = load_encoder(backbone, seed=0).width
    noise = np.random.default_rng(0).normal(0, 0.01, (width, width))
    with open(path, "wb") as handle:  # under whatever name
        np.savez(handle, weights=np.eye(width) + noise, bias=np.zeros(width), mean=0.0, std=1.0)


def _listed(options: Mapping[str, Any]) -> Iterable[str]:
    """WordNet ids that an evaluation's options name."""
    for level in ("basic", "superordinate"):
        for value in (options.get("wordnet") or {}).get(level, {}).values():
            yield from [value] if isinstance(value, str) else value


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


_FAMILIES: dict[str, Callable[[Miniatures, str, Any], None]] = {
    "few_shot": Miniatures._few_shot,
    "breeds": Miniatures._breeds,
    "transfer": Miniatures._transfer,
    "hierarchy": Miniatures._conceptual,
    "relations": Miniatures._conceptual,
    "space": Miniatures._conceptual,
    "projection": Miniatures._conceptual,
    "rsa": Miniatures._judged,
    "rsa_mean": Miniatures._judged,
    "nights": Miniatures._nights,
    "levels": Miniatures._levels,
    "levels_people": Miniatures._levels,
}
