"""HTTP beside other work in one process: uvicorn as a part with an owner, not as the program."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from shared.errors import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from fastapi import FastAPI

_log = structlog.get_logger(__name__)

# How long requests under way may take to end: watchers are cut off and come back.
_SHUTDOWN_S: Final = 2
# What the rest of a process opens: connections to servers and sources, spool files.
_OTHER_FILES: Final = 1000
_TOLD_EVERY_S: Final = 60.0
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n"
    b"content-type: application/problem+json\r\ncontent-length: 98\r\n\r\n"
    b'{"type":"about:blank","title":"Service Unavailable","status":503,'
    b'"detail":"too many connections"}\n'
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What connections are allowed.

    Attributes:
        most: at once. For one more, that which has been idle for longest is closed; where all are
            busy, the new one is told to come back.
        head_s: for the head of a request to arrive, from its first byte or, of the first one, from
            the connection's beginning.
        idle_s: between two requests. Longer than a load balancer keeps a connection that nobody
            uses (60 s are common): whoever closes first, while the other one sends, makes an error
            of a request.
    """

    most: int = 4000
    head_s: float = 20.0
    idle_s: int = 75


class AddressTaken(Refused):
    """The address to serve at cannot be had; the message says why, and what to do."""


class _Server(uvicorn.Server):
    """uvicorn that leaves the signals to the process it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class _Config(uvicorn.Config):
    """uvicorn's, with our limits."""

    def __init__(self, app: FastAPI, limits: ConnectionLimits, **options: Any) -> None:  # noqa: ANN401 - uvicorn's, handed on
        super().__init__(app, http=_Connection, timeout_keep_alive=limits.idle_s, **options)
        self.limits = limits
        self.told_at = -_TOLD_EVERY_S

    def tell(self, now: float) -> None:
        """Say that there are as many connections as there may be, once in a while."""
        if now - self.told_at >= _TOLD_EVERY_S:
            self.told_at = now
            _log.warning("connections_full", most=self.limits.most)


class _Connection(H11Protocol):
    """uvicorn's, which waits for the head of a request for ever, and takes any number of them."""

    config: _Config
    _head_due: asyncio.TimerHandle | None = None
    _idle_since = 0.0

    @property
    def _idle(self) -> bool:
        cycle = cast("Any", self.cycle)  # None before the first request, though its type is not
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn's own
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._await_head()
        if len(self.connections) > self.config.limits.most:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._idle:
            self._await_no_head()
        elif self._head_due is None:
            self._await_head()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_no_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_due = self.loop.call_later(self.config.limits.head_s, self._give_up)

    def _await_no_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _give_up(self) -> None:
        self.transport.close()

    def _make_room(self) -> None:
        others = [
            each
            for each in self.connections
            if isinstance(each, _Connection)
            and each is not self
            and each._idle  # noqa: SLF001 - of this class
            and not each.transport.is_closing()
        ]
        self.config.tell(self.loop.time())
        if others:
            min(others, key=lambda each: each._idle_since)._give_up()  # noqa: SLF001 - the same
        else:
            self.transport.write(_FULL)
            self.transport.close()


def _limits_here() -> ConnectionLimits:
    """As many connections as there may be, where this process may open as many files.

    What a shell or a container gives by default is 1,024 often enough, and may be raised by the
    process itself. One that cannot open one more neither answers nor stores.
    """
    limits = ConnectionLimits()
    wanted = limits.most + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        limits = ConnectionLimits(most=max(soft - _OTHER_FILES, soft // 2))
    return limits


@asynccontextmanager
async def serving(
    app: FastAPI, *, host: str, port: int, limits: ConnectionLimits | None = None
) -> AsyncGenerator[int]:
    """Serve while the context is open; yields the port, which is a free one where 0 was asked.

    Args:
        app: what answers.
        host: an address of this machine.
        port: 0 for a free one.
        limits: of connections; None: as many as this process may have.

    Raises:
        AddressTaken: the address cannot be listened on.
    """
    config = _Config(
        app,
        _limits_here() if limits is None else limits,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_SHUTDOWN_S,
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
