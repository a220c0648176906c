"""`python -m velro.sandbox`: one sandbox as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import Annotated

import typer
from pydantic import SecretStr

from velro.sandbox.server import (
    Sandbox,
    SandboxServer,
    TlsFiles,
    address_of,
    listen,
    server_config,
)
from velro.sandbox.settings import SandboxSettings

ADDRESS_FILE = "sandbox.json"


def main(  # noqa: PLR0917 - typer makes options of them, which have names
    data: Annotated[Path, typer.Option(help="where media lie until their links die")],
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 0,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    key: Annotated[
        str, typer.Option(envvar="VELRO_SANDBOX_KEY", help="what clients must send")
    ] = "sandbox-key",
    certificate: Annotated[Path | None, typer.Option(help="PEM, for https")] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="PEM")] = None,
) -> None:
    """Listen until SIGTERM or Ctrl-C.

    Once it listens, one line of JSON with url, jwks_url and pid is printed, and lies in
    sandbox.json in the data directory until the end.
    """
    tls = TlsFiles(certificate, certificate_key) if certificate and certificate_key else None
    data.mkdir(parents=True, exist_ok=True)
    listener = listen(port, host)
    url = address_of(listener, tls, "localhost" if tls else None)
    address = data / ADDRESS_FILE
    said = json.dumps({"url": url, "jwks_url": f"{url}/.well-known/jwks.json", "pid": os.getpid()})

    def listening() -> None:
        new = address.with_suffix(".new")
        new.write_text(said)
        new.replace(address)
        typer.echo(said)

    async def run() -> None:
        sandbox = Sandbox(SandboxSettings(data=data, key=SecretStr(key)))
        server = SandboxServer(server_config(sandbox, tls), sandbox.stopping, listening)
        loop = asyncio.get_running_loop()
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, server.stop)
        await server.serve(sockets=[listener])

    try:
        asyncio.run(run())
    finally:
        address.unlink(missing_ok=True)


if __name__ == "__main__":
    typer.run(main)
