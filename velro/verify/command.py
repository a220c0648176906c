"""`velro verify` on a terminal, and for scripts."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from shared.archive.settings import ArchiveSettings
from shared.media.settings import MediaSettings
from shared.object_store.probe import PREFIX as PROBE_PREFIX
from shared.object_store.settings import S3Settings
from shared.printing import printer
from shared.program import run, settings_of
from shared.settings import LogSettings
from velro.options import AsJson, duration, use_environment
from velro.read_models import ReadModelName, read_model_of
from velro.verify.bucket import GENERATION_ID
from velro.verify.findings import REPAIRS
from velro.verify.repairing import repairing
from velro.verify.report import EXIT_CONSISTENT, EXIT_FINDINGS, EXIT_NOT_READABLE
from velro.verify.verifying import Places, Wanted, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console

    from velro.verify.findings import Finding
    from velro.verify.progress import Progress
    from velro.verify.repairing import Repair
    from velro.verify.report import Report

_SHOWN: Final = 50


def places() -> Places:
    """What the environment says; the program ends where it is wrong."""
    generation = read_model_of(ReadModelName.GENERATION)
    storage = read_model_of(ReadModelName.STORAGE)
    return Places(
        log=settings_of(LogSettings),
        dsns=(generation.dsn, storage.dsn),
        bucket=settings_of(S3Settings),
        not_media=(f"{PROBE_PREFIX}/", f"{settings_of(ArchiveSettings).prefix}/"),
    )


def verify_command(
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Read the bytes of every object.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete orphans without asking.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="generation=ID: this one alone; may be repeated.")
    ] = None,
    grace: Annotated[
        str, typer.Option(help="Objects younger than this are no orphans yet: 90m, 24h, 7d.")
    ] = "60m",
    as_json: AsJson = False,
) -> None:
    """Compare log, read models and bucket: what is missing, other, or belongs to nobody.

    Ends with 1 where something is wrong and was not mended, 2 where the tables are of another log
    or version, 4 where something could not be read.
    """
    wanted = Wanted(only=_generations(only), deep=deep, grace_s=duration(grace).total_seconds())
    if as_json and repair and not yes:
        raise typer.BadParameter("--json asks nothing: add --yes, or leave --repair out")
    use_environment()
    raise typer.Exit(run(_verify_and_show(wanted, mend=repair, yes=yes, as_json=as_json)))


def _generations(only: list[str] | None) -> tuple[str, ...]:
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


async def _verify_and_show(wanted: Wanted, *, mend: bool, yes: bool, as_json: bool) -> int:
    """Verify, print what is wrong, mend it if asked to, and say it in an exit code.

    Args:
        wanted: what to look at.
        mend: repair what was found.
        yes: delete orphans without asking.
        as_json: one document of JSON instead of lines.

    Raises:
        TryLater, LogMismatch, SchemaOutdated: as `verify`.
    """
    console, aside = printer(), printer(stderr=True)
    where = places()
    read = ", every byte of it" if wanted.deep else ""
    aside.print(f"comparing the log with its read models and the bucket{read}; nothing is changed")
    with _shown(aside) as tell:
        report = await verify(where, wanted, tell=tell)
    if not as_json:
        _print(console, report)
    repairs: list[Repair] = []
    if mend and report.findings:

        def may_go(orphan: Finding) -> bool:
            return yes or typer.confirm(f"delete {orphan.key}, {orphan.detail}?", err=True)

        async with repairing(where, settings_of(MediaSettings), may_go) as mending:
            async for repair in mending.repair(report.findings):
                repairs.append(repair)
                if not as_json:
                    _print_repair(console, repair)
    if as_json:
        done = [each.finding.as_data() | {"done": each.done, "said": each.said} for each in repairs]
        console.print_json(json.dumps(report.as_data() | {"repaired": done}))
    left = report.counts.total() - sum(repair.done for repair in repairs)
    if repairs and not as_json:
        console.print(
            f"{len(repairs):,} repairs tried, {left:,} findings left; verify again proves it"
        )
    return EXIT_FINDINGS if left else EXIT_NOT_READABLE if report.unreadable else EXIT_CONSISTENT


@contextmanager
def _shown(console: Console) -> Generator[Callable[[Progress], None]]:
    """One line a thing that is counted, on stderr: what is printed is the result."""
    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:,.0f}{task.fields[of]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # elsewhere it would be an empty line
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
            Text.assemble(
                (finding.kind, "red"),
                f" {' '.join(part for part in where if part)}: {finding.detail}",
            ),
            soft_wrap=True,
        )
    if (left := report.counts.total() - _SHOWN) > 0:
        console.print(f"and {left:,} more: --json names them")
    for each in report.unreadable:
        console.print(
            Text.assemble(
                ("not read", "yellow"),
                f" bucket {each.bucket}, in which {each.outputs:,} outputs should be: {each.why}",
            ),
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
        console.print("log, read models and bucket agree", style="green")


def _print_repair(console: Console, repair: Repair) -> None:
    which = repair.finding.key or f"{repair.finding.read_model} {repair.finding.generation_id}"
    mark = ("mended", "green") if repair.done else ("not mended", "yellow")
    console.print(Text.assemble(mark, f" {which}: {repair.said}"), soft_wrap=True)
