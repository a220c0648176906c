from __future__ import annotations

import asyncio
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
from nats.js.api import StreamConfig

from shared.contracts.subjects import Subjects
from shared.messaging.connection import connected
from shared.messaging.jetstream import ensure_stream, jetstream_of
from tests.archives import open_archived
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from tests.archives import Archived
    from tests.servers.port import OwnNats, OwnPostgres, OwnS3, Servers
    from velro.stack.seaweedfs import S3Address


CONTAINERS = Path(__file__).parent / "containers"
NEIGHBOUR = "NEIGHBOUR"


def pytest_configure() -> None:
    # Whoever starts the tests in the background of a shell has them ignore SIGINT, with nohup
    # SIGHUP, and so would every program that they start.
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        choices=("embedded", "containers"),
        default="embedded",
        help="where NATS, PostgreSQL and S3 come from: their wheels, or testcontainers",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With containers, leave out what asks for no server: there it is the same test again.

    What a test asks for is what it names: a fixture that it gets while it runs is not seen here.
    """
    if config.getoption("--servers") != "containers":
        return

    def differs(item: pytest.Item) -> bool:
        names = item.fixturenames if isinstance(item, pytest.Function) else ()
        return "servers" in names or item.path.is_relative_to(CONTAINERS)

    config.hook.pytest_deselected(items=[item for item in items if not differs(item)])
    items[:] = [item for item in items if differs(item)]


@pytest.fixture(scope="session")
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Servers]:
    """The way to get servers; none runs before it is asked for."""
    directory = tmp_path_factory.mktemp("servers")
    way = _servers(str(request.config.getoption("--servers")), directory)
    try:
        yield way
    finally:
        way.close()


def _servers(way: str, directory: Path) -> Servers:
    # Imported here: only a run with containers needs Docker's client.
    if way == "containers":
        from tests.servers.containers import ContainerServers  # noqa: PLC0415

        return ContainerServers(directory)
    from tests.servers.embedded import EmbeddedServers  # noqa: PLC0415

    return EmbeddedServers(directory)


@pytest.fixture(scope="session")
def nats_url(servers: Servers) -> str:
    """A NATS server that all tests share; each keeps to its own `subject_root` and `stream`.

    It has one more stream, as every server of Velro's has: one that loses its last stream takes the
    folder of all of them away, perhaps while the next one is being made in it.
    """
    url = servers.nats().url

    async def neighbour() -> None:
        async with connected(url, name="tests") as connection:
            await ensure_stream(
                jetstream_of(connection), StreamConfig(name=NEIGHBOUR, subjects=[NEIGHBOUR])
            )

    # In a thread, since a test's own loop may be running: a fixture of it may ask for this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, neighbour()).result()
    return url


@pytest.fixture(scope="session")
def postgres_dsn(servers: Servers) -> str:
    """A PostgreSQL server that all tests share, as its superuser."""
    return servers.postgres().dsn


@pytest.fixture(scope="session")
def s3_address(servers: Servers) -> S3Address:
    """An S3 service that all tests share."""
    return servers.s3().address


@pytest.fixture
def own_nats(servers: Servers) -> Generator[OwnNats]:
    """A NATS server for this test alone, to stop and start."""
    own = servers.nats()
    yield own
    servers.discard(own.server)


@pytest.fixture
def own_postgres(servers: Servers) -> Generator[OwnPostgres]:
    """A PostgreSQL server for this test alone, to stop and start."""
    own = servers.postgres()
    yield own
    servers.discard(own.server)


@pytest.fixture
def own_s3(servers: Servers) -> Generator[OwnS3]:
    """An S3 service for this test alone, to stop and start."""
    own = servers.s3()
    yield own
    servers.discard(own.server)


@pytest.fixture
def subject_root() -> str:
    """A root for this test's subjects, on whichever server."""
    return f"t{secrets.token_hex(5)}"


@pytest.fixture
def subjects(subject_root: str) -> Subjects:
    """The subjects of this test's log."""
    return Subjects(subject_root)


@pytest.fixture
async def stream(nats_url: str, subject_root: str) -> AsyncGenerator[str]:
    """The name for this test's stream on the shared server; whatever begins so is deleted after."""
    name = subject_root.upper()
    yield name
    async with connected(nats_url, name="tests") as connection:
        jetstream = jetstream_of(connection)
        for found in await jetstream.streams_info():
            if str(found.config.name).startswith(name):
                await jetstream.delete_stream(str(found.config.name))


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncGenerator[str]:
    """The address of an empty database for this test alone."""
    name = f"t{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres_dsn)
    try:
        await admin.execute(f"create database {name}")
        yield f"{postgres_dsn.rpartition('/')[0]}/{name}"
        await admin.execute(f"drop database {name} with (force)")
    finally:
        await admin.close()


@pytest.fixture
def bucket(s3_address: S3Address) -> Generator[S3Address]:
    """The address of an empty bucket for this test alone."""
    address = replace(s3_address, bucket=f"t{secrets.token_hex(6)}")
    client = s3_client(address)
    client.create_bucket(Bucket=address.bucket)
    yield address
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=address.bucket):
        for found in page.get("Contents", []):
            client.delete_object(Bucket=address.bucket, Key=found["Key"])
    client.delete_bucket(Bucket=address.bucket)
    client.close()


@pytest.fixture
async def archived(
    nats_url: str, subject_root: str, stream: str, bucket: S3Address
) -> AsyncGenerator[Archived]:
    """A log of this test alone, and its archive, which is empty."""
    async with open_archived(
        nats_url=nats_url, subject_root=subject_root, stream=stream, bucket=bucket
    ) as opened:
        yield opened
