"""The family of people's importance maps: where a network and people look."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.evaluate.bootstrap import Score, mean_draws, share_interval
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.families.where_people import (
    blur_note,
    ceiling_of,
    dataset_name,
    load_kinds,
    smoothing,
    where_people,
)
from alignet.evaluate.result import Result

if TYPE_CHECKING:
    from alignet.data.importance_maps import ImportanceMaps
    from alignet.evaluate.where import Agreement

PICTURES = 6  # images whose maps the page shows, drawn at random
PIXELS = 64  # a side of such a map
PHOTO = 160  # a side of the photograph beside it


@dataclass(frozen=True)
class _Shard:
    """A file of the stage `saliency`: the gradients (b, 3, H, W) of b images, what they saw and answered."""

    ids: list[str]
    gradients: np.ndarray
    top1: np.ndarray
    label: np.ndarray
    box: np.ndarray
    rollout: np.ndarray | None  # (b, h, w)


@dataclass
class _Key:
    """Maps of one key, and what was found for them: image by image, by reduction and scale."""

    people: ImportanceMaps
    rows: np.ndarray  # of the maps, for each image of the saliency; -1 for none
    ids: list[str] = field(default_factory=list)
    agreements: dict[tuple[str, int], list[Agreement]] = field(default_factory=dict)
    rollout: list[np.ndarray] = field(default_factory=list)
    seen: list[np.ndarray] = field(default_factory=list)  # what the network saw of them, float32, small

    def add(self, how: str, factor: int, one: Agreement) -> None:
        """Those of further images."""
        self.agreements.setdefault((how, factor), []).append(one)

    def all(self, how: str, factor: int) -> Agreement:
        """Of all images, in the order of ids."""
        from alignet.evaluate.where import Agreement

        pieces = self.agreements[how, factor]
        return Agreement(
            *(np.concatenate([getattr(one, part.name) for one in pieces]) for part in fields(Agreement))
        )


@dataclass
class _Pictures:
    """Maps of a few images as small pictures."""

    material: Material
    photographs: bool
    drawn: list[str]
    found: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def add(self, name: str, human: np.ndarray, saliency: np.ndarray, box: np.ndarray) -> None:
        """Keep an image's maps (H, W), if it was drawn."""
        if name in self.drawn:
            photo = _photo(self.material, name, box) if self.photographs else b""
            self.found[name] = {"human": grey(human), "model": grey(saliency), "image": photo}

    def table(self, key: str, spearman: dict[str, float]) -> dict[str, Any]:
        """The table `pictures`."""
        columns: dict[str, Any] = {
            "id": self.drawn, "key": [key] * len(self.drawn), "spearman": [float(spearman[one]) for one in self.drawn]
        }  # fmt: skip
        return columns | {
            what: [self.found[one][what] for one in self.drawn] for what in ("human", "model", "image")
        }


def where(material: Material, options: Options) -> Result:
    """How alike a network's saliency maps and people's importance maps are, image by image; see evaluate.where.

    Names: the node `saliency` with a network's gradients, the file `maps` with people's maps; the image set `pictures`
    where `photographs` is true. In the setting `data` there is no network: `where_people`.

    options: keys of the maps ("all", a list, or "" where the file has one kind), ceiling ("split_half" of the file's
    raters, "clickme" as published, a number, or null), splits for it, reductions of the channels (the first one is
    scored), scales (linear factors) and blur (none | published) of people's maps; photographs (default false).

    Scores, of each key: `where` (mean Spearman at full scale), `where_4x` and so on, `where_of_ceiling`, `centre_bias`
    of what the network saw of the maps and `where_over_centre` (the mean difference), `dice`, `iou`, `rollout` (where
    the network has it; at its grid of patches); `accuracy` over all images with a label. With several keys a score's
    data set is `<data set> <key>`. Constant maps are left out, and counted in the note.

    Table `images`: id, key, reduction, scale, spearman, dice, iou. Table `pictures`: id, key, spearman, and human,
    model and image (JPEG bytes, image empty without photographs), of PICTURES images drawn by the seed.
    """
    if material.setting == "data":
        return where_people(material, options)
    from alignet.data.importance_maps import maps_for

    maps = load_kinds(material, options["keys"])
    ids = [one for _, names in material.shards("saliency", "saliency") for one in names]
    if not ids:
        raise ValueError(
            f"{material.dataset}: expected saliency of images, found none; give images with maps."
        )
    found = {key: _Key(people, maps_for(people, ids)[0]) for key, people in maps.items()}
    first = next(iter(found.values()))
    pictures = _Pictures(material, bool(options.get("photographs")), _drawn(ids, first.rows, material.seed))
    right, done = [], 0
    for shard in _shards(material):
        right.append((shard.top1 == shard.label)[shard.label >= 0])
        _compare(shard, slice(done, done + len(shard.ids)), found, pictures, options)
        done += len(shard.ids)
    scores: list[Score] = []
    for key, one in found.items():
        scores += _scores(material, options, dataset_name(material, maps, key), one, len(ids))
    scores += accuracy(material, np.concatenate(right))
    of_image = dict(zip(first.ids, first.all(options["reductions"][0], 1).spearman, strict=True))
    drawn = pictures.table(next(iter(maps)), of_image)
    return Result(scores, {"images": _images(found), **({"pictures": drawn} if drawn["id"] else {})})


