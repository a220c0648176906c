"""Parts examined one by one, and servers that are set up as they should not be."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.guarded_nats import configured_nats
from velro.stack import ports
from velro.stack.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from velro.doctor.findings import Finding, Part


async def examined(part: Part[Any]) -> dict[str, Finding]:
    """The findings of a part, by the name of the check without that of the part."""
    findings = await part.examined(deadline_s=10)
    return {found.check.removeprefix(f"{part.name}: "): found for found in findings}


@contextmanager
def careless_nats(directory: Path) -> Generator[tuple[str, str]]:
    """A server with JetStream and every default; its address, and that of its monitoring."""
    with configured_nats(directory, jetstream="") as configured:
        yield f"nats://127.0.0.1:{configured.port}", configured.monitor_url


@contextmanager
def careless_postgres(directory: Path) -> Generator[str]:
    """A server that does not sync, with room for a few; the superuser's address."""
    chosen = ports.choose(dict.fromkeys(("postgres",)), directory / "ports.json")
    server = PostgresServer(directory, port=chosen["postgres"], owned=True)
    instead = {
        "fsync=on": "fsync=off",
        "synchronous_commit=on": "synchronous_commit=off",
        "max_connections=200": "max_connections=10",
    }
    process = server.process
    process.argv = [instead.get(word, word) for word in process.argv]
    server.initialise()
    process.start()
    try:
        yield server.dsn()
    finally:
        process.kill()
