"""The demo from curtain to curtain."""

from __future__ import annotations

import asyncio
import os
import shutil
from time import monotonic
from typing import TYPE_CHECKING, Final

import httpx
import typer
from rich.console import Console

from velro.client import Api
from velro.demo.acts import DURING_THE_OUTAGE, HEALTHY, STORAGE_WORKERS, Acts
from velro.demo.claims import Claims
from velro.demo.deployment import LocalDeployment
from velro.demo.world import World
from velro.local import Local, NotRunning, running
from velro.options import DIRECTORY
from velro.stack import interrupts
from velro.stack.process import AlreadyRunning

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from velro.demo.deployment import Deployment

EXIT_INTERRUPTED: Final = 130
_SETTINGS: Final = {
    "VELRO_STORAGE_WORKERS": str(STORAGE_WORKERS),
    "VELRO_STORE_BUDGET_S": "3",
    "VELRO_RUN_FIRST_POLL_S": "0.5",
}


def demo() -> None:
    """Play the main job on real servers: an outage, a kill, and nothing lost."""
    console = Console()
    interrupts.listen()
    try:
        code = _play(DIRECTORY / "demo", console)
    except KeyboardInterrupt:
        console.print("[yellow]interrupted; everything that was started is stopped[/]")
        code = EXIT_INTERRUPTED
    raise typer.Exit(code)


def _play(directory: Path, console: Console) -> int:
    """Play the story on data of its own, begun anew each time; 0 when every claim holds."""
    _begin_anew(directory)
    started_at = monotonic()
    # It stops servers and drops tables: never those that the environment leads to.
    local = Local(directory, settings=_SETTINGS, given={})
    with console.status("starting NATS, PostgreSQL, SeaweedFS, the sandbox and both services"):
        local.start()
    try:
        console.print(
            f"[bold]Velro[/]: {len(local.processes)} real processes in "
            f"{monotonic() - started_at:.1f} s: "
            + ", ".join(process.name for process in local.processes)
        )
        os.environ.update(local.environment)  # for the replay, which runs in this program
        claims = Claims(console)
        interrupts.pause(0)  # what has come until now
        performed = asyncio.run(
            _unless_interrupted(perform(LocalDeployment(local), claims, console))
        )
        interrupts.listen()  # the loop has put the system's own handlers back
        if not performed:
            raise KeyboardInterrupt
    finally:
        with console.status("stopping everything"):
            local.stop()
    console.print(claims.table())
    verdict = (
        "[bold green]every claim holds[/]"
        if claims.all_hold
        else "[bold red]a claim does not hold[/]"
    )
    console.print(f"{verdict}; {monotonic() - started_at:.0f} s. Logs and data: {directory}")
    return 0 if claims.all_hold else 1


async def perform(deployment: Deployment, claims: Claims, console: Console) -> None:
    """All acts, on any deployment. The services' variables are in this program's environment."""
    web = httpx.AsyncClient(timeout=30, trust_env=False)
    async with Api.at(deployment.api_url) as api, web:
        acts = Acts(World(deployment, api, web), claims, console)
        with claims.act(f"{HEALTHY} generations while storage is healthy"):
            first = await acts.healthy()
        with claims.act(f"{DURING_THE_OUTAGE} generations while S3 is stopped"):
            second = await acts.outage()
        with claims.act("Storage service killed, S3 back, backlog drained"):
            recovered = await acts.recovery(second)
            await acts.everything_once([*first, *recovered])
        with claims.act("Both read models dropped and replayed from the log"):
            await acts.replayed()


def _begin_anew(directory: Path) -> None:
    try:
        running(directory)
    except NotRunning:
        shutil.rmtree(directory, ignore_errors=True)
        return
    raise AlreadyRunning(f"another demo is running on {directory}; let it end, or stop it")


async def _unless_interrupted(performance: Coroutine[None, None, None]) -> bool:
    """Whether it came to its end. A signal cancels it, at a point where that is safe.

    An exception out of a signal handler may be raised anywhere while the loop runs, also where
    nobody can pass it on.
    """
    task = asyncio.ensure_future(performance)
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        task.cancel()

    for number in interrupts.SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        await asyncio.wait((task,))
    finally:
        for number in interrupts.SIGNALS:
            loop.remove_signal_handler(number)
    if interrupted.is_set():
        await asyncio.gather(task, return_exceptions=True)  # whatever it came to, nobody waits
        return False
    task.result()
    return True
