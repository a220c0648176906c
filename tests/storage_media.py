"""A provider's media server: real HTTP on loopback, pictures made of names, told what to answer."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + checksum


def picture(name: str, *, size_bytes: int = 2000) -> bytes:
    """A valid PNG of 1 x 1 pixel, another one for each name, padded to about a size."""
    padding = hashlib.shake_256(name.encode()).digest(size_bytes)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", (1).to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))),
            _chunk(b"tEXt", b"Comment\x00" + padding.hex().encode()),
            _chunk(b"IDAT", zlib.compress(b"\x00\x7f")),
            _chunk(b"IEND", b""),
        )
    )


@dataclass
class MediaServer:
    """Serves `picture(name)` at `/<name>`, unless told otherwise for that name."""

    port: int = 0
    requests: Counter[str] = field(default_factory=Counter[str])
    order: list[str] = field(default_factory=list["str"])
    answers: dict[str, Answer] = field(default_factory=dict["str", "Answer"])
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        return f"http://{self.host}/{name}"

    def answer(self, name: str, status: int, **headers: str) -> None:
        """Answer with a bare status from now on."""

        async def refuse(_request: web.Request) -> web.StreamResponse:
            return web.Response(
                status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
            )

        self.answers[name] = refuse

    async def requested(self, name: str, times: int, *, timeout_s: float = 20.0) -> None:
        """Wait until a name was asked for so often."""
        async with asyncio.timeout(timeout_s), self.arrived:
            await self.arrived.wait_for(lambda: self.requests[name] >= times)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        async with self.arrived:
            self.requests[name] += 1
            self.order.append(name)
            self.arrived.notify_all()
        if name in self.answers:
            return await self.answers[name](request)
        return web.Response(body=picture(name), content_type="image/png")


@asynccontextmanager
async def media_server() -> AsyncGenerator[MediaServer]:
    server = MediaServer()
    app = web.Application()
    app.router.add_get("/{name}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
