"""What a configuration would cost at any size on a named machine: FLOPs, bytes, time, memory, disk. Reads no data.

reads   the configuration alone
writes  nothing
prints  a row for each node that costs something, sums, the bottleneck, what fits one GPU, where one machine no longer
        serves and which existing engine does, what to run next
cost    seconds
sizes   plan.size=imagenet | billion, or plan.images=N plan.triplets=N; other sets by ++doctor.assume.SET=N
machine plan.machine=2cores | 24gb | h200, plan.count=8 of them; add yours to plan.machines

`doctor` measures the data and the models that are on this machine; `plan` is for what is not here yet.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alignet.pipeline import cli

if TYPE_CHECKING:
    from alignet.config import Config
    from alignet.plan.nodes import Cost

SHOWN = (
    0.001  # of the whole time: nodes that take less, and are not the longest of their stage, share one row
)
TOGETHER = (
    "evaluate",
    "export",
    "report",
    "index",
    "levels",
)  # stages of many small nodes: a row for each stage
COLUMNS = ("node", "FLOPs", "bytes moved", "time", "memory", "of the GPU", "disk", "waits for", "of what")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Folders that an experiment needs may be left out, since nothing is read."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    typed = [
        item for item in arguments if not item.startswith("-") and not item.lstrip("+").startswith("plan.")
    ]
    values = cli.first_job(arguments)
    missing = (
        [] if values is None else [one for one in values["data"]["needs"] if values["paths"][one] is None]
    )
    extra = [f"paths.{name}=NOT_GIVEN" for name in missing]
    given = "".join(
        f" {item}" for item in [shlex.join(typed), *(f"paths.{name}=..." for name in missing)] if item
    )
    cli.main("plan", __doc__ or "", lambda config: show(config, given), [*arguments, *extra], typed=arguments)


def show(config: Config, given: str) -> None:
    """Print everything."""
    from alignet.plan import advice
    from alignet.plan.machines import machine_of
    from alignet.plan.nodes import plan_nodes
    from alignet.plan.sizes import Sizes

    plan = config.plan
    machine, sizes = machine_of(plan.machine, plan.machines, plan.count), Sizes(config)
    costs = plan_nodes(config, machine)
    many = f"{machine.count} x " if machine.count > 1 else ""
    each = sizes.image_bytes("pool") / 1000
    print(f"plan: {config.experiment_name}; {sizes.images('pool'):,} images of {each:,.3g} kB")
    print(f"machine: {many}{machine.name}, {machine.settings.about}")
    print()
    _table(costs)
    print(f"\nbottleneck: {advice.bottleneck(costs)}")
    for title, lines in (
        ("does not fit", advice.too_large(costs, machine)),
        ("what fits at once", advice.fits(config, machine, sizes)),
        ("where one machine no longer serves", advice.beyond(config, machine, sizes, costs)),
        ("next", advice.following(config, machine, sizes, given)),
    ):
        _section(title, list(lines))


def _section(title: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"\n{title}")
        for line in lines:
            print(f"  {line}")


def rows(costs: Sequence[Cost]) -> Iterator[tuple[str, ...]]:
    """The table as text: nodes that cost something, small ones together, the sums."""
    from alignet.plan.advice import words

    total = sum(cost.seconds for cost in costs)
    longest = {stage: max((one for one in costs if one.stage == stage), key=lambda one: one.seconds)
               for stage in dict.fromkeys(cost.stage for cost in costs)}  # fmt: skip
    shown = [
        cost for cost in costs
        if cost.stage not in TOGETHER and (cost is longest[cost.stage] or cost.seconds >= SHOWN * total)
    ]  # fmt: skip
    for cost in shown:
        yield _row(cost.key, [cost], words(cost), cost.how)
    for stage in TOGETHER:
        group = [cost for cost in costs if cost.stage == stage]
        if group:
            yield _row(stage, group, words(longest[stage]), f"{len(group)} nodes; {longest[stage].how}")
    rest = [cost for cost in costs if cost not in shown and cost.stage not in TOGETHER]
    if rest:
        yield _row(f"{len(rest)} others", rest, "", f"none above {SHOWN:.1%} of the whole")
    yield _row("all", costs, "", "one after the other")


def _row(name: str, group: Sequence[Cost], waits: str, how: str) -> tuple[str, ...]:
    """Sums of nodes; of memory the largest."""
    from alignet.doctor.findings import duration, size

    gpu = max(cost.gpu for cost in group)
    return (
        name, _number(sum(cost.work.flops for cost in group)), _number(sum(cost.work.bytes for cost in group)),
        duration(sum(cost.seconds for cost in group)), size(max(cost.host for cost in group)),
        size(gpu) if gpu else "", size(sum(cost.disk for cost in group)), waits, how,
    )  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.1e}" if value else ""


def _table(costs: Sequence[Cost]) -> None:
    """With lines and colours on a terminal, aligned columns elsewhere."""
    body = list(rows(costs))
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*COLUMNS)
        for number, row in enumerate(body, 1):
            table.add_row(*row, style="bold" if number == len(body) else None)
        Console().print(table)
        return
    lines = [COLUMNS, *body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS) - 1)]
    for line in lines:
        cells = [
            f"{text:{'<' if column in (0, 7) else '>'}{widths[column]}}"
            for column, text in enumerate(line[:-1])
        ]
        print("  ".join([*cells, line[-1]]).rstrip())


if __name__ == "__main__":
    main()
