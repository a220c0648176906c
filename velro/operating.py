"""Start, stop and look at a Velro on this machine."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from time import sleep
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.table import Table

from velro.local import Local, NotRunning, running

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

EXIT_NOT_ALL_RUNNING = 1


def up(directory: Path, *, detach: bool) -> None:
    """Start everything; with `detach` return, else stay until a signal or until it is stopped.

    Raises:
        AlreadyRunning, ProcessFailed: with a sentence.
    """
    console = Console()
    local = Local(directory, owned=not detach)
    _end_on_signals()
    with console.status("starting NATS, PostgreSQL, SeaweedFS, the sandbox and both services"):
        local.start()
    console.print(_table(local))
    if detach:
        console.print("Everything runs on; stop it with [bold]velro down[/].")
        return
    console.print("Ctrl-C, or [bold]velro down[/] from elsewhere, stops everything.")
    try:
        while all(process.running for process in local.processes):
            sleep(0.5)
        ended = [process.name for process in local.processes if not process.running]
        console.print(f"ended: {', '.join(ended)}; stopping the rest")
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        local.stop()


def down(directory: Path) -> None:
    """Stop everything that runs on the data of this directory.

    Raises:
        NotRunning: nothing does.
    """
    console = Console()
    local = running(directory)
    with console.status("stopping the services, then what they stand on"):
        local.stop()
    console.print("Everything is stopped; the data stays in", str(directory))


def status(directory: Path, *, as_json: bool) -> int:
    """Show every process; the exit code is not 0 unless all run."""
    console = Console()
    try:
        local = running(directory)
    except NotRunning as error:
        console.print_json("[]") if as_json else console.print(str(error))
        return EXIT_NOT_ALL_RUNNING
    if as_json:
        rows = [
            {"name": process.name, "running": process.running, "pid": process.pid}
            for process in local.processes
        ]
        console.print_json(json.dumps(rows))
    else:
        console.print(_table(local))
    well = all(process.running and process.ready() for process in local.processes)
    return 0 if well else EXIT_NOT_ALL_RUNNING


def env(directory: Path) -> None:
    """Print the services' environment, for a shell to take.

    Raises:
        NotRunning: nothing runs on the data of this directory.
    """
    for name, value in running(directory).environment.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


def _table(local: Local) -> Table:
    addresses = local.stack.addresses
    where = {
        "nats": addresses.nats_url,
        "postgres": addresses.generation_dsn.rpartition("@")[2].partition("/")[0],
        "seaweedfs": addresses.s3.endpoint_url,
        "sandbox": local.sandbox_url,
        "generation": f"{local.api_url}/v1/generations",
        "storage": f"http://127.0.0.1:{local.stack.ports['storage']}/readyz",
    }
    table = Table("", "where", "process", caption=f"logs and data: {local.stack.directory}")
    for process in local.processes:
        state = f"{process.pid}" if process.running else "[red]not running[/]"
        table.add_row(process.name, where[process.name], state)
    return table


def _end_on_signals() -> None:
    """A terminal that closes and a polite kill end it as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
