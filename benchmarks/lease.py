"""What deciding costs: outputs leased, recorded and projected a second, with no bytes moved.

The backlog holds 1,000, 100,000 and 1,000,000 outputs meanwhile; the speed is to be the same.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure, middle
from benchmarks.nats import nats_with_log
from shared.contracts.envelope import Context, seal
from shared.contracts.events import GenerationCompleted, Output, StoredObject
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
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

    from shared.media.copying import CopyOrder

_BACKLOGS: Final = (1_000, 100_000, 1_000_000)
_OUTPUTS: Final = 1_000
_ROUNDS: Final = 3
_CONCURRENCY: Final = 32
_SUBJECTS: Final = Subjects()
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
    """Outputs a second at each size; the smallest backlog is what the others stand beside."""
    chosen = ports.choose({"postgres": 25432}, room / "postgres-ports.json")
    server = PostgresServer(room, port=chosen["postgres"], owned=True)
    server.initialise()
    server.process.start()
    try:
        server.ensure_databases()
        dsn = server.dsn("velro_storage", role="velro_storage")
        async with nats_with_log(room) as nats, _bench(JetStreamLog(nats, _SUBJECTS), dsn) as bench:
            recorded: dict[int, float] = {}
            leased: dict[int, float] = {}
            filled = 0
            for size in _BACKLOGS:
                await _fill(bench.connection, filled, size)
                filled = size
                rounds = [await _recorded(bench, f"s{size}r{number}") for number in range(_ROUNDS)]
                recorded[size] = middle(rounds)
                leased[size] = middle([await _leased(bench) for _ in range(_ROUNDS)])
    finally:
        server.process.stop()
    return [
        *_figures("lease", leased),
        *_figures("lease_and_record", recorded),
    ]


def _figures(name: str, speeds: dict[int, float]) -> list[Figure]:
    smallest, *larger = speeds.items()
    beside = {f"with {smallest[0]:,} outputs waiting": smallest[1]}
    return [Figure(f"{name}_{size}", "outputs/s", speed, beside) for size, speed in larger]


@asynccontextmanager
async def _bench(log: JetStreamLog, dsn: str) -> AsyncGenerator[_Bench]:
    pool = await open_pool(dsn, schema=NAME, application_name="benchmark")
    projector = Projector(dsn, log, BacklogModel(), Decoding(_SUBJECTS))
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


async def _fill(connection: Connection[Record], before: int, size: int) -> None:
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
        from generate_series($1::integer + 1, $2::integer) as n
        """,
        before,
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
