"""`velro doctor`: what to know before trusting an installation, and what to do about it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.text import Text

from generation_svc.settings import GenerationSettings
from shared.archive.settings import ArchiveSettings
from shared.object_store.settings import S3Settings
from shared.printing import printer
from shared.program import run
from shared.settings import BadSettings, LogSettings, loaded
from storage_svc.settings import StorageSettings
from velro.doctor.archive import archive_part
from velro.doctor.backlog import backlog_part
from velro.doctor.bucket import bucket_part
from velro.doctor.consumers import consumers_part
from velro.doctor.findings import Finding, Level, Part, examine, worst
from velro.doctor.keys import keys_part
from velro.doctor.nats import MonitorSettings, Retrying, nats_part
from velro.doctor.postgres import postgres_part
from velro.doctor.projections import projection_part
from velro.options import AsJson, use_environment
from velro.read_models import ReadModelName, read_model_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

EXIT_RED: Final = 1
# A pool of 10, the projector and the watch; a pool of 8 and the same. See the compositions.
_GENERATION_CONNECTIONS: Final = 12
_STORAGE_CONNECTIONS: Final = 10


def doctor(
    *,
    as_json: AsJson = False,
    deadline: Annotated[
        float, typer.Option(min=1, max=60, help="Seconds that one check may take.")
    ] = 8.0,
) -> None:
    """Check everything that Velro stands on; ends with 1 where something is red."""
    use_environment()
    findings = run(_examined(deadline))
    level = worst(findings)
    if as_json:
        told = {"level": level, "findings": [dataclasses.asdict(finding) for finding in findings]}
        printer().print_json(json.dumps(told))
    else:
        show(findings, printer())
    raise typer.Exit(EXIT_RED if level is Level.RED else 0)


async def _examined(deadline_s: float) -> list[Finding]:
    parts, bad = _parts()
    return bad + await examine(parts, deadline_s=deadline_s)


def _parts() -> tuple[list[Part[Any]], list[Finding]]:
    """What there is to examine; settings that are wrong are a finding, and the rest is examined."""
    parts: list[Part[Any]] = []
    bad: list[Finding] = []

    def add(name: str, of_settings: Callable[[], Sequence[Part[Any]]]) -> None:
        try:
            parts.extend(of_settings())
        except BadSettings as error:
            advice = "set these variables as the services have them"
            bad.append(Finding(f"settings of {name}", Level.RED, f"{error}", advice))

    add("the log", _log_parts)
    add("the generation service", _generation_parts)
    add("the storage service", _storage_parts)
    add("the bucket", _bucket_parts)
    return parts, bad


def _log_parts() -> list[Part[Any]]:
    log = loaded(LogSettings)
    return [nats_part(log, loaded(MonitorSettings), _retrying()), consumers_part(log)]


def _generation_parts() -> list[Part[Any]]:
    settings = loaded(GenerationSettings)
    return [
        postgres_part(
            "generation",
            settings.generation_postgres_dsn.get_secret_value(),
            connections_a_process=_GENERATION_CONNECTIONS,
        ),
        projection_part(read_model_of(ReadModelName.GENERATION)),
        keys_part(settings),
    ]


def _storage_parts() -> list[Part[Any]]:
    settings = loaded(StorageSettings)
    return [
        postgres_part(
            "storage",
            settings.storage_postgres_dsn.get_secret_value(),
            connections_a_process=_STORAGE_CONNECTIONS,
        ),
        projection_part(read_model_of(ReadModelName.STORAGE)),
        backlog_part(settings.storage_postgres_dsn.get_secret_value()),
    ]


def _bucket_parts() -> list[Part[Any]]:
    bucket = loaded(S3Settings)
    return [
        bucket_part(bucket),
        archive_part(loaded(LogSettings), bucket, loaded(ArchiveSettings)),
    ]


def _retrying() -> Retrying:
    """After how long an append may be made again by somebody who does not know of the first."""
    horizons: dict[str, float] = {}
    try:
        horizons["VELRO_RUNNER_ACK_WAIT_S"] = loaded(GenerationSettings).runner_ack_wait_s
        horizons["VELRO_STORAGE_LEASE_S"] = loaded(StorageSettings).storage_lease_s
    except BadSettings:
        pass  # found by itself, and told there
    return Retrying(horizons)


def show(findings: Sequence[Finding], console: Console) -> None:
    """What is well in a line each, on a terminal cut off at its edge; all else whole."""
    for finding in findings:
        # Levels are named after colours.
        line = Text.assemble(
            "  ", (f"{finding.level:<6}", finding.level), f"  {finding.check}: {finding.found}"
        )
        if finding.level is Level.GREEN and console.is_terminal:
            console.print(line, no_wrap=True, overflow="ellipsis")
        else:
            console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(f"          -> {finding.advice}", soft_wrap=True)
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    console.print(", ".join(f"{count} {level}" for level, count in counts.items() if count))
