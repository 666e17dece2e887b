"""Find images that networks take for the same as given ones, and ask whether they look the same (docs/invariances.md).

    images=FOLDER model=timm:NAME,timm:NAME=FILE.safetensors,FOLDER [names=A,B,C] [methods=free,human,adversarial]
    [distances=pixels,stlpips_alex,timm:NAME=FILE] [against=DISTANCE] [matched=0.05] [count=100] [draws=2] [layer=NAME]
    [people=NAME=CHOICES.csv] [similarity=FILE order=TABLE.csv kind=similarity|dissimilarity] [arrows=FROM>TO,FROM>TO]
    [photographs=true|false] [output=FOLDER] [device=cpu] [batch=16] [threads=2]

reads   images; networks; those whose layers are distances; people's answers and similarities
writes  output: invariances.html (one page, which works offline), invariances.csv and invariances.json (all scores with
        intervals), tables/, figures/, and of each network <name>/invert-<method>, <name>/perceptual-<method>/<distance>
        and <name>/scores
cost    images x draws x at most as many forward and backward passes of every network as a method has steps: 500, of
        `paper` and `published` 5,000; 2 MB an image and method of 224 pixels with 2 draws. What is finished is not
        made again
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignet.pipeline import cli
from alignet.stages._invariances_given import TAKEN, Compared, options_of, peel
from alignet.stages._networks_given import Listed, loaded

if TYPE_CHECKING:
    from alignet.backbones import Encoder
    from alignet.backbones.embedding import GivenImages
    from alignet.config import Config, InvertMethod
    from alignet.evaluate.result import Result
    from alignet.invariances.perceptual import Distance
    from alignet.report.invariance_networks import Given
    from alignet.runtime.artifacts import Artifact

PAGE, TABLE, SCORES = "invariances.html", "invariances.csv", "invariances.json"
LOCK = "invariances.lock"
COLUMNS = ("model", "metric", "value", "low", "high", "n", "unit", "over", "chance", "ceiling", "note")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    typed = list(sys.argv[1:] if argv is None else argv)
    own, rest = peel(typed)
    cli.main("invariances", __doc__ or "", lambda config: invariances(own, config), rest, typed=typed)


def invariances(own: dict[str, str], config: Config) -> None:
    """Make what is not made yet, write the page, and say what was made and where."""
    from alignet.pipeline.torch_setup import set_up
    from alignet.report.invariance_networks import page
    from alignet.runtime.artifacts import locked
    from alignet.stages import _invariances_given as words
    from alignet.stages._networks_given import arrows_of, images_of, networks_of
    from alignet.stages._networks_page import check_output, publish

    started = time.monotonic()
    options = options_of(own)
    cli.check_one_process(
        config, "invariances",
        "start it without a launcher, for several GPUs once for each part of the networks with an output of its own",
    )  # fmt: skip
    distances = words.distances_of(options["distances"], config.perceptual)
    methods = words.methods_of(options["methods"], options["against"], config.invert, distances)
    networks = networks_of(options["model"], options["names"], TAKEN)
    arrows = arrows_of(options["arrows"], networks)
    people = words.people_of(options["people"], networks)
    source = images_of(options["images"], "", config)
    output = Path(options["output"])
    check_output(output, LOCK)
    set_up(config.runtime)
    with locked(output / LOCK):
        run = _Run(options, config, source, methods, distances, output)
        run.check_people(people.values())
        results = {one.name: run.scores(one, people.get(one.name)) for one in networks}
        given = run.given(arrows)
        publish(output, PAGE, page(given, results, run.dataset))
        _write_scores(output, given, networks, results)
    _tell(output, given, results, time.monotonic() - started)


class _Run:
    """One command line's images, methods and distances, which its networks share."""

    def __init__(
        self, options: dict[str, str], config: Config, source: GivenImages, methods: Mapping[str, InvertMethod],
        distances: Mapping[str, Compared], output: Path,
    ):  # fmt: skip
        import numpy as np

        from alignet.data.drawn import drawn
        from alignet.stages._networks_given import folder_name, opener

        self.config, self.source, self.methods, self.output = config, source, methods, output
        self.compared, self.read = distances, opener(source)
        rows = drawn(np.zeros(len(source.ids), np.int64), config.invert.images, config.invert.seed, True)
        self.ids = [source.ids[row] for row in rows]
        self.images = Path(options["images"]).absolute().name
        self.dataset = folder_name(self.images)
        self.files = {name: Path(options[name]) for name in ("similarity", "order") if options["similarity"]}
        self.family: dict[str, Any] = {
            "matched": float(options["matched"]), "photographs": options["photographs"] == "true",
            "distances": list(distances), "people_of": "original",
            **({"kind": options["kind"], "order_column": "id"} if self.files else {}),
        }  # fmt: skip
        self.digest = source.digest()
        self.details: dict[str, dict[str, str]] = {}
        self._distances: dict[str, tuple[Distance, str]] = {}
        self._held: tuple[Listed, Encoder] | None = None

    def check_people(self, answers: Iterable[Path]) -> None:
        """ValueError for people's answers or similarities that do not fit these images."""
        from alignet.data.judgements import hard_triples
        from alignet.evaluate.families.invariance_people import read_answers
        from alignet.evaluate.families.invariance_read import read_similarity

        for path in answers:
            read_answers(path, self.ids, self.config.invert.draws)
        if self.files:
            similarity, _, _ = read_similarity(self.files, self.family, self.ids, self.dataset)
            hard_triples(similarity, self.config.seed)

    def scores(self, one: Listed, people: Path | None) -> Result:
        """What the family `invariance` makes of a network, as it stands in its files."""
        from alignet.evaluate.families.invariance import invariance
        from alignet.runtime.artifacts import file_digest
        from alignet.stages._networks_page import scored

        nodes: dict[str, Path] = {}
        inputs: dict[str, str] = {}
        for place, (name, method) in enumerate(self.methods.items()):
            ending = f"_{name}" if place else ""
            made = self._inverted(one, name, method)
            nodes[f"invert{ending}"], inputs[f"invert{ending}"] = made.folder, made.digest
            nodes[f"perceptual{ending}"] = self.output / one.folder / f"perceptual-{name}"
            for compared in self.compared.values():
                inputs[f"{compared.name}{ending}"] = self._measured(one, name, compared, made).digest
        files = self.files | ({"people": people} if people is not None else {})
        inputs |= {name: file_digest(path) for name, path in files.items()}
        return scored(
            self.output / one.folder / "scores", "invariances", invariance, "original", self.family, inputs,
            self.config, dataset=self.dataset, files=files, nodes=nodes, read=self.read,
        )  # fmt: skip

    def given(self, arrows: Sequence[tuple[str, str]]) -> Given:
        """What the page says of it all."""
        from alignet.report.invariance_networks import Given

        beside = {
            "seed": self.config.invert.seed, "layer": self.config.invert.layer or "penultimate",
            "starts of each image": self.config.invert.draws, "draws of an interval": self.config.evaluate.bootstrap,
        }  # fmt: skip
        return Given(
            self.images, len(self.ids), len(self.source.ids), self.details,
            {name: asdict(method) for name, method in self.methods.items()},
            {name: one.title for name, one in self.compared.items()}, arrows, self.family | beside,
        )  # fmt: skip

    def _inverted(self, one: Listed, name: str, method: InvertMethod) -> Artifact:
        """A network's images by a method."""
        from alignet.backbones.embedding import weights_digest
        from alignet.pipeline.graph.models import pixels_section
        from alignet.runtime.artifacts import Identity, fingerprint
        from alignet.stages._networks_page import finished, without_folders
        from alignet.stages.invert import write_inverted

        encoder, settings = self._encoder(one), self.config.invert
        backbone, size = encoder.backbone, encoder.data_config["input_size"]
        pushed, about = self._distance(method.distance) if method.distance else (None, "")
        inputs = {
            "images": fingerprint({"files": self.digest, "ids": self.ids}),
            "weights": weights_digest(encoder.module),
            **({"distance": about} if about else {}),
        }
        section = {
            "input": {key: str(value) for key, value in sorted(encoder.data_config.items())},
            "pixels": pixels_section(self.config), "method": asdict(method), "layer": settings.layer,
            "draws": settings.draws, "seed": settings.seed, "shard": settings.shard,
        }  # fmt: skip
        self.details[one.name] = {
            "loaded from": without_folders(one), "architecture": backbone.architecture,
            "input, pixels": f"{size[1]} x {size[2]}", "sha256 of the weights": inputs["weights"][:12],
        }  # fmt: skip

        def make(folder: Path) -> dict[str, Any]:
            return write_inverted(
                encoder, self.ids, self.read, folder, method, self.config.runtime, distance=pushed, regulariser=name,
                layer=settings.layer, draws=settings.draws, seed=settings.seed, batch=settings.batch,
                shard=settings.shard, name=f"{one.name}, {name}", key=f"model {one.name}",
            )  # fmt: skip

        target = self.output / one.folder / f"invert-{name}"
        model = {"name": one.typed, "library": backbone.library, "architecture": backbone.architecture}
        identity = Identity("invariances", target.name, 1, {"model": model} | section, inputs)
        built_from = inputs | {"settings": fingerprint(section)}
        return finished(target, identity, built_from, make, self.config, "inverted images", keep=True)

    def _measured(self, one: Listed, name: str, compared: Compared, made: Artifact) -> Artifact:
        """The distances of a network's inverted images by one of the distances."""
        from alignet.runtime.artifacts import Identity
        from alignet.stages._networks_page import finished
        from alignet.stages.perceptual import finish, write_distance

        def make(folder: Path) -> dict[str, Any]:
            distance, _ = self._distance(compared.name)
            paths = sorted(made.folder.glob("invert-*.npz"))
            batch = self.config.perceptual.batch
            write_distance(distance, paths, folder, batch, self.config.runtime.device, f"{one.name}, {name}")
            return finish([compared.name], paths, folder)

        inputs = {"invert": made.digest, "distance": self._distance(compared.name)[1]}
        target = self.output / one.folder / f"perceptual-{name}" / compared.name
        target.parent.mkdir(parents=True, exist_ok=True)
        identity = Identity("invariances", f"perceptual.{compared.name}", 1, {}, inputs)
        return finished(target, identity, inputs, make, self.config, "distances", keep=False)

    def _encoder(self, one: Listed) -> Encoder:
        """The network; the last one that was loaded is kept."""
        if self._held is None or self._held[0] != one:
            self._held = None
            self._held = one, loaded(one, f"model {one.name}", self.config.runtime.device)
        return self._held[1]

    def _distance(self, name: str) -> tuple[Distance, str]:
        """A distance, and a digest of all that it hangs on."""
        from importlib.metadata import version

        from alignet.backbones.embedding import weights_digest
        from alignet.invariances.layers import EncoderLayers
        from alignet.invariances.perceptual import LayerDistance, Pixels
        from alignet.invariances.trunks import stlpips_distance
        from alignet.runtime.artifacts import fingerprint

        if name in self._distances:
            return self._distances[name]
        one, device = self.compared[name], self.config.runtime.device
        made: Distance
        if one.network is not None:
            encoder = loaded(one.network, f"distances: {name}", device)
            layers = EncoderLayers(encoder)
            made, about = (
                LayerDistance(name, layers),
                {
                    "weights": weights_digest(encoder.module),
                    "layers": list(layers.names),
                    "input": {key: str(value) for key, value in sorted(encoder.data_config.items())},
                },
            )
        elif one.kind == "stlpips":
            made = stlpips_distance(name, one.net, device)
            about = {"stlpips": version("stlpips-pytorch"), "net": one.net}
        else:
            made, about = Pixels(name), {"kind": one.kind}
        self._distances[name] = made, fingerprint({"name": name} | about)
        return self._distances[name]


# ---- what is written and said


def _write_scores(
    output: Path, given: Given, networks: Sequence[Listed], results: Mapping[str, Result]
) -> None:
    """invariances.csv, a row for each score, and invariances.json."""
    from alignet.stages._networks_page import write_scores

    about = {
        "images": given.images, "count": given.count, "methods": dict(given.methods),
        "distances": dict(given.distances), "options": dict(given.options),
        "arrows": [list(pair) for pair in given.arrows],
    }  # fmt: skip
    write_scores(output / TABLE, output / SCORES, COLUMNS, networks, results, given.details, about)


def _tell(output: Path, given: Given, results: Mapping[str, Result], seconds: float) -> None:
    from alignet.report.formatting import counted
    from alignet.report.invariance_networks import counting, printed

    print(printed(results))
    print(counting(given))
    page = shlex.quote(str(output / PAGE))
    what = (
        f"{counted(len(results), 'network')} x {counted(given.count, 'image')} by {', '.join(given.methods)}"
    )
    print(
        f"{what} -> {output} ({PAGE}, {TABLE}, {SCORES}), {seconds:,.0f} s\n"
        f"next: open {page} in a browser; the same command with more in model=, methods= or distances= keeps what "
        "is made"
    )


if __name__ == "__main__":
    main()
