"""Compare how much networks tolerate, and whether attacks fall where people look (docs/robustness.md).

    images=FOLDER model=timm:NAME,timm:NAME=FILE.safetensors,FOLDER [maps=MAPS.npz] [key=NAME] [names=A,B,C]
    [labels=TABLE.csv] [column=class] [logit=label|top1] [method=fast] [also=linf,cw] [arrows=FROM>TO,FROM>TO]
    [groups=cnn:A,B;vit:C,D] [reduction=mean|max] [eps=0.25,0.5,1] [common=true|false] [photographs=true|false]
    [output=FOLDER] [device=cpu] [batch=32] [threads=2]

reads   images, networks with a classifier; a table with the images' classes, people's importance maps of the images
writes  output: robustness.html (one page, which works offline), robustness.csv and robustness.json (all scores with
        intervals), tables/, figures/, and of each network <name>/answers, <name>/attack, <name>/attack-<method> of
        each method in also=, and <name>/scores
cost    by the method: `fast` 20 forward and backward passes of every network over every image that it names right,
        and about 20 forward passes for 8 bit; 0.9 MB an image and network of 224 pixels. What is finished is not made
        again
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
from alignet.stages._robustness_given import TAKEN, options_of, peel

if TYPE_CHECKING:
    import numpy as np

    from alignet.backbones.embedding import GivenImages
    from alignet.backbones.gradients import Classifier
    from alignet.config import AttackMethod, Config
    from alignet.evaluate.result import Result
    from alignet.report.attack_networks import Given
    from alignet.runtime.artifacts import Artifact

PAGE, TABLE, SCORES, LOCK = "robustness.html", "robustness.csv", "robustness.json", "robustness.lock"
COMMON = "common.txt"  # ids of the images that count, one a line
COLUMNS = ("model", "metric", "value", "low", "high", "n", "unit", "over", "chance", "ceiling", "note")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    typed = list(sys.argv[1:] if argv is None else argv)
    own, rest = peel(typed)
    cli.main("robustness", __doc__ or "", lambda config: robustness(own, config), rest, typed=typed)


def robustness(own: dict[str, str], config: Config) -> None:
    """Make what is not made yet, write the page, and say what was made and where."""
    import numpy as np

    from alignet.data.drawn import drawn
    from alignet.pipeline.torch_setup import set_up
    from alignet.report.attack_networks import page
    from alignet.runtime.artifacts import locked
    from alignet.stages import _robustness_given as words
    from alignet.stages._networks_given import arrows_of, images_of, labels_of, networks_of
    from alignet.stages._networks_page import check_output, publish

    started = time.monotonic()
    options = options_of(own)
    cli.check_one_process(
        config, "robustness",
        "start it without a launcher, for several GPUs once for each part of the networks with an output of its own",
    )  # fmt: skip
    methods = words.methods_of(config.attack, options["also"])
    eps = words.eps_of(options["eps"], methods[config.attack.method])
    networks = networks_of(options["model"], options["names"], TAKEN)
    arrows = arrows_of(options["arrows"], networks)
    groups = words.groups_of(options["groups"], networks)
    source = images_of(options["images"], options["maps"], config)
    key, mapped = words.key_of(options, source.ids)
    labels = labels_of(options["labels"], source.ids, config.attack.column)
    any_answer, common = config.attack.logit == "top1", options["common"] == "true"
    words.check_classes(labels, any_answer=any_answer)
    rows = drawn(labels, methods[config.attack.method].images, config.attack.seed, any_answer)
    ids, labels, mapped = [source.ids[row] for row in rows], labels[rows], mapped[rows]
    output = Path(options["output"])
    check_output(output, LOCK)
    set_up(config.runtime)
    with locked(output / LOCK):
        run = _Run(options, config, source, ids, labels, methods, eps, key, output)
        right = {one.name: run.right(one) for one in networks}
        words.check_right(right, labels, common=common)
        run.check_others(right)
        every = (np.logical_and if common else np.logical_or).reduce(list(right.values()))
        if options["maps"] and not (every & mapped).any():
            raise words.NotMeasured(
                f"maps: expected maps of images that networks name right, found none among the {int(mapped.sum()):,} "
                "images with a map; give maps of others, or leave maps out for tolerance alone.",
                "networks name none of the images with a map right", maps=True,
            )  # fmt: skip
        attacks = {one.name: run.attacks(one) for one in networks}
        run.count(attacks)
        results = {one.name: run.scores(one, attacks[one.name]) for one in networks}
        given = run.given(arrows, groups or words.guessed(run.kinds), guessed=not groups)
        publish(output, PAGE, page(given, results, run.dataset))
        _write_scores(output, given, networks, results)
    _tell(output, given, results, time.monotonic() - started)


class _Run:
    """One command line's images, which its networks share."""

    def __init__(
        self, options: dict[str, str], config: Config, source: GivenImages, ids: Sequence[str], labels: np.ndarray,
        methods: Mapping[str, AttackMethod], eps: Sequence[float], key: str, output: Path,
    ):  # fmt: skip
        from alignet.stages._networks_given import folder_name as named
        from alignet.stages._networks_given import maps_digest, opener

        self.config, self.source, self.labels = config, source, labels
        self.methods, self.output = methods, output
        self.images = Path(options["images"]).absolute().name
        self.maps = Path(options["maps"]) if options["maps"] else None
        self.dataset = named(self.images)
        self.any_answer, self.common = config.attack.logit == "top1", options["common"] == "true"
        self.ids, self.read = list(ids), opener(source)
        self.digests = {"images": source.digest()} | ({"maps": maps_digest(self.maps)} if self.maps else {})
        self.family: dict[str, Any] = {
            "reduction": options["reduction"], "key": key, "eps": list(eps),
            "photographs": options["photographs"] == "true",
        }  # fmt: skip
        self.kinds: dict[str, str] = {}  # of each network: cnn | vit
        self.details: dict[str, dict[str, str]] = {}
        self.counts: dict[str, int] = {}  # images that were attacked, of each network
        self.left_out: dict[
            str, list[str]
        ] = {}  # networks and their further methods without an image that counts
        self.counted: list[str] | None = None  # ids of the images that count; None: each network's own
        self._held: tuple[Listed, Classifier] | None = None

    @property
    def listing(self) -> Path:
        """Where the images that count are listed."""
        return self.output / COMMON

    def right(self, one: Listed) -> np.ndarray:
        """Which images (n,) bool the network names right, or all of them with logit=top1; from its answers."""
        import numpy as np

        from alignet.stages._networks_page import without_folders
        from alignet.stages._robustness_given import kind_of

        classify = self._classifier(one)
        encoder = classify.encoder
        answers = self._answers(one, classify)
        paths = sorted(answers.folder.glob("answers-*.npz"))
        top1 = np.concatenate([np.load(path, allow_pickle=False)["top1"] for path in paths])
        right = top1 == self.labels
        self.kinds[one.name] = kind_of(encoder.module.modules())
        size, known = encoder.data_config["input_size"], int((self.labels >= 0).sum())
        self.details[one.name] = {
            "loaded from": without_folders(one), "architecture": encoder.backbone.architecture,
            "kind": self.kinds[one.name], "input, pixels": f"{size[1]} x {size[2]}",
            "right at first": f"{int(right.sum()):,} of {known:,}" if known else "no class is known",
            "sha256 of the weights": answers.manifest["built_from"]["weights"][:12],
        }  # fmt: skip
        return np.ones(len(right), dtype=bool) if self.any_answer else right

    def check_others(self, right: Mapping[str, np.ndarray]) -> None:
        """ValueError for a network that names none of the images right that a further method draws."""
        for name, one in right.items():
            for method in self.methods:
                rows = self._rows(method)
                if not one[rows].any():
                    raise ValueError(
                        f"also: expected images that {name} names right among the {len(rows):,} drawn for {method}, "
                        f"found none; draw more with attack.methods.{method}.images=0, or leave {method} out."
                    )

    def _rows(self, method: str) -> np.ndarray:
        """Which of the images a method attacks: all, or as many as it draws of them at random."""
        import numpy as np

        from alignet.data.drawn import drawn

        if method == self.config.attack.method:
            return np.arange(len(self.ids))
        return drawn(self.labels, self.methods[method].images, self.config.attack.seed, self.any_answer)

    def attacks(self, one: Listed) -> dict[str, Artifact]:
        """The attacks of a network by every method, `attack` the first."""
        from alignet.stages.attack import write_attacks

        settings, found = self.config.attack, {}
        for place, (name, method) in enumerate(self.methods.items()):
            node = "attack" if not place else name
            target = self.output / one.folder / (node if not place else f"attack-{name}")
            rows = self._rows(name)

            def make(
                folder: Path, name: str = name, method: AttackMethod = method, rows: np.ndarray = rows
            ) -> dict[str, Any]:
                return write_attacks(
                    self._classifier(one), [self.ids[row] for row in rows], self.labels[rows], self.read, folder,
                    method, self.config.runtime, any_answer=self.any_answer, batch=settings.batch, shard=settings.shard,
                    name=f"{one.name}, {name}", key=f"model {one.name}",
                )  # fmt: skip

            how = {key: value for key, value in asdict(method).items() if key != "images"}
            section = {"attack": {"method": how, "logit": settings.logit, "shard": settings.shard}}
            found[node] = self._made(one, target, "attacks", rows, section, make)
        return found

    def count(self, attacks: Mapping[str, Mapping[str, Artifact]]) -> None:
        """Which images count: those that every network was attacked on, or of each network its own."""
        import numpy as np

        from alignet.report.files import write_bytes

        def attacked(artifact: Artifact) -> np.ndarray:
            paths = sorted(artifact.folder.glob("attack-*.npz"))
            return np.concatenate([np.load(path, allow_pickle=False)["tried"] for path in paths])

        tried = {name: attacked(every["attack"]) for name, every in attacks.items()}
        self.counts = {name: int(one.sum()) for name, one in tried.items()}
        if self.common:
            both = np.logical_and.reduce(list(tried.values()))
            self.counted = [one for one, kept in zip(self.ids, both, strict=True) if kept]
            write_bytes(self.listing, "".join(f"{one}\n" for one in self.counted).encode())
        else:
            both = np.ones(len(self.ids), dtype=bool)
            self.listing.unlink(missing_ok=True)
        for name, every in attacks.items():
            without = [
                node for node, artifact in every.items()
                if node != "attack" and not (attacked(artifact) & both[self._rows(node)]).any()
            ]  # fmt: skip
            self.left_out |= {name: without} if without else {}

    def scores(self, one: Listed, attacks: Mapping[str, Artifact]) -> Result:
        """What the family `attack` makes of it, as it stands in its files."""
        from alignet.evaluate.families.attack import attack
        from alignet.runtime.artifacts import fingerprint
        from alignet.stages._networks_page import scored

        attacks = {
            name: one_attack for name, one_attack in attacks.items()
            if name not in self.left_out.get(one.name, ())
        }  # fmt: skip
        inputs = {name: artifact.digest for name, artifact in attacks.items()}
        inputs |= {name: self.digests[name] for name in ("maps",) if name in self.digests}
        inputs |= {"common": fingerprint({"ids": self.counted})}

        return scored(
            self.output / one.folder / "scores", "robustness", attack, "original", self.family, inputs, self.config,
            dataset=self.dataset, nodes={name: artifact.folder for name, artifact in attacks.items()}, read=self.read,
            files=({"maps": self.maps} if self.maps else {}) | ({"common": self.listing} if self.common else {}),
        )  # fmt: skip

    def given(
        self, arrows: Sequence[tuple[str, str]], groups: Mapping[str, Sequence[str]], *, guessed: bool
    ) -> Given:
        """What the page says of it all."""
        from alignet.report.attack_networks import Given

        for name, detail in self.details.items():
            detail["attacked"] = f"{self.counts[name]:,}"
        return Given(
            self.images, "" if self.maps is None else self.maps.name, len(self.labels),
            None if self.counted is None else len(self.counted), self.counts, self.details,
            total=len(self.source.ids), left_out=self.left_out, any_answer=self.any_answer, arrows=arrows,
            groups=groups, guessed=guessed,
            methods={name: asdict(method) for name, method in self.methods.items()},
            options=self.family | {"seed": self.config.seed, "draws of an interval": self.config.evaluate.bootstrap},
        )  # fmt: skip

    def _classifier(self, one: Listed) -> Classifier:
        """The network; the last one that was loaded is kept."""
        from alignet.backbones.gradients import Classifier, has_classifier

        if self._held is None or self._held[0] != one:
            self._held = None
            encoder = loaded(one, f"model {one.name}", self.config.runtime.device)
            if not has_classifier(encoder):
                raise ValueError(
                    f"model {one.name}: expected a network with a classifier, found {encoder.backbone.library}'s "
                    f"{encoder.backbone.architecture} without one; name one of timm that was trained on classes."
                )
            self._held = one, Classifier(encoder)
        return self._held[1]

    def _answers(self, one: Listed, classify: Classifier) -> Artifact:
        """The classes that a network names at first, `top1` (b,) of each shard."""
        import numpy as np

        def make(folder: Path) -> dict[str, Any]:
            import torch

            from alignet.attacks.attack import finite
            from alignet.stages._image_shards import write_shards

            @torch.no_grad()
            def compute(images: Any, labels: Any) -> dict[str, np.ndarray]:
                logits = finite(classify(classify.pixels(images.to(classify.device)).clamp(0, 1)))
                most = int(labels.max())
                if most >= logits.shape[1]:
                    raise ValueError(
                        f"model {one.name}: labels: expected classes in 0..{logits.shape[1] - 1}, found {most}; number "
                        "them as its classifier does."
                    )
                return {"top1": logits.argmax(1).cpu().numpy()}

            write_shards(
                "answers", classify.encoder, self.ids, self.labels, self.read, folder, compute,
                lambda key, names, arrays: arrays, batch=self.config.attack.batch, shard=self.config.attack.shard,
                runtime=self.config.runtime, name=one.name, key=f"model {one.name}",
            )  # fmt: skip
            return {"images": len(self.labels)}

        target = self.output / one.folder / "answers"
        every = np.arange(len(self.ids))
        return self._made(one, target, "answers", every, {"shard": self.config.attack.shard}, make)

    def _made(
        self, one: Listed, target: Path, what: str, rows: np.ndarray, settings: dict[str, Any], make: Any,
    ) -> Artifact:  # fmt: skip
        """What a network comes to on these images; ValueError where others stand in its place."""
        from alignet.backbones.embedding import weights_digest
        from alignet.pipeline.graph.models import pixels_section
        from alignet.runtime.artifacts import Identity, fingerprint
        from alignet.stages._networks_page import finished

        encoder = self._classifier(one).encoder
        backbone = encoder.backbone
        section = {
            "model": {"name": one.typed, "library": backbone.library, "architecture": backbone.architecture},
            "input": {name: str(value) for name, value in sorted(encoder.data_config.items())},
            "pixels": pixels_section(self.config),
        } | settings  # fmt: skip
        inputs = {
            "images": fingerprint({"files": self.digests["images"], "ids": [self.ids[row] for row in rows]}),
            "weights": weights_digest(encoder.module),
            "labels": fingerprint({"labels": self.labels[rows].tolist()}),
        }
        compared = {name: value for name, value in section.items() if name != "model"}
        identity = Identity("robustness", target.name, 1, section, inputs)
        built_from = inputs | {"settings": fingerprint(compared)}
        return finished(target, identity, built_from, make, self.config, what, keep=what != "answers")


