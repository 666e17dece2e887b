"""From a configuration to the graph of nodes, as pure data. This is the only place that knows the edges.

A node is a stage in a role. The four settings of a student are four ways through the graph; the
`distillation` way uses no human data, so none of its nodes depends on `vice` or `distill`.

     index[human] -> reliability
     index[human] -> vice -> soft_labels -+-> distill[teacher] -+
     embed[teacher.things] ---------------+                     |
     embed[teacher.pool] ---------------------------------------+-> cluster, triplets, finetune[alignet]
     embed[teacher.pool] ---------------------------------------> cluster, triplets, finetune[distillation]
     embed[teacher.pool] + embed[student.pool] -> smooth            (if configured, finetune reads it instead)
     embed[student.pool] ---------------------------------------> finetune          (to keep its classifier's answers)
     embed[student.*] + soft_labels -> distill[student]           (the setting `ud`)
     embed[student.*] + index[human] -> distill[global], distill[glocal]   (older transforms, from bare choices)
     index[human] + index[judged images] -> finetune[direct]      (no teacher)
     index[trials] -> levels                                      (choices with response times, by triplet)
     every setting -> evaluate[setting.dataset] -> report

What somebody else has made enters in the place of a fit and is otherwise the same node: a published
embedding as `vice`, a map W, b as `distill[role]`, an answered set of triplets as `triplets[alignet]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from alignet.config import AblationSettings, Config, ImagesSet, MapSource, ViceSection

# Raise a stage's version when what it computes from the same section and inputs changes.
VERSIONS = {
    "world": 5, "pretrain": 2, "index": 1, "vice": 2, "reliability": 3, "soft_labels": 2, "embed": 2, "distill": 1,
    "cluster": 2, "triplets": 2, "smooth": 1, "finetune": 3, "levels": 1, "evaluate": 3, "export": 2, "report": 3,
}  # fmt: skip

# A row of the table: the model whose features are read, and the node whose affine map is applied to them.
SETTINGS: dict[str, tuple[str | None, str | None]] = {
    "data": (None, None),  # no model: what an evaluation says of people, triplets or data alone
    "pixels": ("pixels", None),
    "histogram": ("histogram", None),
    "teacher-original": ("teacher", None),
    "teacher-ud": ("teacher", "distill[teacher]"),
    "original": ("student", None),
    "distillation": ("distillation", None),
    "ud": ("student", "distill[student]"),
    "alignet": ("alignet", None),
    "global": ("student", "distill[global]"),
    "glocal": ("student", "distill[glocal]"),
    "direct": ("direct", None),
}
FINETUNED = ("alignet", "distillation", "direct")


@dataclass(frozen=True)
class Node:
    """One stage in one role: what it is configured by and built from. `outside` names a set of outside data."""

    stage: str
    role: str
    version: int
    section: Mapping[str, Any]
    inputs: Mapping[str, str]  # name inside the stage -> key of another node
    outside: str = ""

    @property
    def key(self) -> str:
        """The node's name, `stage[role]` or `stage`."""
        return f"{self.stage}[{self.role}]" if self.role else self.stage


def build_graph(config: Config) -> dict[str, Node]:
    """All nodes of a configuration by key, each after its inputs."""
    return _Builder(config).build()


def upstream(graph: Mapping[str, Node], key: str) -> list[str]:
    """Keys of everything that `key` depends on, each after its own inputs; `key` itself not included."""
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        for parent in graph[name].inputs.values():
            if parent not in found:
                visit(parent)
                found[parent] = None

    visit(key)
    return list(found)


