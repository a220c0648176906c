"""Where HTTP is served, and who may stay connected; over sockets, for nothing else has them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from shared.serving import AddressTaken, ConnectionLimits, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


async def test_a_port_that_somebody_else_has_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = f"nothing can listen on 127.0.0.1, port {port}: Address already in use"
        with pytest.raises(AddressTaken, match=re.escape(told)):
            async with serving(FastAPI(), host="127.0.0.1", port=port):
                pass


async def test_an_address_that_is_not_this_machines_is_told() -> None:
    with pytest.raises(AddressTaken, match=r"on 192\.0\.2\.1, port 0: .* choose another"):
        async with serving(FastAPI(), host="192.0.2.1", port=0):
            pass


Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ASKED = b"GET / HTTP/1.1\r\nhost: velro.test\r\n\r\n"
WAITING = ASKED.replace(b"/", b"/wait", 1)


@asynccontextmanager
async def lines(limits: ConnectionLimits) -> AsyncGenerator[Callable[[], Awaitable[Line]]]:
    """Makes connections to an app that answers at once, and on /wait begins to and no more."""
    app = FastAPI()
    end = asyncio.Event()

    async def beginning() -> AsyncGenerator[str]:
        yield "begun"
        await end.wait()

    @app.get("/")
    async def well() -> str:  # pyright: ignore[reportUnusedFunction] - called by its route
        return "well"

    @app.get("/wait")
    async def wait() -> StreamingResponse:  # pyright: ignore[reportUnusedFunction] - the same
        return StreamingResponse(beginning())

    opened: list[asyncio.StreamWriter] = []
    async with serving(app, host="127.0.0.1", port=0, limits=limits) as port:

        async def line() -> Line:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened.append(writer)
            return reader, writer

        try:
            yield line
        finally:
            end.set()
            for writer in opened:
                writer.close()


async def answer(line: Line, request: bytes = ASKED) -> bytes:
    reader, writer = line
    writer.write(request)
    async with asyncio.timeout(10):
        return await reader.readuntil(b"begun" if request is WAITING else b'well"')


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What was said before the other side closed."""
    async with asyncio.timeout(10):
        return await reader.read()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nho"], ids=["nothing", "half a head"])
async def test_whoever_does_not_ask_is_not_waited_for(said: bytes) -> None:
    async with lines(ConnectionLimits(head_s=0.2)) as line:
        reader, writer = await line()
        writer.write(said)
        assert await closed(reader) == b""


async def test_a_second_head_has_the_same_time_and_an_idle_connection_more() -> None:
    async with lines(ConnectionLimits(head_s=0.2, idle_s=60)) as line:
        half, idle = await line(), await line()
        for each in (half, idle):
            await answer(each)
        half[1].write(ASKED[:10])
        assert await closed(half[0]) == b""
        assert await answer(idle)


async def test_a_request_may_take_longer_than_its_head() -> None:
    async with lines(ConnectionLimits(head_s=0.2)) as line:
        waits, says_nothing = await line(), await line()
        await answer(waits, WAITING)
        assert await closed(says_nothing[0]) == b""
        assert not waits[0].at_eof()


async def test_where_there_are_too_many_the_longest_idle_one_makes_room() -> None:
    async with lines(ConnectionLimits(most=2)) as line:
        first, second = await line(), await line()
        for each in (first, second, first):
            await answer(each)
        third = await line()
        assert await closed(second[0]) == b""
        for each in (first, third):
            await answer(each)


async def test_where_all_are_busy_one_more_is_told_to_come_back() -> None:
    async with lines(ConnectionLimits(most=2)) as line:
        for _ in range(2):
            await answer(await line(), WAITING)
        reader, _ = await line()
        told = await closed(reader)
    head, _, body = told.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["detail"] == "too many connections"


def test_there_are_no_more_connections_than_files_may_be_open() -> None:
    script = (
        "import resource; from shared.serving import _limits_here as limits\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "print(limits().most, *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )

    def most(soft: int, hard: int) -> str:
        argv = [sys.executable, "-c", script.format(soft=soft, hard=hard)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    assert most(256, 1024) == "512 1024 1024"
    assert most(256, 4600) == "3600 4600 4600"
    assert most(256, 9000) == "4000 5000 9000"
    assert most(6000, 9000) == "4000 6000 9000"
