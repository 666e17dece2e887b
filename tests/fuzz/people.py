"""Seeds of people's answers for tests.fuzz.kinds: trials, splits, labels, surveys."""

from __future__ import annotations

import io
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.reader import Reader, nothing_wrong


def _rows_of_trials() -> list[dict[str, object]]:
    names = [f"c{number}.jpg" for number in range(6)]
    rows: list[dict[str, object]] = []
    for person in ("p1", "p2"):
        for number, level in enumerate(("between_class", "within_class", "class_border")):
            three = names[number : number + 3]
            rows.append({"participant": person, "trial": number, "image1Path": three[0], "image2Path": three[1],
                         "image3Path": three[2], "selected_image": three[number], "triplet_type": level,
                         "exp_trial_type": "exp_trial", "rt": 900.5 + number})  # fmt: skip
        rows.append({"participant": person, "trial": 3, "image1Path": names[0], "image2Path": names[0],
                     "image3Path": names[1], "selected_image": names[1], "triplet_type": "",
                     "exp_trial_type": "catch_trial", "rt": 700})  # fmt: skip
    return rows


def _trials_csv() -> bytes:
    rows = _rows_of_trials()
    return (
        "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]).encode() + b"\n"
    )


def _trials_parquet() -> bytes:
    import pandas as pd

    handle = io.BytesIO()
    pd.DataFrame(_rows_of_trials()).astype({"rt": float}).to_parquet(handle)
    return handle.getvalue()


def _trials(path: Path) -> Any:
    from alignet.data.levels import tidy
    from alignet.data.trials import read_trials

    found = read_trials(path)
    tidied = tidy(found, catch_accuracy=0.5, max_misses=10, slow_ms=10000, shared_sets="all")
    return found.shown, found.selected, found.rt, dict(tidied.triplets)


def _are_trials(found: Any, size: int) -> str:
    shown, selected, rt, triplets = found
    good = (
        shown.shape == (len(selected), 3)
        and ((selected >= -1) & (selected < 3)).all()
        and (rt[selected >= 0] > 0).all()
    )
    return (
        ""
        if good and np.isfinite(rt[selected >= 0]).all() and len(triplets["level"])
        else "trials out of range"
    )


def _nights(path: Path) -> Any:
    from alignet.data.nights import load_nights

    return load_nights(path, split="test", min_votes=6, is_imagenet=None).pictures


_NIGHTS = (
    b"id,prompt,choice,unused,reference,first,second,votes,split,is_imagenet\n"
    b'0,"a dog, running",1,0,ref/0.png,d/0_0.png,d/0_1.png,6,test,True\n'
    b'1,"a cat",0,0,ref/1.png,d/1_0.png,d/1_1.png,7,test,False\n2,x,1,0,ref/2.png,d/2_0.png,d/2_1.png,5,train,True\n'
)


def _split(path: Path) -> Any:
    from alignet.data.breeds import load_split

    return load_split(path)


_SPLIT = ("superclass,subclass,domain\n" + "".join(
    f"s{one},s{one}{domain}{number},{domain}\n" for one in "ab"
    for domain in ("source", "target") for number in range(2)
)).encode()  # fmt: skip


def _real(path: Path) -> Any:
    from alignet.data.imagenet import load_real

    return load_real(path, 10)


@cache
def _survey() -> Any:
    from alignet.survey.survey import plan_survey

    triplets = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 3, 4]])
    different = np.ones((5, 5))
    planned = plan_survey(
        [f"{name}.png" for name in "abcde"],
        triplets,
        different=different,
        trials=4,
        catch=1,
        practice=1,
        seed=0,
    )
    return planned


def _survey_bytes() -> bytes:
    from dataclasses import asdict

    from alignet.survey.survey import FORMAT

    return json.dumps({"format": FORMAT, "version": 1, **asdict(_survey()), "id": "s1"}).encode()


def _load_survey(path: Path) -> Any:
    from alignet.survey.survey import load_survey

    return load_survey(path)


def _sheet_bytes() -> bytes:
    from alignet.survey.answers import FORMAT

    places = {}
    for number, one in enumerate(_survey().pictures):
        places.setdefault(one, number)
    trials = [
        {"pictures": [places[one] for one in row], "choice": 1, "rt": 800.5} for row in _survey().triplets
    ]
    content = {"format": FORMAT, "version": 1, "survey": "s1", "participant": "0" * 32, "complete": False}
    return json.dumps({**content, "trials": trials}).encode()


def _sheet(path: Path) -> Any:
    from dataclasses import replace

    from alignet.survey.answers import read_sheet

    return read_sheet(path, {"s1": replace(_survey(), id="s1")})


def _are_answers(found: Any, size: int) -> str:
    good = all(trial.place in (0, 1, 2) and 0 <= trial.rt < float("inf") for trial in found.trials)
    return "" if good else "answers out of range"


@cache
def _inverted() -> Any:
    from alignet.survey.matching import Inverted

    pixels = np.arange(4 * 2 * 3 * 2 * 2).reshape(4, 2, 3, 2, 2).astype(np.uint8)
    return Inverted(("a", "b", "c", "d"), pixels[:, 0], pixels + 1, pixels + 2)


