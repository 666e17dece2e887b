"""The Python API: load a model, embed images, ask for the odd one out. It stands beside the stages and reads no
configuration.

    load (a folder or a name) -> Model -> embed (images) -> Embedding -> odd_one_out, or scikit-learn

Arrays are NumPy's and float32. Features are never normalised: similarity is their dot product.
Shape suffixes: m images, p features, n triplets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from alignet.backbones import LIBRARIES, Backbone, Encoder, encode, folder_backbone, load_encoder
from alignet.backbones.embedding import GivenImages, given_images, rows_of
from alignet.data.pixels import DEFAULT, MAX_PIXELS, PixelPolicy
from alignet.runtime.progress import progress
from alignet.triplets import check_triplets, near_largest, probabilities, similarities

if TYPE_CHECKING:
    from alignet.teacher.affine_map import AffineMap


class Embedding(NamedTuple):
    """Features float32 (m, p), the id of each row, and (id, reason) of images that could not be read."""

    features: np.ndarray
    ids: list[str]
    unreadable: list[tuple[str, str]]


class OddOneOut(NamedTuple):
    """A model's answers to n triplets.

    position: int64 (n,), the column of the odd one out: 0, 1 or 2, and -1 where two similarities tie for the largest.
    probabilities: float32 (n, 3), of the pairs [01, 02, 12]: softmax(similarities / tau). Column r belongs to the
    odd one 2 - r. similarities: float64 (n, 3), the dot products [s01, s02, s12].
    """

    position: np.ndarray
    probabilities: np.ndarray
    similarities: np.ndarray


@dataclass(frozen=True)
class FeatureMap:
    """An affine map W, b of features: a function of arrays (m, p) that returns float32 (m, p)."""

    affine: AffineMap

    @property
    def width(self) -> int:
        """p, of the features that it takes."""
        return len(self.affine.weights)

    def digest(self) -> str:
        """sha256 of its numbers."""
        digest = hashlib.sha256()
        for name in ("weights", "bias", "mean", "std"):
            digest.update(getattr(self.affine, name).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Mapped features; ValueError unless they are (m, p)."""
        return self.affine.apply(torch.from_numpy(np.ascontiguousarray(features, np.float32))).numpy()


@dataclass(frozen=True)
class Model:
    """A loaded network with its own preprocessing, and a map of its features if one was given.

    `encoder.module` is the torch module, `encoder.transform` what prepares an RGB image for it.
    """

    encoder: Encoder
    feature_map: FeatureMap | None
    name: str

    @property
    def width(self) -> int:
        """p, the number of features."""
        return self.encoder.width

    @property
    def image_size(self) -> int:
        """Pixels of the square that the network sees."""
        return int(self.encoder.data_config["input_size"][-1])

    def encode(self, images: torch.Tensor, compute: str = "float32") -> np.ndarray:
        """Features float32 (b, p), mapped if there is a map, of images (b, 3, H, W) as `encoder.transform` prepares
        them, or as `encoder.pixels` does. compute: float32 or bf16, of the forward pass."""
        features = encode(self.encoder, images, compute).cpu().numpy()
        return features if self.feature_map is None else self.feature_map(features)

    def features(self, images: Any) -> np.ndarray:
        """`embed(self, images).features`, for images that can all be read."""
        return embed(self, images).features


def load(
    model: str | Path,
    *,
    map: str | Path | FeatureMap | None = None,
    device: str = "cpu",
    feature: str = "",
    image_size: int = 0,
    weights: str | Path = "",
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Model:
    """Load a model by folder or name, with its own preprocessing.

    model: a folder that timm, open_clip or transformers loads (what the stage `export` wrote, for example), or
    `LIBRARY:NAME`: `timm:vit_small_patch16_224.augreg_in1k`, `open_clip:ViT-B-16-SigLIP/webli`,
    `transformers:facebook/dinov2-base`; a bare name is timm's. Names download their weights into the library's
    cache. map: an npz of W and b (gLocal, thingsvision, `export[teacher]`), applied to the features. feature: "pooled"
    (before a classifier or projection) or "output"; by default what the text tower meets where there is one, else
    pooled. image_size: pixels; 0 is the model's own. weights: of a name, "random" (drawn from `seed`) or a
    .safetensors file in place of the download. model_args: further arguments of the architecture, such as
    {"quick_gelu": True} of an open_clip network whose file was trained with that activation.

    Raises ValueError for an unknown name, for weights that do not fit or cannot be had, and for a map of another
    width.

    Examples:
        >>> import alignet
        >>> model = alignet.load("timm:resnet10t", weights="random", seed=0)
        >>> model.width, model.image_size
        (512, 176)
        >>> alignet.load("timm:resnet10q", weights="random")
        Traceback (most recent call last):
        ...
        ValueError: backbone: expected an architecture that timm ... knows, found 'resnet10q'; similar names: ...
    """
    backbone = _backbone(str(model), feature, image_size, str(weights))
    if model_args:
        backbone = replace(backbone, model_args=dict(model_args))
    encoder = load_encoder(backbone, device=device, seed=seed)
    chosen = load_map(map) if isinstance(map, (str, Path)) else map
    if chosen is not None and chosen.width != encoder.width:
        raise ValueError(
            f"map: expected one of the {encoder.width} features of {model}, found one of {chosen.width}; apply it to "
            f"the model that it was learned on."
        )
    return Model(encoder, chosen, str(model))


def load_map(path: str | Path) -> FeatureMap:
    """An affine map W, b from an npz of gLocal, thingsvision or alignet, or a folder that holds `map.npz`.

    Examples:
        >>> import numpy as np, tempfile, alignet
        >>> path = tempfile.mkdtemp() + "/map.npz"
        >>> np.savez(path, weights=2 * np.eye(3), bias=np.ones(3), mean=0.0, std=1.0)
        >>> alignet.load_map(path)(np.eye(3))
        array([[3., 1., 1.],
               [1., 3., 1.],
               [1., 1., 3.]], dtype=float32)
    """
    from alignet.teacher.affine_map import AffineMap

    path = Path(path)
    file = path / "map.npz" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"map: expected an npz with weights and bias, found nothing at {file}; check the path."
        )
    return FeatureMap(AffineMap.load_npz(file))


