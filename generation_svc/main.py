"""The command line of the generation service."""

from __future__ import annotations

import asyncio
from typing import Annotated

import structlog
import typer

from generation_svc.composition import Service, log_ready
from generation_svc.read_model.model import NAME, GenerationModel
from generation_svc.settings import GenerationSettings
from shared.errors import TryLater
from shared.media.settings import MediaSettings
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.object_store.settings import S3Settings
from shared.postgres.connecting import POSTGRES_AWAY, close, connect
from shared.program import (
    STARTING_S,
    configure_logging,
    on_signals,
    run,
    settings_of,
    when_ready,
)
from shared.projection.tables import ensure
from shared.serving import serving

_log = structlog.get_logger(__name__)


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("serve")
def serve_command(
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one.", min=0, max=65_535)] = None,
) -> None:
    """Take requests, run them, and keep the read model, until told to stop."""
    settings = settings_of(GenerationSettings)
    changed = {"generation_host": host, "generation_port": port}
    settings = settings.model_copy(update={k: v for k, v in changed.items() if v is not None})
    run(serve(settings, settings_of(MediaSettings), settings_of(S3Settings)))


@app.command("init")
def init_command() -> None:
    """See that streams and tables are there; make what is missing. Waits for servers to start."""
    run(init(settings_of(GenerationSettings)))


async def serve(settings: GenerationSettings, media: MediaSettings, bucket: S3Settings) -> None:
    """Run every part until a signal, or until one ends by itself, which is a defect."""
    async with Service.assembled(settings, media, bucket) as service:
        stopped = asyncio.Event()
        on_signals(stopped.set)
        async with (
            service.projector.running() as projecting,
            service.watch.running(),
            service.changes.running() as following,
            serving(
                service.app, host=settings.generation_host, port=settings.generation_port
            ) as port,
        ):
            _log.info("serving", host=settings.generation_host, port=port)
            running = asyncio.create_task(service.runner.run(stopped), name="runner")
            stopping = asyncio.create_task(stopped.wait(), name="stop")
            parts = (projecting, following, running)
            await asyncio.wait((*parts, stopping), return_when=asyncio.FIRST_COMPLETED)
            ended_early = [part for part in parts if part.done() and not stopped.is_set()]
            stopped.set()
            service.changes.close()  # or the watchers would keep the server from ending
            await asyncio.gather(
                service.deliveries.drain(settings.drain_s),
                service.aftercare.drain(settings.drain_s),
            )
            await asyncio.wait((running, stopping))
            for part in ended_early:
                part.result()
                raise RuntimeError(f"{part.get_name()} ended by itself")
        _log.info("stopped")


async def init(settings: GenerationSettings) -> None:
    """Make streams and tables, waiting for servers that are still starting.

    Raises:
        VelroError: what is missing, when the time is over.
    """

    async def attempt() -> None:
        async with connected(NatsAccess.of(settings), name="velro init") as nats:
            await log_ready(nats, settings)
        await _tables_ready(settings)

    def patience_s(error: Exception) -> float:
        return STARTING_S if isinstance(error, (TryLater, *POSTGRES_AWAY)) else 0.0

    await when_ready(attempt, patience_s=patience_s)


async def _tables_ready(settings: GenerationSettings) -> None:
    dsn = settings.generation_postgres_dsn.get_secret_value()
    connection = await connect(dsn, schema=NAME, application_name="velro init")
    try:
        await ensure(connection, NAME, GenerationModel())
    finally:
        await close(connection)


def main() -> None:
    """The command `generation-svc`."""
    configure_logging()
    app()