def _compare(
    shard: _Shard, place: slice, found: dict[str, _Key], pictures: _Pictures, options: Options
) -> None:
    """Compare the images of a shard, which stand at `place` of all, with the maps of each key."""
    from alignet.evaluate.where import agreement, averaged, ranked, reduce_channels, spearman

    reductions, factors = options["reductions"], _factors(options)
    saliency = {how: reduce_channels(shard.gradients, how) for how in reductions}
    model = {(how, factor): ranked(saliency[how], factor) for how in reductions for factor in factors}
    for number, one in enumerate(found.values()):
        rows = one.rows[place]
        kept = np.flatnonzero(rows >= 0)
        if not len(kept):
            continue
        human = _seen(
            [one.people.maps[row] for row in rows[kept]],
            shard.box[kept],
            shard.gradients.shape[2:],
            options["blur"],
        )
        one.seen.append(_small(human).astype(np.float32))
        one.ids += [shard.ids[row] for row in kept]
        for factor in factors:
            theirs = ranked(human, factor)
            for how in reductions:
                one.add(how, factor, agreement(model[how, factor].take(kept), theirs))
        if shard.rollout is not None:
            rollout = shard.rollout[kept].astype(np.float64)
            coarse = averaged(human, *rollout.shape[1:])
            one.rollout.append(spearman(rollout.reshape(len(kept), -1), coarse.reshape(len(kept), -1)))
        if number == 0:
            for row, theirs_of in zip(kept, human, strict=True):
                pictures.add(shard.ids[row], theirs_of, saliency[reductions[0]][row], shard.box[row])


def _factors(options: Options) -> list[int]:
    """The scales, full scale first."""
    return list(dict.fromkeys((1, *options["scales"])))


def _scores(
    material: Material,
    options: Options,
    name: str,
    found: _Key,
    images: int,
) -> list[Score]:
    from alignet.evaluate.where import REDUCTIONS, mean_score

    how = options["reductions"][0]
    full = found.all(how, 1)
    shared: dict[str, Any] = {"draws": material.bootstrap, "seed": material.seed}
    raters = found.people.raters
    seen_raters = None if raters is None else [raters[row] for row in found.rows[found.rows >= 0]]
    ceiling, said = ceiling_of(material, options, seen_raters)
    lost = [int(full.constant_human.sum()), int(full.constant_model.sum())]
    note = "; ".join(text for text in (
        f"reduction: {REDUCTIONS[how]}", blur_note(options["blur"]),
        f"{lost[0]} constant maps of people and {lost[1]} of the network left out" if any(lost) else "",
        f"{images - len(found.ids):,} of {images:,} images have no map" if images > len(found.ids) else "", said,
    ) if text)  # fmt: skip
    scores = [
        mean_score(found.all(how, factor).spearman, "where" if factor == 1 else f"where_{factor}x", name,
                   ceiling=ceiling if factor == 1 else None, note=note if factor == 1 else "", **shared)
        for factor in _factors(options)
    ]  # fmt: skip
    if scores[0] is None:
        raise ValueError(
            f"{name}: expected maps with more than one value, found constant ones only: {lost[0]} of people and "
            f"{lost[1]} of the network, of {len(found.ids)}; look at the maps, and at the gradients."
        )
    if ceiling is not None:
        of = f"{said}; its own uncertainty is not in the interval"
        scores.append(
            mean_score(
                full.spearman, "where_of_ceiling", name, divide=ceiling, ceiling=1.0, note=of, **shared
            )
        )
    scores += _over_centre(found, name, how, shared)
    for metric, values, chance in (
        ("dice", full.dice, full.dice_chance), ("iou", full.iou, full.iou_chance)
    ):  # fmt: skip
        defined = np.isfinite(values)
        by_chance = float(chance[defined].mean()) if defined.any() else None
        text = f"of the highest 10% of each map; {int((~defined).sum())} maps have no highest 10%"
        note = text if not defined.all() else text.partition(";")[0]
        scores.append(mean_score(values, metric, name, chance=by_chance, note=note, **shared))
    if found.rollout:
        rolled, text = np.concatenate(found.rollout), "attention rollout at its grid of patches"
        scores.append(mean_score(rolled, "rollout", name, note=text, **shared))
    return [score for score in scores if score is not None]


