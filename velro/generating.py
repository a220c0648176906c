"""Request generations from the command line, and watch them."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from velro.client import Api, Generation

DEFAULT_API_URL: Final = "http://127.0.0.1:8080"
DEFAULT_MODELS: Final = {"sandbox": "sandbox/painter", "fal": "fal-ai/flux/schnell"}
# How far along a status is, of the last step; the provider tells no percentage.
STEPS: Final = {"requested": 1, "submitting": 2, "running": 3, "completed": 4}
EXIT_FAILED: Final = 1


async def generate(
    prompt: str, *, provider: str, model: str | None, count: int, user_id: str
) -> int:
    """Request, watch, and say where the media is; the exit code.

    Raises:
        ApiAway, ApiRefused: with a sentence.
    """
    console = Console()
    chosen = model or DEFAULT_MODELS.get(provider, "")
    url = os.environ.get("VELRO_API_URL") or DEFAULT_API_URL
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        console=console,
    )
    async with Api.at(url) as api:
        with progress:

            async def one(number: int) -> Generation:
                task = progress.add_task(f"{number + 1}", total=4, status="requesting")
                requested = await api.request(
                    user_id=user_id, provider=provider, model=chosen, input_={"prompt": prompt}
                )
                async for seen in api.watch(requested):
                    progress.update(task, completed=STEPS.get(seen.status, 4), status=seen.status)
                return await api.get(requested.id)

            async with asyncio.TaskGroup() as running:
                tasks = [running.create_task(one(number)) for number in range(count)]
    finished = [task.result() for task in tasks]
    console.print(_table(finished))
    return 0 if all(found.status == "completed" for found in finished) else EXIT_FAILED


def _table(finished: list[Generation]) -> Table:
    table = Table("generation", "status", "storage", "where the media is", show_lines=True)
    for found in finished:
        stored = "stored" if found.metadata.storage_successful else "provider's link, for now"
        where = "\n".join(found.output_urls) or (found.error.detail if found.error else "")
        table.add_row(
            found.id, found.status, stored if found.outputs else "", where, style=_style(found)
        )
    return table


def _style(found: Generation) -> str:
    return "" if found.status == "completed" else "red"
