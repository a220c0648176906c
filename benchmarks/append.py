"""One event an append, against nats-py's own publish of the same bytes under the same headers."""

from __future__ import annotations

import asyncio
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure, middle
from benchmarks.histories import events
from benchmarks.nats import nats_with_log
from shared.contracts.codec import encode
from shared.contracts.envelope import CONTENT_TYPE
from shared.contracts.generation_events import GenerationRequested
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.port import NOTHING_YET
from shared.messaging.jetstream import jetstream_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nats.js import JetStreamContext

    from shared.contracts.envelope import Envelope

# Many short rounds, so that whatever else the machine does hits both alike.
_ROUNDS: Final = 31
_SUBJECTS: Final = Subjects()
_STREAM: Final = "VELRO"


async def measure(room: Path) -> list[Figure]:
    """Events a second with 1 writer and with 64."""
    firsts = (e for e in events(1_000_000) if isinstance(e.data, GenerationRequested))
    async with nats_with_log(room) as connection:
        log = JetStreamLog(connection, _SUBJECTS)
        jetstream = jetstream_of(connection)
        return [
            await _compare(log, jetstream, firsts, writers=1, count=100),
            await _compare(log, jetstream, firsts, writers=64, count=1280),
        ]


async def _compare(
    log: JetStreamLog,
    jetstream: JetStreamContext,
    firsts: Iterator[Envelope],
    *,
    writers: int,
    count: int,
) -> Figure:
    ours: list[float] = []
    raw: list[float] = []
    for number in range(_ROUNDS + 1):
        for_us, for_them = list(islice(firsts, count)), list(islice(firsts, count))
        # The two take turns at going first, so that neither has the quieter half of a round.
        if number % 2:
            us = await _appended(log, for_us, writers)
            them = await _published(jetstream, for_them, writers)
        else:
            them = await _published(jetstream, for_them, writers)
            us = await _appended(log, for_us, writers)
        if number:  # the first round warms up
            ours.append(us)
            raw.append(them)
    return Figure(
        f"append_{writers}", "events/s", middle(ours), {"nats-py publish, same bytes": middle(raw)}
    )


async def _appended(log: JetStreamLog, envelopes: list[Envelope], writers: int) -> float:
    async def write(share: list[Envelope]) -> None:
        for envelope in share:
            await log.append("generation", envelope.subject, [envelope], expected=NOTHING_YET)

    begin = perf_counter()
    await asyncio.gather(*(write(envelopes[number::writers]) for number in range(writers)))
    return len(envelopes) / (perf_counter() - begin)


async def _published(jetstream: JetStreamContext, envelopes: list[Envelope], writers: int) -> float:
    messages = [
        (
            _SUBJECTS.generation(envelope.subject),
            encode(envelope),
            {
                "content-type": CONTENT_TYPE,
                "Nats-Msg-Id": envelope.id,
                "Nats-Expected-Stream": _STREAM,
                "Nats-Expected-Last-Subject-Sequence": "0",
            },
        )
        for envelope in envelopes
    ]

    async def write(share: list[tuple[str, bytes, dict[str, str]]]) -> None:
        for subject, data, headers in share:
            await jetstream.publish(subject, data, headers=headers)

    begin = perf_counter()
    await asyncio.gather(*(write(messages[number::writers]) for number in range(writers)))
    return len(messages) / (perf_counter() - begin)
