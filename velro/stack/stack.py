"""The three servers together, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from velro.stack import ports
from velro.stack.nats import nats_server
from velro.stack.postgres import PostgresServer
from velro.stack.process import AlreadyRunning
from velro.stack.seaweedfs import S3Address, SeaweedServer

if TYPE_CHECKING:
    from pathlib import Path

    from velro.stack.process import ManagedProcess

USUAL_PORTS = {
    "nats": 4222,
    "nats_monitor": 8222,
    "postgres": 5432,
    "s3": 8333,
    "seaweedfs_master": 9333,
    "seaweedfs_volume": 9340,
    "seaweedfs_filer": 8888,
    "seaweedfs_admin": 9350,
    "generation": 8080,
    "storage": 8081,
    "sandbox": 8090,
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers are, on loopback."""

    nats_url: str
    nats_monitor_url: str
    generation_dsn: str
    storage_dsn: str
    superuser_dsn: str
    s3: S3Address

    def environment(self) -> dict[str, str]:
        """The servers, as the services' settings name them."""
        return {
            "VELRO_NATS_URL": self.nats_url,
            "VELRO_GENERATION_POSTGRES_DSN": self.generation_dsn,
            "VELRO_STORAGE_POSTGRES_DSN": self.storage_dsn,
            "VELRO_S3_ENDPOINT_URL": self.s3.endpoint_url,
            "VELRO_S3_REGION": self.s3.region,
            "VELRO_S3_ACCESS_KEY": self.s3.access_key,
            "VELRO_S3_SECRET_KEY": self.s3.secret_key,
            "VELRO_S3_BUCKET": self.s3.bucket,
        }


class Stack:
    """NATS, PostgreSQL and SeaweedFS with their data under one directory.

    As a context manager it starts them and ends them, whatever happens between. An `owned` stack
    also ends when this program is killed; the other kind stays until somebody stops it.
    """

    def __init__(self, directory: Path, *, owned: bool = True) -> None:
        self.directory = directory.resolve()
        self._owned = owned
        self._memory = self.directory / "ports.json"
        # Ports of a running stack are taken by itself, so they are read, not chosen.
        alive = [self.directory / f"{name}.pid.json" for name in ("nats", "postgres", "seaweedfs")]
        self.ports = ports.remembered(self._memory) if any(p.exists() for p in alive) else {}
        if not self.ports:
            self.ports = ports.choose(USUAL_PORTS, self._memory)
        self.nats: ManagedProcess = nats_server(
            self.directory,
            port=self.ports["nats"],
            monitor_port=self.ports["nats_monitor"],
            owned=owned,
        )
        self._postgres = PostgresServer(self.directory, port=self.ports["postgres"], owned=owned)
        self._seaweedfs = SeaweedServer(
            self.directory,
            s3_port=self.ports["s3"],
            master_port=self.ports["seaweedfs_master"],
            volume_port=self.ports["seaweedfs_volume"],
            filer_port=self.ports["seaweedfs_filer"],
            admin_port=self.ports["seaweedfs_admin"],
            owned=owned,
        )
        self.postgres = self._postgres.process
        self.s3 = self._seaweedfs.process

    @property
    def servers(self) -> tuple[ManagedProcess, ...]:
        """The three processes."""
        return (self.nats, self.postgres, self.s3)

    @property
    def addresses(self) -> Addresses:
        """Where the servers are."""
        return Addresses(
            nats_url=f"nats://127.0.0.1:{self.ports['nats']}",
            nats_monitor_url=f"http://127.0.0.1:{self.ports['nats_monitor']}",
            generation_dsn=self._postgres.dsn("velro_generation", role="velro_generation"),
            storage_dsn=self._postgres.dsn("velro_storage", role="velro_storage"),
            superuser_dsn=self._postgres.dsn(),
            s3=self._seaweedfs.address,
        )

    def start(self) -> None:
        """Start all three and wait until each answers; on a failure none is left.

        Raises:
            AlreadyRunning: one of them is alive from an earlier start.
            ProcessFailed: which one, why, and the end of its log.
        """
        for server in self.servers:
            if server.running:
                raise AlreadyRunning(
                    f"{server.name} is running already (process {server.pid}) on the data in "
                    f"{self.directory}; stop it with `velro down`"
                )
        try:
            self.nats.spawn()
            self.s3.spawn()
            self._postgres.initialise()
            self.postgres.spawn()
            for server in self.servers:
                server.wait_until_ready()
            self._postgres.ensure_databases()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all three."""
        for server in reversed(self.servers):
            server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
