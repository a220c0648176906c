"""Dead letters on the command line."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import typer

from generation_svc.adapters.nats_runner.dead_letters import DeadLetters
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.messaging.jetstream import jetstream_of
from shared.printing import printer, table
from shared.program import run
from shared.settings import LogSettings, loaded
from velro.options import AsJson, use_environment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence


app = typer.Typer(no_args_is_help=True, help="Work that was given up: see it, send it again.")


@app.command("list")
def list_command(*, as_json: AsJson = False) -> None:
    """Show every dead letter."""
    use_environment()
    run(_list(as_json=as_json))


@app.command("show")
def show_command(generation_id: str) -> None:
    """Show one dead letter whole."""
    use_environment()
    run(_show(generation_id))


@app.command("retry")
def retry_command(generation_ids: list[str]) -> None:
    """Send the work of these generations again."""
    use_environment()
    run(_retry(generation_ids))


@asynccontextmanager
async def _kept() -> AsyncGenerator[DeadLetters]:
    settings = loaded(LogSettings)
    async with connected(NatsAccess.of(settings), name="velro dead-letters") as connection:
        letters = DeadLetters(jetstream_of(connection), settings.stream, settings.subject_root)
        await letters.ensure()
        yield letters


async def _list(*, as_json: bool) -> None:
    console = printer()
    async with _kept() as letters:
        found = await letters.all()
    if as_json:
        console.print_json(json.dumps([letter.model_dump(mode="json") for letter in found]))
        return
    if not found:
        console.print("No dead letters.")
        return
    shown = table("generation", "given up", "tries", "because", whole=("generation",))
    for letter in found:
        because = f"{letter.reason}: {letter.detail}"
        shown.add_row(
            letter.generation_id, f"{letter.at:%Y-%m-%d %H:%M:%S}", f"{letter.deliveries}", because
        )
    console.print(shown)


async def _show(generation_id: str) -> None:
    async with _kept() as letters:
        letter = await letters.get(generation_id)
    printer().print_json(letter.model_dump_json())


async def _retry(generation_ids: Sequence[str]) -> None:
    console = printer()
    async with _kept() as letters:
        for generation_id in generation_ids:
            await letters.retry(generation_id)
            console.print(f"{generation_id} is sent again")