class _Builder:
    """Adds each node with its inputs first, so that insertion order is a topological order."""

    def __init__(self, config: Config):
        self.config = config
        self.nodes: dict[str, Node] = {}

    def build(self) -> dict[str, Node]:
        if self.config.ablation is not None:
            return self.ablation(self.config.ablation)
        for role in self.config.finetune.roles:
            if self.config.triplets.published is None:
                self.cluster(role)
            self.finetune(role)
        for name, dataset in self.config.evaluate.datasets.items():
            for setting in dataset.settings:
                self.evaluate(name, setting)
        for kind in self.config.export.roles:
            self.export(kind)
        self.report()
        return self.nodes

    def ablation(self, ablation: AblationSettings) -> dict[str, Node]:
        """What one job of an ablation measures, and what that needs."""
        for measure in ablation.measures:
            for name in measure.datasets:
                if name not in self.config.evaluate.datasets:
                    known = ", ".join(self.config.evaluate.datasets)
                    raise ValueError(f"ablation.measures: expected data sets out of {known}, found {name!r}")
                for setting in (*ablation.rows, *ablation.beside):
                    self.evaluate(name, setting)
        return self.nodes

    def add(self, stage: str, role: str, section: Any, inputs: Mapping[str, str], outside: str = "") -> str:
        plain = section if isinstance(section, dict) else asdict(section)
        node = Node(stage, role, VERSIONS[stage], plain, dict(inputs), outside)
        self.nodes.setdefault(node.key, node)
        return node.key

    def same(self, images: str) -> str:
        """The first image set with the same settings, so that a folder under two names is read once."""
        sets = self.config.data.sets
        one = sets.get(images)
        if isinstance(one, ImagesSet) and one.path is not None:
            return next(name for name, other in sets.items() if other == one)
        return images

    def index(self, name: str) -> str:
        data, name = self.config.data, self.same(name)
        if name not in data.sets:
            raise ValueError(f"no data set {name!r}: expected one of {', '.join(data.sets)} (data.sets)")
        one = data.sets[name]
        if data.drawn(name):
            section = asdict(one)
            return self.add("index", name, section, {"world": self.world()})
        section = {key: value for key, value in asdict(one).items() if key not in ("path", "ids")}
        return self.add("index", name, section, {}, outside=name)

    def world(self) -> str:
        return self.add("world", "", self.config.world, {})

    def pretrain(self, role: str) -> str:
        if self.config.pretrain is None:
            raise ValueError(
                f"{role}.weights: expected weights from a file or a hub, found pretrain, which only "
                f"experiment=world makes; choose another {role}"
            )
        return self.add("pretrain", role, getattr(self.config.pretrain, role), {"world": self.world()})

    def people(self) -> ViceSection:
        if self.config.vice is None or self.config.data.objects is None:
            raise ValueError(
                "vice: expected human choices or a published embedding, and an object table (data.objects), since a "
                "part of this experiment is learned from or measured on them; found none. Set vice and data.objects, "
                "or give a map (distill.published) and leave that part out"
            )
        return self.config.vice

    def objects(self) -> str:
        self.people()
        return self.index(str(self.config.data.objects))

    def vice(self) -> str:
        vice = self.people()
        sets = {"train": vice.train, "val": vice.val}
        section: dict[str, Any] = {"settings": asdict(vice.settings)}
        if vice.published is not None:
            sets = {"published": vice.published, "val": vice.val}
            section = {
                "settings": {name: getattr(vice.settings, name) for name in ("k", "alpha", "samples", "seed")}
            }
        inputs = {name: self.index(item) for name, item in sets.items() if item is not None}
        return self.add("vice", "", section, inputs | {"objects": self.objects()})

    def reliability(self) -> str:
        vice = self.people()
        inputs = {"train": self.index(str(vice.train)), "objects": self.objects()}
        return self.add("reliability", "", {"settings": asdict(vice.settings)}, inputs)

    def soft_labels(self, triplets: str) -> str:
        inputs = {"vice": self.vice(), "triplets": self.index(triplets)}
        return self.add("soft_labels", triplets, self.config.soft_labels, inputs)

    def embed(self, model: str, images: str) -> str:
        """`model`: teacher, student, a fine-tuned setting, or a baseline."""
        images = self.same(images)
        base = "student" if model in FINETUNED else model
        settings = self.config.models.get(base)
        if settings is None:
            raise ValueError(f"no model {base!r}: expected one of {', '.join(self.config.models)}")
        section: dict[str, Any] = {
            "model": model_section(settings), "embed": asdict(self.config.embed), "images": images,
        }  # fmt: skip
        if settings.library == "features":
            if images not in settings.rows:
                raise ValueError(f"{base}.rows: no features for {images!r}, only {', '.join(settings.rows)}")
            rows = settings.rows[images]
            inputs = {"features": self.index(rows.features)}
            if rows.images:
                inputs["images"] = self.index(rows.images)
            return self.add("embed", f"{model}.{images}", section, inputs)
        section["pixels"] = asdict(self.config.pixels)
        inputs = {"images": self.index(images)} | self.weights(base)
        if model in FINETUNED:
            inputs = {"images": inputs["images"], "weights": self.finetune(model)}
        return self.add("embed", f"{model}.{images}", section, inputs)

    def weights(self, model: str) -> dict[str, str]:
        settings = self.config.models[model]
        if settings.weights == "pretrain":
            return {"weights": self.pretrain(model)}
        if settings.weights == "file":
            return {"weights": self.index(settings.weights_set)}
        return {}

    def distill(self, role: str) -> str:
        if role in self.config.distill.published:
            inputs = {
                "published": self.index(self.config.distill.published[role]),
                "features": self.embed(role, "pool"),  # their width must be the map's
            }
            return self.add("distill", role, {}, inputs)
        base, other = self.config.distill.base(role), self.config.distill.others.get(role)
        source = self.map_source(base)
        if base not in self.config.distill.settings:
            raise ValueError(
                f"distill.settings: expected those of {base}, found {', '.join(self.config.distill.settings)}"
            )
        section = {
            "settings": asdict(self.config.distill.settings[base]),
            "object_ids": self.object_ids(source.images),
            "fold_column": source.fold_column,
        }
        inputs = {"features": self.embed(base, source.images), "triplets": self.index(source.triplets)}
        if other is None or other.loss == "soft":
            inputs["soft_labels"] = self.soft_labels(source.triplets)
        if other is not None and other.local is not None:
            section["local"] = asdict(other.local)
            inputs["local"] = self.embed(base, other.local.images)
        return self.add("distill", role, section, inputs | {"objects": self.objects()})

    def map_source(self, role: str) -> MapSource:
        """The features and human choices that a role's map is learned on."""
        if role not in self.config.distill.sources:
            raise ValueError(
                f"distill: expected a source or a published map for {role}, found neither; set "
                f"distill.published.{role} to a set of kind map, or distill.sources.{role}"
            )
        return self.config.distill.sources[role]

    def object_ids(self, images: str) -> dict[str, Any]:
        known = self.config.data.object_ids
        if images not in known:
            raise ValueError(
                f"data.object_ids: expected how ids of {images!r} name objects, found {', '.join(known) or 'none'}; "
                f"add data.object_ids.{images} with column and prefix"
            )
        return asdict(known[images])

    def teacher(self, role: str, images: str) -> dict[str, str]:
        """Inputs that give the teacher's features of an image set, mapped for `alignet` alone."""
        inputs = {"features": self.embed("teacher", images)}
        return inputs | ({"map": self.distill("teacher")} if role == "alignet" else {})

    def cluster(self, role: str) -> str:
        return self.add("cluster", role, self.config.cluster, self.teacher(role, "pool"))

    def triplets(self, role: str) -> str:
        section = asdict(self.config.triplets)
        published = section.pop("published")
        if published is not None:
            if role != "alignet":
                raise ValueError(
                    f"triplets.published: expected the role alignet alone, found {role}; set finetune.roles=[alignet]"
                )
            return self.add(
                "triplets", role, {}, {"published": self.index(published), "images": self.index("pool")}
            )
        inputs = self.teacher(role, "pool")
        if self.config.triplets.sampling == "cluster_boundary":
            inputs["clusters"] = self.cluster(role)
        elif self.config.triplets.labels_from == "cls":
            inputs["images"] = self.index("pool")
        elif "." in self.config.triplets.labels_from:
            inputs["labels"] = self.index(self.config.triplets.labels_from.partition(".")[0])
        return self.add("triplets", role, section | self.part_of_pool(), inputs)

    def part_of_pool(self) -> dict[str, Any]:
        """What of a section says that only a part of the pool counts; nothing where all of it does."""
        count = self.config.data.pool_images
        return {} if count is None else {"pool_images": {"count": count, "seed": self.config.seed}}

    def taught(self) -> str:
        """The teacher's raw features of the pool, smoothed where that is configured; a map comes afterwards."""
        if self.config.smooth is None:
            return self.embed("teacher", "pool")
        section = asdict(self.config.smooth) | {"model": model_section(self.config.models["student"])}
        inputs = {"features": self.embed("teacher", "pool"), "original": self.embed("student", "pool")}
        return self.add("smooth", "", section, inputs | self.weights("student"))

    def direct(self) -> str:
        """The student fine-tuned on people's choices about the images that its own map would be learned on."""
        direct = self.config.finetune.direct
        if direct is None:
            raise ValueError(
                "finetune.direct: expected {lr, pull, steps, batch} for the row direct, found null"
            )
        source, own = self.map_source("student"), asdict(direct)
        own |= {
            "sampling": "triplets",
            "loss": "hard",
            "clusters_per_batch": 0,
            "retain": 0.0,
            "center_teacher": False,
        }
        section = {
            "settings": asdict(self.config.finetune.settings) | own,
            "model": model_section(self.config.models["student"]),
            "pixels": asdict(self.config.pixels),
            "object_ids": self.object_ids(source.images),
        }
        inputs = {
            "images": self.index(source.images),
            "choices": self.index(source.triplets),
            "objects": self.objects(),
        }
        return self.add("finetune", "direct", section, inputs | self.weights("student"))

    def finetune(self, role: str) -> str:
        if role == "direct":
            return self.direct()
        settings = asdict(self.config.finetune.settings)
        if role == "distillation":
            settings["tau_teacher"] = self.config.finetune.tau_distillation
        section = {
            "settings": settings,
            "model": model_section(self.config.models["student"]),
            "pixels": asdict(self.config.pixels),
        } | self.part_of_pool()
        inputs = {"images": self.index("pool")} | self.weights("student")
        if settings["retain"]:
            inputs["original"] = self.embed("student", "pool")
        if settings["sampling"] == "in_batch":
            inputs |= self.teacher(role, "pool") | {"features": self.taught()}
            if settings["clusters_per_batch"]:
                inputs["clusters"] = self.cluster(role)
        else:
            inputs["triplets"] = self.triplets(role)
            if self.config.triplets.published is not None:  # whose images nobody has opened yet
                inputs["opened"] = self.embed("student", "pool")
        return self.add("finetune", role, section, inputs)

    def features(self, setting: str, images: str) -> dict[str, str]:
        """Inputs that give a table row's features of an image set: raw rows and perhaps a map."""
        model, mapping = SETTINGS[setting]
        if model is None:
            raise ValueError(
                f"evaluate: expected no images in the setting {setting}, which has no model, found {images!r}"
            )
        inputs = {"features": self.embed(model, images)}
        if mapping:
            inputs["map"] = self.named(mapping)
        return inputs

    def levels(self, trials: str) -> str:
        """The trials of a data set of people's choices and response times, cleaned and counted by triplet."""
        return self.add("levels", trials, self.config.levels, {"trials": self.index(trials)})

    def evaluate(self, name: str, setting: str) -> str:
        from alignet.families import family
        from alignet.families.options import check_options

        dataset = self.config.evaluate.datasets[name]
        family(dataset.family, name)
        check_options(name, dataset.family, dataset.options)
        if setting not in SETTINGS:
            raise ValueError(
                f"evaluate.datasets.{name}.settings: expected some of {', '.join(SETTINGS)}, found {setting!r}"
            )
        inputs: dict[str, str] = {}
        for part, images in dataset.images.items():
            for kind, key in self.features(setting, images).items():
                inputs["map" if kind == "map" else f"features.{part}"] = key
        inputs |= {f"data.{part}": self.index(item) for part, item in dataset.data.items()}
        inputs |= {f"node.{part}": self.named(item) for part, item in dataset.nodes.items()}
        section = {
            "family": dataset.family, "options": dict(dataset.options), "bootstrap": self.config.evaluate.bootstrap,
            "seed": self.config.evaluate.seed, "dataset": name, "setting": setting,
        }  # fmt: skip
        if "objects" in dataset.data and "test" in dataset.images:
            section["object_ids"] = self.object_ids(dataset.images["test"])
        if "pictures" in dataset.data:
            section["pixels"] = asdict(self.config.pixels)
        return self.add("evaluate", f"{setting}.{name}", section, inputs)

    def named(self, key: str) -> str:
        """The node that configuration calls by its key, e.g. `vice` or `embed[student.pool]`."""
        stage, _, role = key.rstrip("]").partition("[")
        if stage == "embed" and "." in role:
            return self.embed(*role.split(".", 1))
        if stage == "index":
            return self.index(role)
        if stage == "vice":
            return self.vice()
        if stage == "levels":
            return self.levels(role)
        if stage == "soft_labels":
            return self.soft_labels(role)
        if stage == "smooth":
            return self.taught()
        if stage in ("distill", "cluster", "triplets", "finetune"):
            return getattr(self, stage)(role)
        raise ValueError(
            f"no node {key!r}; name one as `status` does: embed[student.pool], index[pool], vice, distill[teacher]"
        )

    def export(self, role: str) -> str:
        section: dict[str, Any] = {"experiment": self.config.experiment_name, "banner": self.config.banner}
        teacher, student = self.config.models["teacher"], self.config.models["student"]
        if role == "dataset":
            return self.add("export", role, section, {"triplets": self.triplets("alignet")})
        if role not in FINETUNED:
            base = teacher if role == "teacher" else student
            section["card"] = {"name": base.name, "licence": base.licence}
            inputs = {"map": self.distill("teacher" if role == "teacher" else "student")}
            return self.add("export", role, section, inputs)
        section |= {"precision": self.config.export.precision, "model": model_section(student)}
        section["card"] = {
            "name": student.name,
            "licence": student.licence,
            "data": {
                "teacher": f"{teacher.name}; licence: {teacher.licence}",
                "human choices": self.human_data() if role == "alignet" else "none: this is the control",
                "images": "the pool",
            },
            "smooth": asdict(self.config.smooth) if self.config.smooth else None,
        }
        inputs = {"weights": self.finetune(role)}
        for name in self.config.export.scores:
            for setting in ("original", role):
                if setting in self.config.evaluate.datasets[name].settings:
                    inputs[f"score.{setting}.{name}"] = self.evaluate(name, setting)
        return self.add("export", role, section, inputs)

    def human_data(self) -> str:
        """What the aligned student knows of people, in words."""
        vice = self.config.vice
        if self.config.triplets.published is not None:
            return "none here; a published AligNet data set answered the triplets"
        if "teacher" in self.config.distill.published:
            return "none here; the teacher's map W, b was learned elsewhere"
        return (
            ""
            if vice is None
            else vice.train or f"{vice.published} (an embedding of choices, fitted elsewhere)"
        )

    def report(self) -> str:
        inputs = {}
        for name, dataset in self.config.evaluate.datasets.items():
            for setting in dataset.settings:
                inputs[f"{setting}.{name}"] = self.evaluate(name, setting)
        report = self.config.report
        if report.picture_images is not None:
            for setting in ("original", "alignet"):
                inputs[f"picture.{setting}"] = self.features(setting, report.picture_images)["features"]
            if report.picture_labels is not None:
                inputs["labels"] = self.index(report.picture_labels)
            else:
                inputs["clusters"] = self.cluster("alignet")
        section = asdict(report) | {"banner": self.config.banner, "seed": self.config.seed}
        section["models"] = {
            name: {"name": model.name, "licence": model.licence}
            for name, model in (("teacher", self.config.teacher), ("student", self.config.student))
        }
        for role in self.config.finetune.roles:
            inputs[f"finetune.{role}"] = self.finetune(role)
        if self.config.vice is not None:
            inputs["vice"] = self.vice()
            if self.config.vice.published is None:
                inputs["reliability"] = self.reliability()
        if self.config.triplets.published is None and "alignet" in self.config.finetune.roles:
            inputs["map"] = self.distill("teacher")
        if self.config.smooth:
            inputs["smooth"] = self.taught()
        return self.add("report", "", section, inputs)


def model_section(model: Any) -> dict[str, Any]:
    """What of a model's configuration determines its features: not its name, licence or file path."""
    section = asdict(model)
    for name in ("name", "licence", "weights_set", "rows"):
        del section[name]
    return section
