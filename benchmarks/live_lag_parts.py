"""The other processes of `live_lag`: a projector, as a service runs it, and who watches the rows.

`python -m benchmarks.live_lag_parts project <generation|storage> <nats> <dsn>`, or
`… watch <file> <schema>=<dsn>…`: at SIGTERM the file gets what was heard, as
`{schema: [[when, position], …]}` with `when` on the clock that all processes share.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from contextlib import aclosing, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

import asyncpg
import structlog
import uvloop

from generation_svc.read_model.model import GenerationModel
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.messaging.connection import connected
from shared.projection.batch import Decoding
from shared.projection.runner import Projector
from shared.projection.tables import channel_of
from storage_svc.read_model.model import BacklogModel

READ_ALONE: Final = "read"
_MODELS: Final = {"generation": GenerationModel, "storage": BacklogModel}


def _told_to_stop() -> asyncio.Event:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    return stopped


async def project(name: str, nats_url: str, dsn: str) -> None:
    """Project until SIGTERM."""
    stopped = _told_to_stop()
    subjects = Subjects()
    async with connected(nats_url, name=f"live_lag {name}") as connection:
        log = JetStreamLog(connection, subjects)
        projector: Projector[Any] = Projector(dsn, log, _MODELS[name](), Decoding(subjects))
        async with projector.running():
            _say_ready()
            await stopped.wait()


async def watch(file: Path, nats_url: str, *places: str) -> None:
    """Note when each position was heard of: from Postgres, and from the log itself."""
    stopped = _told_to_stop()
    heard: dict[str, list[tuple[float, int]]] = {READ_ALONE: []}
    connections: list[Any] = []
    for place in places:
        schema, _, dsn = place.partition("=")
        noted = heard[schema] = []

        def note(*told: Any, noted: list[tuple[float, int]] = noted) -> None:  # noqa: ANN401 - as asyncpg calls it
            noted.append((monotonic(), int(told[3])))

        connection: Any = await asyncpg.connect(dsn)
        await connection.add_listener(channel_of(schema), note)
        connections.append(connection)
    async with connected(nats_url, name="live_lag watch") as nats:
        log = JetStreamLog(nats, Subjects())
        after = await log.last_position()
        reading = asyncio.create_task(_read(log, after, heard[READ_ALONE]))
        _say_ready()
        await stopped.wait()
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    for connection in connections:
        await connection.close()
    await asyncio.to_thread(file.write_text, json.dumps(heard))


def _say_ready() -> None:
    print("ready", flush=True)


async def _read(log: JetStreamLog, after: int, noted: list[tuple[float, int]]) -> None:
    async with aclosing(log.read(after=after)) as source:
        async for records in source:
            noted.append((monotonic(), records[-1].position))  # noqa: PERF401 - it never ends


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    what, *arguments = sys.argv[1:]
    if what == "project":
        uvloop.run(project(*arguments))
    else:
        uvloop.run(watch(Path(arguments[0]), *arguments[1:]))
