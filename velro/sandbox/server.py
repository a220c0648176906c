"""The sandbox as an app, as a process of its own, and inside a test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from velro.sandbox.connections import OpenToCutting
from velro.sandbox.control_routes import ControlRoutes
from velro.sandbox.ledger import Ledger, Stats
from velro.sandbox.media import MediaShelf
from velro.sandbox.media_routes import MediaRoutes
from velro.sandbox.queue_routes import QueueRoutes
from velro.sandbox.webhooks import SigningKey, WebhookSender
from velro.sandbox.work_queue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

    from velro.sandbox.faults import Faults
    from velro.sandbox.settings import SandboxSettings

_GRACE_S = 3
_START_DEADLINE_S = 15.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate chain and its key, both PEM."""

    certificate: Path
    key: Path


class Sandbox:
    """One sandbox's parts. `app` serves them; `stopping` is set when answers must stop waiting."""

    def __init__(self, settings: SandboxSettings) -> None:
        key = SigningKey()
        self.settings = settings
        self.stopping = asyncio.Event()
        self._shelf = MediaShelf(settings)
        self._sender = WebhookSender(settings, key)
        self._queue = WorkQueue(settings, self._shelf, self._sender)
        self._ledger = Ledger(settings.max_finished_requests)
        self._queue_routes = QueueRoutes(settings, self._queue, self._ledger, self.stopping)
        control = ControlRoutes(
            queue=self._queue,
            shelf=self._shelf,
            ledger=self._ledger,
            queue_routes=self._queue_routes,
            key=key,
        )
        self.app = FastAPI(
            title="Velro sandbox provider", lifespan=self._lifespan, docs_url=None, redoc_url=None
        )
        self.app.include_router(control.router())
        self.app.include_router(MediaRoutes(settings, self._shelf, self._ledger).router())
        self.app.include_router(self._queue_routes.router())

    def stats(self) -> Stats:
        """Everything that was seen and made."""
        return self._ledger.stats(self._queue, self._shelf)

    def set_faults(self, faults: Faults) -> None:
        """What every request suffers from now on that does not say otherwise."""
        self._queue_routes.default_faults = faults

    async def settled(self, request_id: str) -> None:
        """Wait until a request is finished and its callback delivered, withheld or given up."""
        await self._queue.works[request_id].called_back.wait()

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncGenerator[None, None]:
        await asyncio.to_thread(self._shelf.open)
        sweeping = asyncio.create_task(self._shelf.sweep_for_ever())
        try:
            yield
        finally:
            sweeping.cancel()
            await self._queue.drain()
            await self._sender.close()


def create_app(settings: SandboxSettings) -> FastAPI:
    """The app alone. Cutting connections needs `connections.OpenToCutting` beneath it."""
    return Sandbox(settings).app


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """A sandbox that listens. `url` has no slash at its end."""

    url: str
    sandbox: Sandbox

    @property
    def jwks_url(self) -> str:
        """Where its webhook keys are."""
        return f"{self.url}/.well-known/jwks.json"

    def stats(self) -> Stats:
        """Everything that was seen and made."""
        return self.sandbox.stats()

    def set_faults(self, faults: Faults) -> None:
        """What every request suffers from now on that does not say otherwise."""
        self.sandbox.set_faults(faults)

    async def settled(self, request_id: str) -> None:
        """Wait until a request is finished and its callback delivered, withheld or given up."""
        await self.sandbox.settled(request_id)


class SandboxServer(uvicorn.Server):
    """uvicorn, which says when it listens, and releases answers that wait before it drains.

    Signals are left to the program around it: set `should_exit` to stop.
    """

    def __init__(
        self, config: uvicorn.Config, stopping: asyncio.Event, listening: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Release what waits, then drain."""
        self._stopping.set()
        await super().shutdown(sockets)

    def stop(self) -> None:
        """Begin to shut down; `serve` returns when that is done."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none. uvicorn would raise them again, past whatever is to be cleared away."""
        yield


def listen(port: int = 0, host: str = "127.0.0.1") -> socket.socket:
    """A listening socket; port 0 takes a free one."""
    listener = socket.create_server((host, port))
    # asyncio leaves this out for sockets made without an explicit protocol; each answer then
    # waits 40 ms for the one before to be acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def server_config(sandbox: Sandbox, tls: TlsFiles | None = None) -> uvicorn.Config:
    """How uvicorn runs a sandbox."""
    return uvicorn.Config(
        sandbox.app,
        http=OpenToCutting,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )


def address_of(
    listener: socket.socket, tls: TlsFiles | None = None, name: str | None = None
) -> str:
    """The base URL of what listens there."""
    host, port = listener.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{name or host}:{port}"


@asynccontextmanager
async def running_sandbox(
    settings: SandboxSettings, *, port: int = 0, tls: TlsFiles | None = None
) -> AsyncGenerator[RunningSandbox, None]:
    """Run one inside this program, on this loop, until the block ends. Port 0 takes a free one."""
    sandbox = Sandbox(settings)
    listener = listen(port)
    url = address_of(listener, tls, "localhost" if tls else None)
    listening = asyncio.Event()
    server = SandboxServer(server_config(sandbox, tls), sandbox.stopping, listening.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    started = asyncio.create_task(listening.wait())
    try:
        async with asyncio.timeout(_START_DEADLINE_S):
            await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.is_set():
            await serving  # raises what kept it from starting
        yield RunningSandbox(url, sandbox)
    finally:
        started.cancel()
        server.stop()
        await serving
