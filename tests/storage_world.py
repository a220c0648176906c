"""A generation service's word in a real log, a backlog in a real Postgres, and copies pretended.

For what is about order, leases and the log. Bytes are moved for real in `tests/faults`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

from shared.contracts.envelope import Context, seal
from shared.contracts.facts import Output, StoredObject
from shared.contracts.generation_events import GenerationCompleted
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.port import NOTHING_YET
from shared.messaging.connection import connected
from shared.postgres.connecting import connect, open_pool
from shared.projection.batch import Decoding
from shared.projection.runner import Projector
from shared.projection.tables import ensure
from shared.projection.waiting import PositionWatch
from storage_svc.adapters.postgres_backlog import PostgresBacklog
from storage_svc.adapters.postgres_report import PostgresReport
from storage_svc.application.recording import Recorder
from storage_svc.application.store_output import StoreOutput
from storage_svc.application.workers import Workers, WorkerSettings
from storage_svc.read_model.model import NAME, BacklogModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from shared.contracts.events import AnyEvent
    from shared.contracts.generation_events import GenerationEvent
    from shared.media.copying import CopyOrder
    from shared.projection.runner import Projector as AnyProjector
    from storage_svc.read_model.rows import Backlog

DEADLINE_S = 45.0


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class PretendedCopier:
    """Keeps what it was asked for, in order; `step` may wait or raise."""

    step: Callable[[CopyOrder], Awaitable[None]] | None = None
    orders: list[CopyOrder] = field(default_factory=list["CopyOrder"])
    at_once: int = 0
    most_at_once: int = 0

    async def copy(self, order: CopyOrder) -> StoredObject:
        self.orders.append(order)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.step is not None:
                await self.step(order)
        finally:
            self.at_once -= 1
        return StoredObject(
            bucket="media",
            key=f"{order.user_id}/{order.generation_id}/{order.output_index}-ab.png",
            size_bytes=5,
            sha256="ab" * 32,
            media_type="image/png",
        )

    def names(self) -> list[str]:
        return [order.generation_id for order in self.orders]


@dataclass
class World:
    log: JetStreamLog
    backlog: PostgresBacklog
    report: PostgresReport
    projector: AnyProjector[Backlog]
    watch: PositionWatch
    _numbers: count[int] = field(default_factory=lambda: count(1))

    async def completed(
        self,
        generation_id: str,
        *,
        dies_in: timedelta = timedelta(hours=1),
        outputs: int = 1,
        user: str = "ann",
        url: str = "https://media.example/{id}/{index}.png",
        request_id: str | None = None,
    ) -> None:
        event = GenerationCompleted(
            user_id=user,
            provider="sandbox",
            model="painter",
            request_id=request_id,
            outputs=tuple(
                Output(
                    index=index,
                    source_url=url.format(id=generation_id, index=index),
                    expires_at=now() + dies_in,
                )
                for index in range(outputs)
            ),
        )
        envelope = seal(
            event, generation_id=generation_id, at=now(), context=Context(source="tests")
        )
        await self.log.append("generation", generation_id, [envelope], expected=NOTHING_YET)

    async def hears(self, generation_id: str, event: GenerationEvent) -> None:
        """What the generation service says later."""
        history = await self.log.load("generation", generation_id)
        envelope = seal(
            event, generation_id=generation_id, at=now(), context=Context(source="tests")
        )
        await self.log.append("generation", generation_id, [envelope], expected=history.version)

    async def level(self) -> None:
        await self.watch.wait_for(await self.log.last_position(), timeout_s=DEADLINE_S)

    async def said(self, generation_id: str) -> list[AnyEvent]:
        history = await self.log.load("storage", generation_id)
        return [recorded.envelope.data for recorded in history.events]  # pyright: ignore[reportReturnType] - none is unknown

    def workers(
        self,
        copier: PretendedCopier,
        *,
        concurrency: int = 4,
        lease_s: float = 30.0,
        drain_s: float = 5.0,
    ) -> Workers:
        store = StoreOutput(
            copier, Recorder(self.log, clock=now, source="tests"), clock=now, jitter=lambda: 0.0
        )
        return self.workers_with(store, concurrency, lease_s, drain_s)

    def workers_with(
        self,
        store: StoreOutput,
        concurrency: int = 4,
        lease_s: float = 30.0,
        drain_s: float = 5.0,
    ) -> Workers:
        return Workers(
            backlog=self.backlog,
            store=store,
            clock=now,
            jitter=lambda: 0.0,
            settings=WorkerSettings(
                owner=f"tests-{next(self._numbers)}",
                concurrency=concurrency,
                lease_s=lease_s,
                drain_s=drain_s,
            ),
        )

    @asynccontextmanager
    async def at_work(self, workers: Workers) -> AsyncGenerator[asyncio.Task[None]]:
        """The workers, woken as the service wakes them, until the context ends."""

        async def wake() -> None:
            while True:
                seen = self.watch.position
                workers.wake()
                await self.watch.wait_for(seen + 1, timeout_s=3600)

        tasks = [asyncio.create_task(workers.run()), asyncio.create_task(wake())]
        try:
            yield tasks[0]
        finally:
            workers.stop()
            await tasks[0]
            tasks[1].cancel()
            await asyncio.gather(tasks[1], return_exceptions=True)

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something holds, looked at each time that the backlog moves."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                seen = self.watch.position
                if await holds():
                    return
                await self.watch.wait_for(seen + 1, timeout_s=DEADLINE_S)

    async def until_pending(self, outputs: int) -> None:
        async def holds() -> bool:
            await self.level()
            return (await self.report.summary(now())).pending == outputs

        await self.until(holds)


@asynccontextmanager
async def open_world(
    *, nats_url: str, subject_root: str, stream: str, database: str, projecting: bool = True
) -> AsyncGenerator[World]:
    """The world of one test; without `projecting` it takes a service to fill the backlog."""
    subjects = Subjects(subject_root)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(nats_url, name="tests"))
        await ensure_stream(connection, StreamDeclaration(name=stream, subjects=subjects))
        log = JetStreamLog(connection, subjects, stream=stream)
        pool = await open_pool(database, schema=NAME, application_name="tests")
        stack.push_async_callback(pool.close)
        connecting = await connect(database, schema=NAME, application_name="tests")
        await ensure(connecting, NAME, BacklogModel())
        await connecting.close()
        projector = Projector(database, log, BacklogModel(), Decoding(subjects))
        watch = PositionWatch(database, NAME)
        if projecting:
            await stack.enter_async_context(projector.running())
        await stack.enter_async_context(watch.running())
        yield World(log, PostgresBacklog(pool), PostgresReport(pool), projector, watch)
