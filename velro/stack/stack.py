"""The three servers together, and where they are."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from velro.stack import ports, state
from velro.stack.addresses import Addresses
from velro.stack.nats import nats_server
from velro.stack.postgres import PostgresServer
from velro.stack.process import AlreadyRunning, stop_recorded, stop_together
from velro.stack.seaweedfs import S3Address, SeaweedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from velro.stack.process import ManagedProcess

__all__ = ["USUAL_PORTS", "Addresses", "S3Address", "Stack"]

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
class _Servers:
    nats: ManagedProcess
    postgres: PostgresServer
    seaweedfs: SeaweedServer


class Stack:
    """NATS, PostgreSQL and SeaweedFS with their data under one directory.

    `without` names servers (nats, postgres, seaweedfs) that are not ours to start or to stop;
    `wished` says ports, by the names of USUAL_PORTS, that are taken where they are free; it is
    asked only where ports are to be chosen.

    As a context manager it starts them and ends them, whatever happens between. An `owned` stack
    also ends when this program is killed; the other kind stays until somebody stops it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        owned: bool = True,
        without: frozenset[str] = frozenset(),
        wished: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.directory = directory.resolve()
        self._owned = owned
        self._without = without
        self._wished = wished
        self._memory = self.directory / "ports.json"

    @cached_property
    def ports(self) -> Mapping[str, int]:
        """Ports by the names of USUAL_PORTS: those in use here, or else free ones."""
        known = ports.remembered(self._memory)
        if known and self.running:
            return known
        return ports.choose(USUAL_PORTS, self._memory, wished=self._wished())

    @property
    def nats(self) -> ManagedProcess:
        """The NATS server."""
        return self._servers.nats

    @property
    def postgres(self) -> ManagedProcess:
        """The PostgreSQL server."""
        return self._servers.postgres.process

    @property
    def s3(self) -> ManagedProcess:
        """The SeaweedFS server."""
        return self._servers.seaweedfs.process

    @property
    def servers(self) -> tuple[ManagedProcess, ...]:
        """The processes, but those that somebody else runs."""
        every = (self.nats, self.s3, self.postgres)
        return tuple(server for server in every if server.name not in self._without)

    @property
    def running(self) -> list[state.Record]:
        """Every living process of this directory, servers and services, oldest first."""
        return state.living(self.directory)

    @property
    def addresses(self) -> Addresses:
        """Where the servers are."""
        servers = self._servers
        dsn = servers.postgres.dsn
        return Addresses(
            nats_url=f"nats://127.0.0.1:{self.ports['nats']}",
            nats_monitor_url=f"http://127.0.0.1:{self.ports['nats_monitor']}",
            generation_dsn=dsn("velro_generation", role="velro_generation"),
            storage_dsn=dsn("velro_storage", role="velro_storage"),
            superuser_dsn=dsn(),
            s3=servers.seaweedfs.address,
        )

    def start(self) -> None:
        """Start the servers, side by side, and wait until each answers; on a failure none is left.

        Raises:
            AlreadyRunning: something is alive from an earlier start, or is being started.
            ProcessFailed: which one, why, and the end of its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._end_orphans()
            try:
                self._start_all()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop the servers."""
        stop_together(self.servers)
        ports.release(self._memory)

    def down(self) -> list[state.Record]:
        """Stop every living process of this directory, whoever started it, the newest first.

        Returns:
            What was stopped.
        """
        found = self.running
        for record in reversed(found):
            stop_recorded(self.directory, record)
        return found

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @cached_property
    def _servers(self) -> _Servers:
        chosen = self.ports
        return _Servers(
            nats=nats_server(
                self.directory,
                port=chosen["nats"],
                monitor_port=chosen["nats_monitor"],
                owned=self._owned,
            ),
            postgres=PostgresServer(self.directory, port=chosen["postgres"], owned=self._owned),
            seaweedfs=SeaweedServer(
                self.directory,
                s3_port=chosen["s3"],
                master_port=chosen["seaweedfs_master"],
                volume_port=chosen["seaweedfs_volume"],
                filer_port=chosen["seaweedfs_filer"],
                admin_port=chosen["seaweedfs_admin"],
                owned=self._owned,
            ),
        )

    def _start_all(self) -> None:
        postgres = self._servers.postgres
        for server in self.servers:
            if server is postgres.process:
                postgres.initialise()  # the others are coming up meanwhile
            server.spawn()
        for server in self.servers:
            server.wait_until_ready()
        if postgres.process in self.servers:
            postgres.ensure_databases()

    def _end_orphans(self) -> None:
        for record in self.running:
            if not record.orphaned:
                raise AlreadyRunning(
                    f"{record.name} is running already (process {record.identity.pid}) on the "
                    f"data in {self.directory}; stop it with `velro down`"
                )
        self.down()

    @contextmanager
    def _alone(self) -> Generator[None]:
        with (self.directory / "start.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AlreadyRunning(
                    f"another program is just starting servers on the data in {self.directory}"
                ) from error
            yield
