"""Clients that neither send nor take, over real sockets: nothing else has a buffer to fill."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from generation_svc.adapters.http.app import build_app
from shared.serving import serving
from tests.generation_events import (
    REQUESTED,
    STARTED,
    SUBMITTED,
    Where,
    completed,
    media_stored,
)
from tests.http_service import public_url
from tests.http_world import Api, api
from tests.projecting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fastapi import FastAPI

    from shared.contracts.subjects import Subjects

# Together more than what a loopback connection buffers for a reader that does not read, 4 MiB.
LINKS: tuple[Where, ...] = ("link",) * 12
CHANGES = (
    STARTED,
    SUBMITTED,
    completed(*LINKS),
    *(media_stored(index) for index in range(9)),
)
LARGE = REQUESTED.model_copy(update={"input": {"prompt": "p" * 700_000}})


@pytest.fixture
async def velro(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[Api]:
    async with api(nats_url, stream, subjects, database) as opened:
        yield opened


async def test_a_watcher_that_does_not_read_loses_its_place(velro: Api) -> None:
    await velro.world.reached(await velro.world.say("g-1", LARGE))
    changes = velro.service.changes
    request = b"GET /v1/generations/g-1/watch?until=stored HTTP/1.1\r\nhost: velro.test\r\n\r\n"
    async with _sent(velro, request):
        await until(lambda: changes.watchers == 1)
        for event in CHANGES:
            looked = len(velro.queries.reads)
            await velro.world.say("g-1", event)
            # One event each: states that follow closely on each other may be told as one.
            await until(lambda: len(velro.queries.reads) > looked or changes.watchers == 0)  # noqa: B023 - called in the same turn
        await until(lambda: changes.watchers == 0)


async def test_a_body_that_does_not_come_is_not_waited_for(velro: Api) -> None:
    request = (
        b"POST /v1/generations HTTP/1.1\r\nhost: velro.test\r\n"
        b'content-type: application/json\r\ncontent-length: 999\r\n\r\n{"user_id": '
    )
    async with _sent(velro, request) as connection:
        answer = await _all_of(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"\r\ncontent-type: application/problem+json" in head
    assert json.loads(body)["type"] == "/problems/too-slow"
    assert await velro.world.log.last_position() == 0


@asynccontextmanager
async def _sent(velro: Api, request: bytes) -> AsyncGenerator[socket.socket]:
    """A connection on which a request, or a part of one, was sent, and nothing is read."""
    loop = asyncio.get_running_loop()
    async with serving(_impatient(velro), host="127.0.0.1", port=0) as port:
        with socket.socket() as connection:
            connection.settimeout(0)  # as the loop wants it
            # Set before connecting: the window that the other end may fill is agreed there.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(connection, ("127.0.0.1", port))
            await loop.sock_sendall(connection, request)
            yield connection


def _impatient(velro: Api) -> FastAPI:
    """The same service, which does not wait for slow clients for long."""
    service = velro.service
    return build_app(
        decider=service.decider,
        log=service.log,
        reading=service.reading,
        changes=service.changes,
        object_urls=public_url,
        accept_webhook=service.accept_webhook,
        providers=("sandbox",),
        readiness=service.readiness,
        body_s=0.3,
        piece_s=0.3,
    )


async def _all_of(connection: socket.socket) -> bytes:
    """What the other end answers until it closes."""
    loop = asyncio.get_running_loop()
    answer = b""
    async with asyncio.timeout(WAIT_S):
        while piece := await loop.sock_recv(connection, 65536):
            answer += piece
    return answer