@cache
def _matching(kind: Any) -> Any:
    from dataclasses import replace

    from alignet.survey.matching import plan_matching

    planned = plan_matching(
        _inverted(), kind=kind, questions=4, triples=None, trials=12, catch=2, practice=1, seed=0
    )
    return replace(planned, id="s1")


def _matching_bytes(kind: str) -> bytes:
    from dataclasses import asdict

    from alignet.survey.survey import FORMAT

    return json.dumps({"format": FORMAT, "version": 1, **asdict(_matching(kind))}).encode()


def _load_matching(path: Path) -> Any:
    from alignet.survey.survey import load_survey

    found = load_survey(path)
    return found, found.length


def _matching_sheet_bytes(kind: str) -> bytes:
    from alignet.survey.answers import FORMAT

    trials = [
        {"pictures": list(question), "choice": 1, "rt": 800.5, "early": 0}
        for question in _matching(kind).questions
    ]
    content = {"format": FORMAT, "version": 1, "survey": "s1", "participant": "0" * 32, "complete": False}
    return json.dumps({**content, "trials": trials[:5]}).encode()


def _read_matching(kind: str, path: Path) -> Any:
    from alignet.survey.answers import read_sheet

    return read_sheet(path, {"s1": _matching(kind)})


def _are_matches(found: Any, size: int) -> str:
    good = all(trial.place < len(trial.options) and 0 <= trial.rt < float("inf") for trial in found.trials)
    return "" if good else "answers out of range"


def _shard_bytes() -> bytes:
    one, file = _inverted(), io.BytesIO()
    np.savez(file, image=one.image, seed=one.seed, inverted8=one.inverted, error=np.zeros((4, 2)))
    return file.getvalue()


def _shard(path: Path) -> Any:
    from alignet.survey.matching import read_inverted

    path.with_name("ids-00000.txt").write_text("a\nb\nc\nd\n")
    found = read_inverted(path.parent)
    return {"image": found.image, "seed": found.seed, "inverted": found.inverted}


def _are_images(found: Any, size: int) -> str:
    whole = all(one.dtype == np.uint8 and len(one) == 4 for one in found.values())
    return "" if whole and found["seed"].shape == found["inverted"].shape else "no images of 8 bit"


_CHOICES = (
    b"survey,participant,trial,kind,image,draw,options,choice,right,rt_ms,used\n"
    b"s1,p1,1,two,a,0,,target,1,900,yes\ns1,p1,2,two,b,1,,seed,0,800.5,yes\ns1,p1,3,match,c,0,a|b|c,c,1,700,yes\n"
    b"s1,p2,1,match,a,1,a|b|d,b,0,700,yes\ns1,p2,2,two,d,0,,target,1,100,too fast\n"
)


def _choices(path: Path) -> Any:
    from alignet.evaluate.families.invariance_people import read_answers

    names = ("image", "draw", "right", "chosen", "options")
    found = read_answers(path, ["a", "b", "c", "d"], 2)
    return {kind: {name: getattr(one, name) for name in names} for kind, one in found.items()}


def _are_choices(found: Any, size: int) -> str:
    for kind, one in found.items():
        near = all(0 <= image < 4 and 0 <= draw < 2 for image, draw in zip(one["image"], one["draw"]))
        own = all(
            chosen in (0, 1) if kind == "two" else chosen in shown
            for chosen, shown in zip(one["chosen"], one["options"])
        )
        if not near or not own or len({len(values) for values in one.values()}) != 1:
            return "answers out of range"
    return ""


def readers(kind: str) -> tuple[Reader, ...]:
    """Every seed of a kind that is here, with its reader."""
    if kind == "csv":
        return (
            Reader("a.csv", _trials_csv(), _trials, _are_trials, text=True),
            Reader("a.csv", _NIGHTS, _nights, nothing_wrong, text=True),
            Reader("a.csv", _SPLIT, _split, nothing_wrong, text=True),
            Reader("choices.csv", _CHOICES, _choices, _are_choices, text=True),
        )
    if kind == "json":
        return (
            Reader("real.json", b"[[1, 2], [], [9]]", _real, nothing_wrong, text=True),
            Reader("survey.json", _survey_bytes(), _load_survey, nothing_wrong, text=True),
            Reader("sheet.json", _sheet_bytes(), _sheet, _are_answers, text=True),
            *(
                Reader("survey.json", _matching_bytes(asks), _load_matching, nothing_wrong, text=True)
                for asks in ("two", "match")
            ),
            *(
                Reader(
                    "sheet.json",
                    _matching_sheet_bytes(asks),
                    partial(_read_matching, asks),
                    _are_matches,
                    text=True,
                )
                for asks in ("two", "match")
            ),
        )
    if kind == "npz":
        return (Reader("invert-00000.npz", _shard_bytes(), _shard, _are_images),)
    if kind == "parquet":
        return (Reader("a.parquet", _trials_parquet(), _trials, _are_trials),)
    return ()
