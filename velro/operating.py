"""Start, stop and look at a Velro on this machine."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from shared.printing import printer
from velro.local import Local, NotRunning, running
from velro.options import DIRECTORY, AsJson
from velro.stack import interrupts

EXIT_NOT_ALL_RUNNING = 1
_LOCAL: Final = DIRECTORY / "local"


def up(
    *,
    detach: Annotated[bool, typer.Option(help="Return, and leave everything running.")] = False,
) -> None:
    """Start the servers and both services, and stay until Ctrl-C or `velro down`.

    Ends with 1 where one was left running that is not ready.
    """
    console = printer()
    local = Local(_LOCAL, owned=not detach)
    interrupts.listen()
    with console.status("starting NATS, PostgreSQL, SeaweedFS, the sandbox and both services"):
        unready = local.start_for_a_person()
    console.print(_table(local))
    for process in unready:
        console.print(
            f"{process.name} runs and is not ready: `velro doctor` says what is wrong and what to "
            f"do, {process.log_path} what it said",
            style="yellow",
        )
    if detach:
        console.print("Everything runs on; stop it with `velro down`.")
        if unready:
            raise typer.Exit(EXIT_NOT_ALL_RUNNING)
        return
    console.print("Ctrl-C, or `velro down` from elsewhere, stops everything.")
    try:
        while all(process.running for process in local.processes):
            interrupts.pause(0.5)
        ended = [process.name for process in local.processes if not process.running]
        console.print(f"ended: {', '.join(ended)}; stopping the rest")
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        local.stop()


def down() -> None:
    """Stop everything that `velro up` started. The data stays."""
    console = printer()
    local = running(_LOCAL)
    with console.status("stopping the services, then what they stand on"):
        local.stop()
        local.stack.down()  # what no variable of this shell's keeps us from knowing
    console.print("Everything is stopped; the data stays in", str(_LOCAL))


def status(*, as_json: AsJson = False) -> None:
    """Show what runs, where, and how it does; ends with 1 where something does not."""
    console = printer()
    try:
        local = running(_LOCAL)
    except NotRunning as error:
        console.print_json("[]") if as_json else console.print(str(error))
        raise typer.Exit(EXIT_NOT_ALL_RUNNING) from None
    if as_json:
        rows = [
            {"name": process.name, "running": process.running, "pid": process.pid}
            for process in local.processes
        ]
        console.print_json(json.dumps(rows))
    else:
        console.print(_table(local))
    well = all(process.running and process.ready() for process in local.processes)
    raise typer.Exit(0 if well else EXIT_NOT_ALL_RUNNING)


def env() -> None:
    """Print what the services' own commands need here: `eval "$(velro env)"` in a shell."""
    for name, value in running(_LOCAL).environment.items():
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
    for server, place in local.others.items():
        table.add_row(server, place, Text("not ours", "yellow"))
    for process in local.processes:
        state = f"{process.pid}" if process.running else Text("not running", "red")
        table.add_row(process.name, where[process.name], state)
    return table
