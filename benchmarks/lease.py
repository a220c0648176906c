"""What deciding costs: outputs leased, recorded and projected a second, with no bytes moved.

The backlog holds 1,000, 100,000 and 1,000,000 outputs meanwhile; the speed is to be the same. Each
size has a database and a stream of its own on the same two servers, and they take turns, so that
what else the machine does meets all of them alike.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure, middle
from benchmarks.nats import nats_with_log
from shared.contracts.envelope import Context, seal
from shared.contracts.facts import Output, StoredObject
from shared.contracts.generation_events import GenerationCompleted
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.port import Addition
from shared.postgres.connecting import connect, open_pool
from shared.projection.batch import Decoding
from shared.projection.runner import Projector
from shared.projection.waiting import PositionWatch
from storage_svc.adapters.postgres_backlog import PostgresBacklog
from storage_svc.application.recording import Recorder
from storage_svc.application.store_output import StoreOutput
from storage_svc.application.workers import Workers, WorkerSettings
from storage_svc.read_model.model import NAME, BacklogModel
from velro.stack import ports
from velro.stack.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from asyncpg import Connection, Record
    from nats.aio.client import Client

    from shared.media.copying import CopyOrder

_BACKLOGS: Final = (1_000, 100_000, 1_000_000)
_OUTPUTS: Final = 1_000
_ROUNDS: Final = 5
_CONCURRENCY: Final = 32
_DEADLINE_S: Final = 120.0


class _NoCopier:
    """Everything is stored at once."""

    async def copy(self, order: CopyOrder) -> StoredObject:
        return StoredObject(
            bucket="media",
            key=f"{order.user_id}/{order.generation_id}/{order.output_index}-ab.png",
            size_bytes=1,
            sha256="ab" * 32,
            media_type="image/png",
        )


@dataclass(frozen=True, slots=True)
class _Bench:
    log: JetStreamLog
    backlog: PostgresBacklog
    watch: PositionWatch
    connection: Connection[Record]


async def measure(room: Path) -> list[Figure]:
    """Outputs a second at the largest backlog; the smaller ones are what it stands beside."""
    chosen = ports.choose({"postgres": 25432}, room / "postgres-ports.json")
    server = PostgresServer(room, port=chosen["postgres"], owned=True)
    server.initialise()
    server.process.start()
    recorded: dict[int, list[float]] = {size: [] for size in _BACKLOGS}
    leased: dict[int, list[float]] = {size: [] for size in _BACKLOGS}
    try:
        server.ensure_databases()
        async with nats_with_log(room) as nats, AsyncExitStack() as stack:
            benches: dict[int, _Bench] = {}
            for size in _BACKLOGS:
                benches[size] = await stack.enter_async_context(_bench(nats, server, size))
                await _fill(benches[size].connection, size)
            # The first round warms caches and plans, and is not counted.
            for number in range(-1, _ROUNDS):
                for size, bench in benches.items():
                    speeds = await _recorded(bench, f"r{number}"), await _leased(bench)
                    if number >= 0:
                        recorded[size].append(speeds[0])
                        leased[size].append(speeds[1])
    finally:
        server.process.stop()
    return [_figure("lease", recorded), _figure("lease_only", leased)]


def _figure(name: str, speeds: dict[int, list[float]]) -> Figure:
    *smaller, largest = speeds
    beside = {f"with {size:,} outputs waiting": middle(speeds[size]) for size in smaller}
    return Figure(name, "outputs/s", middle(speeds[largest]), beside)


@asynccontextmanager
async def _bench(nats: Client, server: PostgresServer, size: int) -> AsyncGenerator[_Bench]:
    subjects = Subjects(f"backlog{size}")
    name = f"backlog{size}"
    admin = await connect(server.dsn(), schema="public", application_name="benchmark")
    await admin.execute(f"create database {name} owner velro_storage")
    await admin.close()
    dsn = server.dsn(name, role="velro_storage")
    await ensure_stream(nats, StreamDeclaration(name=name, subjects=subjects))
    log = JetStreamLog(nats, subjects, stream=name)
    pool = await open_pool(dsn, schema=NAME, application_name="benchmark")
    projector = Projector(dsn, log, BacklogModel(), Decoding(subjects))
    watch = PositionWatch(dsn, NAME)
    connection = await connect(
        dsn, schema=NAME, application_name="benchmark", command_timeout_s=_DEADLINE_S
    )
    try:
        async with projector.running(), watch.running():
            yield _Bench(log, PostgresBacklog(pool), watch, connection)
    finally:
        await connection.close()
        await pool.close()


async def _fill(connection: Connection[Record], size: int) -> None:
    """Outputs that wait: half of them could be taken, half have failed and wait for their time.

    Their links die after those that are measured, so they are in the way and never taken.
    """
    async with asyncio.timeout(_DEADLINE_S):
        while not await connection.fetchval("select to_regclass('backlog') is not null"):  # noqa: ASYNC110 - the projector makes the tables, and tells nobody
            await asyncio.sleep(0.05)
    await connection.execute(
        """
        insert into backlog (
            generation_id, output_index, position, user_id, provider, source_url, source_host,
            dies_at, turn, state, attempts, next_attempt_at, reason, failed_at, ready
        )
        select 'waiting-' || n, 0, n, 'u' || n % 1000, 'fal', 'https://a/', 'a',
            now() + make_interval(days => 2, secs => n), 0, 'pending', n % 2,
            now() + make_interval(days => 1), 'bucket_unavailable', now(), n % 2 = 0
        from generate_series(1, $1::integer) as n
        """,
        size,
    )
    await connection.execute("vacuum analyze backlog")


async def _recorded(bench: _Bench, name: str) -> float:
    """From leasing to the backlog knowing what was recorded."""
    await _completed(bench, name)
    workers = Workers(
        backlog=bench.backlog,
        store=StoreOutput(
            _NoCopier(),
            Recorder(bench.log, clock=_now, source="benchmark"),
            clock=_now,
            jitter=lambda: 0.0,
        ),
        clock=_now,
        jitter=lambda: 0.0,
        settings=WorkerSettings(
            owner="benchmark", concurrency=_CONCURRENCY, lease_s=600, drain_s=10
        ),
    )
    begin = perf_counter()
    taken = await workers.run_batch(_OUTPUTS)
    await bench.watch.wait_for(await bench.log.last_position(), timeout_s=_DEADLINE_S)
    took_s = perf_counter() - begin
    if taken != _OUTPUTS:
        raise AssertionError(f"{taken} of {_OUTPUTS} outputs were taken")
    return _OUTPUTS / took_s


async def _leased(bench: _Bench) -> float:
    """Leasing alone, in the portions of a busy process, and giving back."""
    begin = perf_counter()
    refs = [
        lease.ref
        for _ in range(_OUTPUTS // _CONCURRENCY)
        for lease in await bench.backlog.lease(
            owner="benchmark",
            now=_now(),
            until=_now() + timedelta(minutes=10),
            max_rows=_CONCURRENCY,
        )
    ]
    took_s = perf_counter() - begin
    await bench.backlog.give_back(refs, owner="benchmark")
    return len(refs) / took_s


async def _completed(bench: _Bench, name: str) -> None:
    async def additions() -> AsyncGenerator[Addition, None]:
        for number in range(_OUTPUTS):
            generation_id = f"{name}-{number}"
            output = Output(
                index=0,
                source_url=f"https://a/{generation_id}",
                expires_at=_now() + timedelta(hours=1, seconds=number),
            )
            event = GenerationCompleted(
                user_id=f"u{number % 100}", provider="fal", model="m", outputs=(output,)
            )
            envelope = seal(
                event, generation_id=generation_id, at=_now(), context=Context(source="benchmark")
            )
            yield Addition("generation", generation_id, (envelope,))

    async with aclosing(bench.log.append_all(additions())) as steps:
        async for _ in steps:
            pass
    await bench.watch.wait_for(await bench.log.last_position(), timeout_s=_DEADLINE_S)


def _now() -> datetime:
    return datetime.now(UTC)
