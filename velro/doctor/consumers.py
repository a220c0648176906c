"""Who takes work from the log: is anybody there, and does it get on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from generation_svc.adapters.nats_runner.dead_letters import DeadLetters
from generation_svc.adapters.nats_runner.runner import DURABLE, RETRY_DURABLE
from shared.event_log.jetstream_api import STREAM_NOT_FOUND, ApiError, ask
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.messaging.jetstream import jetstream_of
from velro.doctor.findings import Part, Verdict, green, red, yellow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nats.aio.client import Client

    from shared.settings import LogSettings

_ASK_S: Final = 2.0
_LOOK_AGAIN_S: Final = 1.5
_CONSUMER_NOT_FOUND: Final = 10014


@dataclass(frozen=True, slots=True)
class Work:
    """A connection to where work waits."""

    connection: Client
    letters: DeadLetters


def consumers_part(settings: LogSettings) -> Part[Any]:
    """The durable consumers of the runner, and what it gave up."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Work]:
        access = NatsAccess.of(settings)
        async with connected(access, name="velro doctor", timeout_s=5.0) as connection:
            jetstream = jetstream_of(connection)
            yield Work(connection, DeadLetters(jetstream, settings.stream, settings.subject_root))

    return Part(
        name="consumers",
        opened=opened,
        checks={
            DURABLE: partial(_consumer, settings.stream, DURABLE),
            RETRY_DURABLE: partial(_consumer, f"{settings.stream}_RETRY", RETRY_DURABLE),
            "dead letters": _dead_letters,
        },
        advice="see that NATS runs, and that VELRO_NATS_URL leads to it",
    )


async def _consumer(stream: str, durable: str, work: Work) -> Verdict:
    subject = f"$JS.API.CONSUMER.INFO.{stream}.{durable}"
    try:
        before = await ask(work.connection, subject, None, timeout_s=_ASK_S)
        if _at_work(before) or not before["num_waiting"]:
            await asyncio.sleep(_LOOK_AGAIN_S)
        after = await ask(work.connection, subject, None, timeout_s=_ASK_S)
    except ApiError as error:
        if error.err_code not in {_CONSUMER_NOT_FOUND, STREAM_NOT_FOUND}:
            raise
        return red("it does not exist, so no work is taken", "start the generation service")
    return judged_consumer(before, after)


def _at_work(info: dict[str, Any]) -> bool:
    return bool(info["num_pending"] or info["num_ack_pending"])


def judged_consumer(before: dict[str, Any], after: dict[str, Any]) -> Verdict:
    """What two looks at a consumer, a moment apart, say of it."""
    pending, taken = int(after["num_pending"]), int(after["num_ack_pending"])
    found = f"{pending:,} wait, {taken:,} are being worked on"
    moved = after["delivered"] != before["delivered"] or after["ack_floor"] != before["ack_floor"]
    advice = "see that the generation service runs; its /readyz says what is wrong with its runner"
    # Between two pulls nobody asks either, for a moment.
    if not int(before["num_waiting"]) and not int(after["num_waiting"]) and not taken:
        return red(f"{found}, and nobody asks for work", advice)
    if pending and not moved and not taken:
        return red(f"{found}, and nothing moves", advice)
    if pending and not moved:
        return yellow(
            f"{found}, and none ended meanwhile",
            "as many run as may: VELRO_RUNNER_WORKERS; or the provider is slow",
        )
    return green(found)


async def _dead_letters(work: Work) -> Verdict:
    letters = await work.letters.count()
    if letters:
        return yellow(
            f"{letters:,} generations were given up",
            "`velro dead-letters list` says why; mend it, then `velro dead-letters retry`",
        )
    return green("none")
