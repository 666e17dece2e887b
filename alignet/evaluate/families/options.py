"""The options of the families of metrics, their names and the kinds of their values: checked before anything is made.

OPTIONS says which options a family must and may be given. KINDS says once for each name what its value may be; where
two families mean different things by one name, OWN has the family's own. What stands in neither is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alignet.data.categories import RULES

_TYPES: dict[str, tuple[type, ...]] = {
    "a whole number": (int,), "a number": (int, float), "text": (str,), "true or false": (bool,),
    "a mapping": (Mapping,),
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What a value may be: of a type, within bounds, or one of several words; or a list of such."""

    type: str = ""  # a key of _TYPES, or none but the words
    words: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    listed: bool = False  # a list of such, which is not empty
    null: bool = False  # or null
    several: bool = False  # or a list of such, which is not empty
    each: bool = False  # or, where a family has several sets, a mapping from the name of each to such

    def fits(self, value: Any) -> bool:
        """Whether a value is of this kind."""
        if value is None:
            return self.null
        if self.each and isinstance(value, Mapping):
            return bool(value) and all(replace(self, each=False).fits(one) for one in value.values())
        if self.listed or (self.several and isinstance(value, (list, tuple))):
            return isinstance(value, (list, tuple)) and bool(value) and all(map(self._fits, value))
        return self._fits(value)

    def _fits(self, value: Any) -> bool:
        if isinstance(value, str) and value in self.words:
            return True
        if not self.type or not isinstance(value, _TYPES[self.type]):
            return False
        if isinstance(value, bool) and self.type != "true or false":
            return False
        return not isinstance(value, (int, float)) or (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = (
            ("of at least", self.least), ("above", self.above), ("of at most", self.most), ("below", self.below)
        )  # fmt: skip
        said = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        texts = [f"{self.type} {said}".strip()] if self.type else []
        several = " or ".join([*texts, *self.words])
        one = f"a list with each entry {several}" if self.listed else several
        one += " or a list of such" if self.several else ""
        one += " or a mapping of such by set" if self.each else ""
        return f"{one} or null" if self.null else one


_LEVELS = "labels hierarchy wordnet"  # how to read files; which of them are needed hangs on the data
_JUDGED = "format kind key set under order_column sorted note"

# family -> names of options that it must be given, and of those that it may
OPTIONS: dict[str, tuple[str, str]] = {
    "odd_one_out": ("", "ceiling unit_column"),
    "rsa": ("", f"{_JUDGED} mean_over"),
    "rsa_mean": ("", _JUDGED),
    "nights": ("split min_votes is_imagenet", ""),
    "calibration": ("tau bins grid", "unit_column note"),
    "linear_probe": ("label C", ""),
    "top1": ("architecture", ""),
    "zero_shot": ("label templates library architecture tag model_args weights", ""),
    "teacher_labels": ("count tau_alignet tau_distillation center", ""),
    "agreement": ("count", ""),
    "few_shot": (
        "shots draws C few labels",
        "label id_column id_prefix merge several split standardize images_of",
    ),
    "breeds": ("C per_subclass", "task images_of"),
    "transfer": ("C per_class", "images_of"),
    "hierarchy": ("distance pairs categories", _LEVELS),
    "relations": ("count", _LEVELS),
    "space": ("points rsm_images", _LEVELS),
    "projection": ("points", _LEVELS),
    "examples": ("count pixels name", ""),
    "levels": ("tau missing", "fit_column fit_prefix"),
    "levels_people": ("", ""),
    "where": ("keys ceiling splits reductions scales blur", "photographs"),
    "masking": ("animals", "label"),
    "attack": ("reduction", "key eps photographs"),
    "invariance": (
        "matched",
        "photographs distances people_of mean_over order_column format kind key set under sorted",
    ),
}

WHOLE, NUMBER, TEXT = Kind("a whole number", least=1), Kind("a number", above=0), Kind("text")
MAPPING = Kind("a mapping")

KINDS: dict[str, Kind] = {
    "C": NUMBER,
    "architecture": TEXT,
    "bins": WHOLE,
    "blur": Kind(words=("none", "published")),
    "categories": Kind("a whole number", least=0),
    "ceiling": Kind("a number", ("repeated",), least=0, most=1, null=True),
    "center": Kind("true or false"),
    "count": WHOLE,
    "distance": Kind(words=("euclidean", "angle")),
    "distances": Kind("text", listed=True),
    "draws": WHOLE,
    "eps": Kind("a number", above=0, listed=True),
    "few": Kind(words=("stop", "skip")),
    "fit_column": TEXT,
    "fit_prefix": TEXT,
    "format": Kind(words=("peterson", "cichy", "king", "matrix")),
    "grid": Kind("a number", above=0, listed=True),
    "hierarchy": MAPPING,
    "id_column": TEXT,
    "id_prefix": TEXT,
    "is_imagenet": Kind("true or false", null=True),
    "key": Kind("text", null=True, several=True),
    "keys": Kind("text", several=True),
    "kind": Kind(words=("similarity", "dissimilarity"), null=True),
    "label": TEXT,
    "labels": MAPPING,
    "library": Kind(words=("timm", "open_clip", "transformers")),
    "matched": NUMBER,
    "mean_over": TEXT,
    "merge": MAPPING,
    "min_votes": Kind("a number", least=0),
    "missing": Kind(words=("stop", "drop")),
    "model_args": MAPPING,
    "name": TEXT,
    "note": TEXT,
    "order_column": TEXT,
    "pairs": WHOLE,
    "photographs": Kind("true or false"),
    "people_of": TEXT,
    "per_class": Kind("a whole number", least=1, null=True),
    "per_subclass": Kind("a whole number", least=1, null=True),
    "pixels": WHOLE,
    "points": WHOLE,
    "reduction": Kind(words=("mean", "max")),
    "reductions": Kind(words=("max", "mean", "abs_mean"), listed=True),
    "rsm_images": WHOLE,
    "scales": Kind("a whole number", least=1, listed=True),
    "set": Kind(words=("set1", "set2"), null=True),
    "several": Kind(words=RULES),
    "shots": Kind("a whole number", least=1, listed=True),
    "sorted": Kind(words=("plain", "natural"), null=True),
    "splits": WHOLE,
    "standardize": Kind(words=("feature", "scalar")),
    "tag": Kind("text", null=True),
    "task": Kind(words=("entity13", "entity30", "living17", "nonliving26")),
    "tau": Kind("a number", ("fit",), above=0),
    "tau_alignet": NUMBER,
    "tau_distillation": NUMBER,
    "templates": Kind("text", listed=True),
    "under": TEXT,
    "unit_column": TEXT,
    "weights": TEXT,
    "wordnet": MAPPING,
}

_EACH = ("key", "kind", "sorted")  # what the sets of rsa_mean may have of their own, since their files differ
OWN: dict[tuple[str, str], Kind] = {
    **{("rsa_mean", name): replace(KINDS[name], each=True) for name in _EACH},
    ("attack", "key"): TEXT,
    ("where", "ceiling"): Kind("a number", ("split_half", "clickme"), above=0, most=1, null=True),
    ("few_shot", "labels"): Kind(words=("folder", "table", "cls")),
    ("few_shot", "split"): Kind("a number", above=0, below=1),
    ("nights", "split"): TEXT,
}


def of_set(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options as they are for one of several sets: of a mapping by set its own entry, or none."""
    own = {key: value for key, value in options.items() if not (key in _EACH and isinstance(value, Mapping))}
    return own | {key: options[key][name] for key in options.keys() - own.keys() if name in options[key]}


def check_options(dataset: str, family: str, options: Mapping[str, Any]) -> None:
    """ValueError for an option of the evaluation `dataset` that its family does not know, or lacks, or another kind."""
    needed, known = (set(names.split()) for names in OPTIONS.get(family, ("", " ".join(options))))
    strange, missing = sorted(options.keys() - needed - known), sorted(needed - options.keys())
    if strange or missing:
        found = [f"the unknown {', '.join(strange)}"] * bool(strange) + [f"no {', '.join(missing)}"] * bool(
            missing
        )
        valid = ", ".join([*sorted(needed), *(f"{one} (or not)" for one in sorted(known))])
        raise ValueError(
            f"evaluate.datasets.{dataset}.options: expected for the family {family} {valid or 'none'}; found "
            f"{' and '.join(found)}."
        )
    check_values(dataset, family, options)


def check_values(dataset: str, family: str, options: Mapping[str, Any]) -> None:
    """ValueError for the first option of the evaluation `dataset` whose value is of another kind."""
    for name, value in options.items():
        kind = OWN.get((family, name), KINDS.get(name))
        if kind is not None and not kind.fits(value):
            raise ValueError(
                f"evaluate.datasets.{dataset}.options.{name}: expected {kind}, found {value!r}; see the family "
                f"{family} in alignet/evaluate/families."
            )
