"""Bringing events back into a stream at the positions they had, with their ids and headers."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from shared.event_log.jetstream_api import (
    DUPLICATE_IN_BATCH,
    NOT_SENT,
    WRONG_LAST_SEQUENCE,
    ApiError,
    parse_answer,
    subscribe,
)
from shared.event_log.jetstream_wire import frame, write
from shared.event_log.port import (
    MAX_BATCH_EVENTS,
    AppendOutcomeUnknown,
    AppendRefused,
    LogMismatch,
    LogUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from shared.event_log.port import WholeRecord

_IN_FLIGHT: Final = 3
_MAX_BATCH_BYTES: Final = 8 * 1024 * 1024


async def bring_back(
    connection: Client,
    stream: str,
    source: AsyncIterable[Sequence[WholeRecord]],
    *,
    timeout_s: float = 30.0,
) -> AsyncGenerator[int, None]:
    """Append records at exactly the positions they name; yields the position reached.

    In atomic batches, each on condition that the stream ends just before it: whatever else is
    written meanwhile is found out, and nothing is written behind it. The first record must
    follow the stream's last one. Close the generator (`contextlib.aclosing`).

    Raises:
        LogMismatch: somebody else writes to the stream.
        LogUnavailable: not connected; what was answered for is written.
        AppendOutcomeUnknown: no answer in time; look where the stream ends, and go on there.
        AppendRefused: the server does not take them.
    """
    answers: dict[str, asyncio.Future[Msg]] = {}
    inbox = connection.new_inbox()

    async def answered(message: Msg) -> None:
        waiting = answers.pop(message.subject.rpartition(".")[2], None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    subscription = await subscribe(connection, f"{inbox}.*", answered)
    in_flight: deque[tuple[int, asyncio.Future[Msg]]] = deque()
    try:
        async for records in source:
            for batch in _batches(records):
                if len(in_flight) == _IN_FLIGHT:
                    yield await _reached(*in_flight.popleft(), timeout_s)
                batch_id = uuid4().hex
                answers[batch_id] = waiting = asyncio.get_running_loop().create_future()
                in_flight.append((batch[-1].position, waiting))
                await _send(connection, _frames(stream, batch, batch_id, f"{inbox}.{batch_id}"))
        while in_flight:
            yield await _reached(*in_flight.popleft(), timeout_s)
    finally:
        if not connection.is_closed:
            await subscription.unsubscribe()


async def _send(connection: Client, frames: list[bytes]) -> None:
    if not connection.is_connected:
        raise LogUnavailable("there is no connection to the log's server")
    try:
        await write(connection, frames)
    except NOT_SENT as error:
        raise LogUnavailable(f"the connection to the log's server ended: {error}") from error


async def _reached(position: int, waiting: asyncio.Future[Msg], timeout_s: float) -> int:
    try:
        async with asyncio.timeout(timeout_s):
            message = await waiting
    except TimeoutError as error:
        raise AppendOutcomeUnknown(
            f"no answer within {timeout_s} s for the batch that ends at {position}"
        ) from error
    try:
        found = int(parse_answer(message)["seq"])
    except ApiError as error:
        # The same event at another place, or another one at this: the stream is not ours alone.
        if error.err_code in WRONG_LAST_SEQUENCE or error.err_code == DUPLICATE_IN_BATCH:
            raise LogMismatch(
                f"somebody else writes to the stream (before position {position}): "
                "stop every service before the log is brought back"
            ) from error
        raise AppendRefused(f"the batch that ends at {position}: {error}") from error
    if found != position:
        raise LogMismatch(f"an event of position {position} was given position {found}")
    return found


def _batches(records: Sequence[WholeRecord]) -> Iterable[list[WholeRecord]]:
    remaining = iter(records)
    while batch := list(islice(remaining, MAX_BATCH_EVENTS)):
        while batch:
            size, taken = 0, 0
            for record in batch:
                size += len(record.data) + len(record.headers)
                if taken and size > _MAX_BATCH_BYTES:
                    break
                taken += 1
            yield batch[:taken]
            batch = batch[taken:]


def _frames(stream: str, batch: list[WholeRecord], batch_id: str, reply: str) -> list[bytes]:
    frames: list[bytes] = []
    for number, record in enumerate(batch, 1):
        lines = f"{record.headers.decode()}Nats-Batch-Id: {batch_id}\r\n"
        lines += f"Nats-Batch-Sequence: {number}\r\n"
        if number == 1:
            lines += f"Nats-Expected-Stream: {stream}\r\n"
            lines += f"Nats-Expected-Last-Sequence: {record.position - 1}\r\n"
        if number == len(batch):
            lines += "Nats-Batch-Commit: 1\r\n"
            frames.append(frame(record.subject, lines, record.data, reply=reply))
        else:
            frames.append(frame(record.subject, lines, record.data))
    return frames
