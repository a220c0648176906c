"""What one would write first instead of a replay, on the same servers: samples, not a million."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import nats
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub

from benchmarks.histories import events
from shared.contracts.codec import Codec
from shared.contracts.subjects import Subjects
from shared.messaging.jetstream import jetstream_of

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from velro.stack.postgres import PostgresServer

FASTSTREAM_MESSAGES: Final = 3_000
EVENTSOURCING_EVENTS: Final = 10_000
_SUBJECTS: Final = Subjects()
_PULL: Final = 2_000


async def raw_nats_py(url: str, count: int) -> float:
    """nats-py alone: two overlapping pulls on one inbox, the first `count` events of the stream."""
    connection = await nats.connect(url)  # pyright: ignore[reportUnknownMemberType] - untyped in part
    try:
        consumer = f"raw-{uuid4().hex}"
        await jetstream_of(connection).add_consumer(  # pyright: ignore[reportUnknownMemberType] - untyped in part
            "VELRO",
            durable_name=consumer,
            ack_policy="none",
            mem_storage=True,  # pyright: ignore[reportArgumentType] - as the server names it
        )
        inbox, done, seen = connection.new_inbox(), asyncio.Event(), 0

        async def ask() -> None:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.VELRO.{consumer}"
            await connection.publish(subject, f'{{"batch":{_PULL}}}'.encode(), reply=inbox)

        async def take(_message: Msg) -> None:
            nonlocal seen
            seen += 1
            if seen == count:
                done.set()
            elif not seen % _PULL:
                await ask()

        subscription = await connection.subscribe(inbox, cb=take)  # pyright: ignore[reportUnknownMemberType] - untyped in part
        subscription._pending_bytes_limit = 0  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - nothing may be dropped
        begin = perf_counter()
        await ask()
        await ask()
        async with asyncio.timeout(120):
            await done.wait()
        return round(count / (perf_counter() - begin))
    finally:
        await connection.close()


async def faststream(url: str, dsn: str) -> float:
    """A handler, and in it one upsert of the row of the message."""
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=4)
    await pool.execute(
        "create table one_a_message (id text primary key, position bigint, type text, data json)"
    )
    codec, done, handled = Codec(), asyncio.Event(), 0
    broker = NatsBroker(url, logger=None)  # it would write two lines a message

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
        if handled == FASTSTREAM_MESSAGES:
            done.set()

    begin = perf_counter()
    await broker.start()
    try:
        async with asyncio.timeout(120):
            await done.wait()
        return round(FASTSTREAM_MESSAGES / (perf_counter() - begin))
    finally:
        await broker.stop()
        await pool.execute("drop table one_a_message")
        await pool.close()


async def eventsourcing(server: PostgresServer) -> float:
    """The `eventsourcing` package as its handbook uses it: a projection, its view in PostgreSQL."""
    return await asyncio.to_thread(_projected_by_eventsourcing, server)


def _projected_by_eventsourcing(server: PostgresServer) -> float:
    # Its classes type little, and it is imported where it is measured.
    from eventsourcing.application import Application  # noqa: PLC0415
    from eventsourcing.domain import Aggregate, event  # noqa: PLC0415
    from eventsourcing.postgres import PostgresTrackingRecorder  # noqa: PLC0415
    from eventsourcing.projection import Projection, ProjectionRunner  # noqa: PLC0415
    from psycopg.sql import SQL  # noqa: PLC0415

    class Generation(Aggregate):
        @event("Changed")
        def change(self, data: str) -> None:
            self.data = data

    class Generations(Application[Any]):
        pass

    class View(PostgresTrackingRecorder):
        def __init__(self, datastore: Any, **options: Any) -> None:  # noqa: ANN401 - as the package calls it
            super().__init__(datastore, **options)
            self.sql_create_statements.append(
                SQL(
                    "create table if not exists es_view (id uuid primary key, version bigint)"
                ).format()
            )

        def upsert(self, happened: Any, tracking: Any) -> None:  # noqa: ANN401 - the same
            with self.datastore.transaction(commit=True) as cursor:
                self._insert_tracking(cursor, tracking)
                cursor.execute(
                    "insert into es_view values (%s, %s) on conflict (id)"
                    " do update set version = excluded.version",
                    (happened.originator_id, happened.originator_version),
                )

    class Rows(Projection[Any]):
        # Their handbook writes it like this where all events are handled alike.
        def process_event(self, domain_event: Any, tracking: Any) -> None:  # noqa: ANN401 # pyright: ignore[reportIncompatibleVariableOverride] - as they call it
            self.view.upsert(domain_event, tracking)

    address = urlsplit(server.dsn("velro_generation", role="velro_generation"))
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": "velro_generation",
        "POSTGRES_HOST": str(address.hostname),
        "POSTGRES_PORT": str(address.port),
        "POSTGRES_USER": "velro_generation",
        "POSTGRES_PASSWORD": str(address.password),
    }
    application: Any = Generations(env=environment)
    data = next(events(1)).model_dump_json()
    for _ in range(EVENTSOURCING_EVENTS // 500):
        generations = [Generation() for _ in range(100)]
        for generation in generations:
            for _ in range(4):
                generation.change(data)
        application.save(*generations)
    last = application.recorder.max_notification_id()
    begin = perf_counter()
    with ProjectionRunner(
        application_class=Generations, projection_class=Rows, view_class=View, env=environment
    ) as runner:
        runner.wait(last, timeout=120)
        taken = perf_counter() - begin
    application.close()
    return round(EVENTSOURCING_EVENTS / taken)
