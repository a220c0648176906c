"""HTTP beside other work in one process: uvicorn as a part with an owner, not as the program."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import uvicorn

from shared.errors import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from fastapi import FastAPI

# How long requests under way may take to end: watchers are cut off and come back.
_SHUTDOWN_S: Final = 2
# Longer than a load balancer keeps a connection that nobody uses (60 s are common): whoever closes
# first, while the other one sends, makes an error of a request.
_IDLE_S: Final = 75


class AddressTaken(Refused):
    """The address to serve at cannot be had; the message says why, and what to do."""


class _Server(uvicorn.Server):
    """uvicorn that leaves the signals to the process it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def serving(app: FastAPI, *, host: str, port: int) -> AsyncGenerator[int]:
    """Serve while the context is open; yields the port, which is a free one where 0 was asked.

    Raises:
        AddressTaken: the address cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_SHUTDOWN_S,
        timeout_keep_alive=_IDLE_S,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise AddressTaken(
            f"nothing can listen on {host}, port {port}: {error.strerror or error}; "
            "choose another with --host, --port or their variables"
        ) from error
    # asyncio sets this only on sockets made with an explicit protocol, and create_server makes
    # none: without it every answer waits 40 ms for an acknowledgement (measured: 48 ms to 5 ms).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait((task,), timeout=2 * _SHUTDOWN_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listener.close()
