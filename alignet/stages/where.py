"""Compare networks' saliency with people's importance maps: do they look where people look? (docs/where.md)

    images=FOLDER maps=MAPS.npz model=timm:NAME,timm:NAME=FILE.safetensors,FOLDER [keys=all|NAME,NAME]
    [names=A,B,C] [labels=TABLE.csv] [column=class] [logit=label|top1] [ceiling=split_half|clickme|none|NUMBER]
    [arrows=FROM>TO,FROM>TO] [reduction=max|mean|abs_mean] [blur=none|published] [splits=1000] [photographs=true|false]
    [output=FOLDER] [device=cpu] [batch=64] [threads=2]

reads   images, people's importance maps of them, networks with a classifier; a table with the images' classes
writes  output: where.html (one page, which works offline), where.csv and where.json (all scores with intervals),
        tables/, figures/, and of each network <name>/saliency (gradients) and <name>/scores; people/scores
cost    a forward and a backward pass of every network over every image, and ranks of every map at three scales;
        600 kB an image and network of 224 pixels. What is finished is not made again
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignet.pipeline import cli
from alignet.stages._networks_given import Listed, loaded
from alignet.stages._where_given import SCALES, Kinds, options_of, peel

if TYPE_CHECKING:
    import numpy as np

    from alignet.backbones.embedding import GivenImages
    from alignet.backbones.gradients import Classifier
    from alignet.config import Config
    from alignet.evaluate.result import Result
    from alignet.report.where_networks import Given
    from alignet.runtime.artifacts import Artifact

PAGE, TABLE, SCORES, LOCK = "where.html", "where.csv", "where.json", "where.lock"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    typed = list(sys.argv[1:] if argv is None else argv)
    own, rest = peel(typed)
    cli.main("where", __doc__ or "", lambda config: where(own, config), rest, typed=typed)


def where(own: dict[str, str], config: Config) -> None:
    """Make what is not made yet, write the page, and say what was made and where."""
    from alignet.pipeline.torch_setup import set_up
    from alignet.report.where_networks import page
    from alignet.runtime.artifacts import locked
    from alignet.stages._networks_given import arrows_of, images_of, labels_of, networks_of
    from alignet.stages._networks_page import check_output, publish
    from alignet.stages._where_given import kinds_of

    started = time.monotonic()
    options = options_of(own)
    cli.check_one_process(
        config,
        "where",
        "start it without a launcher, for several GPUs once for each part of the networks with an output of its own",
    )
    networks = networks_of(options["model"], options["names"])
    arrows = arrows_of(options["arrows"], networks)
    source = images_of(options["images"], options["maps"], config)
    kinds = kinds_of(options, source.ids)
    labels = labels_of(options["labels"], source.ids, config.saliency.column)
    output = Path(options["output"])
    check_output(output, LOCK)
    set_up(config.runtime)
    with locked(output / LOCK):
        run = _Run(options, config, source, kinds, labels, output)
        people = run.people()
        results, details = {}, {}
        for one in networks:
            results[one.name], details[one.name] = run.network(one)
        given = run.given(details, arrows)
        publish(output, PAGE, page(given, results, people, run.dataset))
        _write_scores(output, given, networks, results, people)
    _tell(output, given, results, kinds, time.monotonic() - started)


class _Run:
    """One command line's images and maps, which its networks share."""

    def __init__(
        self, options: dict[str, str], config: Config, source: GivenImages, kinds: Kinds, labels: np.ndarray,
        output: Path,
    ):  # fmt: skip
        from alignet.stages._networks_given import maps_digest, opener

        self.config, self.source, self.kinds, self.labels, self.output = config, source, kinds, labels, output
        self.images, self.maps = options["images"], Path(options["maps"])
        self.read = opener(source)
        self.dataset = self.maps.stem or "maps"
        self.digests = {"images": source.digest(), "maps": maps_digest(self.maps)}
        self.family: dict[str, Any] = {
            "keys": kinds.keys[0] if len(kinds.keys) == 1 else kinds.keys, "ceiling": kinds.ceiling,
            "splits": int(options["splits"]), "reductions": [options["reduction"]], "scales": list(SCALES),
            "blur": options["blur"], "photographs": options["photographs"] == "true",
        }  # fmt: skip

    @property
    def keys(self) -> dict[str, str]:
        """Name of the scores' data set of each kind of maps -> the kind."""
        if len(self.kinds.keys) == 1:
            return {self.dataset: self.kinds.keys[0] or self.dataset}
        return {f"{self.dataset} {key}": key for key in self.kinds.keys}

    def people(self) -> Result:
        """What needs no network."""
        options = {
            name: value
            for name, value in self.family.items()
            if name in ("keys", "ceiling", "splits", "blur")
        }
        return self._scores("people", "data", options, {"maps": self.digests["maps"]}, {})

    def network(self, one: Listed) -> tuple[Result, dict[str, str]]:
        """The scores of a network, and what the page says of it."""
        from alignet.backbones.gradients import Classifier
        from alignet.stages._networks_page import without_folders

        encoder = loaded(one, f"model {one.name}", self.config.runtime.device)
        try:
            classify = Classifier(encoder)
        except ValueError as error:
            raise ValueError(f"model {one.name}: {error}") from None
        saliency = self._saliency(one, classify)
        inputs = {"saliency": saliency.digest, "maps": self.digests["maps"]}
        if self.family["photographs"]:
            inputs["images"] = self.digests["images"]
        result = self._scores(one.folder, "original", self.family, inputs, {"saliency": saliency.folder})
        size, labelled = encoder.data_config["input_size"], saliency.metrics["labelled"]
        wrong = saliency.metrics["images"] - labelled
        return result, {
            "loaded from": without_folders(one), "architecture": encoder.backbone.architecture,
            "input, pixels": f"{size[1]} x {size[2]}",
            "gradients of": self._whose(labelled) + (f" ({labelled} and {wrong})" if labelled and wrong else ""),
            "attention rollout": "yes" if saliency.metrics["rollout"] else "no",
            "sha256 of the weights": saliency.manifest["built_from"]["weights"][:12],
        }  # fmt: skip

    def _whose(self, labelled: int) -> str:
        if self.config.saliency.logit == "top1" or not labelled:
            return "the predicted class"
        return (
            "the image's class"
            if labelled == len(self.labels)
            else "the image's class, else the predicted one"
        )

    def given(self, details: dict[str, dict[str, str]], arrows: list[tuple[str, str]]) -> Given:
        """What the page says of it all."""
        from alignet.report.where_networks import Given

        labelled = int((self.labels >= 0).sum())
        whose = f"gradients of {self._whose(labelled)}"
        why = (
            "no class of the images is known, so that there is no accuracy either" if not labelled
            else "the class of every image is known" if labelled == len(self.labels)
            else f"the class is known of {labelled:,} of {len(self.labels):,} images"
        )  # fmt: skip
        meant = "a map says how much each pixel changes that class's logit"
        said = f"{whose[0].upper()}{whose[1:]}: {why}; {meant}."
        return Given(
            Path(self.images).absolute().name, self.maps.name, len(self.labels), self.keys, said, details, arrows,
            self.family | {"seed": self.config.seed, "draws of an interval": self.config.evaluate.bootstrap},
        )  # fmt: skip

    def _saliency(self, one: Listed, classify: Classifier) -> Artifact:
        """The gradients of a network for all images; ValueError where others stand in their place."""
        from alignet.backbones.embedding import weights_digest
        from alignet.pipeline.graph.models import pixels_section
        from alignet.runtime.artifacts import Identity, fingerprint
        from alignet.stages._networks_page import finished
        from alignet.stages.saliency import write_saliency

        settings, backbone = self.config.saliency, classify.encoder.backbone
        section = {
            "model": {"name": one.typed, "library": backbone.library, "architecture": backbone.architecture},
            "input": {name: str(value) for name, value in sorted(classify.encoder.data_config.items())},
            "saliency": {name: value for name, value in asdict(settings).items() if name not in ("labels", "column")},
            "pixels": pixels_section(self.config),
        }  # fmt: skip
        inputs = {
            "images": fingerprint({"files": self.digests["images"], "ids": list(self.source.ids)}),
            "weights": weights_digest(classify.encoder.module),
            "labels": fingerprint({"labels": self.labels.tolist()}),
        }
        compared = {name: value for name, value in section.items() if name != "model"}

        def make(folder: Path) -> dict[str, Any]:
            try:
                return write_saliency(
                    classify, self.source.ids, self.labels, self.read, folder, settings, self.config.runtime,
                    name=one.name, key="saliency",
                )  # fmt: skip
            except ValueError as error:
                raise ValueError(f"model {one.name}: {error}") from None

        identity = Identity("where", "saliency", 1, section, inputs)
        built_from = inputs | {"settings": fingerprint(compared)}
        target = self.output / one.folder / "saliency"
        return finished(target, identity, built_from, make, self.config, "gradients", keep=True)

    def _scores(
        self,
        folder: str,
        setting: str,
        options: dict[str, Any],
        inputs: dict[str, str],
        nodes: Mapping[str, Path],
    ) -> Result:
        """What the family `where` makes of it, as it stands in its files."""
        from alignet.evaluate.families.where import where as evaluated
        from alignet.stages._networks_page import scored

        return scored(
            self.output / folder / "scores", "where", evaluated, setting, options, inputs, self.config,
            dataset=self.dataset, files={"maps": self.maps}, nodes=nodes, read=self.read,
        )  # fmt: skip