def _over_centre(found: _Key, name: str, how: str, shared: dict[str, Any]) -> list[Score | None]:
    """The centre bias of what the network saw of the maps, and by how much its saliency is nearer, image by image."""
    from alignet.evaluate.where import centre_bias, mean_score

    if len(found.ids) < 2:
        return []
    centre = centre_bias(np.concatenate(found.seen))
    text = "of what the network saw of people's maps: each with the mean of all others"
    over = "Spearman less that of the centre bias, of the same image"
    return [
        mean_score(centre, "centre_bias", name, note=text, **shared),
        mean_score(found.all(how, 1).spearman - centre, "where_over_centre", name, note=over, **shared),
    ]


def accuracy(material: Material, right: np.ndarray) -> list[Score]:
    """The share of images with a label that the network names right; nothing without labels."""
    if not len(right):
        return []
    values = right.astype(np.float64)
    low, high = share_interval(values, mean_draws(values, draws=material.bootstrap, seed=material.seed))
    return [
        Score("accuracy", material.dataset, float(values.mean()), low, high, len(values), "images", "images")
    ]


def _images(found: dict[str, _Key]) -> dict[str, Any]:
    """The table `images`: a row for each image, key, reduction and scale."""
    columns: dict[str, list[Any]] = {"id": [], "key": [], "reduction": [], "scale": []}
    values: dict[str, list[np.ndarray]] = {"spearman": [], "dice": [], "iou": []}
    for key, one in found.items():
        for how, factor in one.agreements:
            columns["id"] += one.ids
            for column, value in (("key", key), ("reduction", how), ("scale", factor)):
                columns[column] += [value] * len(one.ids)
            for column, parts in values.items():
                parts.append(getattr(one.all(how, factor), column))
    return {**columns, **{column: np.concatenate(parts) for column, parts in values.items()}}


def _seen(maps: Sequence[np.ndarray], boxes: np.ndarray, size: tuple[int, ...], blur: str) -> np.ndarray:
    """What the network saw of people's maps: (n, H, W) float64."""
    from alignet.evaluate.where import seen

    smooth = smoothing(blur)
    return np.stack(
        [seen(smooth(one), box, (size[0], size[1])) for one, box in zip(maps, boxes, strict=True)]
    )


def _shards(material: Material) -> Iterator[_Shard]:
    for path, ids in material.shards("saliency", "saliency"):
        with np.load(path, allow_pickle=False) as found:
            rollout = found["rollout"] if "rollout" in found.files else None
            shard = _Shard(ids, found["gradients"], found["top1"], found["label"], found["box"], rollout)
        if len(shard.ids) != len(shard.gradients):
            raise ValueError(
                f"{path}: expected as many ids as gradients, found {len(shard.ids)} and {len(shard.gradients)}; "
                "compute the saliency again."
            )
        yield shard


def _drawn(ids: Sequence[str], rows: np.ndarray, seed: int) -> list[str]:
    """PICTURES images with a map, drawn at random, in the order of ids."""
    having = np.flatnonzero(rows >= 0)
    chosen = np.random.default_rng(seed).choice(having, min(PICTURES, len(having)), replace=False)
    return [ids[place] for place in sorted(chosen)]


def _small(maps: np.ndarray) -> np.ndarray:
    """Maps (n, H, W) at PIXELS x PIXELS where they are larger; resampled, so that ties stay ties."""
    from alignet.evaluate.where import WHOLE, seen

    size = min(PIXELS, maps.shape[1]), min(PIXELS, maps.shape[2])
    return maps if size == maps.shape[1:] else np.stack([seen(one, WHOLE, size) for one in maps])


def grey(values: np.ndarray) -> bytes:
    """A map as a grey JPEG of PIXELS x PIXELS, averaged down; its 1st percentile black, its 99th white."""
    from alignet.evaluate.where import WHOLE, averaged, seen

    large = min(values.shape) >= PIXELS
    small = averaged(values, PIXELS, PIXELS) if large else seen(values, WHOLE, PIXELS)
    low, high = np.quantile(small, [0.01, 0.99])
    shades = ((small - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(small)
    return jpeg((255 * shades).astype(np.uint8))


def _photo(material: Material, name: str, box: np.ndarray) -> bytes:
    """What the network saw of the photograph, as JPEG."""
    from PIL import Image

    picture = material.picture(name).convert("RGB")
    sides = np.array([picture.width, picture.height] * 2)
    seen = picture.resize((PHOTO, PHOTO), Image.Resampling.BICUBIC, tuple((box * sides).clip(0, sides)))
    return jpeg(np.asarray(seen))


def jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=90)
    return content.getvalue()