# ---- what is written and said


def _write_scores(
    output: Path, given: Given, networks: Sequence[Listed], results: Mapping[str, Result]
) -> None:
    """robustness.csv, a row for each score, and robustness.json."""
    from alignet.stages._networks_page import write_scores

    about = {
        "images": given.images, "maps": given.maps, "count": given.count, "common": given.common,
        "methods": dict(given.methods), "options": dict(given.options),
        "arrows": [list(pair) for pair in given.arrows],
        "groups": {name: list(members) for name, members in given.groups.items()},
    }  # fmt: skip
    write_scores(output / TABLE, output / SCORES, COLUMNS, networks, results, given.details, about)


def _tell(output: Path, given: Given, results: Mapping[str, Result], seconds: float) -> None:
    from alignet.report.attack_networks import counting, printed
    from alignet.report.formatting import counted

    print(printed(given, results))
    print(counting(given))
    page = shlex.quote(str(output / PAGE))
    what = f"{counted(len(results), 'network')} x {counted(given.count, 'image')}"
    what += f" by {', '.join(given.methods)}"
    print(
        f"{what} -> {output} ({PAGE}, {TABLE}, {SCORES}), {seconds:,.0f} s\n"
        f"next: open {page} in a browser; the same command with more networks in model= keeps what is made"
    )


if __name__ == "__main__":
    main()
