"""Servers under testcontainers, on ports that stay the same when a container starts again."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, cast

import docker
import pytest
from docker.errors import DockerException
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer

from tests.servers.port import OwnNats, OwnPostgres, OwnS3
from velro.stack import ports
from velro.stack.nats import answers
from velro.stack.postgres import accepts_connections
from velro.stack.seaweedfs import S3Address, takes_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.servers.port import Server

# The public images are the reference; a machine that cannot pull them has local ones of the name.
NATS_IMAGE = os.environ.get("VELRO_TEST_NATS_IMAGE", "nats:2.15")
POSTGRES_IMAGE = os.environ.get("VELRO_TEST_POSTGRES_IMAGE", "postgres:18")
SEAWEEDFS_IMAGE = os.environ.get("VELRO_TEST_SEAWEEDFS_IMAGE", "chrislusf/seaweedfs:4.48")
NATS_CONF = Path(__file__).parents[2] / "deploy" / "nats.conf"
READY_WITHIN_S = 60.0


class ContainerServer:
    """A container that can be stopped, killed and started again on the same ports."""

    def __init__(self, container: DockerContainer, ready: Callable[[], bool]) -> None:
        self._container = container
        self._ready = ready

    def create(self) -> None:
        self._container.start()
        self._wait()

    def start(self) -> None:
        self._wrapped().start()
        self._wait()

    def stop(self) -> None:
        self._wrapped().stop(timeout=15)

    def kill(self) -> None:
        self._wrapped().kill()

    def remove(self) -> None:
        self._container.stop(force=True)

    def _wrapped(self) -> Any:  # noqa: ANN401 - Docker's client carries no types
        return cast("Any", self._container).get_wrapped_container()

    def _wait(self) -> None:
        deadline = monotonic() + READY_WITHIN_S
        while not self._ready():
            if monotonic() > deadline:
                out, err = self._container.get_logs()
                raise TimeoutError(f"{self._container.image} is not ready:\n{out!r}\n{err!r}")
            sleep(0.1)


class ContainerServers:
    def __init__(self, directory: Path) -> None:
        # No image of the reaper is needed where containers are removed at the end of the run.
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
        _require_engine()
        self._directory = directory
        self._numbers = count(1)
        self._started: list[ContainerServer] = []

    def nats(self) -> OwnNats:
        port, monitor = self._ports("nats", "monitor")
        # Plain, because NatsContainer warns about itself at import, and takes no configuration.
        container = (
            DockerContainer(NATS_IMAGE)
            .with_command("-c /etc/nats/nats.conf")
            .with_volume_mapping(str(NATS_CONF), "/etc/nats/nats.conf", "ro")
        )
        _bind(container, {4222: port, 8222: monitor})
        server = self._start(container, lambda: answers(f"http://127.0.0.1:{monitor}/healthz"))
        return OwnNats(server, f"nats://127.0.0.1:{port}")

    def postgres(self) -> OwnPostgres:
        (port,) = self._ports("postgres")
        container = PostgresContainer(
            POSTGRES_IMAGE,
            username="postgres",
            password="velro-test",
            dbname="postgres",
            driver=None,
        )
        _bind(container, {5432: port})
        server = self._start(container, lambda: accepts_connections(port))
        return OwnPostgres(server, f"postgresql://postgres:velro-test@127.0.0.1:{port}/postgres")

    def s3(self) -> OwnS3:
        (port,) = self._ports("s3")
        address = S3Address(f"http://127.0.0.1:{port}", "velro", "velro-test", "media")
        container = (
            DockerContainer(SEAWEEDFS_IMAGE)
            .with_command(
                "mini -dir=/data -s3.port=8333 -bucket=media -admin.ui=false -webdav=false "
                "-s3.port.iceberg=0 -s3.port.lance=0 -master.telemetry=false"
            )
            .with_env("AWS_ACCESS_KEY_ID", address.access_key)
            .with_env("AWS_SECRET_ACCESS_KEY", address.secret_key)
        )
        _bind(container, {8333: port})
        server = self._start(container, lambda: takes_objects(address))
        return OwnS3(server, address)

    def discard(self, server: Server) -> None:
        (container,) = (started for started in self._started if started is server)
        container.remove()
        self._started.remove(container)

    def close(self) -> None:
        for server in reversed(self._started):
            server.remove()

    def _start(self, container: DockerContainer, ready: Callable[[], bool]) -> ContainerServer:
        server = ContainerServer(container, ready)
        self._started.append(server)  # before it runs: one that fails to start is removed too
        server.create()
        return server

    def _ports(self, *names: str) -> Sequence[int]:
        memory = self._directory / f"{next(self._numbers)}.json"
        chosen = ports.choose(dict.fromkeys(names), memory)
        return [chosen[name] for name in names]


def _require_engine() -> None:
    client: Any = None
    try:
        client = cast("Any", docker).from_env(timeout=10)
        client.ping()
    except DockerException as error:
        pytest.exit(f"--servers=containers needs a Docker engine, and none answers: {error}", 3)
    finally:
        if client is not None:
            client.close()


def _bind(container: DockerContainer, chosen: dict[int, int]) -> None:
    for inside, outside in chosen.items():
        # On loopback alone, whatever the engine's default is.
        cast("dict[int, object]", container.ports)[inside] = ("127.0.0.1", outside)
