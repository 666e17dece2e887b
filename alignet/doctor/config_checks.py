"""Settings that cannot work together, or hardly: found from the configuration and the numbers of the data alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

from alignet.doctor.findings import Finding, fault, ok, plain, warning
from alignet.doctor.models import NETWORKS, Models
from alignet.doctor.sources import Sources


def check_finetune(sources: Sources, models: Models) -> Iterator[Finding]:
    """Batch, passes over the pool, the classifier that is to be retained, the image size."""
    settings = sources.config.finetune.settings
    if not any(node.stage == "finetune" for node in sources.graph.values()):
        return
    pool = sources.images("pool").number
    in_batch = settings.sampling == "in_batch"
    if in_batch and pool and settings.batch > pool:
        yield fault(
            "finetune.batch",
            f"a batch of {settings.batch:,} images, and the pool has {pool:,}",
            "Make it smaller",
        )
    if pool:
        passes = settings.steps * images_a_step(sources) / pool
        said = f"{settings.steps:,} steps of {images_a_step(sources):,} images: {passes:,.1f} times through the pool"
        fix = "Few images are seen at all: more steps, or a smaller pool"
        yield warning("finetune.steps", said, fix) if passes < 0.5 else ok("finetune.steps", said)
    total = settings.lr * settings.pull * settings.steps / 2
    yield ok(
        "finetune.pull",
        f"lr x pull x steps / 2 = {plain(total)}: how often the way back to the start is taken",
    )
    encoder = models.encoder("student") if "student" in models.networks() else None
    if encoder is None:
        return
    from alignet.backbones import classifier_head

    for wants, about in ((settings.retain, "finetune.retain"), (sources.config.smooth, "smooth")):
        if wants and classifier_head(encoder) is None:
            zero = "finetune.settings.retain=0" if about == "finetune.retain" else "smooth=null"
            network = f"{encoder.backbone.architecture}, feature {encoder.backbone.feature}"
            yield fault(
                about,
                f"needs a linear classifier on pooled features, and the student has none ({network})",
                f"Set {zero}",
            )
    names = list(encoder.trainable())
    for prefix in settings.frozen:
        if not any(name.startswith(prefix) for name in names):
            parts = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
            yield fault("finetune.frozen", f"no parameter's name begins with {prefix!r}", f"They are {parts}")


def images_a_step(sources: Sources) -> int:
    """Images that a step of fine-tuning embeds; of drawn triplets, about as many as distinct ones occur."""
    settings = sources.config.finetune.settings
    if settings.sampling == "in_batch":
        return settings.batch * settings.accumulate
    pool = sources.images("pool").number
    part = 3 * settings.batch / settings.accumulate
    distinct = pool * (1 - math.exp(-part / pool)) if pool else part
    return round(distinct * settings.accumulate)


def check_sizes(sources: Sources) -> Iterator[Finding]:
    """Is every network used at the image size that it was trained at?"""
    for name, model in sources.config.models.items():
        if model.library != "timm" or not model.image_size:
            continue
        import timm

        found = timm.get_pretrained_cfg(model.architecture) if timm.is_model(model.architecture) else None
        own = model.model_args.get("img_size") or (found.input_size[1] if found is not None else 0)
        if own and own != model.image_size and model.weights not in ("pretrain", "random"):
            yield warning(
                f"{name}.image_size", f"{model.image_size} pixels, and {model.architecture} was trained at {own}",
                f"Set {name}.image_size=0, unless that is meant",
            )  # fmt: skip


def check_clusters(sources: Sources) -> Iterator[Finding]:
    """Fewer clusters than images, and a grid on which an elbow can be found."""
    if not any(node.stage == "cluster" for node in sources.graph.values()):
        return
    settings, pool = sources.config.cluster, sources.images("pool").number
    if not pool:
        return
    if settings.clusters == "elbow":
        grid = [value for value in settings.grid if value <= pool]
        said = f"an elbow over {len(grid)} numbers up to {max(grid, default=0)}, {pool:,} images"
        yield (
            ok("cluster.clusters", said)
            if len(grid) >= 3
            else fault("cluster.grid", f"{said}: at least 3 are needed", "Give cluster.grid smaller numbers")
        )
    elif settings.clusters > pool:
        yield fault(
            "cluster.clusters", f"{settings.clusters:,} clusters of {pool:,} images",
            "Choose fewer, or cluster.clusters=elbow",
        )  # fmt: skip
    else:
        yield ok("cluster.clusters", f"{settings.clusters:,} clusters of {pool:,} images")


def check_triplets(sources: Sources) -> Iterator[Finding]:
    """Enough different triplets to draw, and class labels where they are needed."""
    settings, pool = sources.config.triplets, sources.images("pool").number
    if not any(node.stage == "triplets" for node in sources.graph.values()) or settings.published or not pool:
        return
    possible = math.comb(pool, 3)
    said = f"{settings.count:,} triplets of at most {possible:,} different ones"
    yield (
        ok("triplets.count", said)
        if settings.count <= possible
        else fault(
            "triplets.count", f"{said} of {pool:,} images", f"Set triplets.count to at most {possible}"
        )
    )
    labelled = settings.sampling in ("class_boundary", "random") and settings.labels_from == "wnid"
    if settings.sampling == "class_boundary" and not settings.labels_from:
        yield fault(
            "triplets.labels_from", "class_boundary needs class labels", "Set triplets.labels_from=wnid"
        )
    ids = sources.read("pool") if labelled else None
    if ids is not None:
        from alignet.data.wordnet import wordnet_id

        without = [name for name in ids if not wordnet_id(name)]
        if without:
            yield fault(
                "triplets.labels_from", f"{len(without):,} of {len(ids):,} names begin with no WordNet id, for "
                f"example {without[0]}", "Rename them, or take another sampling",
            )  # fmt: skip


def check_people(sources: Sources) -> Iterator[Finding]:
    """Can VICE converge before it must stop, and do the folds of the map's fit have the column they follow?"""
    vice = sources.config.vice
    if vice is not None and vice.published is None:
        one = vice.settings
        if one.earliest > one.max_epochs:
            what = "burn_in + window" if one.window_from == "burn_in" else "burn_in + 2"
            yield warning(
                "vice.max_epochs", f"a fit may stop after {one.earliest} epochs at the earliest ({what}), and "
                f"max_epochs is {one.max_epochs}: it cannot converge", "Raise max_epochs",
            )  # fmt: skip
        m, n = sources.objects().number, sources.triplets(str(vice.train)).number
        if m and n:
            said = f"{n:,} triplets for {m:,} objects: each in {3 * n / m:,.0f} of them"
            yield (
                ok("vice.train", said)
                if 3 * n / m >= 30
                else warning("vice.train", said, "That is few for VICE")
            )
    for role, source in sources.config.distill.sources.items():
        table = sources.config.data.objects
        rows = sources.read(table) if table else None
        if source.fold_column and rows is not None and source.fold_column not in rows[0]:
            yield fault(
                f"distill.sources.{role}.fold_column", f"no column {source.fold_column!r} in the object table",
                f"Its columns are {', '.join(rows[0])}; '' lets each object fold alone",
            )  # fmt: skip


def check_widths(sources: Sources, models: Models) -> Iterator[Finding]:
    """Does a map from elsewhere have the width of the features it is for?"""
    for role, name in sources.config.distill.published.items():
        mapping, width = sources.read(name), None
        if sources.config.models[role].library in NETWORKS:
            encoder = models.encoder(role) if role in models.networks() else None
            width = encoder.width if encoder is not None else None
        elif (rows := sources.config.models[role].rows.get("pool")) is not None:
            held = sources.read(rows.features)
            width = held.values.shape[1] if held is not None else None
        if mapping is None or width is None:
            continue
        said = f"a map of {len(mapping.weights):,} features for a {role} of {width:,}"
        yield (
            ok(f"data.sets.{name}", said)
            if len(mapping.weights) == width
            else fault(f"data.sets.{name}", said, "Give the map that was learned on this very model")
        )
