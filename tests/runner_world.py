"""A runner on a real log, with work that a test scripts."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from generation_svc.adapters.nats_runner.dead_letters import DeadLetters
from generation_svc.adapters.nats_runner.delivery import (
    Deliveries,
    DeliveryPolicy,
    Interruptions,
)
from generation_svc.adapters.nats_runner.runner import DURABLE, Runner, RunnerSettings
from shared.contracts.codec import Codec
from shared.contracts.envelope import Context, seal
from shared.contracts.generation_events import GenerationCancelled, GenerationRequested
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.messaging.jetstream import jetstream_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from nats.aio.client import Client

    from shared.contracts.subjects import Subjects

QUICK = DeliveryPolicy(ack_wait_s=2.0, max_deliveries=3, first_delay_s=0.05, longest_delay_s=0.2)


async def from_the_start() -> int:
    return 1


@dataclass
class Work:
    """What runs did, and what they are to do: `script` is called with the generation's id."""

    script: Callable[[str], Awaitable[None]] | None = None
    begun: list[str] = field(default_factory=list[str])
    done: list[str] = field(default_factory=list[str])

    async def __call__(self, generation_id: str) -> None:
        self.begun.append(generation_id)
        if self.script is not None:
            await self.script(generation_id)
        self.done.append(generation_id)


@dataclass
class RunnerWorld:
    url: str
    stream: str
    subjects: Subjects
    connection: Client
    log: JetStreamLog
    dead_letters: DeadLetters

    async def request(self, generation_id: str) -> None:
        event = GenerationRequested(user_id="ada", provider="sandbox", model="m/n", input={})
        await self._append(generation_id, event)

    async def cancel(self, generation_id: str) -> None:
        await self._append(generation_id, GenerationCancelled())

    async def _append(
        self, generation_id: str, event: GenerationRequested | GenerationCancelled
    ) -> None:
        sealed = seal(
            event, generation_id=generation_id, at=datetime.now(UTC), context=Context("tests")
        )
        await self.log.append("generation", generation_id, [sealed], expected=None)

    @asynccontextmanager
    async def running(
        self, work: Work, policy: DeliveryPolicy = QUICK, *, max_workers: int = 8
    ) -> AsyncGenerator[tuple[Runner, Interruptions]]:
        interruptions = Interruptions()
        deliver = partial(
            Deliveries,
            codec=Codec(),
            dead_letters=self.dead_letters,
            interruptions=interruptions,
            policy=policy,
        )
        deliveries = deliver(run=work, begins=lambda event: isinstance(event, GenerationRequested))
        nothing = deliver(run=work, begins=lambda _: False)
        settings = RunnerSettings(
            NatsAccess((self.url,)),
            self.stream,
            max_workers=max_workers,
            check_every_s=0.2,
            disconnected_for_s=2.0,
        )
        runner = Runner(
            settings, self.subjects, deliveries, nothing, self.dead_letters, from_the_start
        )
        stopping = asyncio.Event()
        task = asyncio.create_task(runner.run(stopping))
        try:
            await eventually(lambda: runner.health.problem is None)
            yield runner, interruptions
        finally:
            stopping.set()
            await deliveries.drain(deadline_s=2)
            await asyncio.wait_for(task, 30)

    async def settled(self) -> bool:
        """Whether the runner's consumer has delivered everything and waits for no answer."""
        info = await jetstream_of(self.connection).consumer_info(self.stream, DURABLE)
        return not info.num_pending and not info.num_ack_pending

    async def redelivered(self) -> int:
        info = await jetstream_of(self.connection).consumer_info(self.stream, DURABLE)
        return info.num_redelivered or 0


@asynccontextmanager
async def runner_world(url: str, stream: str, subjects: Subjects) -> AsyncGenerator[RunnerWorld]:
    async with connected(url, name="runner tests") as connection:
        await ensure_stream(connection, StreamDeclaration(stream, subjects))
        letters = DeadLetters(jetstream_of(connection), stream, subjects.root)
        await letters.ensure()
        log = JetStreamLog(connection, subjects, stream=stream)
        yield RunnerWorld(url, stream, subjects, connection, log, letters)


async def eventually(
    true: Callable[[], bool] | Callable[[], Awaitable[bool]], *, deadline_s: float = 25
) -> None:
    """Wait for a state."""
    async with asyncio.timeout(deadline_s):
        while True:
            found = true()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)
