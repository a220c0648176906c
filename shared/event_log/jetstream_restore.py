"""Bringing events back into a stream at the positions they had, with their ids and headers."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from shared.event_log.jetstream_api import (
    DUPLICATE_IN_BATCH,
    NOT_SENT,
    WRONG_LAST_SEQUENCE,
    ApiError,
    NoAnswer,
    ask,
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
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Awaitable,
        Callable,
        Iterable,
        Sequence,
    )

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from shared.event_log.port import WholeRecord

_IN_FLIGHT: Final = 3
_MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
_ID: Final = re.compile(rb"(?:^|\n)Nats-Msg-Id: ([^\r]*)")
# The shortest memory for ids that the server takes, set in two steps: at each change it looks at
# once for what it may forget, at the first perhaps by the setting of before, and then not again
# until that has passed.
_SHORT_WINDOWS_NS: Final = (200_000_000, 100_000_000)
# How long until it has surely forgotten.
_FORGETS_WITHIN_S: Final = 10.0
_TRY_AGAIN_S: Final = 0.1


class RepeatedId(Exception):
    """The log holds one id twice, further apart than the server remembers ids, but nearer now.

    Nothing of the batch was written. `bring_back` with `patient` takes it.
    """


async def bring_back(
    connection: Client,
    stream: str,
    source: AsyncIterable[Sequence[WholeRecord]],
    *,
    patient: bool = False,
    timeout_s: float = 30.0,
) -> AsyncGenerator[int, None]:
    """Append records at exactly the positions they name; yields the position reached.

    In atomic batches, each on condition that the stream ends just before it: whatever else is
    written meanwhile is found out, and nothing is written behind it. The first record must
    follow the stream's last one. Close the generator (`contextlib.aclosing`).

    Args:
        connection: to the server.
        stream: whose events these are.
        source: the records.
        patient: wait with an id that the server knows until it has forgotten it: inside
            `forgetful`, that is soon. One batch at a time.
        timeout_s: the deadline of a batch's answer.

    Raises:
        RepeatedId: the server knows an id; not where `patient`.
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

    async def sent(batch: list[WholeRecord]) -> asyncio.Future[Msg]:
        batch_id = uuid4().hex
        answers[batch_id] = waiting = asyncio.get_running_loop().create_future()
        await _send(connection, _frames(stream, batch, batch_id, f"{inbox}.{batch_id}"))
        return waiting

    subscription = await subscribe(connection, f"{inbox}.*", answered)
    in_flight: deque[tuple[int, asyncio.Future[Msg]]] = deque()
    try:
        async for records in source:
            for batch in _batches(records):
                if patient:
                    yield await _forgotten(batch, sent, timeout_s)
                    continue
                if len(in_flight) == _IN_FLIGHT:
                    yield await _reached(*in_flight.popleft(), timeout_s)
                in_flight.append((batch[-1].position, await sent(batch)))
        while in_flight:
            yield await _reached(*in_flight.popleft(), timeout_s)
    finally:
        if not connection.is_closed:
            await subscription.unsubscribe()


@asynccontextmanager
async def forgetful(
    connection: Client, stream: str, *, timeout_s: float = 5.0
) -> AsyncGenerator[None]:
    """Have the server remember ids for a tenth of a second only, while the context is open.

    Whoever is killed inside leaves it so; `ensure_stream`, with which every program begins,
    lengthens it again.

    Raises:
        LogUnavailable: no answer.
        LogMismatch: the server does not take the setting.
    """

    async def remember(config: dict[str, Any]) -> None:
        try:
            await ask(connection, f"$JS.API.STREAM.UPDATE.{stream}", config, timeout_s=timeout_s)
        except NoAnswer as error:
            raise LogUnavailable(f"stream {stream}: {error}") from error
        except ApiError as error:
            raise LogMismatch(f"stream {stream}: {error}") from error

    try:
        info = await ask(connection, f"$JS.API.STREAM.INFO.{stream}", None, timeout_s=timeout_s)
    except (ApiError, NoAnswer) as error:
        raise LogUnavailable(f"stream {stream}: {error}") from error
    config: dict[str, Any] = info["config"]
    try:
        for window in _SHORT_WINDOWS_NS:
            await remember(config | {"duplicate_window": window})
        yield
    finally:
        await remember(config)


async def _forgotten(
    batch: list[WholeRecord],
    sent: Callable[[list[WholeRecord]], Awaitable[asyncio.Future[Msg]]],
    timeout_s: float,
) -> int:
    """Write one batch, as soon as the server has forgotten its ids."""
    begun = asyncio.get_running_loop().time()
    while True:
        try:
            return await _reached(batch[-1].position, await sent(batch), timeout_s)
        except RepeatedId as error:
            if asyncio.get_running_loop().time() - begun > _FORGETS_WITHIN_S:
                raise AppendRefused(f"the server does not forget an id: {error}") from error
            await asyncio.sleep(_TRY_AGAIN_S)


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
        if error.err_code == DUPLICATE_IN_BATCH:
            raise RepeatedId(f"of the batch that ends at {position}") from error
        # Another event at this place: the stream is not ours alone.
        if error.err_code in WRONG_LAST_SEQUENCE:
            raise LogMismatch(
                f"somebody else writes to the stream (before position {position}): "
                "stop every service before the log is brought back"
            ) from error
        raise AppendRefused(f"the batch that ends at {position}: {error}") from error
    if found != position:
        raise LogMismatch(f"an event of position {position} was given position {found}")
    return found


def _batches(records: Sequence[WholeRecord]) -> Iterable[list[WholeRecord]]:
    batch: list[WholeRecord] = []
    size = 0
    ids: set[bytes] = set()
    for record in records:
        event_id = _id_of(record)
        size += len(record.data) + len(record.headers)
        full = len(batch) == MAX_BATCH_EVENTS or size > _MAX_BATCH_BYTES
        if batch and (full or event_id in ids):
            yield batch
            batch, size, ids = [], len(record.data) + len(record.headers), set[bytes]()
        batch.append(record)
        ids.add(event_id)
    if batch:
        yield batch


def _id_of(record: WholeRecord) -> bytes:
    found = _ID.search(record.headers)
    # What has no id is told from everything.
    return found[1] if found else b"%d" % record.position


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
