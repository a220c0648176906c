"""The command line of the storage service."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from shared.archive.settings import ArchiveSettings
from shared.contracts.reasons import ReasonCode  # noqa: TC001 - typer reads it when it runs
from shared.media.settings import MediaSettings
from shared.object_store.settings import S3Settings
from shared.program import configure_logging, run, settings_of, telling_of_full_disks
from shared.settings import LogSettings
from storage_svc.application.import_rows import Row
from storage_svc.application.importing import Wishes
from storage_svc.programs import quarantine
from storage_svc.programs.archiving import archive_continuously, archive_once
from storage_svc.programs.importing import Given, import_rows
from storage_svc.programs.initialising import init
from storage_svc.programs.listing import backlog
from storage_svc.programs.migrating import migrate, retry
from storage_svc.programs.serving import serve
from storage_svc.programs.trimming import trim
from storage_svc.settings import CopySettings, StorageSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

# A hundred years; more overflows a date.
MAX_LIFETIME_H = 876_000
JSON = Annotated[bool, typer.Option("--json", help="One line of JSON instead of a table.")]


@app.command("serve")
def serve_command(
    host: Annotated[str | None, typer.Option(help="For the health routes.")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one.", min=0, max=65_535)] = None,
) -> None:
    """Keep the backlog and copy what is in it, until told to stop."""
    settings = settings_of(StorageSettings)
    changed = {"storage_host": host, "storage_port": port}
    settings = settings.model_copy(update={k: v for k, v in changed.items() if v is not None})
    run(serve(settings, _copying(), settings_of(ArchiveSettings)))


@app.command("init")
def init_command() -> None:
    """See that stream, tables and bucket are there; make what is missing."""
    run(init(settings_of(StorageSettings), _copying()))


@app.command("migrate")
def migrate_command(
    *,
    once: Annotated[bool, typer.Option("--once", help="One batch, then end.")] = False,
    continuous: Annotated[bool, typer.Option("--continuous", help="Batch after batch.")] = False,
    interval: Annotated[
        float, typer.Option(min=1, help="Seconds of rest, at most, when nothing is due.")
    ] = 300.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Outputs a batch, at most.")] = 50,
    as_json: JSON = False,
) -> None:
    """Copy what waits, the soonest death first, also beside a running service.

    Ends with 3 if an output was lost, with 4 if the log or the database did not answer.
    """
    if once == continuous:
        raise typer.BadParameter("give either --once or --continuous")
    settings = settings_of(StorageSettings)
    raise typer.Exit(
        run(
            migrate(
                settings,
                _copying(),
                batch_size=batch_size,
                interval_s=interval if continuous else None,
                as_json=as_json,
            )
        )
    )


@app.command("archive")
def archive_command(
    *,
    once: Annotated[bool, typer.Option("--once", help="Up to the log's end, then end.")] = False,
    continuous: Annotated[bool, typer.Option("--continuous", help="Until told to stop.")] = False,
) -> None:
    """Write the log to the bucket, in segments; the service does it too while it serves."""
    if once == continuous:
        raise typer.BadParameter("give either --once or --continuous")
    program = archive_once if once else archive_continuously
    run(
        program(settings_of(StorageSettings), settings_of(S3Settings), settings_of(ArchiveSettings))
    )


@app.command("trim")
def trim_command(
    *,
    days: Annotated[
        float | None,
        typer.Option(
            min=0, max=36_500, help="Settled for so long; else VELRO_ARCHIVE_TRIM_AFTER_DAYS."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what may leave.")] = False,
    as_json: JSON = False,
) -> None:
    """Let the events of settled generations leave the stream; the archive has them.

    The service does it too, about every hour, where VELRO_ARCHIVE_TRIM_AFTER_DAYS is set.
    """
    archive = settings_of(ArchiveSettings)
    settings, bucket = settings_of(StorageSettings), settings_of(S3Settings)
    run(trim(settings, bucket, archive, days=days, dry_run=dry_run, as_json=as_json))


@app.command("import")
def import_command(
    file: Annotated[
        Path | None, typer.Argument(help="CSV with a line of column names, or JSON lines.")
    ] = None,
    *,
    postgres: Annotated[
        str | None,
        typer.Option(envvar="VELRO_IMPORT_DSN", show_envvar=True, help="Instead of a file."),
    ] = None,
    query: Annotated[str | None, typer.Option(help="The SELECT that gives the rows.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", help="OURS=THEIRS for a column of another name; may be repeated."),
    ] = None,
    lifetime: Annotated[
        float,
        typer.Option(
            min=0, max=MAX_LIFETIME_H, help="Hours that a link lives, where the row does not say."
        ),
    ] = 168.0,
    provider: Annotated[str, typer.Option(help="Where the row does not say.")] = "fal",
    model: Annotated[str, typer.Option(help="Where the row does not say.")] = "imported",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")] = False,
    include_stored: Annotated[
        bool, typer.Option("--include-stored", help="Also rows whose flags are all false.")
    ] = False,
    skip_dead: Annotated[
        bool, typer.Option("--skip-dead", help="Reject rows whose links should be dead.")
    ] = False,
    rejects: Annotated[
        Path, typer.Option(help="Where rows go that cannot be imported, with the reason.")
    ] = Path("import-rejects.jsonl"),
    as_json: JSON = False,
) -> None:
    """Bring rows of another application into the log, so that their media is stored.

    Columns: id, user, created_at, output_urls, and perhaps metadata, provider, model, expires_at
    and the flags storage_retry_needed, fal_urls_temporary, requires_background_migration. A
    repeat writes nothing twice. Ends with 3 if rows were rejected.
    """
    if (file is None) == (query is None) or (query is not None and postgres is None):
        raise typer.BadParameter("give a file, or --query with --postgres (or VELRO_IMPORT_DSN)")
    wishes = Wishes(
        lifetime=timedelta(hours=lifetime),
        provider=provider,
        model=model,
        columns=column_names(columns or []),
        include_stored=include_stored,
        skip_dead=skip_dead,
    )
    raise typer.Exit(
        run(
            import_rows(
                settings_of(LogSettings),
                Given(file, postgres, query),
                wishes,
                rejects=rejects,
                dry_run=dry_run,
                as_json=as_json,
            )
        )
    )


@app.command("backlog")
def backlog_command(
    *,
    at_risk: Annotated[bool, typer.Option("--at-risk", help="Only what may die first.")] = False,
    reason: Annotated[
        ReasonCode | None, typer.Option(help="Only what failed for this reason.")
    ] = None,
    lost: Annotated[bool, typer.Option("--lost", help="What was given up on instead.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: JSON = False,
) -> None:
    """Show what waits, the soonest death first."""
    run(
        backlog(
            settings_of(StorageSettings),
            at_risk=at_risk,
            reason=reason,
            lost=lost,
            limit=limit,
            as_json=as_json,
        )
    )


@app.command("retry")
def retry_command(generation_id: str) -> None:
    """Copy the outputs of one generation now, also those that were given up on.

    Ends with 3 if one is lost.
    """
    raise typer.Exit(run(retry(settings_of(StorageSettings), _copying(), generation_id)))


quarantine_app = typer.Typer(
    no_args_is_help=True, help="What was refused for its type, until a person has seen it."
)
app.add_typer(quarantine_app, name="quarantine")

INDEX = Annotated[
    int | None, typer.Option(min=0, help="Only this output; else all that are in quarantine.")
]


@quarantine_app.command("list")
def quarantine_list_command(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: JSON = False,
) -> None:
    """Show what is in quarantine, the soonest death of a link first."""
    run(quarantine.show(settings_of(StorageSettings), limit=limit, as_json=as_json))


@quarantine_app.command("release")
def quarantine_release_command(generation_id: str, index: INDEX = None) -> None:
    """Store it after all: as bytes of no type, which a browser saves and never runs.

    Ends with 3 if its link is dead and the bytes are not to be had any more.
    """
    settings = settings_of(StorageSettings)
    raise typer.Exit(run(quarantine.release(settings, _copying(), generation_id, index)))


@quarantine_app.command("reject")
def quarantine_reject_command(
    generation_id: str,
    why: Annotated[str, typer.Option(help="For whoever asks later; it stays in the log.")],
    index: INDEX = None,
) -> None:
    """Refuse it for good: it is neither listed nor tried again."""
    if not why.strip():
        raise typer.BadParameter("say why, for whoever asks later", param_hint="--why")
    run(quarantine.reject(settings_of(StorageSettings), generation_id, index, why))


@app.callback()
def begin(context: typer.Context) -> None:
    """Keep what AI providers make: copy it into the bucket before its link dies."""
    # A service tells its life; a command that a person runs tells only what is wrong.
    level = logging.INFO if context.invoked_subcommand == "serve" else logging.WARNING
    configure_logging(level)


def main() -> None:
    """The command `storage-svc`."""
    with telling_of_full_disks():
        app()


def column_names(pairs: list[str]) -> dict[str, str]:
    """By our name of a column, theirs.

    Raises:
        typer.BadParameter: not OURS=THEIRS, or no column of ours.
    """
    names: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (equals and theirs) or ours not in Row.model_fields:
            known = ", ".join(Row.model_fields)
            raise typer.BadParameter(f"{pair!r} should be OURS=THEIRS, with one of {known}")
        names[ours] = theirs
    return names


def _copying() -> CopySettings:
    return CopySettings(settings_of(MediaSettings), settings_of(S3Settings))
