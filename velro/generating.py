"""Request generations from the command line, and watch them."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from shared.printing import printer
from shared.program import run
from velro.client import WATCH_S, Api, Generation
from velro.options import use_environment
from velro.waiting import Waiting

DEFAULT_API_URL: Final = "http://127.0.0.1:8080"
DEFAULT_MODELS: Final = {"sandbox": "sandbox/painter", "fal": "fal-ai/flux/schnell"}
# How far along a status is, of the last step; the provider tells no percentage.
STEPS: Final = {"requested": 1, "submitting": 2, "running": 3, "completed": 4}
EXIT_FAILED: Final = 1


def generate(
    prompt: str,
    *,
    provider: Annotated[str, typer.Option(help="sandbox, or fal with FAL_KEY set.")] = "sandbox",
    model: Annotated[str | None, typer.Option(help="The provider's name of the model.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many generations.")] = 1,
    user: Annotated[str, typer.Option(help="Whose they are.")] = "me",
) -> None:
    """Request generations, watch them, and say where the media is."""
    use_environment()
    raise typer.Exit(
        run(_generated(prompt, provider=provider, model=model, count=count, user_id=user))
    )


async def _generated(
    prompt: str, *, provider: str, model: str | None, count: int, user_id: str
) -> int:
    """Request, watch, and say where the media is; the exit code.

    Raises:
        ApiAway, ApiRefused: with a sentence.
    """
    console = printer()
    chosen = model or DEFAULT_MODELS.get(provider, "")
    url = os.environ.get("VELRO_API_URL") or DEFAULT_API_URL
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    )
    waiting = Waiting()
    async with Api.at(url) as api:
        with progress:

            async def one(number: int) -> Generation:
                task = progress.add_task(f"{number + 1}", total=4, status="requesting")
                requested = await api.request(
                    user_id=user_id, provider=provider, model=chosen, input_={"prompt": prompt}
                )
                console.print(f"{requested.id} is requested", highlight=False)
                waiting.saw(requested.id, "requested")
                async for seen in api.watch(requested):
                    progress.update(task, completed=STEPS.get(seen.status, 4), status=seen.status)
                    waiting.saw(seen.id, seen.status, finished=seen.finished)
                return await api.get(requested.id)

            telling = asyncio.create_task(waiting.told(api, console))
            try:
                async with asyncio.TaskGroup() as running:
                    tasks = [running.create_task(one(number)) for number in range(count)]
            except asyncio.CancelledError:
                if waiting.statuses:
                    console.print(f"the request is left in place; {waiting.later}", soft_wrap=True)
                raise
            finally:
                telling.cancel()
                await asyncio.wait((telling,))
    finished = [task.result() for task in tasks]
    for found in finished:
        console.print(_described(found, url), soft_wrap=True, highlight=False)
    return 0 if all(found.status == "completed" for found in finished) else EXIT_FAILED


def _described(found: Generation, api_url: str) -> Text:
    """The generation and, a line each, addresses that go on leading to its bytes."""
    if not found.finished:
        said = f"{found.id} is still {found.status} after {WATCH_S // 60} minutes, and goes on"
        return Text(f"{said}: `velro show {found.id}` tells what became of it", "yellow")
    if found.status != "completed":
        because = f": {found.error.code}, {found.error.detail}" if found.error else ""
        return Text.assemble((f"{found.id} {found.status}", "red"), because)
    stored = sum(output.stored for output in found.outputs)
    told = Text.assemble(
        (found.id, "bold"), f" {found.status}, {stored} of {len(found.outputs)} stored"
    )
    for output in found.outputs:
        until = f"  (the provider's link, until {output.expires_at:%Y-%m-%d %H:%M} UTC)"
        told.append(
            f"\n  {api_url}/v1/generations/{found.id}/outputs/{output.index}"
            + (until if not output.stored and output.expires_at else "")
        )
    return told
