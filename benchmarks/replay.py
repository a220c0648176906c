"""Rebuilding the generation read model from the log, beside its limits and what else there is.

What bounds it is in the figures: everything between the log and Postgres runs in one Python
process, so its core is the limit; Postgres writes on the other one meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import resource
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub

from benchmarks.figures import Figure, middle
from benchmarks.histories import events
from benchmarks.nats import nats_with_log
from generation_svc.read_model.model import NAME, GenerationModel
from shared.contracts.codec import Codec, encode
from shared.contracts.envelope import CONTENT_TYPE, UnknownEvent
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.port import MAX_BATCH_EVENTS
from shared.postgres.connecting import connect
from shared.projection.batch import Decoding
from shared.projection.collecting import collecting_rarely
from shared.projection.rebuild import Progress, replay
from velro.stack import ports
from velro.stack.postgres import PostgresServer

if TYPE_CHECKING:
    from nats.aio.client import Client

_EVENTS: Final = 200_000
_ROUNDS: Final = 3
_FASTSTREAM_MESSAGES: Final = 3_000
_EVENTSOURCING_EVENTS: Final = 3_000
_SUBJECTS: Final = Subjects()


async def measure(room: Path) -> list[Figure]:
    """Events a second into empty tables, and what the process holds meanwhile."""
    chosen = ports.choose({"postgres": 25432}, room / "postgres-ports.json")
    server = PostgresServer(room, port=chosen["postgres"], owned=True)
    server.initialise()
    server.process.start()
    try:
        server.ensure_databases()
        async with nats_with_log(room) as nats:
            log = JetStreamLog(nats, _SUBJECTS)
            await _filled(nats, log)
            return await _measured(nats, log, server)
    finally:
        server.process.stop()


async def _measured(nats: Client, log: JetStreamLog, server: PostgresServer) -> list[Figure]:
    dsn = server.dsn("velro_generation", role="velro_generation")
    speeds: list[float] = []
    read: list[float] = []
    decoded: list[float] = []
    memory = _Memory()
    for _ in range(_ROUNDS):
        read.append(await _read(log))
        decoded.append(await _read_and_decoded(log))
        rebuilt = await replay(
            dsn, log, GenerationModel(), Decoding(_SUBJECTS), on_progress=memory.look
        )
        speeds.append(rebuilt.position / rebuilt.took_s)
    beside = {
        "the log read and dropped": middle(read),
        "read, decoded and dropped": middle(decoded),
        "COPY of the final rows": await _copied(dsn, events_of_rows=_EVENTS),
        "FastStream, one upsert a message": await _faststream(nats, dsn),
        "eventsourcing, appends to PostgreSQL": await _eventsourcing(server),
    }
    return [
        Figure("replay", "events/s", middle(speeds), beside),
        Figure(
            "replay_memory",
            "MiB",
            memory.at_the_end_mib,
            {"after a tenth of the events": memory.at_a_tenth_mib},
        ),
    ]


class _Memory:
    """What this process holds, a tenth into the first rebuild and at the end of the last."""

    def __init__(self) -> None:
        self.at_a_tenth_mib = 0.0
        self.at_the_end_mib = 0.0

    def look(self, progress: Progress) -> None:
        self.at_the_end_mib = _resident_mib()
        if not self.at_a_tenth_mib and progress.done >= progress.total / 10:
            self.at_a_tenth_mib = self.at_the_end_mib


def _resident_mib() -> float:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return round(int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20, 1)
    # Elsewhere the most that it ever was, which says the same of what only grows.
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)


async def _filled(nats: Client, log: JetStreamLog) -> None:
    """In the order of a busy log: an import would put each aggregate's events together."""
    source = iter(events(_EVENTS))
    while batch := list(islice(source, MAX_BATCH_EVENTS)):
        batch_id = uuid4().hex
        for place, envelope in enumerate(batch, 1):
            assert not isinstance(envelope.data, UnknownEvent)
            subject = _SUBJECTS.of(envelope.data.family, envelope.subject)
            headers = {
                "content-type": CONTENT_TYPE,
                "Nats-Msg-Id": envelope.id,
                "Nats-Batch-Id": batch_id,
                "Nats-Batch-Sequence": str(place),
            }
            if place < len(batch):
                await nats.publish(subject, encode(envelope), headers=headers)
            else:
                headers["Nats-Batch-Commit"] = "1"
                await nats.request(subject, encode(envelope), timeout=30, headers=headers)
    if await log.last_position() != _EVENTS:
        raise AssertionError("the log does not hold the events once each")


