"""Reading the whole stream, record after record, whatever happens to server and consumer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog
from nats.errors import Error as NatsError

from shared.event_log.jetstream_api import STREAM_NOT_FOUND, ApiError, NoAnswer
from shared.event_log.jetstream_stream import stream_state
from shared.event_log.jetstream_tail import Interrupted, ReadLimits, Tail
from shared.event_log.port import LogMismatch, LogUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from nats.aio.client import Client

    from shared.event_log.jetstream_stream import StreamState
    from shared.event_log.port import RawRecord

_log = structlog.get_logger(__name__)

_PAUSE_S: Final = 0.2


async def read_stream(
    connection: Client,
    stream: str,
    *,
    after: int,
    until: int | None,
    limits: ReadLimits,
    whole: bool = False,
) -> AsyncGenerator[Sequence[RawRecord], None]:
    """Records after a position; see `EventLog.read`. With `whole`, each is a `WholeRecord`.

    Raises:
        LogUnavailable: the stream is gone, or no answer for longer than the patience.
        LogMismatch: the log ends before `after`, begins after it, or was made anew meanwhile.
    """
    loop = asyncio.get_running_loop()
    position = after
    known: StreamState | None = None
    last: RawRecord | None = None
    heard_at = loop.time()
    told = ""
    while until is None or position < until:
        tail: Tail | None = None
        try:
            state = await stream_state(connection, stream, timeout_s=limits.silence_s)
            _check(stream, state, known, position)
            known = state
            # After an interruption the last record is read again: a server that came back with
            # older data may have grown past it meanwhile, with other events in their places.
            again: RawRecord | None = last if last is not None and state.first <= position else None
            after = position if again is None else position - 1
            tail = Tail(connection, stream, after=after, limits=limits, whole=whole)
            async with tail:
                while until is None or position < until:
                    batch: list[RawRecord] = await tail.next_batch()
                    if again is not None:
                        _compare(stream, again, batch.pop(0))
                        again = None
                        if not batch:
                            continue
                    if until is not None and batch[-1].position > until:
                        batch = [record for record in batch if record.position <= until]
                    last = batch[-1]
                    position, told = last.position, ""
                    yield batch
        except (ApiError, NoAnswer, Interrupted, NatsError) as error:
            if isinstance(error, ApiError) and error.err_code == STREAM_NOT_FOUND:
                raise LogUnavailable(f"stream {stream} does not exist") from error
            heard_at = max(heard_at, tail.heard_at if tail is not None else 0.0)
            if loop.time() - heard_at > limits.patience_s or connection.is_closed:
                raise LogUnavailable(
                    f"stream {stream} cannot be read after position {position}: {error}"
                ) from error
            if str(error) != told:  # a server that is away is one piece of news, not five a second
                told = str(error)
                _log.warning("read_interrupted", stream=stream, position=position, reason=told)
            await asyncio.sleep(_PAUSE_S)


def _compare(stream: str, before: RawRecord, now: RawRecord) -> None:
    if (before.position, before.subject, before.data) != (now.position, now.subject, now.data):
        raise LogMismatch(
            f"stream {stream} has another event at position {before.position} than it had when it "
            "was read: it was rolled back, and has gone on differently since"
        )


def _check(stream: str, state: StreamState, known: StreamState | None, position: int) -> None:
    if known is not None and state.created != known.created:
        raise LogMismatch(
            f"stream {stream} was made anew at {state.created} while it was being read; "
            f"the one before was from {known.created}"
        )
    if state.last < position:
        raise LogMismatch(
            f"stream {stream} ends at position {state.last}, before {position} that was read: "
            "it has lost events, or is another stream"
        )
    if state.first > position + 1:
        raise LogMismatch(
            f"stream {stream} begins at position {state.first}: "
            f"{position + 1} to {state.first - 1} are no longer in it; "
            "velro restore says whether the archive has them"
        )
