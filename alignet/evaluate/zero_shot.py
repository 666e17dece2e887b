"""Zero-shot accuracy: images classified by the text features of their classes' names.

The text tower is never trained, so its features are those of the base network before and after alignment, and
what changes in accuracy is the images' doing. Radford et al. 2021, section 3.1.4: each class is the mean of
its normalised text features over the prompts.

Shape suffixes: n images, p features, c classes, t prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.top1 import top1


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """For each class name, its text in each template, where {} stands for the name; underscores become spaces.

    ValueError for no template, and for one without {}.
    """
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise ValueError(
            f"zero_shot templates: expected texts with {{}} once, in place of the class name, found "
            f"{wrong[0] if wrong else 'none'!r}; write for example 'a photo of a {{}}.'"
        )
    spoken = [name.replace("_", " ") for name in names]
    return [[template.replace("{}", name) for template in templates] for name in spoken]


def class_vectors(
    encode: Callable[[list[str]], np.ndarray], names: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """One vector of unit length for each class, (c, p) float64: the normalised mean over templates.

    encode: texts -> their features (texts, p). ValueError if a feature is zero or not finite.
    """
    texts = prompts(names, templates)
    found = np.asarray(encode([text for own in texts for text in own]), np.float64)
    vectors = _unit(found, "text features").reshape(len(names), len(templates), -1).mean(1)
    return _unit(vectors, "mean text features")


def zero_shot(
    features: np.ndarray,
    labels: Sequence[str],
    names: Sequence[str],
    vectors: np.ndarray,
    *,
    dataset: str,
    seed: int,
    bootstrap: int = 1000,
    note: str = "",
) -> list[Score]:
    """Share of images whose own class alone has the largest cosine with the image, one score.

    features: (n, p). labels: class name of each image. names: (c,) different names. vectors: (c, p) of
    unit length, see class_vectors. A tie is no success. The interval resamples images.
    """
    if features.ndim != 2 or vectors.ndim != 2 or features.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"{dataset}: expected image and text features of one width, found {features.shape} and {vectors.shape}; "
            f"evaluate feature=output of the network whose text tower is used."
        )
    rows = {name: row for row, name in enumerate(names)}
    strangers = sorted(set(labels) - rows.keys())
    if strangers or len(rows) < 2 or len(rows) < len(names):
        found = f"no name for {strangers[0]!r}" if strangers else f"{len(rows)} of {len(names)}"
        raise ValueError(
            f"{dataset}: expected two or more different class names for all images, found {found}."
        )
    own = np.array([rows[label] for label in labels], np.int64)
    scores = _unit(np.asarray(features, np.float64), f"features of {dataset}")
    shared = {"dataset": dataset, "seed": seed, "bootstrap": bootstrap}
    return top1(scores, own, vectors.T, np.zeros(len(names)), metric="zero_shot", note=note, **shared)  # type: ignore[arg-type]


def _unit(rows: np.ndarray, what: str) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise ValueError(
            f"{what}: expected finite vectors that are not zero, found others; check the weights."
        )
    return rows / lengths
