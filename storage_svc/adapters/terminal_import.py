"""What an import prints for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from rich.console import Console

    from storage_svc.application.importing import Imported, Plan

_HOSTS: Final = 20


def print_import_plan(console: Console, plan: Plan, *, now: datetime) -> None:
    """What would be done: how many, how old, already dead, from where."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_row(f"{plan.rows:,}", "rows")
    table.add_row(f"{plan.to_publish:,}", f"to publish, with {plan.outputs:,} outputs")
    table.add_row(f"{plan.stored_already:,}", "whose flags say that all is stored: left out")
    table.add_row(f"{plan.rejected:,}", "that cannot be imported")
    table.add_row(f"{plan.dead:,}", "whose links should be dead already: each is tried once more")
    if plan.oldest is not None:
        table.add_row("", f"the oldest is from {plan.oldest:%Y-%m-%d %H:%M} UTC")
    if plan.next_death is not None:
        hours = (plan.next_death - now).total_seconds() / 3600
        table.add_row("", f"the next link dies in {hours:,.1f} hours")
    console.print(table)
    for number, reason in plan.first_rejected:
        console.print(f"row {number:,} cannot be imported: {reason}")
    if (more := plan.rejected - len(plan.first_rejected)) > 0:
        console.print(f"and {more:,} more")
    hosts = Table("host", "outputs", box=box.SIMPLE, pad_edge=False)
    most_first = sorted(plan.by_host.items(), key=lambda item: -item[1])
    for host, count in most_first[:_HOSTS]:
        hosts.add_row(host, f"{count:,}")
    if rest := sum(count for _, count in most_first[_HOSTS:]):
        hosts.add_row(f"({len(plan.by_host) - _HOSTS:,} more)", f"{rest:,}")
    if plan.by_host:
        console.print(hosts)


def print_imported(console: Console, done: Imported, *, rejects: Path, interrupted: bool) -> None:
    """What was done."""
    console.print(
        f"{done.rows:,} rows: {done.events:,} events written, "
        f"{done.events_there_before:,} were there before, {done.stored_already:,} rows left out"
    )
    if done.rejected:
        console.print(f"{done.rejected:,} rows were not imported; why: {rejects}")
    if interrupted:
        console.print("interrupted: the same command goes on where this ended")