def embed(
    model: Model | str | Path,
    images: Any,
    *,
    batch: int = 64,
    unreadable: str = "stop",
    max_pixels: int = MAX_PIXELS,
    pixels: PixelPolicy = DEFAULT,
    threads: int | None = None,
    decode: str = "exact",
    compute: str = "float32",
    member: str = "",
) -> Embedding:
    """Features of images, in memory. For a million of them use `python -m alignet.stages.embed`, which resumes.

    model: what `load` returned or takes.

    images, and what their ids are:
        a folder, at any depth: the path below it
        WebDataset shards (a folder of .tar files, one of them, a pattern such as `train-{000..146}.tar`): the member's
        name
        one image file: its name; a list of paths: the path as given
        one PIL image, a list of PIL images (RGB or grey) or of uint8 arrays (H, W, 3) or (H, W), one uint8 array
        (m, H, W, 3) or, of grey images, (m, H, W): the number as text

    One array (H, W, 3) is refused: put it into a list. batch: images a forward pass. unreadable: "stop" raises
    ValueError at an image that cannot be read, "skip" sets it aside. max_pixels: larger images are refused before they
    are decoded. pixels: what pixels of more than 8 bits and of several bands mean. threads: how many share the work, by
    default as many as torch has (on a CPU a forward pass has at most 16 images, and one thread). decode: "fast" lets
    libjpeg reduce photographs both of whose sides are at least four times what the network needs, so that twice
    remains; features then differ a little. compute: "bf16" runs the network in bfloat16. docs/embed.md says
    how far features move. member: of shards whose samples have several images, the part that counts, such as "jpg".

    The features go into scikit-learn as they are:

    Examples:
        >>> import numpy as np, alignet
        >>> from sklearn.neighbors import NearestNeighbors
        >>> generator = np.random.default_rng(0)
        >>> def draw(colour):
        ...     noise = generator.integers(0, 30, (64, 64, 3))
        ...     return (noise + np.array(colour)).astype(np.uint8)
        >>> colours = [(200, 0, 0), (0, 0, 200), (190, 10, 0), (10, 0, 190)]
        >>> images = [draw(colour) for colour in colours]
        >>> model = alignet.load("timm:resnet10t", weights="random", seed=0)
        >>> embedding = alignet.embed(model, images)
        >>> embedding.features.shape, embedding.features.dtype, embedding.ids
        ((4, 512), dtype('float32'), ['0', '1', '2', '3'])
        >>> nearest = NearestNeighbors(n_neighbors=2).fit(embedding.features)
        >>> nearest.kneighbors(embedding.features, return_distance=False)[:, 1].tolist()
        [2, 3, 0, 1]
    """
    if not isinstance(model, Model):
        model = load(model)
    source = (
        images
        if isinstance(images, GivenImages)
        else given_images(images, max_pixels=max_pixels, policy=pixels, member=member)
    )
    with progress("embedding", len(source.ids), "images") as advance:
        found = rows_of(
            model,
            source,
            range(len(source.ids)),
            batch=batch,
            unreadable=unreadable,
            threads=threads or torch.get_num_threads(),
            decode=decode,
            compute=compute,
            advance=advance,
        )
    return Embedding(found.features, found.ids, found.refused)


