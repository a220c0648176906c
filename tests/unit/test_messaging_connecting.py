"""What a connection that cannot be made says, once."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from shared.event_log.jetstream_api import subscribe
from shared.messaging.connection import BrokerUnavailable, connect, connected, drain

if TYPE_CHECKING:
    from nats.aio.msg import Msg


async def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(BrokerUnavailable, match="nowhere"):
        await connect("nowhere:::", name="test", timeout_s=5)


async def test_a_server_that_says_nothing_is_told_with_the_address_and_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as says_nothing:
        url = f"nats://127.0.0.1:{says_nothing.getsockname()[1]}"
        told = f"no connection to {url} within 0.5 s: TimeoutError: no answer in time"
        with pytest.raises(BrokerUnavailable, match=f"^{re.escape(told)}$"):
            await connect(url, name="test", timeout_s=0.5)


async def test_a_server_that_is_away_is_told_once_however_often_it_is_tried() -> None:
    with socket.socket() as nobody_listens, capture_logs() as lines:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{nobody_listens.getsockname()[1]}"
        with pytest.raises(BrokerUnavailable, match="Connect"):
            await connect(url, name="test", timeout_s=1.8)  # three or four tries
    assert [line["event"] for line in lines if line["event"] == "nats_error"] == ["nats_error"]


async def test_a_proxy_that_answers_for_a_server_that_is_away_is_tried_again() -> None:
    calls, is_away, arrived = 0, asyncio.Event(), asyncio.Event()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            is_away.set()
        else:
            writer.write(b"INFO {}\r\n")
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")
            while calls > 2 and (line := await reader.readline()):
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
                if line.startswith(b"PUB "):
                    arrived.set()
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server, asyncio.timeout(20):
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connected(url, name="test") as connection:
            await is_away.wait()
            await connection.publish("a.subject")
            await arrived.wait()


async def _nothing(_: Msg) -> None:
    """What comes is nobody's."""


async def test_a_server_that_has_fallen_silent_is_not_waited_for_at_the_end() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO {}\r\n")
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        connection = await connect(url, name="test")
        await subscribe(connection, "a.subject", _nothing)
        with capture_logs() as lines:
            # Long before nats-py, which would wait for ten seconds, and ten more.
            async with asyncio.timeout(9):
                await drain(connection)
    assert connection.is_closed
    assert [line["event"] for line in lines] == ["nats_silent", "nats_closed", "nats_not_drained"]


async def test_a_connection_that_nobody_wants_any_more_is_not_left_open() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        gone.set()
        writer.close()

    async with await asyncio.start_server(says_nothing, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        connecting = asyncio.create_task(connect(url, name="test", timeout_s=60))
        async with asyncio.timeout(20):
            await arrived.wait()
        # At this very moment nats-py takes no notice of it.
        connecting.cancel()
        ended, _ = await asyncio.wait((connecting,), timeout=10)
        assert ended
        assert connecting.cancelled()
        async with asyncio.timeout(5):
            await gone.wait()


async def test_what_was_closed_while_it_connected_again_stays_closed() -> None:
    calls, again, gone = 0, asyncio.Event(), asyncio.Event()

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            again.set()
        writer.write(b'INFO {"max_payload": 1000}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
                if calls == 1:
                    break
        writer.close()
        if calls > 1:
            gone.set()

    async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
        url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        connection = await connect(url, name="test", timeout_s=20)
        async with asyncio.timeout(20):
            await again.wait()
            # At this very moment nats-py takes no notice of it.
            await connection.close()
            await gone.wait()
        assert connection.is_closed
        assert calls == 2
