"""A NATS server of a benchmark's own, syncing before it acknowledges as Velro's always do."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.connection import connected
from velro.stack import ports
from velro.stack.nats import nats_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from nats.aio.client import Client


@asynccontextmanager
async def nats_with_log(room: Path) -> AsyncGenerator[Client]:
    """A connection to a server with an empty log."""
    chosen = ports.choose({"nats": 24222, "monitor": 28222}, room / "ports.json")
    server = nats_server(room, port=chosen["nats"], monitor_port=chosen["monitor"], owned=True)
    server.start()
    try:
        async with connected(f"nats://127.0.0.1:{chosen['nats']}", name="benchmark") as connection:
            await ensure_stream(connection, StreamDeclaration())
            yield connection
    finally:
        server.stop()
