"""What is given to `python -m alignet.stages.robustness`: its words, methods, norms, groups and the kind of maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignet.stages import _networks_given as given
from alignet.stages._networks_given import Listed, split

if TYPE_CHECKING:
    import numpy as np

    from alignet.config import AttackMethod, AttackSection

# key -> what stands there where it is not given; the rest of a command line is configuration
OWN = {
    "images": "", "maps": "", "key": "", "model": "", "names": "", "labels": "", "also": "", "arrows": "", "groups": "",
    "reduction": "mean", "eps": "", "common": "true", "photographs": "true", "output": "",
}  # fmt: skip
SHORT = {
    "logit": "attack.logit", "column": "attack.column", "method": "attack.method", "batch": "attack.batch",
    "device": "runtime.device", "threads": "runtime.threads",
}  # fmt: skip
TAKEN = ("tables", "figures")  # folders of the output that are no network's
EPS = {"l2": "0.25,0.5,1", "linf": "0.004,0.008,0.016"}  # of l-inf about 1, 2 and 4 of 255 [ours]
CNN, VIT = "cnn", "vit"


class NotMeasured(ValueError):
    """What these images and classes do not allow, of networks that answer as they do.

    why: the reason in few words. networks: that cannot be attacked; none: not all can together. maps: whether
    tolerance alone can be measured.
    """

    def __init__(self, message: str, why: str, networks: Sequence[str] = (), maps: bool = False):
        super().__init__(message)
        self.why, self.networks, self.maps = why, tuple(networks), maps


def peel(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The arguments of OWN that are given, by key, and the others, which are configuration."""
    return given.peel(argv, OWN, SHORT)


def options_of(own: dict[str, str]) -> dict[str, str]:
    """OWN with its defaults; ValueError for what is missing or unknown."""
    return given.begun(
        own, OWN, "robustness", paths=("maps", "labels"),
        words={"reduction": ("mean", "max"), "common": ("true", "false")},
    )  # fmt: skip


def methods_of(section: AttackSection, also: str) -> dict[str, AttackMethod]:
    """The methods by their names, the first one that of the scores; ValueError for unknown ones, or without foolbox."""
    from alignet.config import FOOLBOX

    names = [section.method, *(split(also, "also") if also else [])]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"also: expected other methods than {section.method}, each once, found {twice} twice; take one out."
        )
    unknown = next((name for name in names if name not in section.methods), None)
    if unknown is not None:
        raise ValueError(
            f"also: expected methods out of attack.methods ({', '.join(section.methods)}), found {unknown!r}; name "
            "some of them."
        )
    found = {name: section.methods[name] for name in names}
    needing = [name for name, one in found.items() if one.algorithm in FOOLBOX]
    if needing:
        try:
            import foolbox  # noqa: F401
        except ImportError:
            raise ValueError(
                f"method: expected the package foolbox for {', '.join(needing)}, found none; install it with "
                "pip install 'alignet[attacks]', or name others of attack.methods."
            ) from None
    return found


def eps_of(typed: str, method: AttackMethod) -> list[float]:
    """The norms at which accuracy is given, ascending; ValueError for one that is not above 0 or was not searched."""
    values = []
    for part in split(typed or EPS[method.norm], "eps"):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not 0 < value <= method.high:
            raise ValueError(
                f"eps: expected norms above 0 and of at most {method.high:g}, the largest that is searched, found "
                f"{part}; name others, as eps={EPS[method.norm]}."
            )
        values.append(value)
    return sorted(set(values))


def groups_of(typed: str, networks: Sequence[Listed]) -> dict[str, list[str]]:
    """NAME:A,B;NAME:C,D as names of networks by group; none where nothing is given. ValueError unless there are two."""
    names = {text: one.name for one in networks for text in (one.typed, one.name)}
    found: dict[str, list[str]] = {}
    for part in typed.split(";") if typed else []:
        group, colon, listed = (text.strip() for text in part.partition(":"))
        members = [text.strip() for text in listed.split(",")]
        wrong = next((name for name in members if name not in names), None)
        if not (group and colon) or group in found or wrong is not None:
            raise ValueError(
                f"groups: expected NAME:A,B;NAME:C,D of {', '.join(one.name for one in networks)}, found {part!r}; "
                "name each group once, and networks as they are named here."
            )
        found[group] = [names[name] for name in members]
    every = [name for members in found.values() for name in members]
    if found and (len(found) != 2 or len(set(every)) < len(every)):
        raise ValueError(
            f"groups: expected two groups with different networks, found {typed!r}; put each network into one of two."
        )
    return found


def guessed(kinds: Mapping[str, str]) -> dict[str, list[str]]:
    """Networks by their kind, both kinds in any case. kinds: name -> cnn | vit."""
    return {kind: [name for name, one in kinds.items() if one == kind] for kind in (CNN, VIT)}


def kind_of(modules: Iterable[Any]) -> str:
    """Whether a network is a transformer: it has two or more modules with heads of attention, which pooling has not."""
    heads = (
        getattr(module, name, None) for module in modules for name in ("num_heads", "num_attention_heads")
    )
    return VIT if sum(isinstance(one, int) for one in heads) > 1 else CNN


def key_of(options: Mapping[str, str], ids: Sequence[str]) -> tuple[str, np.ndarray]:
    """The kind of maps, and which images have one (n,) bool; ("", all False) without maps. ValueError where it is not
    there, several are and none is named, or none is of these images."""
    import numpy as np

    from alignet.data.importance_maps import keys_of, load_maps, maps_for

    if not options["maps"]:
        return "", np.zeros(len(ids), dtype=bool)
    path, key = Path(options["maps"]), options["key"]
    kinds = keys_of(path)
    if not key and len(kinds) > 1:
        raise ValueError(
            f"maps: expected one kind of maps, found {', '.join(kinds)} in {path}; name one of these as key=NAME."
        )
    key = key or (kinds[0] if kinds else "")
    return key, maps_for(load_maps(path, key=key), ids)[0] >= 0


def check_classes(labels: np.ndarray, *, any_answer: bool) -> None:
    """ValueError where the class of no image is known and only images that are named right are attacked."""
    if not any_answer and not (labels >= 0).any():
        raise ValueError(
            f"labels: expected the class of at least one image, found none of {len(labels):,}; give labels=TABLE.csv, "
            "or logit=top1 to attack whatever networks answer."
        )


def check_right(right: Mapping[str, np.ndarray], labels: np.ndarray, *, common: bool) -> None:
    """NotMeasured for a network that names no image right, or where there is none that all do.

    right: (n,) bool of each network.
    """
    import numpy as np

    from alignet.report.formatting import counted

    counts = ", ".join(f"{name} {int(one.sum()):,}" for name, one in right.items())
    known = int((labels >= 0).sum())
    without = [name for name, one in right.items() if not one.any()]
    if without:
        raise NotMeasured(
            f"model {without[0]}: expected images that it names right, found 0 of {known:,} with a known class "
            f"({counts}); check that classes are numbered as its classifier does (labels, column), or give logit=top1 "
            "to attack whatever it answers.",
            f"it names none of {counted(known, 'image')} with a known class right, so nothing was attacked: check how "
            "classes are numbered (labels, column)", networks=without,
        )  # fmt: skip
    if common and not np.logical_and.reduce(list(right.values())).any():
        raise NotMeasured(
            f"common: expected images that all {len(right)} networks name right, found none of {known:,} with a known "
            f"class ({counts}); take networks out, or give common=false.",
            f"all {len(right)} networks name none of {counted(known, 'image')} with a known class right: take some "
            "out, or give common=false",
        )  # fmt: skip
