"""Keeps the subscription to the log alive, whatever NATS does, and says how it fares."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import AckPolicy as ConsumerAck
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from generation_svc.adapters.nats_runner.broker import (
    BROKEN,
    PULL_S,
    Broker,
    PatientSubscription,
    be_patient,
    stop,
)
from shared.errors import TryLater, in_words
from shared.messaging.jetstream import ensure_consumer, jetstream_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from faststream.nats import NatsMessage
    from nats.aio.client import Client
    from nats.js import JetStreamContext
    from nats.js.api import ConsumerInfo

    from generation_svc.adapters.nats_runner.dead_letters import DeadLetters
    from generation_svc.adapters.nats_runner.delivery import Deliveries
    from shared.contracts.subjects import Subjects
    from shared.messaging.access import NatsAccess

log = structlog.get_logger()

DURABLE = "generation-runner"
RETRY_DURABLE = "generation-runner-retry"
AFTERCARE_DURABLE = "generation-aftercare"
# What the provider is asked after the end is asked for within minutes of it, or not at all.
_AFTERCARE_LOOKS_BACK = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """How the runner subscribes.

    Attributes:
        access: where NATS is, and what lets us in.
        max_workers: generations run at once in this process.
        check_every_s: the beat in which connection and consumers are looked at.
        disconnected_for_s: a connection that stays away longer is given up and made anew.
        stalled_for_s: messages wait, workers are free and nothing comes: subscribe anew.
    """

    access: NatsAccess
    stream: str
    max_workers: int = 64
    check_every_s: float = 1.0
    disconnected_for_s: float = 10.0
    stalled_for_s: float = 30.0


@dataclass(slots=True)
class RunnerHealth:
    """What is known of the runner now. `problem` is None while it takes work."""

    problem: str | None = "not started"
    waiting: int = 0


@dataclass(slots=True)
class Runner:
    """Subscribes, watches the subscription, and subscribes again when it has died.

    To be connected is not enough: a consumer that was deleted on the server is polled for ever
    without a word.
    """

    settings: RunnerSettings
    subjects: Subjects
    deliveries: Deliveries
    aftercare: Deliveries
    dead_letters: DeadLetters
    begin_at: Callable[[], Awaitable[int]]
    health: RunnerHealth = field(default_factory=RunnerHealth)
    _delivered: int = 0
    _delivered_at: float = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Take work until told to stop."""
        failures = 0
        while not stopping.is_set():
            try:
                async with self._subscribed() as jetstream:
                    failures = 0
                    self.health.problem = None
                    log.info("runner_subscribed", durable=DURABLE)
                    await self._watch(jetstream, stopping)
            except (*BROKEN, TryLater) as error:
                failures += 1
                self.health.problem = in_words(error)
                log.warning("runner_without_log", why=self.health.problem, failures=failures)
            if not stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(10.0, 0.25 * 2 ** min(failures, 6))):
                        await stopping.wait()
        self.health.problem = "stopped"

    @contextlib.asynccontextmanager
    async def _subscribed(self) -> AsyncGenerator[JetStreamContext]:
        broker = Broker(
            self.settings.access,
            DURABLE,
            ack_policy=AckPolicy.MANUAL,
            graceful_timeout=None,  # jobs are drained by their owner
            apply_types=False,
            logger=None,
            decoder=_whole_message,
        )
        pulls: list[PatientSubscription] = []
        connection: Client | None = None
        try:
            async with asyncio.timeout(10):
                connection = await broker.connect()
                jetstream = jetstream_of(connection)
                await self._ensure_consumers(jetstream)
                retries = self.dead_letters.retry_subjects
                requests = self.subjects.every("generation")
                subscribers = [
                    self._subscriber(broker, DURABLE, requests, self.deliveries.on_event),
                    self._subscriber(
                        broker, AFTERCARE_DURABLE, self.subjects.whole, self.aftercare.on_event
                    ),
                    self._subscriber(broker, RETRY_DURABLE, retries, self.deliveries.on_retry),
                ]
                await broker.start()
                pulls = [be_patient(subscriber) for subscriber in subscribers]
            yield jetstream
        finally:
            await asyncio.gather(*(pull.end() for pull in pulls))
            await stop(broker, connection)

    def _subscriber(
        self,
        broker: NatsBroker,
        durable: str,
        subjects: str,
        handler: Callable[[NatsMessage], Awaitable[None]],
    ) -> Any:  # noqa: ANN401 - FastStream does not export the class
        retry = durable == RETRY_DURABLE
        stream = self.dead_letters.retry_stream if retry else self.settings.stream
        subscriber = broker.subscriber(
            subjects,
            stream=JStream(stream, declare=False),
            durable=durable,
            # One message a pull: a message that is pulled and has no worker yet would wait
            # without a sign of life, and be delivered a second time.
            pull_sub=PullSub(batch_size=1, timeout=PULL_S),
            max_workers=self.settings.max_workers,
            ack_policy=AckPolicy.MANUAL,
        )
        subscriber(handler)
        return subscriber

    async def _ensure_consumers(self, jetstream: JetStreamContext) -> None:
        """Create the durables, or bring an older one's settings up to date."""
        # A durable that was deleted starts again where the first request is that may not be done;
        # one that is done is loaded and left alone. Where this process last saw it says nothing:
        # the stream may be another one by now, and end before that.
        try:
            existing = (await jetstream.consumer_info(self.settings.stream, DURABLE)).config
        except NotFoundError:
            start_at: int | None = await self.begin_at()
            deliver_from = DeliverPolicy.BY_START_SEQUENCE
        else:
            start_at, deliver_from = existing.opt_start_seq, existing.deliver_policy
        await ensure_consumer(
            jetstream,
            self.settings.stream,
            ConsumerConfig(
                durable_name=DURABLE,
                filter_subject=self.subjects.every("generation"),
                deliver_policy=deliver_from,
                opt_start_seq=start_at,
                **self._common(),
            ),
        )
        await self._ensure_aftercare(jetstream)
        await ensure_consumer(
            jetstream,
            self.dead_letters.retry_stream,
            ConsumerConfig(
                durable_name=RETRY_DURABLE,
                filter_subject=self.dead_letters.retry_subjects,
                **self._common(),
            ),
        )

    async def _ensure_aftercare(self, jetstream: JetStreamContext) -> None:
        stream = self.settings.stream
        try:
            existing = (await jetstream.consumer_info(stream, AFTERCARE_DURABLE)).config
        except NotFoundError:
            start_time: datetime | None = datetime.now(UTC) - _AFTERCARE_LOOKS_BACK
            deliver_from = DeliverPolicy.BY_START_TIME
        else:
            start_time, deliver_from = existing.opt_start_time, existing.deliver_policy
        await ensure_consumer(
            jetstream,
            stream,
            ConsumerConfig(
                durable_name=AFTERCARE_DURABLE,
                filter_subject=self.subjects.whole,
                deliver_policy=deliver_from,
                opt_start_time=start_time,
                **self._common(),
            ),
        )

    def _common(self) -> dict[str, Any]:
        return {
            "ack_policy": ConsumerAck.EXPLICIT,
            "ack_wait": self.deliveries.policy.ack_wait_s,
            "max_deliver": -1,  # giving up is the delivery policy's, with a dead letter
            "max_ack_pending": 10_000,
        }

    async def _watch(self, jetstream: JetStreamContext, stopping: asyncio.Event) -> None:
        """Return when the subscription is no longer worth having, or it is time to stop."""
        heard_at = monotonic()
        self._delivered_at = heard_at
        while not stopping.is_set():
            try:
                info = await jetstream.consumer_info(self.settings.stream, DURABLE, timeout=2)
                await jetstream.consumer_info(self.settings.stream, AFTERCARE_DURABLE, timeout=2)
                await jetstream.consumer_info(
                    self.dead_letters.retry_stream, RETRY_DURABLE, timeout=2
                )
            except NotFoundError:
                log.warning("consumer_gone", durable=DURABLE)
                self.health.problem = "its consumer was deleted on the server"
                return
            except BROKEN as error:
                self.health.problem = f"no answer from the log: {type(error).__name__}"
                if monotonic() - heard_at > self.settings.disconnected_for_s:
                    raise
            else:
                heard_at = monotonic()
                self.health.problem = None
                if self._stalled(info):
                    log.warning("consumer_stalled", durable=DURABLE, waiting=info.num_pending)
                    self.health.problem = "messages wait and none is delivered"
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.check_every_s):
                    await stopping.wait()

    def _stalled(self, info: ConsumerInfo) -> bool:
        delivered = info.delivered.consumer_seq if info.delivered else 0
        self.health.waiting = info.num_pending or 0
        free = self.settings.max_workers - self.deliveries.running
        if delivered != self._delivered or not info.num_pending or free <= 0:
            self._delivered, self._delivered_at = delivered, monotonic()
        return monotonic() - self._delivered_at > self.settings.stalled_for_s


async def _whole_message(message: NatsMessage) -> NatsMessage:
    """Hand the message itself to the handler: it decodes, and answers when the work is done."""
    return message
