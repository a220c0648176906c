"""Bulk import, against plain nats-py sending the same bytes in the same atomic batches."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure, middle
from benchmarks.histories import events
from benchmarks.nats import nats_with_log
from shared.contracts.codec import encode
from shared.contracts.envelope import CONTENT_TYPE, UnknownEvent
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.port import MAX_BATCH_EVENTS, Addition

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from nats.aio.client import Client

    from shared.contracts.envelope import Envelope
    from shared.contracts.facts import Family

_ROUNDS: Final = 9
_EVENTS: Final = 20_000
_IN_FLIGHT: Final = 4
_SUBJECTS: Final = Subjects()

Message = tuple[str, bytes, dict[str, str]]


async def measure(room: Path) -> list[Figure]:
    """Events a second into an empty log that grows."""
    ours: list[float] = []
    raw: list[float] = []
    async with nats_with_log(room) as connection:
        log = JetStreamLog(connection, _SUBJECTS)
        for number in range(_ROUNDS + 1):
            for_us, for_them = _additions(seed=2 * number), _additions(seed=2 * number + 1)
            if number % 2:
                us = await _imported(log, for_us)
                them = await _sent(connection, for_them)
            else:
                them = await _sent(connection, for_them)
                us = await _imported(log, for_us)
            if number:  # the first round warms up
                ours.append(us)
                raw.append(them)
    beside = {"nats-py, same bytes in the same batches": middle(raw)}
    return [Figure("append_batch", "events/s", middle(ours), beside)]


def _additions(*, seed: int) -> list[Addition]:
    """The same events as a busy log has, put together by aggregate as an import finds them."""
    by_aggregate: dict[tuple[Family, str], list[Envelope]] = {}
    for envelope in events(_EVENTS, seed=seed):
        assert not isinstance(envelope.data, UnknownEvent)
        by_aggregate.setdefault((envelope.data.family, envelope.subject), []).append(envelope)
    return [
        Addition(family, generation_id, tuple(envelopes))
        for (family, generation_id), envelopes in by_aggregate.items()
    ]


async def _imported(log: JetStreamLog, additions: list[Addition]) -> float:
    async def source() -> AsyncGenerator[Addition, None]:
        for addition in additions:
            yield addition

    written = 0
    begin = perf_counter()
    async with aclosing(log.append_all(source())) as steps:
        async for step in steps:
            written += step.events_written
    taken = perf_counter() - begin
    if written != sum(len(addition.events) for addition in additions):
        raise AssertionError(f"only {written} events were written")
    return written / taken


async def _sent(connection: Client, additions: list[Addition]) -> float:
    batches = _batches(additions)
    room = asyncio.Semaphore(_IN_FLIGHT)

    async def send(batch: list[Message]) -> None:
        async with room:
            for subject, data, headers in batch[:-1]:
                await connection.publish(subject, data, headers=headers)
            subject, data, headers = batch[-1]
            answer = await connection.request(subject, data, timeout=10, headers=headers)
        if b'"error"' in answer.data:
            raise AssertionError(answer.data.decode())

    begin = perf_counter()
    await asyncio.gather(*(send(batch) for batch in batches))
    return sum(len(batch) for batch in batches) / (perf_counter() - begin)


def _batches(additions: list[Addition]) -> list[list[Message]]:
    batches: list[list[Message]] = [[]]
    for addition in additions:
        if len(batches[-1]) + len(addition.events) > MAX_BATCH_EVENTS:
            batches.append([])
        for place, envelope in enumerate(addition.events):
            headers = {
                "content-type": CONTENT_TYPE,
                "Nats-Msg-Id": envelope.id,
            }
            if place == 0:
                headers["Nats-Expected-Last-Subject-Sequence"] = "0"
            subject = _SUBJECTS.of(addition.family, addition.generation_id)
            batches[-1].append((subject, encode(envelope), headers))
    for number, batch in enumerate(batches):
        for place, (_, _, headers) in enumerate(batch, 1):
            headers["Nats-Batch-Id"] = f"{number}-{batch[0][2]['Nats-Msg-Id'][:8]}"
            headers["Nats-Batch-Sequence"] = str(place)
        batch[0][2]["Nats-Expected-Stream"] = batch[-1][2]["Nats-Expected-Stream"] = "VELRO"
        batch[-1][2]["Nats-Batch-Commit"] = "1"
    return batches
