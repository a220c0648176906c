"""Exchanges over real connections with servers that do what they like."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from shared.http11.errors import Cut, HttpFailed, NotHttp, NotReached, Silent
from shared.http11.pool import HttpPool, Origin
from shared.object_store.file_part import FilePart
from tests.hosts.names import certificate

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator
    from pathlib import Path

MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = os.urandom(3 * MIB)


@dataclass
class Talking:
    """A server that reads requests and says what it was told, on connections that stay."""

    port: int = 0
    says: list[bytes] = field(default_factory=list[bytes])
    heard: list[bytes] = field(default_factory=list[bytes])
    connections: int = 0
    hears_bodies: bool = True
    closes_after: int | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def origin(self) -> Origin:
        return Origin("http", "127.0.0.1", self.port)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answered = 0
        try:
            while answered != self.closes_after:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
                body = await reader.readexactly(length) if self.hears_bodies else b""
                self.heard.append(head + body)
                self.asked.set()
                writer.write(self.says.pop(0) if len(self.says) > 1 else self.says[0])
                await writer.drain()
                answered += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has had enough
        finally:
            writer.transport.abort()
            self.ended.set()


@asynccontextmanager
async def talking(
    *says: bytes, tls: ssl.SSLContext | None = None, hears_bodies: bool = True
) -> AsyncGenerator[Talking]:
    server = Talking(says=list(says), hears_bodies=hears_bodies)
    listening = await asyncio.start_server(server.talk, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server
        listening.close()


@pytest.fixture
async def pool() -> AsyncGenerator[HttpPool]:
    async with HttpPool(max_connections=4, connect_within_s=5, silence_s=0.5) as opened:
        yield opened


async def asked(
    pool: HttpPool, origin: Origin, method: str = "GET", body: bytes | FilePart | None = None
) -> bytes:
    async with pool.exchange(method, origin, "/a?b=c", {"X-A": "b"}, body) as answer:
        return await answer.read(at_most=8 * MIB)


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (b"Content-Length: 5\r\n\r\nwhole", b"whole"),
        (b"Content-Length: 0\r\n\r\n", b""),
        (b"Content-Length: 3145728\r\n\r\n" + LARGE, LARGE),
        (
            CHUNKED + b"2\r\nwh\r\n3;x=y\r\nole\r\n0\r\nX: y\r\n\r\n",
            b"whole",
        ),
        (b"Transfer-Encoding: chunked\r\n\r\n300000\r\n" + LARGE + b"\r\n0\r\n\r\n", LARGE),
    ],
    ids=["short", "empty", "long", "chunks", "a long chunk"],
)
async def test_answers_follow_one_another_on_one_connection(
    pool: HttpPool, said: bytes, body: bytes
) -> None:
    async with talking(OK + said) as server:
        for _ in range(3):
            assert await asked(pool, server.origin) == body
        assert server.connections == 1
        lines = server.heard[0].split(b"\r\n")
        assert lines == [
            b"GET /a?b=c HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}".encode(),
            b"X-A: b",
            b"",
            b"",
        ]


async def test_an_answer_to_a_head_has_a_length_and_no_body(pool: HttpPool) -> None:
    async with talking(OK + b"Content-Length: 99\r\n\r\n") as server:
        for _ in range(2):
            asking = pool.exchange("HEAD", server.origin, "/", {})
            async with asking as answer:
                assert answer.headers["content-length"] == "99"
                assert await answer.read(at_most=0) == b""
        assert server.connections == 1


async def test_what_is_on_the_way_is_not_the_answer(pool: HttpPool) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with talking(early + OK + b"Content-Length: 2\r\n\r\nok") as server:
        assert await asked(pool, server.origin) == b"ok"


@pytest.mark.parametrize(
    "said",
    [
        b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        b"Content-Length: 2\r\n\r\nok and more",
        CHUNKED + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
    ],
    ids=["it closes", "more than announced", "more than the chunks"],
)
async def test_a_connection_that_may_be_out_of_step_is_not_used_again(
    pool: HttpPool, said: bytes
) -> None:
    async with talking(OK + said) as server:
        for _ in range(2):
            assert await asked(pool, server.origin) == b"ok"
        assert server.connections == 2


async def test_a_connection_whose_answer_was_not_read_is_not_used_again(pool: HttpPool) -> None:
    async with talking(OK + b"Content-Length: 3145728\r\n\r\n" + LARGE) as server:
        for _ in range(2):
            async with pool.exchange("GET", server.origin, "/", {}) as answer:
                assert await answer.read_into(memoryview(bytearray(10))) > 0
        assert server.connections == 2


async def test_a_kept_connection_that_the_server_closed_costs_no_failure(pool: HttpPool) -> None:
    async with talking(OK + b"Content-Length: 2\r\n\r\nok") as server:
        server.closes_after = 1
        for _ in range(4):
            assert await asked(pool, server.origin, "PUT", b"body") == b"ok"
        assert [heard[-4:] for heard in server.heard] == [b"body"] * 4


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (OK + b"Content-Length: 9\r\n\r\nshort", Cut),
        (OK + CHUNKED + b"9\r\nshort", Cut),
        (OK[:9], Cut),
        (b"SSH-2.0-OpenSSH_9.0\r\n\r\n", NotHttp),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", NotHttp),
        (OK + CHUNKED + b"zz\r\n", NotHttp),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", NotHttp),
        (OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n", NotHttp),
        (OK + b"Content-Length: 9000000\r\n\r\n", NotHttp),
    ],
)
async def test_what_is_no_whole_answer_is_a_failure(
    pool: HttpPool, said: bytes, failure: type[HttpFailed]
) -> None:
    async with talking(said) as server:
        server.closes_after = 1
        with pytest.raises(failure):
            await asked(pool, server.origin)


async def test_silence_ends_an_exchange(pool: HttpPool) -> None:
    async with talking(OK + b"Content-Length: 9\r\n\r\nshort") as server:
        with pytest.raises(Silent):
            await asked(pool, server.origin)


async def test_a_large_body_is_sent_whole_from_memory_and_from_a_file(
    pool: HttpPool, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"before" + LARGE + b"after")
    async with talking(OK + b"Content-Length: 0\r\n\r\n") as server:
        await asked(pool, server.origin, "PUT", LARGE)
        await asked(pool, server.origin, "PUT", FilePart(path, offset=6, size_bytes=len(LARGE)))
        for heard in server.heard:
            head, _, body = heard.partition(b"\r\n\r\n")
            assert b"\r\nContent-Length: 3145728" in head
            assert body == LARGE


async def test_an_answer_that_comes_before_the_body_went_is_heard(
    pool: HttpPool, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(64 * MIB))
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    async with talking(refusal, hears_bodies=False) as server:
        part = FilePart(path, offset=0, size_bytes=64 * MIB)
        assert await asked(pool, server.origin, "PUT", part) == b"no"


async def test_a_file_that_is_shorter_than_its_part_is_told(pool: HttpPool, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"short")
    async with talking(OK + b"Content-Length: 0\r\n\r\n") as server:
        with pytest.raises(OSError, match="ends 4 bytes too soon"):
            await asked(pool, server.origin, "PUT", FilePart(path, offset=0, size_bytes=9))


async def test_bodies_go_both_ways_over_tls(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path, "localhost")
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    answer = OK + b"Content-Length: 3145728\r\n\r\n" + LARGE
    async with (
        talking(answer, tls=server_tls) as server,
        HttpPool(max_connections=1, connect_within_s=5, silence_s=5, tls=client_tls) as pool,
    ):
        origin = Origin("https", "localhost", server.port)
        part = FilePart(path, offset=0, size_bytes=len(LARGE))
        for body in (part, LARGE, None):
            assert await asked(pool, origin, "GET" if body is None else "PUT", body) == LARGE
        assert server.connections == 1
        assert [heard.partition(b"\r\n\r\n")[2] for heard in server.heard] == [LARGE, LARGE, b""]


async def test_no_more_connections_are_open_than_are_allowed(pool: HttpPool) -> None:
    async with talking(OK + b"Content-Length: 2\r\n\r\nok") as server:
        await asyncio.gather(*(asked(pool, server.origin) for _ in range(40)))
        assert server.connections <= 4
        assert len(server.heard) == 40


async def test_a_kept_connection_goes_where_another_server_needs_its_place() -> None:
    ok = OK + b"Content-Length: 2\r\n\r\nok"
    async with (
        HttpPool(max_connections=1, connect_within_s=5, silence_s=5) as pool,
        talking(ok) as first,
        talking(ok) as second,
    ):
        assert await asked(pool, first.origin) == b"ok"
        assert not first.ended.is_set()
        assert await asked(pool, second.origin) == b"ok"
        await asyncio.wait_for(first.ended.wait(), 5)
        assert await asked(pool, first.origin) == b"ok"
        assert (first.connections, second.connections) == (2, 1)


async def test_a_connection_that_nobody_needs_is_kept_for_a_while_only(
    pool: HttpPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.http11.pool.KEPT_S", 0.01)
    async with talking(OK + b"Content-Length: 2\r\n\r\nok") as server:
        assert await asked(pool, server.origin) == b"ok"
        await asyncio.wait_for(server.ended.wait(), 5)
        assert await asked(pool, server.origin) == b"ok"
        assert server.connections == 2


async def test_cancelling_an_exchange_ends_its_connection(pool: HttpPool) -> None:
    async with talking(b"") as server:
        asking = asyncio.create_task(asked(pool, server.origin))
        await asyncio.wait_for(server.asked.wait(), 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.ended.wait(), 5)


async def test_nobody_at_home_is_not_reached(pool: HttpPool) -> None:
    async with talking(OK) as server:
        gone = server.origin
    with pytest.raises(NotReached):
        await asked(pool, gone)


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/\u00e4"])
async def test_nothing_that_is_named_writes_a_line_of_its_own(pool: HttpPool, target: str) -> None:
    async with talking(OK) as server:
        with pytest.raises(ValueError, match="a request cannot"):
            async with pool.exchange("GET", server.origin, target, {}):
                pass
        with pytest.raises(ValueError, match="a request cannot"):
            async with pool.exchange("GET", server.origin, "/", {"X": "y\r\nZ: a"}):
                pass
        assert server.connections == 0
