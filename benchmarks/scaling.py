"""What measurements of growth become: docs/scaling.md with its picture, the constants of `plan`, the machine's rates.

    benchmarks/growth.json, and what `plan` prints -> docs/scaling.md, from `<!-- ... -->` to `<!-- end -->`
    seconds of each unit -> alignet/plan/constants.py; rates -> plan.machines of conf/config.yaml

    uv run python -m benchmarks.scaling    fill the blocks of docs/scaling.md anew; measures nothing

`benchmarks.growth` measures and calls this.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from alignet.plan.constants import REFERENCE, UNITS

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "scaling.md"
PICTURE = HERE.parent / "docs" / "growth.png"
CURVES = HERE / "growth.json"
CONSTANTS = HERE.parent / "alignet" / "plan" / "constants.py"
CONF = HERE.parent / "conf" / "config.yaml"
COUNTED = 0.02  # seconds: below them a run is mostly what does not grow, and is left out of slopes and ratios
POWERS = range(3, 8)  # of ten: the columns of the table
HOW = {  # by whether other work went on
    False: "seconds of two threads with nothing else on the machine, the fastest of some runs",
    True: "CPU seconds of one thread while other work went on (`--busy`), the prediction for one of the two cores",
}
_BLOCK = re.compile(r"<!-- (growth|plan .+?: .+?) -->\n(.*?)<!-- end -->", re.DOTALL)


def main() -> None:
    """Fill the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """The page with every block as it is today: `growth`, or `plan OPTIONS: PART, PART` of experiment=paper."""

    def block(found: re.Match[str]) -> str:
        kind, _, rest = found[1].partition(" ")
        if kind == "growth":
            inside = growth(json.loads(CURVES.read_text(encoding="utf-8")))
        else:
            options, _, parts = rest.rpartition(": ")
            inside = f"```\n{example(options.split(), parts.split(', '))}\n```"
        return f"<!-- {found[1]} -->\n\n{inside}\n\n<!-- end -->"

    return _BLOCK.sub(block, page)


def example(options: list[str], parts: list[str]) -> str:
    """Parts of what `plan` prints for experiment=paper: table (without its last column), or titles of others."""
    from alignet.stages.plan import main as plan

    with redirect_stdout(io.StringIO()) as printed:
        plan(["experiment=paper", *options])
    held = {}
    for section in printed.getvalue().strip().split("\n\n"):
        first = section.splitlines()[0]
        if first.startswith("node "):
            end = first.index("of what")
            held["table"] = "\n".join(line[:end].rstrip() for line in section.splitlines())
        else:
            held[first.partition(":")[0]] = section
    return "\n\n".join(held[part] for part in parts)


def growth(found: Mapping[str, Any]) -> str:
    """The measured curves as a table, and what they come to."""
    return "\n".join(_growth(found["curves"], found["machine"], found["busy"]))


def _growth(curves: Mapping[str, Any], machine: str, busy: bool) -> Iterator[str]:
    yield f"| stage | {' | '.join(f'10^{power}' for power in POWERS)} | slope | predicted | measured / predicted |"
    yield "|---|" + "---|" * (len(POWERS) + 3)
    ratios, apart = [], []
    for name, curve in curves.items():
        seconds = {size: value for size, value, _ in curve["rows"]}
        cells = [f"{seconds[10**power]:.3g} s" if 10**power in seconds else "" for power in POWERS]
        own = [value / guess for _, value, guess in curve["rows"] if value >= COUNTED]
        spread = f"{min(own):.2f} to {max(own):.2f}" if own else ""
        slopes = curve["slope"], curve["predicted_slope"]
        yield f"| {name} | {' | '.join(cells)} | {two(slopes[0])} | {two(slopes[1])} | {spread} |"
        ratios += own
        if None not in slopes:
            apart.append(abs(slopes[0] - slopes[1]))
    yield ""
    yield f"{machine}: {HOW[busy]}."
    if ratios and apart:
        yield (
            f"Slopes are of log seconds over log size, over runs above {COUNTED} s; they are at most {max(apart):.2f} "
            f"from the predicted ones, and measured times {min(ratios):.2f} to {max(ratios):.2f} of the predicted ones."
        )


def two(value: float | None) -> str:
    """A slope in text."""
    return "-" if value is None else f"{value:.2f}"


def draw_picture(curves: Mapping[str, Any], path: Path) -> None:
    """Measured points and predicted lines, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5))
    for number, (name, curve) in enumerate(curves.items()):
        if not curve["rows"]:
            continue
        sizes, seconds, predicted = zip(*curve["rows"], strict=True)
        colour = f"C{number}"
        axis.plot(sizes, predicted, "-", color=colour, linewidth=1)
        axis.plot(sizes, seconds, "o", color=colour, label=f"{name}: slope {two(curve['slope'])}")
    axis.set(xscale="log", yscale="log", xlabel="triplets or images", ylabel="seconds")
    axis.set_title("Measured (dots) and predicted by plan (lines)", fontsize=10)
    axis.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def with_units(source: str, seconds: Mapping[str, float], busy: bool) -> str:
    """The text of constants.py with these seconds of each unit."""
    lines = [
        f"BUSY = {busy}  # whether other work went on: then CPU seconds of one thread, halved where both share"
    ]
    lines += ["UNITS = {"]
    for name, unit in UNITS.items():
        lines.append(f'    "{name}": Unit({max(seconds[name], 0.0):.2g}, "{unit.bound}", "{unit.what}"),')
    lines.append("}  # fmt: skip")
    return _between(source, r"BUSY = .*?^\}  # fmt: skip", "\n".join(lines))


def with_rates(source: str, rates: Mapping[str, float]) -> str:
    """The text of conf/config.yaml with these rates of the reference machine."""
    found = re.search(rf"^    {REFERENCE}:.*?(?=^    \w)", source, re.DOTALL | re.MULTILINE)
    assert found is not None
    section = found[0]
    for name, rate in rates.items():
        section = _between(section, rf"(?<=^      {name}: )\S+", f"{rate:.1e}")
    return source[: found.start()] + section + source[found.end() :]


def _between(source: str, pattern: str, new: str) -> str:
    text, number = re.subn(pattern, lambda _: new, source, count=1, flags=re.DOTALL | re.MULTILINE)
    assert number == 1, pattern
    return text


if __name__ == "__main__":
    main()