# ---- what is written


def _write_scores(
    output: Path, given: Given, networks: Sequence[Listed], results: Mapping[str, Result], people: Result
) -> None:
    """where.csv, a row for each score, and where.json."""
    from alignet.runtime.artifacts import write_json
    from alignet.stages._networks_page import plain, write_csv

    def listed(result: Result) -> list[dict[str, Any]]:
        found = []
        for one in result.scores:
            columns = asdict(one)
            kind = given.keys.get(columns.pop("dataset"), "")
            found.append(
                {"key": "" if one.metric == "accuracy" else kind} | columns
            )  # the same for all kinds
        return found

    every = {"people": listed(people)} | {name: listed(result) for name, result in results.items()}
    columns = [
        "model",
        "key",
        "metric",
        "value",
        "low",
        "high",
        "n",
        "unit",
        "over",
        "chance",
        "ceiling",
        "note",
    ]
    rows = [
        {"model": "" if name == "people" else name} | score
        for name, scores in every.items() for score in scores
    ]  # fmt: skip
    write_csv(output / TABLE, columns, rows)
    pairs = plain(people.tables.get("between", {}))
    write_json(
        output / SCORES,
        {
            "images": given.images, "maps": given.maps, "count": given.count, "gradients": given.gradients,
            "options": dict(given.options), "arrows": [list(pair) for pair in given.arrows],
            "models": [
                {"name": one.name, "given": one.typed, "about": given.details[one.name], "scores": every[one.name]}
                for one in networks
            ],
            "people": {"scores": every["people"], "between": pairs},
        },
    )  # fmt: skip


# ---- what is said


def _tell(output: Path, given: Given, results: Mapping[str, Result], kinds: Kinds, seconds: float) -> None:
    from alignet.report.formatting import counted
    from alignet.report.where_networks import kinds_text, printed

    print(printed(given, results))
    without = {key: given.count - count for key, count in kinds.matched.items() if count < given.count}
    for key, count in without.items():
        print(f"{count:,} of {given.count:,} images have no map{f' {key}' if key else ''}")
    page = shlex.quote(str(output / PAGE))
    what = f"{counted(len(results), 'network')} x {counted(given.count, 'image')} x {kinds_text(len(given.keys))}"
    print(
        f"{given.gradients}\n"
        f"{what} -> {output} ({PAGE}, {TABLE}, {SCORES}), {seconds:,.0f} s\n"
        f"next: open {page} in a browser; the same command with more networks in model= keeps what is made"
    )


if __name__ == "__main__":
    main()