def odd_one_out(features: np.ndarray | Embedding, triplets: Any = None, *, tau: float = 1.0) -> OddOneOut:
    """Which of three images a model finds the odd one out: the one outside of the pair with the largest dot product.

    features: (m, p), or what `embed` returned. triplets: (n, 3) rows of `features`, or ids of the embedding; None
    takes three rows as one triplet. tau: temperature of the probabilities; it never changes the answer.
    A tie has no answer: position -1, which counts as wrong against whatever a person chose. Where people's choices
    stand in column 2, `(result.position == 2).mean()` is the odd-one-out accuracy.

    Examples:
        >>> import numpy as np, alignet
        >>> lizard, dog, leaf = [1.0, 0.9, 0.0], [0.9, 1.0, 0.1], [0.1, 0.0, 1.0]
        >>> answer = alignet.odd_one_out(np.array([lizard, leaf, dog]))
        >>> answer.position, answer.probabilities.round(2)  # the pair [0, 2] is the likeliest
        (array([1]), array([[0.13, 0.72, 0.14]], dtype=float32))
        >>> alignet.odd_one_out(np.eye(3)).position  # all three are equally far from each other
        array([-1])
        >>> embedding = alignet.Embedding(np.array([lizard, dog, leaf]), ["lizard", "dog", "leaf"], [])
        >>> triplets = [["leaf", "dog", "lizard"], ["dog", "lizard", "leaf"]]
        >>> alignet.odd_one_out(embedding, triplets).position
        array([0, 2])
    """
    values = np.asarray(features.features if isinstance(features, Embedding) else features)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(
            f"features: expected finite numbers (m, p), found shape {values.shape} or NaN in it."
        )
    if not tau > 0:
        raise ValueError(f"tau: expected a temperature above 0, found {tau}.")
    index = _triplets(triplets, features.ids if isinstance(features, Embedding) else None, len(values))
    sims = similarities(torch.from_numpy(values.astype(np.float64)), torch.from_numpy(index))
    near = near_largest(sims.T)
    position = torch.where(near.sum(0) > 1, -1, 2 - near.int().argmax(0))
    return OddOneOut(position.numpy(), probabilities(sims, tau).float().numpy(), sims.numpy())


def _triplets(given: Any, ids: Sequence[str] | None, rows: int) -> np.ndarray:
    """Triplets (n, 3) int64 of what the caller gave: rows, ids, or None for the only three rows."""
    if given is None:
        if rows != 3:
            raise ValueError(
                f"triplets: expected them where there are not exactly three rows, found {rows} rows."
            )
        return np.array([[0, 1, 2]])
    triplets = np.asarray(given)
    if triplets.dtype.kind in "UO" and triplets.ndim == 2 and triplets.size:
        from alignet.data.features import rows_for

        if ids is None:
            raise ValueError(
                "triplets: expected row numbers for an array of features, found ids; give an Embedding."
            )
        triplets = rows_for([str(name) for name in triplets.reshape(-1)], ids).reshape(triplets.shape)
    check_triplets(triplets, rows, "triplets")
    return np.ascontiguousarray(triplets, np.int64)


def _backbone(model: str, feature: str, image_size: int, weights: str) -> Backbone:
    """The Backbone that a folder or a name stands for."""
    path = Path(model)
    if path.is_dir():
        if (path / "map.npz").is_file() and not (path / "config.json").is_file():
            raise ValueError(
                f"{path}: expected a model, found an affine map alone; give it as `map`, beside its model."
            )
        if weights:
            raise ValueError(
                f"weights: expected none beside the folder {path}, which has its own, found {weights}."
            )
        return folder_backbone(path, feature, image_size)
    if ":" not in model and "/" not in model:
        _check_timm(model)
    library, _, name = (model if ":" in model else f"timm:{model}").partition(":")
    if library not in LIBRARIES or not name or (library == "timm" and "/" in name):
        raise ValueError(
            f"model: expected a folder, or LIBRARY:NAME with a library out of {', '.join(LIBRARIES)}, found {model!r}, "
            f"which is no folder here; check the path or the name."
        )
    tag = ""
    if library == "open_clip":
        name, _, tag = name.partition("/")
        if not tag and not weights:
            raise ValueError(
                f"model: expected open_clip:ARCHITECTURE/TAG, found {model!r} without a tag; "
                f"open_clip.list_pretrained() lists them."
            )
    elif library == "transformers":
        name, _, tag = name.partition("@")
    chosen = feature or ("output" if _meets_text(library, name, tag) else "pooled")
    return Backbone(library, name, weights, {}, image_size, chosen, tag)


def _check_timm(model: str) -> None:
    """ValueError where a bare name is no model of timm; a folder it is not either."""
    import difflib

    import timm

    if not timm.is_model(model):
        near = ", ".join(difflib.get_close_matches(model, timm.list_models(), n=3)) or "none"
        raise ValueError(
            f"model: expected a folder, a model of timm, or LIBRARY:NAME, found {model!r}: there is no folder of that "
            f"name and no timm model; similar names: {near}."
        )


def _meets_text(library: str, name: str, tag: str) -> bool:
    """Whether a named model has a text tower. Of transformers' repositories, the configuration says so."""
    if library != "transformers":
        return library == "open_clip"
    from transformers import AutoConfig

    try:
        if "/" in name:
            config = AutoConfig.from_pretrained(name, revision=tag or None)
        else:
            config = AutoConfig.for_model(name)
    except (OSError, ValueError):
        return False  # loading the weights meets the same trouble, and says what to do
    return hasattr(config, "text_config")
