"""Servers from their wheels, each with data of its own below one temporary directory."""

from __future__ import annotations

import shutil
from itertools import count
from typing import TYPE_CHECKING

from tests.servers.port import OwnNats, OwnPostgres, OwnS3
from velro.stack import ports
from velro.stack.nats import nats_server
from velro.stack.postgres import PostgresServer
from velro.stack.seaweedfs import SeaweedServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.port import Server
    from velro.stack.process import ManagedProcess


class EmbeddedServers:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = count(1)
        self._started: list[ManagedProcess] = []

    def nats(self) -> OwnNats:
        directory, chosen = self._room("nats", "monitor")
        server = nats_server(
            directory, port=chosen["nats"], monitor_port=chosen["monitor"], owned=True
        )
        self._start(server)
        return OwnNats(server, f"nats://127.0.0.1:{chosen['nats']}")

    def postgres(self) -> OwnPostgres:
        directory, chosen = self._room("postgres")
        server = PostgresServer(directory, port=chosen["postgres"], owned=True)
        server.initialise()
        self._start(server.process)
        return OwnPostgres(server.process, server.dsn())

    def s3(self) -> OwnS3:
        directory, chosen = self._room("s3", "master", "volume", "filer", "admin")
        server = SeaweedServer(
            directory,
            s3_port=chosen["s3"],
            master_port=chosen["master"],
            volume_port=chosen["volume"],
            filer_port=chosen["filer"],
            admin_port=chosen["admin"],
            owned=True,
        )
        self._start(server.process)
        return OwnS3(server.process, server.address)

    def discard(self, server: Server) -> None:
        (process,) = (started for started in self._started if started is server)
        process.kill()
        shutil.rmtree(process.directory)
        self._started.remove(process)

    def close(self) -> None:
        for process in reversed(self._started):
            process.kill()

    def _start(self, server: ManagedProcess) -> None:
        self._started.append(server)
        server.start()

    def _room(self, *names: str) -> tuple[Path, dict[str, int]]:
        directory = self._directory / str(next(self._numbers))
        return directory, ports.choose(dict.fromkeys(names), directory / "ports.json")
