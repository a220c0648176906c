"""The command `velro replay`: what is asked for, and which part of it that is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from shared.printing import printer
from shared.processes.cores import processes_worth_having
from shared.program import run
from shared.projection.applying import Poison
from velro.options import AsJson, duration, use_environment
from velro.read_models import ReadModelName
from velro.replaying import only_with_bar, replay_with_bars, undo_with_bar
from velro.replaying_plan import plans, show_briefly, show_json, show_whole

if TYPE_CHECKING:
    from rich.status import Status

# Two connections to the database each; and one process reads for all of them.
_MOST_PROCESSES: Final = 16


def replay(
    read_models: Annotated[
        list[ReadModelName] | None, typer.Argument(help="Which ones; several at once.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be done and how long it takes.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Switch back to what the last rebuild replaced.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="generation=ID or user=ID: these rows alone; may be repeated."),
    ] = None,
    accept_differences: Annotated[
        bool,
        typer.Option(
            "--accept-differences",
            help="Switch though other rows serve, or rows of another log.",
        ),
    ] = False,
    from_archive: Annotated[
        bool, typer.Option("--from-archive", help="Read what is archived from the bucket.")
    ] = False,
    park: Annotated[
        bool,
        typer.Option(
            "--park", help="Put aside what cannot be applied, as the service does, and go on."
        ),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            help="So many fold each read model; as many as there are cores, up to 4, else.",
            min=1,
            max=_MOST_PROCESSES,
        ),
    ] = None,
    keep: Annotated[
        str, typer.Option(help="How long the replaced tables are kept: 90m, 24h, 7d.")
    ] = "24h",
    as_json: AsJson = False,
) -> None:
    """Build read models anew from the log, beside the running services, and switch to them.

    Interrupted at any moment it leaves the old ones serving, and goes on the next time.
    """
    names = list(ReadModelName) if every else list(dict.fromkeys(read_models or []))
    if not names:
        raise typer.BadParameter("name a read model (generation, storage), or say --all")
    if sum((plan, undo, bool(only))) > 1:
        raise typer.BadParameter("--plan, --undo and --only are three different things")
    if as_json and not plan:
        raise typer.BadParameter("--json goes with --plan")
    if park and (undo or only):
        raise typer.BadParameter("--park goes with a whole rebuild and its --plan")
    if from_archive and (undo or only):
        raise typer.BadParameter("--from-archive goes with a whole rebuild and its --plan")
    generation_ids, user_id = _wanted(only or [])
    grace = duration(keep)
    use_environment()
    console = printer()
    divided = processes or processes_worth_having()
    poison = Poison.PARK if park else Poison.STOP
    planning = partial(plans, names, processes=divided, from_archive=from_archive, poison=poison)
    if plan:
        with _measuring():
            made = run(planning())
        (show_json if as_json else show_whole)(made, console)
    elif undo:
        for name in names:
            run(undo_with_bar(name, console, grace=grace))
    elif only:
        run(only_with_bar(names, console, generation_ids=generation_ids, user_id=user_id))
    else:
        with _measuring():
            made = run(planning())
        show_briefly(made, console)
        rebuilding = replay_with_bars(
            names,
            console,
            accept_differences=accept_differences,
            grace=grace,
            from_archive=from_archive,
            poison=poison,
            processes=divided,
        )
        run(rebuilding)


def _measuring() -> Status:
    return printer(stderr=True).status("projecting a sample of the log, to say how long it takes")


def _wanted(only: list[str]) -> tuple[list[str], str | None]:
    generation_ids: list[str] = []
    user_ids: list[str] = []
    for each in only:
        match each.partition("="):
            case ["generation", "=", value] if value:
                generation_ids.append(value)
            case ["user", "=", value] if value:
                user_ids.append(value)
            case _:
                raise typer.BadParameter(f"{each!r} is neither generation=ID nor user=ID")
    if len(user_ids) > 1:
        raise typer.BadParameter("--only takes one user at a time")
    return generation_ids, user_ids[0] if user_ids else None
