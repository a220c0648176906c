"""All of Velro on this machine: the servers, the sandbox provider and the two services."""

from __future__ import annotations

import os
import secrets
import sys
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from shared.errors import Refused
from shared.projection.standing import ProjectorState
from velro.stack import ports, state
from velro.stack.nats import answer_of, answers
from velro.stack.process import ManagedProcess, stop_together, unready
from velro.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A server whose variable is set is somebody else's, where that leads to none of ours: it is used,
# and none is started.
_GIVEN_BY: Final = {
    "nats": ("VELRO_NATS_URL",),
    "postgres": ("VELRO_GENERATION_POSTGRES_DSN", "VELRO_STORAGE_POSTGRES_DSN"),
    "seaweedfs": ("VELRO_S3_ENDPOINT_URL",),
}
# What lets in there: of ours what was made with it, of somebody else's what is given.
_ENTRY_TO: Final = {
    "nats": (
        "VELRO_NATS_CREDS_FILE",
        "VELRO_NATS_CA_FILE",
        "VELRO_NATS_CERT_FILE",
        "VELRO_NATS_KEY_FILE",
    ),
    "seaweedfs": (
        "VELRO_S3_ACCESS_KEY",
        "VELRO_S3_SECRET_KEY",
        "VELRO_S3_ACCESS_KEY_FILE",
        "VELRO_S3_SECRET_KEY_FILE",
        "VELRO_S3_AWS_CREDENTIALS",
        "VELRO_S3_CA_FILE",
    ),
}
# What its port is called among ours.
_PORT_OF: Final = {"nats": "nats", "postgres": "postgres", "seaweedfs": "s3"}
# Where our own services listen is wished for in a variable, and may be what another Velro was told.
_PORT_WISHED_BY: Final = {
    "generation": "VELRO_GENERATION_PORT",
    "storage": "VELRO_STORAGE_PORT",
}
# Of what is always started here.
_OURS: Final = frozenset({*_PORT_WISHED_BY.values(), "VELRO_SANDBOX_URL", "VELRO_MEDIA_HTTP_HOSTS"})
# How what a projector says begins, in /readyz, where only a person gets it to go on.
_REFUSING: Final = f'"{ProjectorState.REFUSING}: '
_PLACES: Final = {"VELRO_API_URL", *(name for names in _GIVEN_BY.values() for name in names)}


class NoPort(Refused):
    """A variable that should hold a port holds none."""


class NotRunning(Refused):
    """Nothing of Velro runs here: start it with `velro up`."""


def _somebody_elses(directory: Path, given: Mapping[str, str]) -> frozenset[str]:
    """The servers that variables lead to, but for those that `velro env` has named here."""
    known = ports.remembered(directory / "ports.json")
    return frozenset(
        server
        for server, names in _GIVEN_BY.items()
        if (urls := [given[name] for name in names if given.get(name)])
        and not _ours(directory, server, urls, known.get(_PORT_OF[server]))
    )


def _wished_ports(given: Mapping[str, str]) -> dict[str, int]:
    """Those of our own services; 0 wishes for none.

    Raises:
        NoPort: something else is there.
    """
    wished: dict[str, int] = {}
    for service, name in _PORT_WISHED_BY.items():
        text = given.get(name, "").strip() or "0"
        if not (text.isascii() and text.isdecimal() and int(text) <= ports.HIGHEST):
            raise NoPort(f"{name} is {text!r}, and a port is a number up to {ports.HIGHEST}")
        if int(text):
            wished[service] = int(text)
    return wished


def _ours(directory: Path, server: str, urls: list[str], port: int | None) -> bool:
    if port is None or any(_place(url) != f"127.0.0.1:{port}" for url in urls):
        return False
    record = state.read(directory, server)
    if record is not None and record.identity.process():
        return True
    # It ran here and is stopped. Where another one listens by now, the variable may well mean that.
    return (directory / f"{server}.log").exists() and ports.is_free(port)


def _places(given: Mapping[str, str], server: str) -> str:
    """Where variables lead to for a server, without a password."""
    urls = [url for name in _GIVEN_BY[server] for url in given.get(name, "").split(",") if url]
    return ", ".join(dict.fromkeys(map(_place, urls)))


