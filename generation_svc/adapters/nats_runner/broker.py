"""FastStream's broker, so that it lives with whatever NATS does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

import nats.errors
import structlog
from faststream.nats import NatsBroker

from shared.messaging.connection import close_if_silent, connect

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

    from shared.messaging.access import NatsAccess

log = structlog.get_logger()

PULL_S: Final = 1.0
"""How long a pull waits for a message; stopping waits for the last one."""

# What NATS going away, coming back, refusing or forgetting looks like from here.
BROKEN = (nats.errors.Error, OSError, TimeoutError)

# Within less than all of a subscription may take, so that what was in the way is told.
_CONNECT_S: Final = 5.0


class Broker(NatsBroker):
    """FastStream's, over a connection that is made like all others of Velro's."""

    def __init__(self, access: NatsAccess, name: str, **options: Any) -> None:  # noqa: ANN401 - FastStream's, handed on
        super().__init__(**options)
        self._access = access
        self._name = name

    async def _connect(self) -> Client:
        connection = await connect(self._access, name=self._name, timeout_s=_CONNECT_S)
        self.config.connect(connection)
        return connection


async def stop(broker: NatsBroker, connection: Client | None) -> None:
    """Take a broker down, whatever state its connection is in; another one will follow."""
    try:
        async with asyncio.timeout(10):
            if connection is not None:
                await close_if_silent(connection)
            await broker.stop()
    except* BROKEN as group:
        log.info("broker_not_stopped_cleanly", why=[str(error) for error in group.exceptions])


class PatientSubscription:
    """A pull subscription that waits after an error, and ends with no message on its way.

    FastStream pulls in a loop that swallows errors: on a closed connection or a deleted consumer
    that loop never yields, and freezes the process. When it stops, it drops the subscription while
    the server still answers its last pull: that message would wait for its whole ack_wait.
    """

    def __init__(self, inner: JetStreamContext.PullSubscription, wait_s: float = 0.5) -> None:
        self._inner = inner
        self._wait_s = wait_s
        self._ending = False
        self._ended = asyncio.Event()

    async def fetch(self, *, batch: int, timeout: float | None) -> list[Msg]:  # noqa: ASYNC109 - FastStream's call
        """What FastStream calls, again and again."""
        if self._ending:
            # It calls again when the message of the call before has a worker.
            self._ended.set()
            await asyncio.sleep(self._wait_s)
            return []
        try:
            messages = await self._inner.fetch(batch=batch, timeout=timeout)
            if self._ending:
                for message in messages:
                    await message.nak()
                return []
        except nats.errors.TimeoutError:
            raise  # nothing came within the pull's own time: that was wait enough
        except nats.errors.Error:
            await asyncio.sleep(self._wait_s)
            raise
        return messages

    async def end(self) -> None:
        """Pull no more; return when the last pull's message has a worker, or after two pulls."""
        self._ending = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * PULL_S):
                await self._ended.wait()

    async def unsubscribe(self) -> None:
        """What FastStream calls when it stops."""
        # A connection that is closed has no subscriptions left; FastStream's stop ends there.
        with contextlib.suppress(nats.errors.Error):
            await self._inner.unsubscribe()


def be_patient(subscriber: Any) -> PatientSubscription:  # noqa: ANN401 - FastStream does not export the class
    """Let a subscriber that was started pull so."""
    inner = cast("JetStreamContext.PullSubscription", subscriber.subscription)
    patient = PatientSubscription(inner)
    subscriber.subscription = patient
    return patient