async def _read(log: JetStreamLog) -> float:
    begin = perf_counter()
    with collecting_rarely():
        async with aclosing(log.read(after=0, until=_EVENTS)) as batches:
            async for _ in batches:
                pass
    return _EVENTS / (perf_counter() - begin)


async def _read_and_decoded(log: JetStreamLog) -> float:
    decoding = Decoding(_SUBJECTS)
    begin = perf_counter()
    with collecting_rarely():
        async with aclosing(log.read(after=0, until=_EVENTS)) as batches:
            async for records in batches:
                await decoding.batch(records)
    return _EVENTS / (perf_counter() - begin)


async def _copied(dsn: str, *, events_of_rows: int) -> float:
    """The rows as they are at last, into the same table by COPY, in events that made them."""
    connection = await connect(dsn, schema=NAME, application_name="benchmark")
    try:
        await connection.execute("create table copied (like generations including all)")
        columns = [
            record["attname"]
            for record in await connection.fetch(
                "select attname from pg_attribute where attrelid = 'generations'::regclass"
                " and attnum > 0 and attgenerated = '' order by attnum"
            )
        ]
        rows = await connection.fetch(f"select {', '.join(columns)} from generations")  # noqa: S608 - our own names
        begin = perf_counter()
        await connection.copy_records_to_table(
            "copied", records=[tuple(row.values()) for row in rows], columns=columns
        )
        taken = perf_counter() - begin
        await connection.execute("drop table copied")
    finally:
        await connection.close()
    return round(events_of_rows / taken)


async def _faststream(nats: Client, dsn: str) -> float:
    """What one writes first: a handler, and in it one upsert of the row of the message."""
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=4)
    await pool.execute(
        "create table one_a_message (id text primary key, position bigint, type text, data json)"
    )
    codec, done, handled = Codec(), asyncio.Event(), 0
    broker = NatsBroker(
        nats.connected_url.geturl() if nats.connected_url else "",
        logger=None,  # it would write two lines a message
    )

    @broker.subscriber(
        f"{_SUBJECTS.root}.*.*",
        stream=JStream("VELRO", declare=False),
        durable=f"benchmark-{uuid4().hex}",
        pull_sub=PullSub(batch_size=100),
    )
    async def project(message: NatsMessage) -> None:  # pyright: ignore[reportUnusedFunction] - the broker calls it
        nonlocal handled
        envelope = codec.decode(message.body)
        await pool.execute(
            "insert into one_a_message values ($1, $2, $3, $4) on conflict (id) do update"
            " set position = excluded.position, type = excluded.type, data = excluded.data",
            envelope.subject,
            message.raw_message.metadata.sequence.stream,
            envelope.type,
            message.body.decode(),
        )
        handled += 1
        if handled == _FASTSTREAM_MESSAGES:
            done.set()

    begin = perf_counter()
    await broker.start()
    try:
        async with asyncio.timeout(120):
            await done.wait()
        taken = perf_counter() - begin
    finally:
        await broker.stop()
        await pool.execute("drop table one_a_message")
        await pool.close()
    return round(_FASTSTREAM_MESSAGES / taken)


async def _eventsourcing(server: PostgresServer) -> float:
    """The `eventsourcing` package as its handbook uses it, saving each event as it happens."""
    return await asyncio.to_thread(_appended_by_eventsourcing, server)


def _appended_by_eventsourcing(server: PostgresServer) -> float:
    # Its decorators type nothing, and it is imported where it is measured.
    from eventsourcing.application import Application  # noqa: PLC0415
    from eventsourcing.domain import Aggregate, event  # noqa: PLC0415

    class Generation(Aggregate):
        @event("Changed")
        def change(self, data: str) -> None:
            self.data = data

    address = urlsplit(server.dsn("velro_generation", role="velro_generation"))
    application: Any = Application[Any](
        env={
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": "velro_generation",
            "POSTGRES_HOST": str(address.hostname),
            "POSTGRES_PORT": str(address.port),
            "POSTGRES_USER": "velro_generation",
            "POSTGRES_PASSWORD": str(address.password),
        }
    )
    data = next(events(1)).model_dump_json()
    begin = perf_counter()
    for _ in range(_EVENTSOURCING_EVENTS // 5):
        generation = Generation()
        application.save(generation)
        for _ in range(4):
            generation.change(data)
            application.save(generation)
    taken = perf_counter() - begin
    application.close()
    return round(_EVENTSOURCING_EVENTS / taken)