def _place(url: str) -> str:
    """Host and port of it."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]


class Local:
    """Every process of a Velro of one's own, with its data under one directory.

    Args:
        directory: data, logs, pids and chosen ports.
        owned: everything ends with this program, however it ends.
        settings: further `VELRO_…` variables for the services.
        given: the variables that may name servers of somebody else's, and settings; without it
            those of this program's environment.

    Attributes:
        others: the servers that are somebody else's, and where variables say that they are.
    """

    def __init__(
        self,
        directory: Path,
        *,
        owned: bool = True,
        settings: Mapping[str, str] | None = None,
        given: Mapping[str, str] | None = None,
    ) -> None:
        given = os.environ if given is None else given
        others = _somebody_elses(directory, given)
        self.others = {server: _places(given, server) for server in _GIVEN_BY if server in others}
        self.stack = Stack(
            directory, owned=owned, without=others, wished=partial(_wished_ports, given)
        )
        self.environment = self._environment(given, others) | dict(settings or {})
        self.sandbox = ManagedProcess(
            name="sandbox",
            argv=[
                *(sys.executable, "-m", "velro.sandbox"),
                *("--data", str(self.stack.directory / "sandbox")),
                *("--port", str(self.stack.ports["sandbox"])),
            ],
            directory=self.stack.directory,
            ready=lambda: answers(f"{self.sandbox_url}/_sandbox/health"),
            owned=owned,
        )
        self.generation = self._service("generation", owned=owned)
        self.storage = self._service("storage", owned=owned)

    @property
    def api_url(self) -> str:
        """Where generations are requested."""
        return f"http://127.0.0.1:{self.stack.ports['generation']}"

    @property
    def sandbox_url(self) -> str:
        """Where the sandbox provider is, and its statistics."""
        return f"http://127.0.0.1:{self.stack.ports['sandbox']}"

    @property
    def processes(self) -> tuple[ManagedProcess, ...]:
        """All of them, in the order in which they start."""
        return (*self.stack.servers, self.sandbox, self.generation, self.storage)

    def start(self) -> None:
        """Start everything and wait until each part is ready; on a failure nothing is left.

        Raises:
            AlreadyRunning: some of it runs already.
            ProcessFailed: which, why, and the end of its log.
        """
        self.stack.start()
        try:
            self._spawn()
            for service in self._services:
                service.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def start_for_a_person(self) -> list[ManagedProcess]:
        """Start everything; the services that run and refuse work, as on another log, are told.

        They are left running: what mends it, `velro restore` for one, needs the servers.

        Raises:
            AlreadyRunning: some of it runs already.
            ProcessFailed: which ended, why, and the end of its log; nothing is left.
        """
        self.stack.start()
        try:
            self._spawn()
            return unready(self._services)
        except BaseException:
            self.stop()
            raise

    def _spawn(self) -> None:
        for service in self._services:
            service.spawn()

    @property
    def _services(self) -> tuple[ManagedProcess, ...]:
        return (self.sandbox, self.generation, self.storage)

    def stop(self) -> None:
        """Stop everything, the services before what they stand on."""
        try:
            stop_together((self.generation, self.storage))
        finally:
            stop_together((self.sandbox, *self.stack.servers))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _service(self, name: str, *, owned: bool) -> ManagedProcess:
        port = self.stack.ports[name]
        return ManagedProcess(
            name=name,
            argv=[sys.executable, "-m", f"{name}_svc", "serve"],
            directory=self.stack.directory,
            env=self.environment,
            ready=lambda: answers(f"http://127.0.0.1:{port}/readyz"),
            refuses=lambda: _REFUSING in answer_of(f"http://127.0.0.1:{port}/readyz"),
            owned=owned,
            stop_deadline_s=45,
        )

    def _environment(self, given: Mapping[str, str], others: frozenset[str]) -> dict[str, str]:
        """What the services are told: what is given, but for where our own servers are."""
        addresses, chosen = self.stack.addresses, self.stack.ports
        also = given.get("VELRO_MEDIA_HTTP_HOSTS", "").split(",")
        hosts = [f"127.0.0.1:{chosen['sandbox']}", *filter(None, map(str.strip, also))]
        told = {
            "VELRO_NATS_URL": addresses.nats_url,
            "VELRO_GENERATION_POSTGRES_DSN": addresses.generation_dsn,
            "VELRO_STORAGE_POSTGRES_DSN": addresses.storage_dsn,
            "VELRO_S3_ENDPOINT_URL": addresses.s3.endpoint_url,
            "VELRO_S3_REGION": addresses.s3.region,
            "VELRO_S3_ACCESS_KEY": addresses.s3.access_key,
            "VELRO_S3_SECRET_KEY": addresses.s3.secret_key,
            "VELRO_S3_BUCKET": addresses.s3.bucket,
            "VELRO_GENERATION_PORT": str(chosen["generation"]),
            "VELRO_STORAGE_PORT": str(chosen["storage"]),
            "VELRO_SANDBOX_URL": self.sandbox_url,
            "VELRO_MEDIA_HTTP_HOSTS": ",".join(dict.fromkeys(hosts)),
            "VELRO_WEBHOOK_BASE_URL": self.api_url,
            "VELRO_WEBHOOK_SECRET": self._webhook_secret(),
            "VELRO_SPOOL_DIR": str(self.stack.directory / "spool"),
        }
        if "nats" not in others:  # of another server we do not know where it is
            told["VELRO_NATS_MONITOR_URL"] = addresses.nats_monitor_url
        own = {name for server in _GIVEN_BY.keys() - others for name in _GIVEN_BY[server]} | _OURS
        return {
            name: value if name in own else given.get(name) or value for name, value in told.items()
        } | {
            # Empty is not set: what lets in elsewhere would be in the way at ours.
            name: (given if server in others else told).get(name, "")
            for server, names in _ENTRY_TO.items()
            for name in names
        }

    def _webhook_secret(self) -> str:
        path = self.stack.directory / "webhook.secret"
        if not path.exists():
            with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        return path.read_text()


def running(directory: Path) -> Local:
    """The Velro that runs here.

    Raises:
        NotRunning: nothing does.
    """
    if (directory / "ports.json").exists():
        local = Local(directory, owned=False)
        if local.stack.running:
            return local
    raise NotRunning(
        f"nothing of Velro runs on the data in {directory}; start it with `velro up`, or set "
        "VELRO_API_URL and the servers' VELRO_… variables to use another"
    )


def use_environment_of(directory: Path) -> None:
    """Let what runs here answer for every `VELRO_…` variable that is not set, or is in the way.

    Raises:
        NotRunning: nothing runs here, and no variable says where else.
    """
    try:
        local = running(directory)
    except NotRunning:
        if _PLACES & os.environ.keys():
            return
        raise
    os.environ.update(local.environment)
    os.environ.setdefault("VELRO_API_URL", local.api_url)
