"""`velro verify` on a terminal, and for scripts."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from shared.object_store.settings import S3Settings
from shared.program import settings_of
from velro.read_models import ReadModelName, read_model_of
from velro.verify.bucket import GENERATION_ID
from velro.verify.findings import REPAIRS
from velro.verify.helping import LogAddress
from velro.verify.verifying import Places, Wanted, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from velro.verify.progress import Progress
    from velro.verify.report import Report

_SHOWN: Final = 50


def places() -> Places:
    """What the environment says; the program ends where it is wrong."""
    generation = read_model_of(ReadModelName.GENERATION)
    storage = read_model_of(ReadModelName.STORAGE)
    settings = generation.settings
    return Places(
        log=LogAddress(settings.nats_url, settings.stream, settings.subjects),
        dsns=(generation.dsn, storage.dsn),
        bucket=settings_of(S3Settings),
    )


def generations(only: list[str] | None) -> tuple[str, ...]:
    """The ids in `generation=ID` options.

    Raises:
        typer.BadParameter: one is something else.
    """
    ids: list[str] = []
    for option in only or ():
        name, _, generation_id = option.partition("=")
        if name != "generation" or not GENERATION_ID.fullmatch(generation_id):
            raise typer.BadParameter(f"{option!r} names no generation: write generation=ID")
        ids.append(generation_id)
    return tuple(ids)


async def verify_and_show(wanted: Wanted, *, as_json: bool) -> int:
    """Verify, print what is wrong, and say it in an exit code.

    Raises:
        TryLater, LogMismatch, SchemaOutdated: as `verify`.
    """
    console = Console()
    with _shown(Console(stderr=True)) as tell:
        report = await verify(places(), wanted, tell=tell)
    if as_json:
        console.print_json(json.dumps(report.as_data()))
    else:
        _print(console, report)
    return report.exit_code


@contextmanager
def _shown(console: Console) -> Generator[Callable[[Progress], None]]:
    """One line a thing that is counted, on stderr: what is printed is the result."""
    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f}{task.fields[of]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def tell(progress: Progress) -> None:
        if progress.what not in tasks:
            tasks[progress.what] = bars.add_task(progress.what, total=progress.total, of="")
        of = f" of {progress.total:,}" if progress.total else ""
        bars.update(tasks[progress.what], completed=progress.done, of=of)

    with bars:
        yield tell


def _print(console: Console, report: Report) -> None:
    for finding in report.findings[:_SHOWN]:
        where = [finding.read_model or "", finding.generation_id or "", finding.key or ""]
        console.print(
            f"[red]{finding.kind}[/] {' '.join(part for part in where if part)}: ",
            end="",
            highlight=False,
            soft_wrap=True,
        )
        console.print(finding.detail, markup=False, highlight=False, soft_wrap=True)
    if (left := report.counts.total() - _SHOWN) > 0:
        console.print(f"and {left:,} more: --json names them")
    for each in report.unreadable:
        console.print(
            f"[yellow]not read[/] bucket {each.bucket}, in which {each.outputs:,} outputs should "
            f"be: {each.why}",
            soft_wrap=True,
        )
    for kind, count in sorted(report.counts.items()):
        console.print(f"{count:,} {kind}: {REPAIRS[kind]}", highlight=False, soft_wrap=True)
    rate = report.generations / report.took_s if report.took_s else 0.0
    aside = [
        f"{report.young:,} objects too young to judge" if report.young else "",
        f"{report.foreign:,} under names that are not ours" if report.foreign else "",
        f"{report.read_deep:,} read byte by byte" if report.read_deep else "",
    ]
    console.print(
        f"{report.generations:,} generations and {report.objects:,} objects compared in "
        f"{report.took_s:,.1f} s ({rate:,.0f} generations/s)"
        + "".join(f"; {each}" for each in aside if each),
        highlight=False,
    )
    if not report.exit_code:
        console.print("[green]log, read models and bucket agree[/]")
