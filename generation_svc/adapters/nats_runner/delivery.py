"""What becomes of one delivered message: done, again later, or a dead letter."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import nats.errors
import structlog

from generation_svc.adapters.nats_runner.dead_letters import DeadLetter
from shared.contracts.codec import Undecodable
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
)
from shared.errors import Refused, TryLater, VelroError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faststream.nats import NatsMessage

    from generation_svc.adapters.nats_runner.dead_letters import DeadLetters
    from shared.contracts.codec import Codec

log = structlog.get_logger()


ENDINGS = (GenerationCompleted, GenerationFailed, GenerationCancelled)

# Set when the log says that the generation whose run this task is has ended: a webhook completed
# it, or somebody cancelled it, and the run need not hold a worker until its next poll.
_NEWS: ContextVar[asyncio.Event | None] = ContextVar("_NEWS", default=None)


class ShuttingDown(TryLater):
    """The service is stopping; the run goes on where it is started again."""


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How long work is held and how often it is tried.

    Attributes:
        ack_wait_s: a message not heard of for so long is delivered again; a third of it is the
            beat in which running work says that it is alive.
        max_deliveries: deliveries before the work becomes a dead letter.
        first_delay_s: the wait after the first failure; it doubles up to `longest_delay_s`.
    """

    ack_wait_s: float = 30.0
    max_deliveries: int = 10
    first_delay_s: float = 2.0
    longest_delay_s: float = 300.0

    def redelivery_delay_s(self, deliveries: int) -> float:
        """How long to wait before the next delivery: twice as long each time."""
        return min(self.longest_delay_s, self.first_delay_s * 2.0 ** (deliveries - 1))


class Interruptions:
    """The waits of all runs, which a shutdown ends."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether no run is to begin or to wait any more."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """End every wait, now and from now on."""
        self._stopping.set()

    async def pause(self, seconds: float) -> None:
        """Wait, the one place where a run may be interrupted; no longer once the log has its end.

        Raises:
            ShuttingDown: the service stops now.
        """
        news = _NEWS.get()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stopping, news) if event]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if news is not None:
            news.clear()
        if self.stopping:
            raise ShuttingDown("the service is shutting down")


@dataclass(slots=True)
class _Job:
    generation_id: str
    position: int
    messages: list[NatsMessage]
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Deliveries:
    """Runs the work that messages ask for, one job a generation, and answers every message.

    A job belongs to this object and not to the subscription that delivered it: a subscription
    that has to be built again ends no paid call in the middle.

    Attributes:
        run: does what one generation needs.
        begins: whether an event says that there is something to do.
    """

    run: Callable[[str], Awaitable[None]]
    begins: Callable[[object], bool]
    codec: Codec
    dead_letters: DeadLetters
    interruptions: Interruptions
    policy: DeliveryPolicy = field(default_factory=DeliveryPolicy)
    _jobs: dict[str, _Job] = field(default_factory=dict[str, _Job])

    @property
    def running(self) -> int:
        """How many jobs are running."""
        return len(self._jobs)

    async def drain(self, deadline_s: float) -> None:
        """Let every job come to its next pause, for so long at the most."""
        self.interruptions.stop()
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=deadline_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def on_event(self, message: NatsMessage) -> None:
        """A message of the log: some events begin a job, the others are news to a running one."""
        try:
            envelope = self.codec.decode(message.raw_message.data)
        except Undecodable as error:
            # Its aggregate cannot be loaded either, so nothing can run; projections park it.
            log.warning("event_undecodable", subject=message.raw_message.subject, why=str(error))
            await self._answer(message, message.reject)
            return
        if self.begins(envelope.data):
            await self._start(envelope.subject, message)
            return
        job = self._jobs.get(envelope.subject)
        if job is not None and isinstance(envelope.data, ENDINGS):
            job.news.set()
        await self._answer(message, message.ack)

    async def on_retry(self, message: NatsMessage) -> None:
        """A retry that a person asked for."""
        await self._start(message.raw_message.subject.rpartition(".")[2], message)

    async def _start(self, generation_id: str, message: NatsMessage) -> None:
        if self.interruptions.stopping:
            await self._answer(message, message.nack)
            return
        job = self._jobs.get(generation_id)
        if job is None:
            position = message.raw_message.metadata.sequence.stream
            job = _Job(generation_id, position, [message])
            self._jobs[generation_id] = job
            job.task = asyncio.create_task(self._work(job), name=f"run {generation_id}")
        else:
            job.messages.append(message)  # delivered again while it runs: answered at its end
        assert job.task is not None
        await asyncio.shield(job.task)

    async def _work(self, job: _Job) -> None:
        _NEWS.set(job.news)
        beat = asyncio.create_task(self._say_alive(job), name=f"alive {job.generation_id}")
        try:
            await self._settle(job)
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
            del self._jobs[job.generation_id]

    async def _settle(self, job: _Job) -> None:
        deliveries = job.messages[0].raw_message.metadata.num_delivered
        if deliveries > self.policy.max_deliveries:
            unsettled = Refused(
                f"delivered {deliveries} times and never settled: "
                "it ends the process that runs it, or never comes to an end"
            )
            await self._give_up(job, deliveries, unsettled)
            return
        try:
            await self.run(job.generation_id)
        except ShuttingDown:
            await self._again(job, delay_s=0)
        except Refused as error:
            await self._give_up(job, deliveries, error)
        except Exception as error:
            if not isinstance(error, VelroError):
                log.exception("run_broke", generation_id=job.generation_id)
            if deliveries >= self.policy.max_deliveries:
                await self._give_up(job, deliveries, error)
                return
            delay_s = self.policy.redelivery_delay_s(deliveries)
            log.warning(
                "run_interrupted",
                generation_id=job.generation_id,
                deliveries=deliveries,
                again_in_s=delay_s,
                why=str(error),
            )
            await self._again(job, delay_s=delay_s)
        else:
            for message in job.messages:
                await self._answer(message, message.ack)

    async def _again(self, job: _Job, *, delay_s: float) -> None:
        for message in job.messages:
            await self._answer(message, lambda message=message: message.nack(delay=delay_s))

    async def _give_up(self, job: _Job, deliveries: int, error: Exception) -> None:
        letter = DeadLetter(
            generation_id=job.generation_id,
            position=job.position,
            deliveries=deliveries,
            reason=type(error).__name__,
            detail=str(error),
            at=datetime.now(UTC),
        )
        try:
            await self.dead_letters.park(letter)
        except (nats.errors.Error, TimeoutError) as unparked:
            # Not rejected before it is parked: the next delivery comes here again.
            log.warning("dead_letter_not_kept", generation_id=job.generation_id, why=str(unparked))
            await self._again(job, delay_s=self.policy.redelivery_delay_s(deliveries))
            return
        log.error("dead_letter", **letter.model_dump(mode="json"))
        for message in job.messages:
            await self._answer(message, message.reject)

    async def _say_alive(self, job: _Job) -> None:
        while True:
            await asyncio.sleep(self.policy.ack_wait_s / 3)
            for message in job.messages:
                await self._answer(message, message.in_progress)

    async def _answer(self, message: NatsMessage, answer: Callable[[], Awaitable[None]]) -> None:
        try:
            await answer()
        except nats.errors.Error as error:
            # An answer that is lost is a redelivery, and a redelivery of done work is nothing.
            log.info("answer_lost", subject=message.raw_message.subject, why=str(error))
